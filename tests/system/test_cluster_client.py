"""A program's fleet over NATS: `connect("nats://…", cluster=…)` with real engines and a real NATS server on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import time
from typing import Final

import nats as nats_client
import pytest
import rlp as oracle
from nats.aio.msg import Msg

from rlpx.engine.client import (
    Announcement,
    BlockingFleet,
    ByHost,
    EngineSilentError,
    EngineUnavailableError,
    Fleet,
    FleetFeed,
    FleetItem,
    HostEvent,
    HostGap,
    HostLost,
    HostSnapshot,
    InvalidParamsError,
    NoSuchSessionError,
    RefusedError,
    connect,
)
from rlpx.engine.client.fleet_hosts import hosts_of
from rlpx.engine.client.fleet_traffic import WISH_SECONDS
from rlpx.engine.client.nats_servers import Servers
from rlpx.engine.cluster.commander import Commander
from rlpx.protocol.bus.results import CountsResult
from rlpx.protocol.eth.dialects import DIALECTS
from rlpx.protocol.eth.messages import BlockHeaders, GetBlockHeaders, HeadersQuery, Transactions
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.session.events import MessageReceived
from tests.system.cluster_fleet import Crowd, Lives, Nats, crowd, fleet, member
from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS, RunningEngine, eventually
from tests.system.peers import Peer

QUESTION: Final = GetBlockHeaders(0, HeadersQuery(start=1, limit=16))
GET_BLOCK_HEADERS: Final = 3
TRANSACTION: Final = oracle.encode([b""] * 9)
# More than NATS carries by default, which is 1 MiB.
LARGE: Final = oracle.encode([b""] * 5 + [bytes(1_500_000)] + [b""] * 3)


def questions(peer: Peer) -> list[MessageReceived]:
    """The requests for headers that a peer has received."""
    return [event for event in peer.events if isinstance(event, MessageReceived) and event.kind.name == "GetBlockHeaders"]


def answer(peer: Peer, number: int) -> None:
    """Answer a request for headers with none, once it has come."""
    eventually(lambda: len(questions(peer)) > number, "the request has come")
    request_id = questions(peer)[number].request_id
    assert request_id is not None
    version = max(DIALECTS["eth"].messages)
    peer.send(GET_BLOCK_HEADERS + 1, DIALECTS["eth"].encode(version, BlockHeaders(request_id, ())))


def inbound(counts: ByHost[CountsResult]) -> dict[str, int]:
    """The active inbound sessions of each host."""
    return {host: result.active.inbound for host, result in counts.results.items()}


def test_commands_go_to_the_host_that_has_it_or_to_all_and_peers_are_asked() -> None:
    async def use(nats: Nats, peer: Peer, stopped: int) -> None:
        async with connect(nats.url, cluster="test") as found:
            assert isinstance(found, Fleet)
            assert sorted(await found.hosts()) == ["a", "b"]
            counts = await found.counts()
            assert (inbound(counts), counts.is_complete) == ({"a": 0, "b": 1}, True)
            assert (await found.host("b").counts()).active.inbound == 1
            [shown] = (await found.host("b").sessions()).sessions
            assert (await found.session(shown.session)).peer == peer.node_id.hex()
            with pytest.raises(NoSuchSessionError, match="no host has a session 99"):
                await found.disconnect(99)
            with pytest.raises(InvalidParamsError, match="enode"):
                await found.dial("enode://nonsense")
            with pytest.raises(EngineUnavailableError, match="no host z of the fleet test is there"):
                await found.host("z").counts()
            # A peer by its id, wherever it is.
            asked = await found.find(peer.node_id.hex()[:16])
            assert asked.session == shown.session
            answering = asyncio.create_task(asyncio.to_thread(answer, peer, 0))
            assert (await asked.request(QUESTION, timeout=20)).headers == ()
            await answering
            # What is given up or cancelled is cancelled in the host: its sessions' four places at a peer are free again.
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asked.request(QUESTION, timeout=0.2)
            call = asyncio.create_task(found.host("b").peer(shown.session).request(QUESTION))
            await asyncio.to_thread(eventually, lambda: len(questions(peer)) >= 4, "the request has come")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            with pytest.raises(NoSuchSessionError, match="no host has an active session with"):
                await found.find("ff" * 64)
            os.kill(stopped, signal.SIGSTOP)
            try:
                counts = await found.counts(timeout=1.0)
                assert (inbound(counts), counts.no_answer, counts.is_complete) == ({"b": 1}, ("a",), False)
                with pytest.raises(EngineSilentError, match="no answer from host a within"):
                    await found.host("a").counts(timeout=0.5)
            finally:
                os.kill(stopped, signal.SIGCONT)
            await asked.disconnect()
            await asyncio.to_thread(eventually, lambda: peer.session.is_closed, "the session ends")

    with Nats() as nats, fleet(nats, "a", "b") as (first, second), crowd() as peers:
        peer = peers.connect(second)
        eventually(lambda: second.counts()[2] == 1, "a session at host b")
        asyncio.run(use(nats, peer, first.process.pid))


def test_a_call_that_its_program_gives_up_is_cancelled_at_its_host() -> None:
    async def use(nats: Nats, rounds: list[list[str]]) -> None:
        async with connect(nats.url, cluster="test") as found:
            host = found.host("a")
            # In sum more than a host carries out at a time, which is 64: each must leave its place when it is cancelled.
            for enodes in rounds:
                calls = [asyncio.create_task(host.dial(enode, wait=True)) for enode in enodes]
                await asyncio.sleep(0.5)
                assert not any(call.done() for call in calls)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            assert (await host.counts(timeout=5)).active.inbound == 0

    limits = ("--limits.max-pending-outbound", "200", "--limits.max-active-outbound", "200")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent, Nats() as nats, fleet(nats, "a", flags=limits):
        port = silent.getsockname()[1]
        keys = [PrivateKey(bytes([number]) * 32) for number in range(1, 91)]
        enodes = [f"enode://{key.id.hex()}@127.0.0.1:{port}" for key in keys]
        asyncio.run(use(nats, [enodes[:30], enodes[30:60], enodes[60:]]))


async def filters_of_hosts(url: str) -> list[str]:
    """The keys that a client and `rlpx-ctl` look at to find the hosts, as the servers are asked."""
    asked: list[str] = []

    async def note(message: Msg) -> None:
        asked.append(json.loads(message.data)["config"]["filter_subject"])

    spy = await nats_client.connect(url)
    await spy.subscribe("$JS.API.CONSUMER.CREATE.>", cb=note)
    await spy.flush()
    async with connect(url, cluster="test") as found:
        assert list(await found.hosts()) == ["a"]
    async with Commander(Servers.named(url, ""), "test") as commander:
        assert list(await commander.hosts()) == ["a"]
    await spy.flush()
    await spy.close()
    return asked


def test_to_find_the_hosts_nobody_looks_at_the_keys_of_peers() -> None:
    with Nats() as nats, fleet(nats, "a"):
        looked_at = asyncio.run(filters_of_hosts(nats.url))
        # Once each time that `hosts` is called, and once as the program connects.
        assert looked_at == ["$KV.test.host.*"] * 3


async def found_hosts(url: str) -> tuple[list[list[str]], int]:
    """What many searches for hosts find, one after the other and at once, and the consumers that the servers then keep."""
    client = await nats_client.connect(url)
    store = await client.jetstream().create_key_value(bucket="test")
    for host in "abcdefgh":
        await store.put(f"host.{host}", b'{"epoch": "1"}')
    await store.put("host.i", b'{"epoch": "1"}')
    await store.delete("host.i")
    found = [await hosts_of(client, "test") for _ in range(1000)]
    found += await asyncio.gather(*(hosts_of(client, "test") for _ in range(200)))
    # The last ones are still being deleted.
    kept = 1
    async with asyncio.timeout(PATIENCE_SECONDS):
        while kept:
            kept = len(await client.jetstream().consumers_info("KV_test"))
    await client.close()
    return [list(hosts) for hosts in found], kept


def test_each_search_for_hosts_finds_all_of_them_and_leaves_nothing_behind() -> None:
    with Nats() as nats:
        found, kept = asyncio.run(found_hosts(nats.url))
    assert found == [list("abcdefgh")] * 1200
    # A server keeps a thousand consumers of a bucket, among them the hosts' own.
    assert kept == 0


def has_active(engine: RunningEngine, count: int) -> bool:
    """Whether an engine has so many active inbound sessions."""
    return engine.counts()[2] == count


async def until(feed: FleetFeed, wanted: Callable[[FleetItem], bool]) -> list[FleetItem]:
    """The items of a feed, up to the wanted one."""
    items: list[FleetItem] = []
    async with asyncio.timeout(30):
        async for item in feed:
            items.append(item)
            if wanted(item):
                break
    return items


def is_event(topic: str, host: str) -> Callable[[FleetItem], bool]:
    """Whether an item is an event of this topic and host."""
    return lambda item: isinstance(item, HostEvent) and (item.topic, item.host) == (topic, host)


def lives(items: list[FleetItem]) -> list[tuple[str, str, int]]:
    """The host, the topic and the session of the events of sessions."""
    return [(item.host, item.topic, item.fields["session"]) for item in items if isinstance(item, HostEvent)]


def test_lives_follow_on_the_snapshot_of_each_host_and_are_replayed_from_a_time() -> None:
    async def use(nats: Nats, peers: Crowd, engines: list[RunningEngine], began: float) -> None:
        async with connect(nats.url, cluster="test") as found:
            async with found.feed("session.established", "session.closed") as feed:
                first = [await anext(feed), await anext(feed)]
                shown = {
                    item.host: [one.session for one in item.sessions] for item in first if isinstance(item, HostSnapshot)
                }
                assert shown == {"a": [1], "b": []}
                second = await asyncio.to_thread(peers.connect, engines[1])
                assert lives(await until(feed, is_event("session.established", "b"))) == [("b", "session.established", 1)]
                await asyncio.to_thread(peers.leave, second)
                [closed] = await until(feed, is_event("session.closed", "b"))
                assert isinstance(closed, HostEvent)
                assert closed.worker == 0
                assert closed.fields["peer"] == second.node_id.hex()
                assert (feed.received, feed.missed) == (2, 0)
            async with found.feed("session.established", "session.closed", since=began) as feed:
                replayed = await until(feed, is_event("session.closed", "b"))
                assert lives(replayed) == [
                    ("a", "session.established", 1),
                    ("b", "session.established", 1),
                    ("b", "session.closed", 1),
                ]
            async with found.feed("session.", since=datetime.now(UTC)) as feed:
                await asyncio.to_thread(peers.leave, peers.peers[0])
                assert lives(await until(feed, is_event("session.closed", "a"))) == [("a", "session.closed", 1)]
            left = found.feed("session.", snapshot=False)
            reading = asyncio.create_task(left.read())
            await asyncio.sleep(0.5)
        # A feed ends with its connection.
        with pytest.raises(EngineUnavailableError, match="the feed was closed"):
            await reading

    began = time()
    with Nats() as nats, fleet(nats, "a", "b") as engines, crowd() as peers:
        peers.connect(engines[0])
        eventually(lambda: engines[0].counts()[2] == 1, "a session at host a")
        eventually(lambda: Lives(nats).of("established"), "the stream has it")
        asyncio.run(use(nats, peers, engines, began))


def test_a_feed_goes_on_after_the_server_was_killed_with_each_life_once() -> None:
    async def use(nats: Nats, peers: Crowd, engine: RunningEngine) -> None:
        async with connect(nats.url, cluster="test") as found, found.feed("session.established") as feed:
            for number in range(1, 5):
                await asyncio.to_thread(peers.connect, engine)
                await asyncio.to_thread(eventually, partial(has_active, engine, number), "a session")
                if number == 2:
                    nats.kill(0)
                    await asyncio.sleep(1.0)
                    nats.start(0)
            items = await until(feed, lambda item: isinstance(item, HostEvent) and item.fields["session"] == 4)
            assert [number for _, _, number in lives(items)] == [1, 2, 3, 4]

    with Nats() as nats, fleet(nats, "a") as [engine], crowd() as peers:
        asyncio.run(use(nats, peers, engine))


def test_traffic_has_its_host_and_exact_gaps() -> None:
    payload = bytes.fromhex("c3820102")

    async def use(nats: Nats, peers: list[Peer]) -> None:
        async with (
            connect(nats.url, cluster="test") as found,
            found.feed("eth.Transactions", snapshot=False) as feed,
            found.feed("eth.", snapshot=False, credit=512) as slow,
        ):
            # Hosts' workers begin to publish a moment after they were asked.
            await asyncio.sleep(1.0)
            for peer in peers:
                peer.send(2, payload)
            seen = [await anext(feed), await anext(feed)]
            events = [item for item in seen if isinstance(item, HostEvent)]
            assert sorted((event.host, event.topic, event.payload) for event in events) == [
                ("a", "eth.Transactions", payload),
                ("b", "eth.Transactions", payload),
            ]
            # Longer than hosts publish without being asked again.
            await asyncio.sleep(WISH_SECONDS + 3.0)
            for _ in range(3):
                peers[0].send(2, payload)
                item = await anext(feed)
                assert isinstance(item, HostEvent)
            assert feed.missed == 0
            # The other one had room for one batch, which it has not read: it has lost the rest, and learns how much.
            first = await anext(slow)
            assert isinstance(first, HostEvent)
            gaps = [await anext(slow) for _ in range(2 if first.host == "a" else 1)]
            counts = {(item.host, item.topic, item.worker): item.missed for item in gaps if isinstance(item, HostGap)}
            topic = "eth.Transactions"
            assert counts == ({("a", topic, 0): 3, ("b", topic, 0): 1} if first.host == "a" else {("a", topic, 0): 4})
            # Nothing more is missing.
            peers[0].send(2, payload)
            assert len(await until(slow, is_event(topic, "a"))) == 1

    with Nats() as nats, fleet(nats, "a", "b") as engines, crowd() as peers:
        made = [peers.connect(engine) for engine in engines]
        eventually(lambda: all(engine.counts()[2] == 1 for engine in engines), "a session at each host")
        asyncio.run(use(nats, made))


def test_a_program_without_asyncio_has_the_same_commands_peers_and_feeds() -> None:
    with Nats() as nats, fleet(nats, "a", "b") as engines, crowd() as peers:
        first = peers.connect(engines[0])
        eventually(partial(has_active, engines[0], 1), "a session at host a")
        with connect(nats.url, cluster="test") as found:
            assert isinstance(found, BlockingFleet)
            assert sorted(found.hosts()) == ["a", "b"]
            assert inbound(found.counts()) == {"a": 1, "b": 0}
            assert found.host("a").counts().active.inbound == 1
            asked = found.find(first.node_id.hex())
            assert asked.show().peer == first.node_id.hex()
            with pytest.raises(NoSuchSessionError, match="no host has a session 99"):
                found.disconnect(99)
            with found.feed("session.", "eth.Transactions", min_size=1) as feed:
                assert {item.host for item in (next(feed), next(feed)) if isinstance(item, HostSnapshot)} == {"a", "b"}
                assert feed.read(timeout=0.1) == []
                peers.send(first, 2, bytes.fromhex("c3820102"))
                sent = next(feed)
                assert isinstance(sent, HostEvent)
                assert (sent.host, sent.topic) == ("a", "eth.Transactions")
                asked.disconnect()
                closed = next(feed)
                assert isinstance(closed, HostEvent)
                assert (closed.host, closed.topic, feed.received, feed.missed) == ("a", "session.closed", 2, 0)
                feed.close()
                assert list(feed) == []
        with pytest.raises(EngineUnavailableError, match="the connection to the engine was closed"):
            found.counts()


def transactions(peer: Peer) -> int:
    """How many messages with transactions a peer has received."""
    return sum(isinstance(event, MessageReceived) and event.kind.name == "Transactions" for event in peer.events)


def announced(peer: Peer) -> int:
    """How many announcements a peer has received."""
    return sum(
        isinstance(event, MessageReceived) and event.kind.name == "NewPooledTransactionHashes" for event in peer.events
    )


def test_a_message_is_published_at_all_hosts_to_all_sessions_but_those_that_are_named() -> None:
    async def use(nats: Nats, peers: list[Peer]) -> None:
        async with connect(nats.url, cluster="test") as found:
            shown = {host: result.sessions for host, result in (await found.sessions()).results.items()}
            [left_out] = [one.session for one in shown["b"] if one.peer == peers[2].node_id.hex()]
            sent = await found.publish(Transactions((TRANSACTION,)), but=[("b", left_out)])
            assert {host: result.sent for host, result in sent.results.items()} == {"a": 1, "b": 1}
            assert sent.is_complete
            announcement = Announcement.of([TRANSACTION])
            sent = await found.publish(announcement, direction="inbound", timeout=20)
            assert {host: result.sent for host, result in sent.results.items()} == {"a": 1, "b": 2}
            assert (await found.host("a").publish(Transactions((TRANSACTION,)))).sent == 1
            assert (await found.publish(Transactions((TRANSACTION,)), client="nobody")).results["a"].sent == 0
            with pytest.raises(InvalidParamsError):
                await found.host("a").publish(Transactions((b"no transaction",)))
            large = await found.publish(Transactions((LARGE,)))
            assert {host: type(error) for host, error in large.errors.items()} == {"a": RefusedError, "b": RefusedError}

    with Nats() as nats, fleet(nats, "a", "b") as engines, crowd() as peers:
        made = [peers.connect(engines[0]), peers.connect(engines[1]), peers.connect(engines[1])]
        eventually(lambda: [engine.counts()[2] for engine in engines] == [1, 2], "the sessions are active")
        asyncio.run(use(nats, made))
        eventually(lambda: [transactions(peer) for peer in made] == [2, 1, 0], "the transactions have come")
        eventually(lambda: [announced(peer) for peer in made] == [1, 1, 1], "the announcements have come")


def test_a_host_that_is_killed_is_lost_and_one_that_comes_has_a_snapshot() -> None:
    async def use(nats: Nats) -> None:
        async with connect(nats.url, cluster="test") as found, found.feed("session.") as feed:
            assert isinstance(await anext(feed), HostSnapshot)
            with await asyncio.to_thread(lambda: member(nats, "b").__enter__()) as other:
                [item] = await until(feed, lambda item: isinstance(item, HostSnapshot))
                assert isinstance(item, HostSnapshot)
                assert item.host == "b"
                other.process.kill()
                [gone] = await until(feed, lambda item: isinstance(item, HostLost))
                assert isinstance(gone, HostLost)
                assert gone.host == "b"

    with Nats() as nats, fleet(nats, "a"):
        asyncio.run(use(nats))


def test_what_is_not_there_is_said_in_one_line() -> None:
    async def enter(url: str, name: str) -> None:
        async with connect(url, cluster=name):
            pass

    missing = r"there is no fleet named none at nats://127\.0\.0\.1"
    with Nats() as nats, pytest.raises(EngineUnavailableError, match=missing):
        asyncio.run(enter(nats.url, "none"))
    with pytest.raises(TypeError, match="cluster: up to 64 letters"):
        connect("nats://a", cluster="a.b")
    with pytest.raises(TypeError, match="cluster: only with NATS servers"):
        connect("tcp://127.0.0.1:1", cluster="a")


def test_without_the_library_only_a_fleet_is_missing() -> None:
    code = """
import sys, asyncio
from rlpx.engine.client import connect, NatsMissingError
connect("/nowhere")
assert not any(name.partition(".")[0] == "nats" for name in sys.modules)
sys.modules["nats"] = None
async def use():
    async with connect("nats://a", cluster="b"):
        pass
try:
    asyncio.run(use())
except NatsMissingError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "a fleet needs nats-py: pip install rlpx-engine[cluster]\n"
