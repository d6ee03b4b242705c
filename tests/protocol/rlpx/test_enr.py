"""Node records: the published ones are read, and whatever is wrong in one is a `RecordError`."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol import rlp
from rlpx.protocol.rlpx.crypto import PrivateKey, keccak256
from rlpx.protocol.rlpx.enr import MAX_BYTES, Record, RecordError, decode
from tests.generated import examples
from tests.vectors import load

VECTORS = load("enr_enode")
KEY = PrivateKey(b"\x11" * 32)
COMPRESSED = bytes([2 + KEY.id[-1] % 2]) + KEY.id[:32]
IP, IP6 = bytes([192, 0, 2, 1]), bytes.fromhex("20010db8000000000000000000000001")


def text_of(data: bytes) -> str:
    """As EIP-778 writes it."""
    return "enr:" + base64.urlsafe_b64encode(data).decode().rstrip("=")


def record(*pairs: Any, key: PrivateKey = KEY, seq: int = 7) -> str:
    """A record of these pairs, signed."""
    content = [seq, *(item for pair in pairs for item in pair)]
    signature = key.sign(keccak256(rlp.encode(content)))[:64]
    return text_of(rlp.encode([signature, *content]))


V4 = (b"id", b"v4")
SECP = (b"secp256k1", COMPRESSED)


@pytest.mark.parametrize("vector", VECTORS["records"], ids=lambda vector: vector["source"][:40])
def test_published_records_are_read(vector: dict[str, Any]) -> None:
    wanted = ("ip", "ip6", "tcp", "tcp6")
    pairs = {name: bytes.fromhex(value) for name, value in vector["pairs"] if name in wanted}
    read = decode(vector["text"])
    assert read.id.hex() == vector["public_key_uncompressed"]
    assert keccak256(read.id).hex() == vector["node_id"]
    assert read.seq == vector["seq"]
    tcp = int.from_bytes(pairs.get("tcp", b""), "big")
    tcp6 = int.from_bytes(pairs.get("tcp6", b""), "big") or tcp
    expected = [(pairs[name], port) for name, port in (("ip", tcp), ("ip6", tcp6)) if name in pairs and port]
    assert list(read.endpoints) == expected


@pytest.mark.parametrize("vector", VECTORS["invalid_records"], ids=lambda vector: vector["error"])
def test_published_wrong_records_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        decode(vector["text"])


@pytest.mark.parametrize(
    ("pairs", "endpoints"),
    [
        ((), ()),
        (((b"ip", IP),), ()),
        (((b"tcp", 1),), ()),
        (((b"ip", IP), SECP, (b"tcp", 30303)), ((IP, 30303),)),
        (((b"ip6", IP6), SECP, (b"tcp", 30303)), ((IP6, 30303),)),
        (((b"ip", IP), (b"ip6", IP6), SECP, (b"tcp", 1), (b"tcp6", 2)), ((IP, 1), (IP6, 2))),
        (((b"ip", IP), (b"ip6", IP6), SECP, (b"tcp6", 2)), ((IP6, 2),)),
        (((b"ip", IP), (b"ip6", IP6), SECP, (b"tcp", 0)), ()),
    ],
)
def test_an_address_counts_with_a_tcp_port(pairs: tuple[Any, ...], endpoints: tuple[Any, ...]) -> None:
    keyed = dict((V4, SECP, *pairs))
    assert decode(record(*sorted(keyed.items()))) == Record(KEY.id, 7, endpoints)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("enr:", "decode|item|bytes|list|RLP"),
        ("enr:x", "base64"),
        ("enr:a\u00e9==", "base64"),
        ("enr:" + "A" * 500, "longer than"),
        (text_of(b"\x80"), "list"),
        (text_of(rlp.encode([])), "no list of a signature"),
        (text_of(rlp.encode([bytes(64)])), "no list of a signature"),
        (text_of(rlp.encode([bytes(64), 1, b"id"])), "no list of a signature"),
        (text_of(rlp.encode([bytes(64), 1, b"id", b"v4"])), "signature"),
        (record((b"secp256k1", COMPRESSED)), "identity scheme"),
        (record((b"id", b"v5"), SECP), "identity scheme"),
        (record(SECP, V4), "order"),
        (record(V4, V4, SECP), "unique"),
        (record(V4, SECP, key=PrivateKey(b"\x22" * 32)), "signature"),
        (record(V4, (b"secp256k1", KEY.id)), "signature"),
        (record(V4, (b"ip", b"\x01\x02\x03"), SECP, (b"tcp", 1)), "bytes"),
        (record(V4, (b"ip", IP), SECP, (b"tcp", 65536)), "integer"),
        (record(V4, (b"ip", IP), SECP, (b"tcp", [])), "list"),
    ],
)
def test_what_is_wrong_is_refused_with_its_reason(text: str, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        decode(text)


def test_the_malleable_twin_of_a_signature_is_refused() -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    content: list[Any] = [7, *V4, *SECP]
    signature = KEY.sign(keccak256(rlp.encode(content)))[:64]
    twin = signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    with pytest.raises(RecordError, match="signature"):
        decode(text_of(rlp.encode([twin, *content])))


def test_a_signature_of_nobody_is_refused() -> None:
    content: list[Any] = [7, *V4, *SECP]
    with pytest.raises(RecordError, match="signature"):
        decode(text_of(rlp.encode([b"\xff" * 32 + bytes(31) + b"\x01", *content])))


def test_a_record_of_300_bytes_is_read_and_a_longer_one_is_not() -> None:
    for room, is_read in ((MAX_BYTES, True), (MAX_BYTES + 1, False)):
        filler = next(size for size in range(300) if len(decoded(record(V4, SECP, (b"x", bytes([1]) * size)))) == room)
        text = record(V4, SECP, (b"x", bytes([1]) * filler))
        if is_read:
            assert decode(text).id == KEY.id
        else:
            with pytest.raises(RecordError, match="longer"):
                decode(text)


def decoded(text: str) -> bytes:
    """The bytes of a record."""
    body = text.removeprefix("enr:")
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


@examples(300)
@given(st.one_of(st.binary(max_size=310).map(text_of), st.text(max_size=60).map("enr:".__add__)))
def test_no_text_does_worse_than_a_record_error(text: str) -> None:
    with pytest.raises(RecordError):
        decode(text)
