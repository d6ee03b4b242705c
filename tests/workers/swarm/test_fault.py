"""Every fault against a real session: the target ends it for the reason that is expected, and for no other."""

from __future__ import annotations

import pytest

from rlpx.protocol.bus.swarm import Client, Fault, Scenario
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Stage
from rlpx.workers.swarm.fault import FAULTS, peer_class
from rlpx.workers.swarm.peer import Peer
from rlpx.workers.swarm.plan import PeerPlan
from tests.pair import key
from tests.workers.swarmed import Meeting

SCENARIO = Scenario("test")
PING = DisconnectReason.PING_TIMEOUT

# The reason that the target gives, the stage that the session reached, and the end that the peer counts.
OUTCOMES = {
    Fault.STALL_CONNECT: (None, Stage.AUTH, "closed"),
    Fault.STALL_AUTH: (None, Stage.AUTH, "closed"),
    Fault.STALL_ACK: (PING, Stage.HELLO, "told ping_timeout"),
    Fault.STALL_HELLO: (PING, Stage.STATUS, "told ping_timeout"),
    Fault.NO_STATUS: (PING, Stage.STATUS, "told ping_timeout"),
    Fault.GARBAGE: (None, Stage.AUTH, "closed"),
    Fault.OFF_CURVE: (None, Stage.AUTH, "closed"),
    Fault.BAD_MAC: (None, Stage.ACTIVE, "closed"),
    Fault.OVERSIZED_SNAPPY: (DisconnectReason.PROTOCOL_BREACH, Stage.ACTIVE, "told protocol_breach"),
    Fault.HALF_OPEN: (PING, Stage.ACTIVE, "told ping_timeout"),
    Fault.HALF_CLOSE: (None, Stage.ACTIVE, "closed"),
    Fault.RESET: (None, Stage.ACTIVE, "reset by us"),
    Fault.DISCONNECT_STORM: (None, Stage.ACTIVE, "left"),
}


def faulty(fault: Fault | None, client: Client = Client.GETH) -> Meeting:
    """A peer with this fault and its target, after a minute."""
    meeting = Meeting(PeerPlan(0, key(5), client, fault, False, 0.0, "127.0.0.1"), SCENARIO)
    meeting.exchange()
    meeting.passes(60)
    return meeting


@pytest.mark.parametrize("client", Client)
@pytest.mark.parametrize("fault", OUTCOMES)
def test_the_target_ends_it_for_the_expected_reason(fault: Fault, client: Client) -> None:
    meeting = faulty(fault, client)
    reason, stage, end = OUTCOMES[fault]
    assert meeting.closed.stage is stage
    assert meeting.peer.end == end
    if fault is Fault.DISCONNECT_STORM:
        assert meeting.closed.ended_by == "peer"
    else:
        assert meeting.closed.reason == reason
    meeting.peer.count_end()
    assert meeting.tally.faults[fault].expected == 1
    assert not meeting.tally.faults[fault].otherwise


def test_a_peer_counts_as_established_where_its_target_takes_it_for_that() -> None:
    for fault in OUTCOMES:
        meeting = faulty(fault)
        assert meeting.has_established == bool(meeting.tally.counts["established"]), fault


def test_a_slow_reader_asks_much_and_stays() -> None:
    meeting = faulty(Fault.SLOW_READER)
    assert meeting.peer.end is None
    assert meeting.tally.counts["requests_answered"] > 500
    meeting.peer.count_end()
    assert meeting.tally.faults[Fault.SLOW_READER].expected == 1


def test_an_end_for_another_reason_is_told() -> None:
    meeting = Meeting(PeerPlan(0, key(5), Client.RETH, Fault.HALF_OPEN, False, 0.0, "127.0.0.1"), SCENARIO)
    meeting.exchange()
    meeting.take(meeting.target.disconnect(DisconnectReason.TOO_MANY_PEERS, "test"))
    meeting.exchange()
    meeting.peer.count_end()
    assert meeting.tally.faults[Fault.HALF_OPEN].otherwise == {"told too_many_peers": 1}


def test_an_honest_peer_stays() -> None:
    meeting = faulty(None)
    assert meeting.peer.end is None
    assert meeting.peer.is_established


def test_every_fault_has_its_peer() -> None:
    assert set(FAULTS) == set(Fault)
    assert set(OUTCOMES) | {Fault.SLOW_READER} == set(Fault)
    assert peer_class(None) is Peer
