"""Which enode URLs can be dialled, and one kind of error for all others."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol import rlp
from rlpx.protocol.rlpx.crypto import PrivateKey, keccak256
from rlpx.protocol.rlpx.enode import Endpoint, Enode, EnodeError, check_address, parse_enode
from tests.generated import examples
from tests.vectors import load

ID = PrivateKey(b"\x11" * 32).id
HEX = ID.hex()


def at(host: str, port: int) -> Enode:
    """The node at one place."""
    return Enode(ID, (Endpoint(host, port),))


def test_an_enode_is_read_and_written() -> None:
    enode = parse_enode(f"enode://{HEX}@1.2.3.4:30303")
    assert enode == at("1.2.3.4", 30303)
    assert str(enode) == f"enode://{HEX}@1.2.3.4:30303"


def test_ipv6_stands_in_brackets() -> None:
    enode = parse_enode(f"enode://{HEX}@[2001:db8::1]:30303")
    assert enode.host == "2001:db8::1"
    assert str(enode) == f"enode://{HEX}@[2001:db8::1]:30303"
    assert parse_enode(str(enode)) == enode


@pytest.mark.parametrize("host", ["example.org", "node-1.example", "localhost", "valid.", "a_b.example"])
def test_a_host_name_is_kept_to_be_resolved(host: str) -> None:
    enode = parse_enode(f"enode://{HEX}@{host}:30303")
    assert enode == at(host, 30303)
    assert enode.endpoints[0].is_name
    assert not parse_enode(f"enode://{HEX}@1.2.3.4:30303").endpoints[0].is_name


@pytest.mark.parametrize("host", ["fe80::1%eth0", "fe80::1%25eth0", "fe80::1%2"])
def test_a_link_local_address_has_its_zone(host: str) -> None:
    enode = parse_enode(f"enode://{HEX}@[{host}]:30303")
    assert enode.host == host.replace("%25", "%")
    assert not enode.endpoints[0].is_name
    assert parse_enode(str(enode)) == enode


RECORD = load("enr_enode")["records"]


def test_a_record_names_a_node_like_an_enode() -> None:
    key = PrivateKey(b"\x22" * 32)
    enode = parse_enode(record(key, ip=bytes([192, 0, 2, 1]), ip6=bytes.fromhex("20010db8" + "00" * 11 + "01"), tcp=30303))
    assert enode == Enode(key.id, (Endpoint("192.0.2.1", 30303), Endpoint("2001:db8::1", 30303)))
    assert str(enode) == f"enode://{key.id.hex()}@192.0.2.1:30303"


def record(key: PrivateKey, **fields: bytes | int) -> str:
    """A signed record."""
    compressed = bytes([2 + key.id[-1] % 2]) + key.id[:32]
    pairs: dict[str, bytes | int] = {"id": b"v4", "secp256k1": compressed, **fields}
    content: list[bytes | int] = [1]
    for name in sorted(pairs):
        content += [name.encode(), pairs[name]]
    signature = key.sign(keccak256(rlp.encode(content)))[:64]
    data = base64.urlsafe_b64encode(rlp.encode([signature, *content])).decode()
    return "enr:" + data.rstrip("=")


def test_of_a_record_the_address_of_nobody_is_left_out() -> None:
    enode = parse_enode(record(PrivateKey(b"\x22" * 32), ip=bytes(4), ip6=bytes(15) + b"\x01", tcp=30303))
    assert [str(endpoint) for endpoint in enode.endpoints] == ["[::1]:30303"]


def test_a_record_without_a_place_that_can_be_dialled_is_refused() -> None:
    with pytest.raises(EnodeError, match="no IP address with a TCP port"):
        parse_enode(RECORD[0]["text"])
    with pytest.raises(EnodeError, match="an unspecified address"):
        parse_enode(record(PrivateKey(b"\x22" * 32), ip=bytes(4), tcp=30303))


def test_an_address_that_is_somebodys_passes() -> None:
    for host in ("192.0.2.1", "::1", "fe80::1%eth0", "::ffff:192.0.2.1"):
        check_address(host)


def test_a_discovery_port_is_ignored() -> None:
    assert parse_enode(f"enode://{HEX}@1.2.3.4:1?discport=2").port == 1


def test_an_id_in_capitals_and_spaces_around_are_fine() -> None:
    assert parse_enode(f"  enode://{HEX.upper()}@1.2.3.4:1\n") == at("1.2.3.4", 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "named by enode://"),
        ("nonsense", "named by enode://"),
        (f"http://{HEX}@1.2.3.4:1", "named by enode://"),
        ("enr:-abc", "record is malformed"),
        ("enode://", "no @HOST:PORT"),
        ("enode://@1.2.3.4:1", "0 digits"),
        (f"enode://{HEX}", "no @HOST:PORT"),
        (f"enode://{HEX[:-2]}@1.2.3.4:1", "126 digits, and an id has 128"),
        (f"enode://{HEX[:-1]}@1.2.3.4:1", "127 digits"),
        (f"enode://{'zz' * 64}@1.2.3.4:1", "not hex"),
        (f"enode://{'1 ' * 64}@1.2.3.4:1", "not hex"),
        (f"enode://{HEX}@1.2.3.4", "no TCP port"),
        (f"enode://{HEX}@1.2.3.4:0", "no TCP port"),
        (f"enode://{HEX}@1.2.3.4:65536", "malformed"),
        (f"enode://{HEX}@1.2.3.4:x", "malformed"),
        (f"enode://{HEX}@:1", "neither an IP address nor a host name"),
        (f"enode://{HEX}@1.2.3:1", "neither an IP address nor a host name"),
        (f"enode://{HEX}@256.1.1.1:1", "neither an IP address nor a host name"),
        (f"enode://{HEX}@-a.example:1", "neither an IP address nor a host name"),
        (f"enode://{HEX}@a..b:1", "neither an IP address nor a host name"),
        (f"enode://{HEX}@b\u00fccher.example:1", "neither an IP address nor a host name"),
        (f"enode://{HEX}@{'a' * 64}.example:1", "neither an IP address nor a host name"),
        (f"enode://{HEX}@{'a.' * 127}example:1", "neither an IP address nor a host name"),
        (f"enode://{HEX}@0.0.0.0:1", "an unspecified address"),
        (f"enode://{HEX}@[::]:1", "an unspecified address"),
        (f"enode://{HEX}@[::ffff:0.0.0.0]:1", "an unspecified address"),
        (f"enode://{HEX}@255.255.255.255:1", "multicast or broadcast address"),
        (f"enode://{HEX}@224.0.0.1:1", "multicast or broadcast address"),
        (f"enode://{HEX}@[ff02::1]:1", "multicast or broadcast address"),
        (f"enode://{'00' * 64}@1.2.3.4:1", "not a point"),
        (f"enode://{'ff' * 64}@1.2.3.4:1", "not a point"),
    ],
)
def test_what_cannot_be_dialled_is_refused_with_its_reason(text: str, words: str) -> None:
    with pytest.raises(EnodeError, match=words):
        parse_enode(text)


@pytest.mark.parametrize("text", ["enode://ab@[::1", "enode://ab@[zz]:1", "enode://ab@a\u2100b:1", "enode://ab@::1]:1"])
def test_a_malformed_host_is_an_enode_error_like_any_other(text: str) -> None:
    with pytest.raises(EnodeError):
        parse_enode(text)


@examples(300)
@given(st.one_of(st.text(max_size=80), st.text(max_size=40).map(lambda rest: f"enode://{HEX}@{rest}")))
def test_no_text_does_worse_than_an_enode_error(text: str) -> None:
    try:
        enode = parse_enode(text)
    except EnodeError:
        return
    assert parse_enode(str(enode)) == enode
