"""Servers, subjects, and the host that a command concerns."""

from __future__ import annotations

import pytest

from rlpx.protocol.cluster.addressing import (
    Asked,
    asked_headers,
    command_subject,
    covers,
    dialler,
    read_asked,
    server_urls,
    without_password,
)
from rlpx.protocol.cluster.records import Heartbeat
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.rlpx.crypto import PrivateKey


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("nats://a", ("nats://a:4222",)),
        ("nats://a,b:5,tls://c", ("nats://a:4222", "nats://b:5", "tls://c:4222")),
        ("tls://a, b", ("tls://a:4222", "tls://b:4222")),
        ("nats://[::1],[::2]:9", ("nats://[::1]:4222", "nats://[::2]:9")),
        ("nats://user:secret@a", ("nats://user:secret@a:4222",)),
    ],
)
def test_servers_are_named_as_nats_users_name_them(text: str, urls: tuple[str, ...]) -> None:
    assert server_urls(text) == urls


def test_a_password_is_not_shown() -> None:
    assert without_password("nats://user:secret@a:4222") == "nats://a:4222"


def test_a_host_has_a_subject_for_commands() -> None:
    assert command_subject("monitors", "a") == "rlpx.monitors.a.command"


def test_a_peer_is_dialled_by_a_host_with_free_places_or_by_any() -> None:
    enode = f"enode://{PrivateKey(bytes([7]) * 32).id.hex()}@127.0.0.1:30303"
    full, free = Heartbeat("1"), Heartbeat("1", free={Direction.OUTBOUND: 3})
    assert dialler(enode, {"a": full, "b": free}) == "b"
    assert dialler(enode, {"b": full, "a": full}) in {"a", "b"}
    with pytest.raises(ValueError, match="enode"):
        dialler("enode://nonsense", {"a": free})


def test_what_is_said_of_a_request_comes_back_from_its_headers() -> None:
    asked = Asked(session=42, peer="ab" * 64, version=69, request_id=2**64 - 1)
    headers = asked_headers(asked)
    assert all(name.startswith("Rlpx-Asked-") for name in headers)
    assert read_asked(headers) == asked
    for name in headers:
        with pytest.raises(ValueError, match=r"Expected"):
            read_asked({other: value for other, value in headers.items() if other != name})
    with pytest.raises(ValueError, match=r"Expected `int`"):
        read_asked({**headers, "Rlpx-Asked-session": "no number"})


@pytest.mark.parametrize(
    ("pattern", "is_covered"),
    [
        ("rlpx.f.*.session.*", True),
        ("rlpx.f.a.session.*", True),
        ("rlpx.f.a.session.closed", False),
        ("rlpx.f.b.session.*", False),
        ("rlpx.f.*.session", False),
        ("rlpx.>", True),
        ("rlpx.f.a.session.>", True),
        ("rlpx.f.a.session.*.>", False),
        ("*.*.*.*.*", True),
        (">", True),
    ],
)
def test_a_pattern_covers_what_it_takes_all_of(pattern: str, is_covered: bool) -> None:  # noqa: FBT001 - of the table
    assert covers(pattern, "rlpx.f.a.session.*") is is_covered
