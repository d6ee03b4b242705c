"""Which enode URLs can be dialled, and one kind of error for all others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dialer import Enode, EnodeError, parse_enode
from protocol.crypto import PrivateKey

ID = PrivateKey(b"\x11" * 32).id
HEX = ID.hex()


def test_an_enode_is_read_and_written() -> None:
    enode = parse_enode(f"enode://{HEX}@1.2.3.4:30303")
    assert enode == Enode(ID, "1.2.3.4", 30303)
    assert str(enode) == f"enode://{HEX}@1.2.3.4:30303"


def test_ipv6_stands_in_brackets() -> None:
    enode = parse_enode(f"enode://{HEX}@[2001:db8::1]:30303")
    assert enode.host == "2001:db8::1"
    assert str(enode) == f"enode://{HEX}@[2001:db8::1]:30303"
    assert parse_enode(str(enode)) == enode


def test_a_discovery_port_is_ignored() -> None:
    assert parse_enode(f"enode://{HEX}@1.2.3.4:1?discport=2").port == 1


def test_an_id_in_capitals_and_spaces_around_are_fine() -> None:
    assert parse_enode(f"  enode://{HEX.upper()}@1.2.3.4:1\n") == Enode(ID, "1.2.3.4", 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begins with enode://"),
        ("nonsense", "begins with enode://"),
        (f"http://{HEX}@1.2.3.4:1", "begins with enode://"),
        ("enr:-abc", "begins with enode://"),
        ("enode://", "0 bytes"),
        (f"enode://{HEX}", "0 bytes"),
        (f"enode://{HEX[:-2]}@1.2.3.4:1", "63 bytes"),
        (f"enode://{HEX[:-1]}@1.2.3.4:1", "malformed"),
        (f"enode://{'zz' * 64}@1.2.3.4:1", "malformed"),
        (f"enode://{HEX}@1.2.3.4", "no TCP port"),
        (f"enode://{HEX}@1.2.3.4:0", "no TCP port"),
        (f"enode://{HEX}@1.2.3.4:65536", "malformed"),
        (f"enode://{HEX}@1.2.3.4:x", "malformed"),
        (f"enode://{HEX}@:1", "not an IP address"),
        (f"enode://{HEX}@example.org:1", "not an IP address"),
        (f"enode://{HEX}@1.2.3:1", "not an IP address"),
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


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.one_of(st.text(max_size=80), st.text(max_size=40).map(lambda rest: f"enode://{HEX}@{rest}")))
def test_no_text_does_worse_than_an_enode_error(text: str) -> None:
    try:
        enode = parse_enode(text)
    except EnodeError:
        return
    assert parse_enode(str(enode)) == enode
