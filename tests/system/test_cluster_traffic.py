"""Messages of peers over NATS, with real engines and servers: filters at the hosts, and losses, exact and soon known."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from time import sleep
from typing import Any, Final

import nats as nats_client
import nats.errors
import pytest
from nats.aio.msg import Msg

from rlpx.engine.client import (
    FleetFeed,
    FleetItem,
    HostEvent,
    HostGap,
    HostLost,
    HostSnapshot,
    InvalidParamsError,
    RefusedError,
    connect,
)
from rlpx.engine.client.fleet_feed import REFRESH_SECONDS
from rlpx.engine.cluster.traffic import MAX_CHOICES
from tests.system.cluster_fleet import Crowd, Nats, Proxy, crowd, fleet
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer

TRANSACTIONS: Final = 2
TOPIC: Final = "eth.Transactions"
# Longer than any loss may stay unknown, on a machine that is busy.
PATIENCE_SECONDS: Final = 60.0


def payload(size: int, first: int = 0) -> bytes:
    """A message's payload of so many bytes: a list with one string."""
    assert size > 300
    inner = size - 6
    return b"\xf9" + (inner + 3).to_bytes(2, "big") + b"\xb9" + inner.to_bytes(2, "big") + bytes([first]) + bytes(inner - 1)


async def read(feed: FleetFeed, count: int) -> list[FleetItem]:
    """The next items, one by one."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [await anext(feed) for _ in range(count)]


async def until_event(feed: FleetFeed, peers: Crowd, peer: Peer, sent: bytes) -> None:
    """Send until the workers publish: a topic without a filter begins a moment after it was asked for."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await asyncio.to_thread(peers.send, peer, TRANSACTIONS, sent)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(feed)
                    return


def sizes(items: list[FleetItem]) -> list[int]:
    """The sizes of events, and of gaps their counts below zero."""
    return [
        len(item.payload) if isinstance(item, HostEvent) else -item.missed
        for item in items
        if isinstance(item, HostEvent | HostGap)
    ]


def sessions_at(engine: RunningEngine, count: int) -> None:
    eventually(lambda: engine.counts()[2] == count, "the sessions are active")


@pytest.mark.parametrize("options", [{}, {"min_size": 1}], ids=["all", "filtered"])
def test_what_is_lost_while_the_servers_are_away_is_known_soon_after_though_nothing_follows(options: Any) -> None:
    async def use(nats: Nats, peers: Crowd, peer: Peer) -> None:
        async with connect(nats.url, cluster="test") as found, found.feed(TOPIC, snapshot=False, **options) as feed:
            await until_event(feed, peers, peer, payload(500))
            nats.kill_all()
            await asyncio.to_thread(peers.send, peer, TRANSACTIONS, *[payload(500)] * 7)
            # Hosts notice within seconds that the servers are gone, and what is published until then is lost as well.
            await asyncio.sleep(1.0)
            nats.start_all()
            [gap] = await read(feed, 1)
            assert isinstance(gap, HostGap)
            assert (gap.host, gap.worker, gap.missed) == ("a", 0, 7)
            assert feed.missed == 7
            # It goes on, and nothing more is missing.
            await asyncio.to_thread(peers.send, peer, TRANSACTIONS, payload(501))
            assert sizes(await read(feed, 1)) == [501]

    with Nats() as nats, fleet(nats, "a") as [engine], crowd() as peers:
        peer = peers.connect(engine)
        sessions_at(engine, 1)
        asyncio.run(use(nats, peers, peer))


@pytest.mark.parametrize("options", [{}, {"min_size": 1}], ids=["all", "filtered"])
def test_a_batch_that_is_too_long_for_nats_is_cut_and_a_message_that_is_counts_as_missing(options: Any) -> None:
    async def use(nats: Nats, peers: Crowd, peer: Peer) -> None:
        async with connect(nats.url, cluster="test") as found, found.feed(TOPIC, snapshot=False, **options) as feed:
            await until_event(feed, peers, peer, payload(500))
            # Together they are one batch of the worker, or two.
            await asyncio.to_thread(peers.send, peer, TRANSACTIONS, *(payload(6000, number) for number in range(8)))
            assert sizes(await read(feed, 8)) == [6000] * 8
            await asyncio.to_thread(peers.send, peer, TRANSACTIONS, payload(1000), payload(40_000), payload(1001))
            assert sizes(await read(feed, 3)) == [1000, -1, 1001]
            # Nothing comes after it.
            await asyncio.to_thread(peers.send, peer, TRANSACTIONS, payload(40_000), payload(40_000))
            assert sum(sizes(await read(feed, 1))) in (-1, -2)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while feed.missed < 3:
                    await anext(feed)
            assert feed.missed == 3

    with Nats(settings="max_payload: 16384") as nats, fleet(nats, "a") as [engine], crowd() as peers:
        peer = peers.connect(engine)
        sessions_at(engine, 1)
        asyncio.run(use(nats, peers, peer))


def test_a_filter_is_applied_at_the_hosts_and_only_what_passes_travels() -> None:
    async def use(nats: Nats, peers: Crowd, wanted: Peer, other: Peer) -> None:
        seen: list[str] = []

        async def note(message: Msg) -> None:
            _, _, host, rest = message.subject.split(".", 3)
            if rest.partition(".")[0] in ("eth", "feed"):
                events = json.loads(message.data.partition(b"\n")[0])["events"]
                seen.append(f"{host} {rest.partition('.')[0]} {len(events)}")

        spy = await nats_client.connect(nats.url)
        await spy.subscribe("rlpx.test.>", cb=note)
        await spy.flush()
        name = wanted.node_id.hex()
        async with (
            connect(nats.url, cluster="test") as found,
            found.feed("session.", TOPIC, peer=name[:20], min_size=1000) as feed,
            found.feed(TOPIC, snapshot=False, sample=3) as sampled,
        ):
            snapshots = {item.host: item.sessions for item in await read(feed, 2) if isinstance(item, HostSnapshot)}
            assert {host: [shown.peer for shown in sessions] for host, sessions in snapshots.items()} == {
                "a": [name],
                "b": [],
            }
            for peer in (other, wanted):
                await asyncio.to_thread(peers.send, peer, TRANSACTIONS, payload(600), payload(1200))
            [event] = await read(feed, 1)
            assert isinstance(event, HostEvent)
            assert (event.host, event.topic, event.fields["peer"], len(event.payload)) == ("a", TOPIC, name, 1200)
            # Each host counts by itself.
            assert sorted(item.host for item in await read(sampled, 2) if isinstance(item, HostEvent)) == ["a", "b"]
            # Lives of others do not come.
            await asyncio.to_thread(peers.leave, other)
            await asyncio.to_thread(peers.leave, wanted)
            [closed] = await read(feed, 1)
            assert isinstance(closed, HostEvent)
            assert (closed.host, closed.topic, closed.fields["peer"]) == ("a", "session.closed", name)
            assert (feed.received, feed.missed, sampled.missed) == (2, 0, 0)
        await spy.flush()
        await spy.close()
        assert not [line for line in seen if " eth " in line]
        assert sum(int(line.rpartition(" ")[2]) for line in seen) == 3

    with Nats() as nats, fleet(nats, "a", "b") as engines, crowd() as peers:
        made = [peers.connect(engine) for engine in engines]
        for engine in engines:
            sessions_at(engine, 1)
        asyncio.run(use(nats, peers, *made))


def test_a_filtered_feed_goes_on_at_a_worker_that_takes_the_place_of_another() -> None:
    async def use(nats: Nats, peers: Crowd, engine: RunningEngine) -> None:
        async with connect(nats.url, cluster="test") as found, found.feed(TOPIC, min_size=1, snapshot=False) as feed:
            await asyncio.to_thread(peers.send, peers.peers[0], TRANSACTIONS, payload(500))
            assert sizes(await read(feed, 1)) == [500]
            engine.workers()[0].kill()
            await asyncio.to_thread(sessions_at, engine, 0)
            second = await asyncio.to_thread(peers.connect, engine)
            await asyncio.to_thread(sessions_at, engine, 1)
            # What it sends before the feed is open there is no event.
            await until_event(feed, peers, second, payload(501))
            assert feed.missed == 0

    with Nats() as nats, fleet(nats, "a") as [engine], crowd() as peers:
        peers.connect(engine)
        sessions_at(engine, 1)
        asyncio.run(use(nats, peers, engine))


# nats-py does not close a connection that it gives up because the server says nothing.
@pytest.mark.filterwarnings("ignore:.*StreamWriter:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_program_that_was_cut_off_for_long_learns_that_nobody_has_counted() -> None:
    async def use(proxy: Proxy, peers: Crowd, engine: RunningEngine) -> None:
        peer = peers.peers[0]
        async with (
            connect(proxy.url, cluster="test") as found,
            found.feed(TOPIC) as feed,
            found.feed(TOPIC, min_size=1, snapshot=False) as filtered,
        ):
            assert isinstance((await read(feed, 1))[0], HostSnapshot)
            await until_event(feed, peers, peer, payload(500))
            await read(filtered, 1)
            await asyncio.to_thread(eventually, lambda: is_listened_to(engine), "the status says that somebody listens")
            proxy.cut()
            await asyncio.to_thread(eventually, lambda: not is_listened_to(engine), "the host publishes no more")
            # Both feeds have asked for the last time within this time of each other.
            await asyncio.sleep(2 * REFRESH_SECONDS)
            await asyncio.to_thread(peers.send, peer, TRANSACTIONS, payload(600))
            proxy.heal()
            for one in (feed, filtered):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not isinstance(item := await anext(one), HostLost):
                        pass
                assert item.host == "a"
                assert "published nothing meanwhile" in item.cause
            assert isinstance((await read(feed, 1))[0], HostSnapshot)
            await until_event(feed, peers, peer, payload(700))

    def is_listened_to(engine: RunningEngine) -> bool:
        feeds = engine.call("status")["workers"][0]["feeds"]
        return feeds is not None and feeds["open"] > 0

    with Nats() as nats, Proxy(nats.ports[0]) as proxy, fleet(nats, "a") as [engine], crowd() as peers:
        peers.connect(engine)
        sessions_at(engine, 1)
        asyncio.run(use(proxy, peers, engine))


def test_what_hosts_refuse_is_raised_and_a_filter_too_many_is() -> None:
    async def use(nats: Nats) -> None:
        async with connect(nats.url, cluster="test") as found:
            with pytest.raises(RefusedError, match="lossless"):
                found.feed("eth.", lossless=True)  # type: ignore[call-arg]  # a program without types
            for number in range(MAX_CHOICES):
                feed = found.feed("eth.", min_size=number + 1, snapshot=False)
                await feed.__aenter__()
            with pytest.raises(InvalidParamsError, match=f"host a: listeners have {MAX_CHOICES} other filters already"):
                await found.feed("eth.", min_size=99, snapshot=False).__aenter__()
            # One that is there already costs nothing.
            await found.feed("eth.", min_size=1, snapshot=False).__aenter__()

    with Nats() as nats, fleet(nats, "a"):
        asyncio.run(use(nats))


def test_a_wish_that_is_over_before_it_is_fulfilled_leaves_nothing_behind() -> None:
    async def wish(nats: Nats) -> None:
        client = await nats_client.connect(nats.url)
        for number in range(MAX_CHOICES):
            short = {"topics": ["eth."], "where": {"min_size": number + 1}, "seconds": 0.001}
            await client.publish("rlpx.test.listen", json.dumps(short).encode())
            await asyncio.sleep(0.05)
        answer = await client.request("rlpx.test.a.listen", json.dumps({"topics": ["session."]}).encode(), timeout=20)
        assert json.loads(answer.data)["error"] == "session. is in the fleet's stream, or is no traffic"
        await client.close()

    def feeds(engine: RunningEngine) -> int:
        return sum((worker["feeds"] or {"open": 0})["open"] for worker in engine.call("status")["workers"])

    with Nats() as nats, fleet(nats, "a", workers=2) as [engine]:
        asyncio.run(wish(nats))
        # Workers say once a second what is open.
        sleep(3.0)
        eventually(lambda: feeds(engine) == 0, "no feed is open")
