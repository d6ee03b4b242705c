"""The goodbye of go-ethereum's kind: answered with the same reason after the Hellos, and harmless to the other side."""

from __future__ import annotations

import pytest

from rlpx.protocol.bus.swarm import Client, Scenario
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.workers.swarm.plan import PeerPlan
from rlpx.workers.swarm.session import EchoingSession
from tests.pair import DIALER, DISCONNECT, RawPeer, encoded, key
from tests.workers.swarmed import Meeting

ECHOING = {Client.GETH, Client.ERIGON}


def told_goodbye(stage: Stage, payload: bytes, *, is_snappy: bool = True) -> RawPeer:
    """A peer that has said goodbye to an echoing session at `stage`."""
    peer = RawPeer()
    peer.session = EchoingSession(DIALER.setup(), now=peer.clock.now)
    for step in (peer.authenticates, peer.says_hello, peer.says_status, peer.is_admitted):
        if peer.session.stage is not stage:
            step()
    peer.hears()
    peer.says(DISCONNECT, payload, is_snappy=is_snappy)
    return peer


@pytest.mark.parametrize("stage", [Stage.STATUS, Stage.ACTIVE])
@pytest.mark.parametrize("reason", [*set(DisconnectReason) - {DisconnectReason.TCP_ERROR}, DisconnectReason(0x77)])
def test_after_hello_a_goodbye_is_answered_with_its_own_reason(stage: Stage, reason: DisconnectReason) -> None:
    peer = told_goodbye(stage, encoded([reason]))
    assert (peer.closed.ended_by, peer.closed.reason) == (EndedBy.PEER, reason)
    assert peer.goodbye == reason


def test_in_place_of_hello_it_is_answered_by_nothing() -> None:
    peer = told_goodbye(Stage.HELLO, encoded([DisconnectReason.TOO_MANY_PEERS]), is_snappy=False)
    assert peer.closed.reason is DisconnectReason.TOO_MANY_PEERS
    assert peer.goodbye is None


@pytest.mark.parametrize("payload", [encoded([DisconnectReason.TCP_ERROR]), encoded([])])
def test_a_network_error_and_what_is_no_reason_are_not_echoed(payload: bytes) -> None:
    peer = told_goodbye(Stage.ACTIVE, payload)
    assert peer.closed.ended_by is EndedBy.PEER
    assert peer.goodbye is None


@pytest.mark.parametrize("client", Client)
def test_who_is_told_goodbye_says_it_back_where_its_client_does_and_the_target_does_not_mind(client: Client) -> None:
    meeting = Meeting(PeerPlan(0, key(5), client, None, False, 0.0, "127.0.0.1"), Scenario("test"))
    meeting.exchange()
    meeting.take(meeting.target.disconnect(DisconnectReason.TOO_MANY_PEERS, "test"))
    meeting.peer.receive(meeting.target.data_to_send(), now=meeting.clock.now)
    assert meeting.peer.end == "told too_many_peers"
    echo = meeting.peer.data_to_send()
    assert bool(echo) == (client in ECHOING)
    before = list(meeting.events)
    assert not meeting.target.receive(echo, now=meeting.clock.now)
    assert not meeting.target.data_to_send()
    assert meeting.events == before
    assert (meeting.closed.ended_by, meeting.closed.reason) == (EndedBy.US, DisconnectReason.TOO_MANY_PEERS)
