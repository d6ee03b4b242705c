"""Only requests that name this server, and do not come from another site's page, are answered."""

from __future__ import annotations

import pytest

from rlpx.engine.watch.guard import Guard


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9545", "LOCALHOST.", "127.0.0.1:9545", "[::1]:9545", "[::1]", "10.0.0.7:80", "node.lan:1"],
)
def test_addresses_and_known_names_are_this_server(host: str) -> None:
    assert Guard(["Node.lan"]).refusal(host, None) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9545", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "::1"]
)
def test_another_name_may_have_been_pointed_at_us(host: str) -> None:
    assert Guard(["node.lan"]).refusal(host, None) is not None


def test_a_request_without_host_is_no_browsers() -> None:
    assert Guard().refusal(None, None) is None
    assert Guard().refusal(None, "http://localhost") == "a request with an Origin header needs a Host header"


def test_a_page_of_ours_may_ask_and_others_may_not() -> None:
    guard = Guard()
    assert guard.refusal("localhost:9545", "http://localhost:9545") is None
    for origin in ("http://localhost:9546", "http://evil.example", "null", "", "https://evil.example#localhost:9545"):
        assert guard.refusal("localhost:9545", origin) is not None


def test_a_name_is_shown_without_control_characters() -> None:
    assert Guard().refusal("a\x1b[2Jb", None) == "this server is not a\\x1b[2jb; --host-name allows a name"
