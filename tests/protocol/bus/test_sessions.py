"""The session object that users see, from what the worker reported."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from rlpx.protocol.bus.commands import BroadcastParameters, SessionsParameters
from rlpx.protocol.bus.control import SessionClosed, SessionEstablished, SessionId, SessionStats, WorkerId
from rlpx.protocol.bus.results import RemoteChain
from rlpx.protocol.bus.sessions import SessionView, ended_session, matches, receivers
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage

PEER = b"\xab" * 64
CHAIN = RemoteChain(1, "0xaa", "0xbb", 0, "0xcc", earliest=3, latest=9)
STATS = SessionStats(bytes_in=1, bytes_out=2, messages_in=3, messages_out=4, rtt_ms=5.5, queued_bytes=6)


def viewed(remote: str = "1.2.3.4:5") -> SessionView:
    """A session that was accepted a moment ago."""
    return SessionView(SessionId(7), WorkerId(1), Direction.INBOUND, remote, 1000, 50.0)


def established(view: SessionView, listen_port: int = 30303) -> SessionView:
    """The same one when it is active."""
    view.peer = PEER
    view.establish(
        SessionEstablished(
            view.session, "geth/1", ("eth/69", "snap/1"), ("eth/69",), listen_port, "9.9.9.9:30303", CHAIN, STATS, 2000
        )
    )
    return view


def test_a_new_session_has_no_peer_yet() -> None:
    shown = orjson.loads(msgspec.json.encode(viewed().shown(SessionStats())))
    assert (shown["peer"], shown["enode"], shown["client"], shown["chain"]) == (None, None, None, None)
    assert (shown["phase"], shown["stage"], shown["opened_us"], shown["established_us"]) == ("pending", "auth", 1000, None)


def test_an_established_session_shows_what_hello_and_status_told() -> None:
    shown = orjson.loads(msgspec.json.encode(established(viewed()).shown(STATS)))
    assert (shown["phase"], shown["stage"], shown["client"], shown["shared"]) == ("active", "active", "geth/1", ["eth/69"])
    assert (shown["local"], shown["established_us"], shown["rtt_ms"]) == ("9.9.9.9:30303", 2000, 5.5)
    assert shown["peer"] == "ab" * 64
    assert shown["chain"]["latest"] == 9


def test_a_session_object_can_be_published_as_it_is() -> None:
    assert orjson.loads(msgspec.json.encode(established(viewed()).shown(STATS)))["direction"] == "inbound"


def test_the_enode_of_a_peer_that_connected_is_its_address_with_the_port_it_listens_on() -> None:
    assert established(viewed()).enode == f"enode://{'ab' * 64}@1.2.3.4:30303"
    assert established(viewed("[2001:db8::1]:5")).enode == f"enode://{'ab' * 64}@[2001:db8::1]:30303"


def test_a_peer_that_listens_nowhere_has_no_enode() -> None:
    assert established(viewed(), listen_port=0).enode is None


def test_the_enode_that_was_dialled_stays() -> None:
    view = viewed()
    view.dialled = "enode://as-dialled"
    assert established(view).enode == "enode://as-dialled"


def test_what_the_worker_says_now_is_newer_than_what_it_reported() -> None:
    shown = viewed().shown(SessionStats(), Stage.STATUS)
    assert (shown.stage, shown.phase) == ("status", "pending")
    shown = established(viewed()).shown(STATS, Stage.ACTIVE, (4, 20, "0xdd"))
    assert shown.chain is not None
    assert (shown.chain.earliest, shown.chain.latest, shown.chain.head) == (4, 20, "0xdd")
    assert shown.chain.network_id == 1


def test_a_range_that_is_newer_does_not_change_what_was_reported() -> None:
    view = established(viewed())
    view.shown(STATS, Stage.ACTIVE, (4, 20, "0xdd"))
    assert view.shown(STATS).chain == CHAIN


def test_the_events_of_a_life_name_whose_it_is() -> None:
    view = established(viewed())
    opened = msgspec.to_builtins(view.opened(1234))
    assert opened == {
        "time_us": 1234,
        "session": 7,
        "peer": PEER.hex(),
        "direction": "inbound",
        "remote": "1.2.3.4:5",
        "worker": 1,
    }
    report = SessionClosed(view.session, EndedBy.US, None, "asked to", Stage.ACTIVE, STATS, duration_ms=77)
    closed = msgspec.to_builtins(view.closed(report, 5678))
    assert {name: closed[name] for name in opened} == {**opened, "time_us": 5678}
    assert (closed["ended_by"], closed["reason"], closed["cause"], closed["stage"]) == ("us", None, "asked to", "active")
    assert (closed["duration_ms"], closed["bytes_in"], closed["messages_out"]) == (77, 1, 4)
    told = view.closed(msgspec.structs.replace(report, reason=DisconnectReason.TOO_MANY_PEERS), 1)
    assert told.reason == "too_many_peers"


def test_a_duration_is_of_the_clock_that_nobody_sets() -> None:
    assert viewed().duration_ms(50.25) == 250


def test_history_lists_an_end_with_what_the_peer_calls_itself() -> None:
    view = established(viewed())
    closed = view.closed(SessionClosed(view.session, EndedBy.PEER, None, "left", Stage.ACTIVE, STATS), 5678)
    assert msgspec.to_builtins(ended_session("geth/1", closed)) == {"client": "geth/1", **msgspec.to_builtins(closed)}


@pytest.mark.parametrize(
    ("wanted", "is_pending_wanted", "is_active_wanted"),
    [
        ({}, True, True),
        ({"phase": "pending"}, True, False),
        ({"phase": "active"}, False, True),
        ({"direction": "inbound"}, True, True),
        ({"direction": "outbound"}, False, False),
        ({"worker": 1}, True, True),
        ({"worker": 0}, False, False),
        ({"peer": "abab"}, False, True),
        ({"client": "eth"}, False, True),
        ({"shared": "eth/69"}, False, True),
        ({"shared": "snap/1"}, False, False),
    ],
)
def test_a_session_matches_if_every_filter_does(
    wanted: dict[str, Any], *, is_pending_wanted: bool, is_active_wanted: bool
) -> None:
    filters = SessionsParameters(**wanted)
    assert (matches(viewed(), filters), matches(established(viewed()), filters)) == (is_pending_wanted, is_active_wanted)


def test_a_broadcast_goes_to_active_sessions_that_match_and_are_no_exception() -> None:
    first, second, third = (established(msgspec.structs.replace(viewed(), session=SessionId(n))) for n in (1, 2, 3))
    third.client = "other"
    wanted = BroadcastParameters(capability="eth", message=2, payload="0x", client="geth", exceptions=(2, 99))
    assert receivers([viewed(), first, second, third], wanted) == [first]
