"""The session object that users see, from what the worker reported."""

from __future__ import annotations

import msgspec
import orjson

from engine.counter import Direction
from engine.sessions import SessionView
from protocol.control import RemoteChain, SessionEstablished, SessionId, Traffic, WorkerId
from protocol.events import Stage

PEER = b"\xab" * 64
CHAIN = RemoteChain(1, "0xaa", "0xbb", 0, "0xcc", earliest=3, latest=9)
TRAFFIC = Traffic(bytes_in=1, bytes_out=2, messages_in=3, messages_out=4, rtt_ms=5.5, queued_bytes=6)


def viewed(remote: str = "1.2.3.4:5") -> SessionView:
    """A session that was accepted a moment ago."""
    return SessionView(SessionId(7), WorkerId(1), Direction.INBOUND, remote, 1000)


def established(view: SessionView, listen_port: int = 30303) -> SessionView:
    """The same one when it is active."""
    view.peer = PEER
    view.establish(
        SessionEstablished(
            view.session, "geth/1", ("eth/69", "snap/1"), ("eth/69",), listen_port, "9.9.9.9:30303", CHAIN, TRAFFIC
        ),
        2000,
    )
    return view


def test_a_session_object_has_the_promised_fields_and_no_others() -> None:
    assert set(established(viewed()).shown(TRAFFIC)) == {
        *("session", "peer", "enode", "direction", "phase", "stage", "worker", "remote", "local", "client", "capabilities"),
        *("shared", "opened_us", "established_us", "bytes_in", "bytes_out", "messages_in", "messages_out", "rtt_ms"),
        *("queued_bytes", "chain"),
    }


def test_a_new_session_has_no_peer_yet() -> None:
    shown = orjson.loads(msgspec.json.encode(viewed().shown(Traffic())))
    assert (shown["peer"], shown["enode"], shown["client"], shown["chain"]) == (None, None, None, None)
    assert (shown["phase"], shown["stage"], shown["opened_us"], shown["established_us"]) == ("pending", "auth", 1000, None)


def test_an_established_session_shows_what_hello_and_status_told() -> None:
    shown = orjson.loads(msgspec.json.encode(established(viewed()).shown(TRAFFIC)))
    assert (shown["phase"], shown["stage"], shown["client"], shown["shared"]) == ("active", "active", "geth/1", ["eth/69"])
    assert (shown["local"], shown["established_us"], shown["rtt_ms"]) == ("9.9.9.9:30303", 2000, 5.5)
    assert shown["peer"] == "ab" * 64
    assert shown["chain"]["latest"] == 9


def test_a_session_object_can_be_published_as_it_is() -> None:
    assert orjson.loads(orjson.dumps(established(viewed()).shown(TRAFFIC)))["direction"] == "inbound"


def test_the_enode_of_a_peer_that_connected_is_its_address_with_the_port_it_listens_on() -> None:
    assert established(viewed()).enode == f"enode://{'ab' * 64}@1.2.3.4:30303"
    assert established(viewed("[2001:db8::1]:5")).enode == f"enode://{'ab' * 64}@[2001:db8::1]:30303"


def test_a_peer_that_listens_nowhere_has_no_enode() -> None:
    assert established(viewed(), listen_port=0).enode is None


def test_the_enode_that_was_dialled_stays() -> None:
    view = viewed()
    view.enode = "enode://as-dialled"
    assert established(view).enode == "enode://as-dialled"


def test_what_the_worker_says_now_is_newer_than_what_it_reported() -> None:
    shown = viewed().shown(Traffic(), Stage.STATUS)
    assert (shown["stage"], shown["phase"]) == ("status", "pending")
    shown = established(viewed()).shown(TRAFFIC, Stage.ACTIVE, (4, 20, "0xdd"))
    assert (shown["chain"]["earliest"], shown["chain"]["latest"], shown["chain"]["head"]) == (4, 20, "0xdd")
    assert shown["chain"]["network_id"] == 1


def test_a_range_that_is_newer_does_not_change_what_was_reported() -> None:
    view = established(viewed())
    view.shown(TRAFFIC, Stage.ACTIVE, (4, 20, "0xdd"))
    assert view.shown(TRAFFIC)["chain"]["latest"] == 9
