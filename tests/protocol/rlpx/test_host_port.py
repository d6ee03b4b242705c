"""`HOST:PORT`: read as users write it, written as events show it."""

from __future__ import annotations

import pytest

from rlpx.protocol.rlpx.host_port import format_host_port, host_of, is_address, is_host_name, parse_host_port


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("0.0.0.0:30303", ("0.0.0.0", 30303)),  # noqa: S104 - read, not bound
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("[::]:1", ("::", 1)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
    ],
)
def test_a_host_and_port_are_read_and_written(text: str, pair: tuple[str, int]) -> None:
    assert parse_host_port(text) == pair
    assert format_host_port(*pair) == text
    assert host_of(text) == pair[0]


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("localhost:0", ("localhost", 0)),
        (":30303", ("", 30303)),
        ("node-1.example.org:1", ("node-1.example.org", 1)),
        ("my_node:2", ("my_node", 2)),
    ],
)
def test_the_host_may_be_a_name_or_nothing(text: str, pair: tuple[str, int]) -> None:
    assert parse_host_port(text) == pair


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no :PORT"),
        ("1.2.3.4", "there is no :PORT"),
        (":", "the port is not a number"),
        ("1.2.3.4:", "the port is not a number"),
        ("1.2.3.4:x", "the port is not a number"),
        ("1.2.3.4: 1", "the port is not a number"),
        ("1.2.3.4:-1", "the port is not a number"),
        ("1.2.3.4:65536", "the port is not a number from 0 to 65535"),
        ("1.2.3.4:" + "9" * 9000, "the port is not a number"),
        ("1.2.3.4:\u0663", "the port is not a number"),
        ("1.2.3:1", "the host is no IPv4 address"),
        ("1.2.3.256:1", "the host is no IPv4 address"),
        ("::1:30303", "written in brackets"),
        ("[::1]", "written in brackets|in the brackets|not a number"),
        ("[1.2.3.4]:1", "in the brackets is no IPv6 address"),
        ("[]:1", "in the brackets is no IPv6 address"),
        ("-a:1", "neither an address nor a name"),
        ("a..b:1", "neither an address nor a name"),
        ("a-.b:1", "neither an address nor a name"),
        ("a.1:1", "neither an address nor a name"),
        (".".join(["a" * 60] * 5) + ":1", "neither an address nor a name"),
        ("a b:1", "neither an address nor a name"),
        ("t\u00e9st:1", "neither an address nor a name"),
        ("http://a:1", "written in brackets"),
    ],
)
def test_what_is_no_host_and_port_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_host_port(text)


@pytest.mark.parametrize("host", ["1.2.3.4", "::1", "fe80::1%eth0"])
def test_a_numeric_address_is_one(host: str) -> None:
    assert is_address(host)


@pytest.mark.parametrize("host", ["", "1.2.3", "localhost", "[::1]", "1.2.3.4:5"])
def test_all_else_is_no_numeric_address(host: str) -> None:
    assert not is_address(host)


@pytest.mark.parametrize("text", ["localhost", "node-1.example.org.", "my_node", "a" * 63])
def test_a_host_name_is_one(text: str) -> None:
    assert is_host_name(text)


@pytest.mark.parametrize("text", ["", "1.2.3.4", "a" * 64, "-a", "a..b", "a b", ".".join(["a" * 60] * 5)])
def test_all_else_is_no_host_name(text: str) -> None:
    assert not is_host_name(text)


def test_what_has_no_port_has_no_host() -> None:
    assert host_of("") == host_of("pipe") == ""
