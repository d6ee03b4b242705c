"""Every metric of a host of a fleet moves when its thing happens, and `status` says the same, on real engines and NATS."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import ExitStack
from typing import Final

import nats as nats_client
import pytest
import rlp as oracle
from nats.js.api import KeyValueConfig

from rlpx.protocol.cluster.records import Claim, encode, peer_key
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.cluster_fleet import CHAIN, Crowd, Nats, crowd, member
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.scraping import Scrapes, serving
from tests.system.test_watch_metrics import OF_FLEET

TRANSACTIONS: Final = 2
# What the servers take as one message.
MAX_PAYLOAD_BYTES: Final = 64 * 1024
ELSEWHERE: Final = {
    "rlpx_fleet": "it is a name",
    "rlpx_fleet_events_dropped": "tests/engine/cluster/test_lifecycle.py; here it is there and zero",
}


async def _leave_claim(url: str) -> None:
    """An earlier run of host a had a session."""
    client = await nats_client.connect(url)
    config = KeyValueConfig(bucket="test", history=1, limit_marker_ttl=120.0, direct=True)
    store = await client.jetstream().create_key_value(config)
    await store.put(peer_key(bytes(64)), encode(Claim("a", "earlier", 1, 1)))
    await client.close()


async def _listen(url: str, seconds: float) -> None:
    client = await nats_client.connect(url)
    wish = {"topics": ["eth."], "seconds": seconds}
    await client.request("rlpx.test.listen", json.dumps(wish).encode(), timeout=10)
    await client.close()


def send(peer: Peer, size: int) -> None:
    """A peer announces a transaction of this size."""
    peer.send(TRANSACTIONS, bytes(oracle.encode([[os.urandom(size)]])))


def publish_traffic(scrapes: Scrapes, nats: Nats, peer: Peer) -> None:
    """Somebody listens; what fits into a message of NATS is published."""
    asyncio.run(_listen(nats.url, 3600))
    # The workers publish such messages a moment after the listener has asked for them.
    for name in ("rlpx_fleet_traffic_batches", "rlpx_fleet_traffic_bytes"):
        scrapes.await_move(name, lambda: send(peer, 1000))
    scrapes.await_move("rlpx_fleet_traffic_dropped", lambda: send(peer, 2 * MAX_PAYLOAD_BYTES))


def lose_nats(scrapes: Scrapes, nats: Nats, engines: tuple[RunningEngine, RunningEngine], peers: Crowd) -> None:
    """NATS does not answer for a while. Meanwhile one peer begins a session at the other host, and then at this one."""
    first, other = engines
    key = PrivateKey(b"\x09" * 32)
    os.kill(nats.processes[0].pid, signal.SIGSTOP)
    try:
        # Its claim is asked for while nobody knows yet that NATS does not answer.
        peers.connect(first)
        for name in ("rlpx_fleet_away_seconds", "rlpx_fleet_lost_calls"):
            scrapes.await_move(name)
        before = other.counts()[2]
        peers.connect(other, key)
        eventually(lambda: other.counts()[2] > before, "the other host lets the peer in")
        peers.connect(first, key)
        scrapes.await_that("rlpx_fleet_claims", lambda _, new: new == 2, {"state": "unsettled"})
        scrapes.await_move("rlpx_fleet_events_waiting")
        fleet = first.call("status")["fleet"]
        assert (fleet["state"], fleet["claims"]["unsettled"], fleet["waiting_events"] > 0) == ("away", 2, True)
        assert fleet["away_ms"] > 0
    finally:
        os.kill(nats.processes[0].pid, signal.SIGCONT)
    scrapes.await_move("rlpx_fleet_sessions_ended")
    eventually(lambda: first.call("status")["fleet"]["state"] == "member", "it is a member again")


@pytest.mark.long
def test_every_metric_of_a_fleet_moves_when_its_thing_happens() -> None:
    settings = f"max_payload: {MAX_PAYLOAD_BYTES}"
    with Nats(settings=settings) as nats, ExitStack() as stack:
        asyncio.run(_leave_claim(nats.url))
        first = stack.enter_context(member(nats, "a", "--watch", "127.0.0.1:0"))
        peers = stack.enter_context(crowd())
        scrapes = Scrapes(serving(first)["address"])
        with member(nats, "b") as other:
            scrapes.await_move("rlpx_fleet_hosts")
            scrapes.await_that("rlpx_fleet_member", lambda _, new: new == 1, {})
            peer = stack.enter_context(Peer(first.address, first.node_id, CHAIN).establish())
            # A block is leased with the first session.
            scrapes.await_that("rlpx_fleet_places_elsewhere", lambda old, new: 0 < new < old, {"direction": "inbound"})
            for name in ("rlpx_fleet_places_leased", "rlpx_fleet_places_used"):
                scrapes.await_move(name, direction="inbound")
            scrapes.await_move("rlpx_fleet_claims", state="held")
            scrapes.await_move("rlpx_fleet_claim_seconds")
            scrapes.await_move("rlpx_fleet_events_published")
            status = first.call("status")["fleet"]
            assert (status["name"], status["host"], status["state"]) == ("test", "a", "member")
            assert (status["hosts"], status["away_ms"], status["claims"]["held"]) == (["a", "b"], None, 1)
            key = PrivateKey(b"\x07" * 32)
            peers.connect(other, key)
            eventually(lambda: other.counts()[2] == 1, "the other host has the peer")
            peers.connect(first, key)
            scrapes.await_move("rlpx_fleet_claims_refused")
            scrapes.await_that("rlpx_fleet_claims_erased", lambda _, new: new == 1, {})
            publish_traffic(scrapes, nats, peer)
            lose_nats(scrapes, nats, (first, other), peers)
    assert OF_FLEET - scrapes.moved == set(ELSEWHERE)
