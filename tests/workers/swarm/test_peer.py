"""An honest simulated peer: its messages, requests and answers, which are the same for the same seed."""

from __future__ import annotations

import pytest

from rlpx.protocol import rlp
from rlpx.protocol.bus.swarm import Churn, Client, Messages, Query, Scenario
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.session.events import MessageReceived
from rlpx.workers.swarm.plan import PeerPlan
from tests.pair import key
from tests.workers.swarmed import Meeting

BUSY = Messages(
    announcements_per_s=2.0,
    hashes=5,
    transactions_per_s=1.0,
    transaction_bytes=300,
    requests_per_s=2.0,
    requests=tuple(Query),
)


def met(scenario: Scenario, client: Client = Client.GETH, *, seed: int = 1, is_churning: bool = False) -> Meeting:
    """An established peer."""
    meeting = Meeting(PeerPlan(0, key(5), client, None, is_churning, 0.0, "127.0.0.1"), scenario, seed)
    meeting.exchange()
    assert meeting.has_established
    return meeting


@pytest.mark.parametrize("client", Client)
def test_all_that_it_sends_is_well_formed_and_counted(client: Client) -> None:
    meeting = met(Scenario("test", messages=BUSY), client)
    meeting.passes(30)
    counts = meeting.tally.counts
    messages = [event for event in meeting.events if isinstance(event, MessageReceived)]
    for event in messages:
        if event.kind.capability.name == "eth":
            eth_messages.decode(event.kind.capability.version, event.kind.id, event.payload)
    names = [event.kind.name for event in messages]
    assert names.count("NewPooledTransactionHashes") == counts["announcements"] > 30
    assert names.count("Transactions") == counts["transactions"] > 10
    assert counts["requests_sent"] == counts["requests_answered"] == sum(event.kind.answer is not None for event in messages)
    assert {"GetBlockHeaders", "GetBlockBodies", "GetReceipts", "GetPooledTransactions"} <= set(names)
    assert sum(meeting.tally.latencies["request"].values()) == counts["requests_answered"]


def test_the_same_seed_says_the_same_at_the_same_time() -> None:
    scenario = Scenario("test", messages=BUSY)
    said = []
    for seed in (1, 1, 2):
        meeting = met(scenario, seed=seed)
        meeting.passes(10)
        said.append([(e.kind.name, e.payload) for e in meeting.events if isinstance(e, MessageReceived)])
    assert said[0] == said[1] != said[2]


def test_clients_that_check_the_head_of_a_new_peer_ask_for_it_first() -> None:
    assert len(met(Scenario("test"), Client.NETHERMIND).received("GetBlockHeaders")) == 1
    assert not met(Scenario("test"), Client.GETH).received("GetBlockHeaders")


def test_it_asks_for_what_is_announced_to_it() -> None:
    meeting = met(Scenario("test"), Client.RETH)
    hashes: list[rlp.Encodable] = [b"\x01" * 32, b"\x02" * 32]
    meeting.target.send("eth", 8, rlp.encode([b"\x02\x02", [100, 100], hashes]))
    meeting.exchange()
    [asked] = meeting.received("GetPooledTransactions")
    assert rlp.decode_list(asked.payload)[1] == hashes
    assert meeting.tally.counts["announcements_heard"] == 1


def test_it_answers_requests_with_nothing() -> None:
    meeting = met(Scenario("test"))
    meeting.target.send("eth", 3, rlp.encode([7, [1, 1, 0, 0]]))
    meeting.exchange()
    [answer] = meeting.received("BlockHeaders")
    assert answer.payload == rlp.encode([7, []])
    assert meeting.tally.counts["requests_served"] == 1


def test_who_churns_leaves_with_the_reason_of_its_client() -> None:
    meeting = met(Scenario("test", churn=Churn(share=1.0, stay_s=5.0)), Client.RETH, is_churning=True)
    meeting.passes(60)
    assert (meeting.closed.ended_by, meeting.closed.reason) == ("peer", DisconnectReason.TOO_MANY_PEERS)
    assert meeting.peer.end == "left"


def test_in_a_storm_all_leave_at_the_same_time() -> None:
    meeting = met(Scenario("test", churn=Churn(share=1.0, storm_every_s=10.0)), is_churning=True)
    meeting.passes(9.8)
    assert meeting.peer.end is None
    meeting.passes(0.4)
    assert meeting.peer.end == "left"


def test_requests_that_an_end_cuts_off_are_counted_as_such() -> None:
    meeting = met(Scenario("test", messages=Messages(requests_per_s=50.0)))
    meeting.clock.passes(1.0)
    meeting.peer.tick(now=meeting.clock.now)
    meeting.peer.lost(is_reset=True, now=meeting.clock.now)
    counts = meeting.tally.counts
    assert counts["requests_session_ended"] == counts["requests_sent"] > 0
    assert meeting.peer.end == "reset"
