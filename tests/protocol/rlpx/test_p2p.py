"""Hello, Disconnect, Ping and Snappy, beside published payloads, the `rlp` library and a Snappy reader of this file."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import cramjam
import pytest
import rlp as oracle
import snappy
from hypothesis import example, given
from hypothesis import strategies as st

from rlpx.protocol import rlp
from rlpx.protocol.errors import (
    PEER_TEXT_MAX_CHARACTERS,
    DisconnectReason,
    IncompatibleVersionError,
    MessageError,
    NullIdentityError,
    RlpError,
    SnappyError,
    UnexpectedIdentityError,
)
from rlpx.protocol.native import NATIVE
from rlpx.protocol.rlpx import p2p
from rlpx.protocol.rlpx.bounds import MAX_PAYLOAD_BYTES, max_deflated_bytes
from rlpx.protocol.rlpx.capabilities import FIRST_CAPABILITY_CODE, Capability
from rlpx.protocol.rlpx.p2p import Hello
from tests.generated import examples
from tests.twins import WAYS, run_by
from tests.vectors import load

VECTORS = load("p2p_hello_disconnect")
EIP8_HELLO = VECTORS["eip8_hello"]
NODE_ID = bytes(range(64))
U64 = st.integers(0, 2**64 - 1)
# What a log may show as it is; the rest is escaped, which has a test of its own.
LOGGABLE = st.characters(codec="utf-8", exclude_categories=("C", "Z"))

hellos = st.builds(
    Hello,
    client=st.text(st.characters(codec="utf-8"), max_size=40),
    capabilities=st.lists(st.builds(Capability, st.text(LOGGABLE, max_size=12), U64), max_size=6).map(tuple),
    listen_port=st.integers(0, 0xFFFF),
    node_id=st.binary(min_size=64, max_size=64).filter(any),
    version=U64,
)


@pytest.fixture(scope="module", params=WAYS, autouse=True)
def made_by(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file is run with both decoders of Snappy, which give the same."""
    yield from run_by(request.param, p2p, "inflate")


def fields_of(hello: Hello) -> list[object]:
    """The five elements as the `rlp` library takes them."""
    capabilities = [[capability.name.encode(), capability.version] for capability in hello.capabilities]
    return [hello.version, hello.client.encode(), capabilities, hello.listen_port, hello.node_id]


def hello_payload(**changes: object) -> bytes:
    """A Hello by the `rlp` library, with some of its elements replaced."""
    fields = {"version": 5, "client": b"geth", "capabilities": [[b"eth", 69]], "port": 30303, "id": NODE_ID} | changes
    return bytes(oracle.encode(list(fields.values())))


def varint(value: int) -> bytes:
    """A length as Snappy writes it: seven bits a byte, the lowest first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def read_snappy(block: bytes) -> bytes:
    """Snappy's block format, read slowly from its description (`format_description.txt`): an oracle without cramjam."""
    length = shift = position = 0
    while True:
        byte = block[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    out = read_snappy_elements(block[position:])
    assert len(out) == length
    return out


def read_snappy_elements(block: bytes) -> bytes:
    """What follows the length of a block."""
    out = bytearray()
    position = 0
    while position < len(block):
        tag = block[position]
        position += 1
        kind, size = tag & 3, tag >> 2
        if kind == 0:
            if size >= 60:
                width = size - 59
                size = int.from_bytes(block[position : position + width], "little")
                position += width
            out += block[position : position + size + 1]
            position += size + 1
            continue
        if kind == 1:
            offset, size = (tag >> 5) << 8 | block[position], (size & 7) + 4
            position += 1
        else:
            width = 2 if kind == 2 else 4
            offset, size = int.from_bytes(block[position : position + width], "little"), size + 1
            position += width
        for _ in range(size):
            out.append(out[-offset])
    return bytes(out)


# -- Hello ------------------------------------------------------------------------------------------------------------------


def test_the_hello_of_eip_8_is_read_and_its_further_elements_are_ignored() -> None:
    payload = bytes.fromhex(EIP8_HELLO["payload_rlp"])
    hello = Hello.decode(payload)
    assert hello.version == EIP8_HELLO["version"] == 55
    assert hello.client == EIP8_HELLO["client"]
    assert hello.capabilities == tuple(Capability(name, version) for name, version in EIP8_HELLO["caps"])
    assert hello.listen_port == EIP8_HELLO["listen_port"]
    assert hello.node_id == bytes.fromhex(EIP8_HELLO["node_id"])
    spares = [bytes.fromhex(spare) for spare in EIP8_HELLO["extra_elements_rlp"]]
    plain = oracle.decode(hello.encode())
    assert oracle.encode([*plain, *map(oracle.decode, spares)]) == payload


@given(hello=hellos)
def test_a_hello_is_written_as_the_rlp_library_writes_it_and_reads_back(hello: Hello) -> None:
    payload = hello.encode()
    assert payload == oracle.encode(fields_of(hello))
    assert Hello.decode(payload) == hello


@given(
    hello=hellos,
    spares=st.lists(st.recursive(st.binary(max_size=8), lambda inner: st.lists(inner, max_size=3)), max_size=4),
    padding=st.binary(max_size=20),
)
def test_elements_and_bytes_that_eip_8_may_add_change_nothing(hello: Hello, spares: list[object], padding: bytes) -> None:
    assert Hello.decode(oracle.encode([*fields_of(hello), *spares]) + padding) == hello


def test_a_capability_with_further_elements_is_read_by_its_first_two() -> None:
    hello = Hello.decode(hello_payload(capabilities=[[b"eth", 69, b"future", []], [b"snap", 1]]))
    assert hello.capabilities == (Capability("eth", 69), Capability("snap", 1))
    assert [str(capability) for capability in hello.capabilities] == ["eth/69", "snap/1"]


@given(payload=st.binary(max_size=200))
@example(b"")
@example(bytes.fromhex(EIP8_HELLO["payload_rlp"])[:-70])
def test_no_bytes_in_a_hellos_place_raise_anything_but_a_peers_error(payload: bytes) -> None:
    with pytest.raises((RlpError, MessageError, NullIdentityError)):
        Hello.decode(payload)


@pytest.mark.parametrize("cut", range(len(bytes.fromhex(EIP8_HELLO["payload_rlp"]))))
def test_a_hello_cut_anywhere_is_refused(cut: int) -> None:
    with pytest.raises(RlpError):
        Hello.decode(bytes.fromhex(EIP8_HELLO["payload_rlp"])[:cut])


@pytest.mark.parametrize("count", range(5))
def test_a_hello_of_fewer_than_five_elements_is_malformed(count: int) -> None:
    fields = [5, b"geth", [[b"eth", 69]], 30303, NODE_ID][:count]
    with pytest.raises(MessageError, match=f"{count} of its 5 fields"):
        Hello.decode(oracle.encode(fields))


@pytest.mark.parametrize("node_id", [b"", bytes(64), NODE_ID[:-1], NODE_ID + b"\x01", b"\x01"])
def test_a_hello_whose_id_is_missing_zero_or_of_another_length_is_told_so(node_id: bytes) -> None:
    with pytest.raises(NullIdentityError) as caught:
        Hello.decode(hello_payload(id=node_id))
    assert caught.value.reason is DisconnectReason.INVALID_IDENTITY


@pytest.mark.parametrize(
    "changes",
    [
        {"version": [5]},
        {"version": b"\x00\x05"},
        {"version": b"\x01" * 9},
        {"client": [b"geth"]},
        {"capabilities": b"eth"},
        {"capabilities": [b"eth"]},
        {"capabilities": [[b"eth"]]},
        {"capabilities": [[]]},
        {"capabilities": [[[b"eth"], 69]]},
        {"capabilities": [[b"eth", [69]]]},
        {"capabilities": [[b"eth", b"\x00"]]},
        {"port": [30303]},
        {"port": b"\x00\x01"},
        {"id": [NODE_ID]},
    ],
)
def test_a_hello_with_an_element_of_the_wrong_kind_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RlpError):
        Hello.decode(hello_payload(**changes))


def test_a_hello_with_more_capabilities_than_a_first_frame_could_ever_need_is_refused() -> None:
    # Each takes three items: the pair, the name and the version.
    most = (p2p.HELLO_MAX_ITEMS - 1) // 3
    assert len(Hello.decode(hello_payload(capabilities=[[b"a", 1]] * most)).capabilities) == most
    with pytest.raises(RlpError, match="more RLP items"):
        Hello.decode(hello_payload(capabilities=[[b"a", 1]] * (most + 1)))


def test_a_port_that_does_not_exist_is_cut_to_the_last_one() -> None:
    assert Hello.decode(hello_payload(port=0xFFFF)).listen_port == 0xFFFF
    assert Hello.decode(hello_payload(port=0x10000)).listen_port == 0
    assert Hello.decode(hello_payload(port=1 << 80)).listen_port == 0


def test_the_name_of_a_capability_is_printable_and_cut() -> None:
    escape = b"\x1b[31m\r\n\x00"
    hello = Hello.decode(hello_payload(capabilities=[[escape + b"x" * 500, 1], [b"\xff\xfe", 2]]))
    long, broken = hello.capabilities
    assert long.name == "\\x1b[31m\\r\\n\\x00" + "x" * (PEER_TEXT_MAX_CHARACTERS - len(escape))
    assert broken.name == "\ufffd\ufffd"
    assert all(str(capability).isprintable() for capability in hello.capabilities)


def test_a_client_name_that_is_no_utf_8_does_not_cost_the_session() -> None:
    assert Hello.decode(hello_payload(client=b"ge\xffth")).client == "ge\ufffdth"


def test_a_hello_of_another_id_than_the_handshake_proved_is_unexpected() -> None:
    hello = Hello("geth", (), 0, NODE_ID)
    hello.check(NODE_ID)
    with pytest.raises(UnexpectedIdentityError) as caught:
        hello.check(NODE_ID[::-1])
    assert caught.value.reason is DisconnectReason.UNEXPECTED_IDENTITY


@pytest.mark.parametrize("version", [0, 1, 4])
def test_a_base_protocol_without_snappy_is_incompatible(version: int) -> None:
    with pytest.raises(IncompatibleVersionError) as caught:
        Hello("old", (), 0, NODE_ID, version).check(NODE_ID)
    assert caught.value.reason is DisconnectReason.INCOMPATIBLE_VERSION


@pytest.mark.parametrize("version", [5, 6, 55, 2**64 - 1])
def test_the_base_protocols_of_today_and_later_are_fine(version: int) -> None:
    Hello("new", (), 0, NODE_ID, version).check(NODE_ID)
    with pytest.raises(UnexpectedIdentityError):
        Hello("new", (), 0, NODE_ID, version).check(bytes(64))


def test_the_id_is_looked_at_before_the_version() -> None:
    with pytest.raises(UnexpectedIdentityError):
        Hello("old", (), 0, NODE_ID, 4).check(bytes(64))


def test_codes_on_the_wire_are_rlp_integers_and_no_capability_has_the_base_ones() -> None:
    wire = [p2p.HELLO_BYTE, p2p.DISCONNECT_CODE, p2p.PING_CODE, p2p.PONG_CODE]
    assert [bytes([byte]) for byte in wire] == [oracle.encode(code) for code in (0, 1, 2, 3)]
    assert FIRST_CAPABILITY_CODE == 16


def test_what_geth_refuses_in_a_hellos_place_is_refused() -> None:
    cases = {case["expect"]: case for case in VECTORS["protocol_handshake_errors"] if case["code"] == p2p.HELLO_CODE}
    with pytest.raises(RlpError, match="a string where a list belongs"):
        Hello.decode(bytes.fromhex(cases["error: not a list"]["payload"]))
    too_big = oracle.encode(bytes(2050))
    assert len(too_big) == cases["error: too big"]["payload_length"]
    with pytest.raises(RlpError):
        Hello.decode(too_big)
    with pytest.raises(NullIdentityError) as caught:
        Hello.decode(bytes.fromhex(cases["disconnect reason 7 (node id is empty)"]["payload"]))
    assert caught.value.reason == 7
    assert len(cases) == 3


# -- Disconnect -------------------------------------------------------------------------------------------------------------

# What geth reads as its internal 255; reth takes a zero byte for reason zero, and so do we.
GETH_UNREADABLE = 255
READ_AS_ZERO = {"00", "c100"}


# What geth and reth refuse and we read: the reason is plain, though its integer is not in its shortest form.
READ_HERE = {"8104": 4, "820100": 0x100}


def of_geth(case: dict[str, int | str]) -> int | None:
    """The reason that a case of geth's decoder has here."""
    payload = str(case["payload"])
    if payload in READ_AS_ZERO:
        return 0
    return READ_HERE.get(payload) if case["reason"] == GETH_UNREADABLE else int(case["reason"])


SPELLINGS = [
    *[(case["payload"], case["reason"]) for case in VECTORS["disconnect_payload_accept"]],
    *[(case["payload"], of_geth(case)) for case in VECTORS["geth_decoder_computed_from_source"]],
    *[(payload, None) for payload in VECTORS["disconnect_payload_reject_reth"]],
    # A nested list, bytes behind the list, a text, another number, zeros in front, a longer list header.
    *[("c1c104", None), ("c2c104", 4), ("c3c2c104", 4), ("c10400", 4), ("c104c0", 4), ("0400", 4)],
    *[("c8048662757379212e", 4), ("c20405", 4), ("820004", 4), ("c3820004", 4), ("f80104", 4), ("f90002c104", 4)],
]


def reason_in(payload: bytes) -> int | None:
    """The reason that is read."""
    return p2p.decode_disconnect(payload).reason


@pytest.mark.parametrize(("payload", "reason"), SPELLINGS)
def test_every_spelling_of_a_disconnect_is_read_without_snappy(payload: str, reason: int | None) -> None:
    assert reason_in(bytes.fromhex(payload)) == reason


# Nothing, deflated, is the byte 00: a Disconnect of reason zero to whoever reads the plain form first, as reth does.
@pytest.mark.parametrize(("payload", "reason"), [case for case in SPELLINGS if case[0]])
def test_every_spelling_of_a_disconnect_is_read_with_snappy(payload: str, reason: int | None) -> None:
    assert reason_in(snappy.compress(bytes.fromhex(payload))) == reason


def test_a_disconnect_in_hellos_place_gives_its_reason() -> None:
    cases = [case for case in VECTORS["protocol_handshake_errors"] if case["code"] == p2p.DISCONNECT_CODE]
    assert [reason_in(bytes.fromhex(case["payload"])) for case in cases] == [DisconnectReason.CLIENT_QUITTING] * 2


@pytest.mark.parametrize("reason", DisconnectReason)
def test_our_disconnect_is_a_list_of_one_integer(reason: DisconnectReason) -> None:
    payload = p2p.encode_disconnect(reason)
    assert payload == oracle.encode([int(reason)])
    assert reason_in(payload) is reason
    assert reason_in(p2p.deflate(payload)) is reason


def test_our_disconnect_after_hello_has_the_four_bytes_that_reth_sends() -> None:
    assert p2p.deflate(p2p.encode_disconnect(DisconnectReason.TOO_MANY_PEERS)) == bytes.fromhex("0204c104")


def test_the_reasons_are_those_of_the_specification() -> None:
    assert {int(number) for number in VECTORS["disconnect_reasons"]} == set(DisconnectReason)


@pytest.mark.parametrize(
    ("payload", "number"),
    [("0c", 0x0C), ("11", 0x11), ("c111", 0x11), ("7f", 0x7F), ("8180", 0x80), ("c28180", 0x80), ("c3820100", 0x100)],
)
def test_a_reason_that_the_specification_lacks_keeps_its_number(payload: str, number: int) -> None:
    read = p2p.decode_disconnect(bytes.fromhex(payload))
    assert read.reason == number
    assert read.reason is not None
    assert read.reason.label == f"unknown_0x{number:02x}"
    assert read.cause == f"the peer left with reason 0x{number:02x}, which is unknown"


@pytest.mark.parametrize("payload", ["ff", "f8", "c1", "c000", "83aabb", "c2c000", "89" + "01" * 9, "c1" * 40 + "04"])
def test_a_disconnect_that_cannot_be_read_shows_what_came(payload: str) -> None:
    read = p2p.decode_disconnect(bytes.fromhex(payload))
    assert read == p2p.Disconnect(None, f"the peer left with a Disconnect that cannot be read: 0x{payload[:32]}")


def test_a_reason_that_is_nested_too_deep_is_not_looked_for() -> None:
    payload = b"\x04"
    for _ in range(rlp.MAX_DEPTH - 1):
        payload = oracle.encode([oracle.decode(payload)])
    assert reason_in(payload) == 4
    assert reason_in(oracle.encode([oracle.decode(payload)])) is None


@pytest.mark.parametrize("payload", [b"", b"\xc0", snappy.compress(b"\xc0")])
def test_only_a_disconnect_that_says_nothing_is_without_a_reason(payload: bytes) -> None:
    assert p2p.decode_disconnect(payload) == p2p.Disconnect(None, "the peer left without a reason")


@pytest.mark.parametrize(
    ("element", "said"),
    [
        (b"busy, come back later", ": busy, come back later"),
        (b"x" * 900, ": " + "x" * 128),
        # Not a text: nothing of it is repeated.
        (b"\x1b[2J", ""),
        (b"\x05", ""),
        ([b"text"], ": text"),
        (b"two\nlines\n", ": two\\nlines"),
        ([], ""),
    ],
)
def test_a_text_beside_the_reason_is_repeated_in_the_cause(element: Any, said: str) -> None:
    payload = oracle.encode([4, element])
    expected = p2p.Disconnect(DisconnectReason.TOO_MANY_PEERS, f"the peer said goodbye{said}")
    assert p2p.decode_disconnect(payload) == p2p.decode_disconnect(snappy.compress(payload)) == expected


def test_a_text_beside_an_unknown_reason_is_repeated_as_well() -> None:
    read = p2p.decode_disconnect(oracle.encode([0x11, b"blocked"]))
    assert (read.reason, read.cause) == (0x11, "the peer left with reason 0x11, which is unknown: blocked")


@pytest.mark.parametrize("words", ["busy", "too many peers", "x" * 900])
def test_a_text_in_the_reasons_place_is_no_number(words: str) -> None:
    for payload in (oracle.encode([words.encode()]), oracle.encode(words.encode())):
        read = p2p.decode_disconnect(payload)
        assert read == p2p.Disconnect(None, f"the peer left with text in place of a reason: {words[:128]}")


@pytest.mark.parametrize("length", [50, 300, 5000, 60_000])
def test_a_long_disconnect_is_read_as_it_was_meant(length: int) -> None:
    payload = oracle.encode([4, bytes(length)])
    assert reason_in(payload) == reason_in(snappy.compress(payload)) == 4


@given(payload=st.binary(max_size=80))
def test_no_bytes_in_a_disconnect_raise(payload: bytes) -> None:
    read = p2p.decode_disconnect(payload)
    assert read.cause.isprintable()
    assert read.reason is None or 0 <= read.reason < 1 << 64


# -- Snappy -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 60, 61, 4096, 65_536, 1_000_000])
def test_nothing_gets_longer_by_being_deflated_than_the_bound_says(size: int) -> None:
    # Without a repetition, so that nothing can be copied.
    incompressible = b"".join(sha256(number.to_bytes(4, "big")).digest() for number in range(size // 32 + 1))[:size]
    assert size < len(p2p.deflate(incompressible)) <= max_deflated_bytes(size)


BOMB = bytes.fromhex("ffffffff0f") + b"\x00\x00"


def test_seven_bytes_that_claim_four_gib_are_refused_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(_block: bytes) -> bytes:
        raise AssertionError("asked to inflate what is over the limit")

    monkeypatch.setattr(cramjam.snappy, "decompress_raw", allocate)
    assert len(BOMB) == 7
    with pytest.raises(SnappyError, match="4294967295 bytes where 16777215 are allowed"):
        p2p.inflate(BOMB, MAX_PAYLOAD_BYTES)
    with pytest.raises(SnappyError, match="4294967295 bytes where 16777215 are allowed"):
        p2p.inflated_bytes(BOMB, MAX_PAYLOAD_BYTES)


@pytest.mark.parametrize("limit", [0, 1, 0x7F, 0x80, 1024, MAX_PAYLOAD_BYTES])
def test_a_length_may_reach_its_limit_and_no_further(limit: int) -> None:
    assert p2p.inflated_bytes(varint(limit), limit) == limit
    with pytest.raises(SnappyError):
        p2p.inflated_bytes(varint(limit + 1), limit)


@pytest.mark.parametrize(
    "payload", [b"", b"\x80", b"\xff\xff\xff\xff", b"\x80\x80\x80\x80\x80", b"\x80\x80\x80\x80\x80\x00", b"\xff" * 10]
)
def test_a_length_that_does_not_end_is_refused(payload: bytes) -> None:
    with pytest.raises(SnappyError, match="without a Snappy length"):
        p2p.inflate(payload, MAX_PAYLOAD_BYTES)


@pytest.mark.parametrize("length", ["05", "8500", "858000", "85808000", "8580808000"])
def test_a_length_with_idle_bytes_is_the_same_length(length: str) -> None:
    block = bytes.fromhex(length) + b"\x10hello"
    assert p2p.inflated_bytes(block, 5) == 5
    assert p2p.inflate(block, 5) == b"hello"
    with pytest.raises(SnappyError):
        p2p.inflate(block, 4)


@pytest.mark.parametrize(
    "block",
    [
        b"\x05",
        b"\x05\x10hell",
        b"\x05\x10hello!",
        b"\x04\x10hello",
        b"\x06\x10hello",
        b"\x05\x01\x00",
        b"\x08\x00a\x0d\x02",
        b"\x05\xf0",
        b"\x05\xfc\xff\xff\xff\xff",
        b"\x00\x00",
    ],
)
def test_a_block_that_is_not_what_its_length_says_is_refused(block: bytes) -> None:
    with pytest.raises(SnappyError, match="not Snappy"):
        p2p.inflate(block, 100)


def test_copies_within_a_block_are_followed() -> None:
    block = b"\x0a\x04ab\x11\x02"
    assert read_snappy(block) == b"ab" * 5
    assert p2p.inflate(block, 10) == b"ab" * 5


def test_nothing_deflates_to_one_byte_and_back() -> None:
    assert p2p.deflate(b"") == b"\x00"
    assert p2p.inflate(b"\x00", 0) == b""


@given(
    data=st.one_of(
        st.binary(max_size=300), st.builds(lambda part, times: part * times, st.binary(max_size=9), st.integers(0, 999))
    )
)
def test_deflating_loses_nothing_and_other_programs_read_it(data: bytes) -> None:
    block = p2p.deflate(data)
    assert p2p.inflated_bytes(block, len(data)) == len(data)
    assert read_snappy(block) == data
    assert p2p.inflate(block, len(data)) == data
    assert snappy.uncompress(block) == data
    assert p2p.inflate(snappy.compress(data), len(data)) == data


@given(data=st.binary(min_size=1, max_size=300))
def test_a_block_one_byte_over_its_limit_is_refused(data: bytes) -> None:
    with pytest.raises(SnappyError):
        p2p.inflate(snappy.compress(data), len(data) - 1)


@given(data=st.binary(max_size=300), ahead=st.binary(max_size=5))
def test_what_is_ahead_of_the_start_is_not_read(data: bytes, ahead: bytes) -> None:
    assert p2p.inflate(ahead + p2p.deflate(data), 300, len(ahead)) == data
    with pytest.raises(SnappyError, match="without a Snappy length"):
        p2p.inflate(ahead, 300, len(ahead))


def snappy_literal(data: bytes) -> bytes:
    size = len(data) - 1
    if size < 60:
        return bytes([size << 2]) + data
    digits = (size.bit_length() + 7) // 8
    return bytes([(59 + digits) << 2]) + size.to_bytes(digits, "little") + data


def snappy_copy(kind: int, size: int, offset: int) -> bytes:
    if kind == 1:
        return bytes([1 | (size & 7) << 2 | (offset >> 8 & 7) << 5, offset & 0xFF])
    return bytes([kind | (size - 1) << 2]) + offset.to_bytes(2 if kind == 2 else 4, "little")


# The elements of a block, right and nearly right: literals with lengths of each size, and copies with offsets of each size.
literals = st.builds(snappy_literal, st.binary(min_size=1, max_size=300))
copies = st.builds(snappy_copy, st.integers(1, 3), st.integers(1, 64), st.integers(0, 400))


@examples(400)
@given(
    elements=st.lists(st.one_of(literals, copies, copies, st.binary(max_size=3)), max_size=12),
    more=st.sampled_from([0, 0, 0, 0, 1, -1]),
)
def test_whatever_elements_a_block_has_both_inflate_it_alike(elements: list[bytes], more: int) -> None:
    body = b"".join(elements)
    try:
        size = len(read_snappy_elements(body))
    except (IndexError, ValueError, AssertionError):
        size = 100
    block = varint(max(0, size + more)) + body
    results: list[bytes | str] = []
    for inflate in (p2p.python_inflate, p2p.inflate):
        try:
            results.append(inflate(block, 100_000))
        except SnappyError as error:
            results.append(str(error))
    assert results[0] == results[1]


def test_compiled_code_inflates_bytes_only() -> None:
    if NATIVE is None or p2p.inflate is p2p.python_inflate:
        pytest.skip("the type checker looks after Python")
    unchecked: Any = p2p.inflate
    for arguments in ((), (b"",), (bytearray(), 1), (b"", "1"), (b"", 1, 0, 0)):
        with pytest.raises(TypeError):
            unchecked(*arguments)
    for numbers in ((-1,), (1, -1)):
        with pytest.raises(ValueError, match="not negative"):
            unchecked(b"", *numbers)


@given(
    block=st.one_of(st.binary(max_size=60), st.builds(bytes.__add__, st.integers(0, 64).map(varint), st.binary(max_size=60)))
)
def test_garbage_inflates_to_what_it_announced_or_not_at_all(block: bytes) -> None:
    try:
        data = p2p.inflate(block, 64)
    except SnappyError:
        return
    assert len(data) == p2p.inflated_bytes(block, 64)
    assert data == read_snappy(block)


# -- Ping and Pong ----------------------------------------------------------------------------------------------------------


def test_the_payload_of_a_ping_is_the_empty_list_under_snappy() -> None:
    assert oracle.encode([]) == p2p.EMPTY_LIST
    assert p2p.deflate(p2p.EMPTY_LIST) == snappy.compress(b"\xc0") == p2p.SNAPPY_EMPTY_LIST
    p2p.check_ping_payload(p2p.deflate(p2p.EMPTY_LIST))


def test_a_ping_whose_snappy_is_spelt_otherwise_is_a_ping() -> None:
    p2p.check_ping_payload(bytes.fromhex("8100") + b"\x00\xc0")


@pytest.mark.parametrize("payload", [b"", b"\x80", b"\x00", b"\xc1", b"\xc0\xc0", bytes(range(16))])
def test_the_payload_of_a_ping_is_ignored(payload: bytes) -> None:
    p2p.check_ping_payload(snappy.compress(payload))


@pytest.mark.parametrize("payload", [b"", b"\xc0", b"\x01", b"\xff" * 32])
def test_a_short_payload_of_a_ping_need_not_be_deflated(payload: bytes) -> None:
    p2p.check_ping_payload(payload)


@pytest.mark.parametrize("payload", [bytes(17), b"\xc0" * 1000])
def test_a_ping_that_says_much_is_refused_by_its_length(payload: bytes) -> None:
    with pytest.raises(MessageError):
        p2p.check_ping_payload(snappy.compress(payload))


def test_a_long_ping_is_refused_and_a_bomb_is_not_inflated() -> None:
    with pytest.raises(MessageError):
        p2p.check_ping_payload(b"\xff" * 33)
    p2p.check_ping_payload(BOMB)


def test_of_a_long_client_name_the_beginning_is_kept() -> None:
    assert Hello.decode(hello_payload(client=b"x" * 1800)).client == "x" * 125 + "..."


@pytest.mark.parametrize("size", range(40))
def test_what_is_short_is_deflated_as_snappy_does_it(size: int) -> None:
    for payload in (bytes(size), bytes(range(size)), b"\xc0" * size):
        deflated = p2p.deflate(payload)
        assert deflated == bytes(cramjam.snappy.compress_raw(payload))
        assert snappy.uncompress(deflated) == payload if payload else deflated == b"\x00"
