"""Verdicts as real peers meet them: limits, the first session of a peer, a peer with our own key, and peers that left."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from rlpx.engine.client.presence import EngineError
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.session.events import Closed, Established
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer

CHAIN = load_chain("dev")


def outcome(peer: Peer) -> DisconnectReason | None:
    """Shake hands; returns the reason that the peer gets, or `None` if the session becomes active."""
    while peer.session.stage != "active" and not peer.session.is_closed:
        peer.step()
    if not peer.session.is_closed:
        peer.flush()
        return None
    assert not any(isinstance(event, Established) for event in peer.events)
    [closed] = [event for event in peer.events if isinstance(event, Closed)]
    return closed.reason


def test_the_first_session_of_a_peer_wins_and_a_second_one_is_told_so() -> None:
    key = PrivateKey(b"\x07" * 32)
    with RunningEngine() as engine, ExitStack() as stack:
        log = engine.log("session.", "eth.")
        first, second, again = (stack.enter_context(Peer(engine.address, engine.node_id, CHAIN, key=key)) for _ in range(3))
        assert outcome(first) is None
        assert outcome(second) is DisconnectReason.ALREADY_CONNECTED
        log.wait("session.closed", reason="already_connected", ended_by="us")
        # That does not disturb the first session.
        first.send(2, b"\xc1\x05")
        log.wait("eth.Transactions", session=log.wait("session.established").fields["session"])
        first.leave()
        log.wait("session.closed", reason="client_quitting", ended_by="peer")
        assert outcome(again) is None
        engine.comes_to(0, 0, 1, 0)


def test_whoever_has_our_own_key_is_told_that_it_is_us() -> None:
    with RunningEngine(workers=1) as engine:
        ours = PrivateKey(bytes.fromhex((engine.run_dir / "node.key").read_text().strip()))
        with Peer(engine.address, engine.node_id, CHAIN, key=ours) as peer:
            assert outcome(peer) is DisconnectReason.CONNECTED_TO_SELF


def test_of_a_crowd_that_comes_at_once_as_many_are_let_in_as_there_are_places() -> None:
    with RunningEngine("--limits.max-active-inbound", "5") as engine, ExitStack() as stack:
        log = engine.log("session.")
        # All have connected before the first one is proved, so that only the verdict can keep the limit.
        crowd = [stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)) for _ in range(20)]
        eventually(lambda: engine.unauthenticated() == 20, "all of them are accepted")
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(outcome, crowd))
        assert outcomes.count(None) == 5
        assert outcomes.count(DisconnectReason.TOO_MANY_PEERS) == 15
        log.wait("session.closed", count=15)
        engine.comes_to(0, 0, 5, 0)
        assert len(log.of("session.established")) == 5
        # One more is refused at once; a place that comes free is taken.
        late, later = (stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)) for _ in range(2))
        assert outcome(late) is DisconnectReason.TOO_MANY_PEERS
        assert outcome(later) is DisconnectReason.TOO_MANY_PEERS
        crowd[outcomes.index(None)].leave()
        eventually(lambda: engine.counts() == (0, 0, 4, 0), "one has left")
        assert outcome(stack.enter_context(Peer(engine.address, engine.node_id, CHAIN))) is None


def test_an_address_whose_connections_came_to_nothing_is_not_shut_out() -> None:
    """reth bans such an address for 12 h, which hits health checks and port scanners."""
    with RunningEngine(workers=1) as engine:
        log = engine.log("session.")
        for rubbish in (b"", b"\x01", b"GET / HTTP/1.1\r\n\r\n", bytes(600)):
            with socket.create_connection(engine.address) as sock:
                sock.sendall(rubbish)
        log.wait("session.closed", count=4)
        assert log.of("session.closed")[0].fields["reason"] is None
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            assert outcome(peer) is None
        assert engine.call("peers")["bans"] == []
        assert not log.of("session.refused")


def test_what_is_banned_is_not_dialled_either() -> None:
    somebody, somebody_else = (PrivateKey(bytes([number]) * 32).id.hex() for number in (7, 8))
    with RunningEngine(workers=1) as engine:
        engine.call("ban", address="127.0.0.7")
        engine.call("ban", peer=somebody)
        for enode in (f"enode://{somebody_else}@127.0.0.7:30303", f"enode://{somebody}@127.0.0.8:30303"):
            with pytest.raises(EngineError, match="banned"):
                engine.call("dial", enode=enode)
        assert engine.counts() == (0, 0, 0, 0)
