"""A feed of a fleet while servers end, hosts are started again or stopped, and programs do not read: counts are exact."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any, Final

import pytest

from rlpx.engine.client import (
    Fleet,
    FleetFeed,
    FleetItem,
    HostEvent,
    HostGap,
    HostLost,
    HostSnapshot,
    Malformed,
    connect,
)
from tests.system.cluster_fleet import Crowd, Nats, crowd, fleet, member
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.test_cluster_traffic import TOPIC, TRANSACTIONS, payload, sessions_at, until_event

PATIENCE_SECONDS: Final = 90.0
BOTH: Final = pytest.mark.parametrize("options", [{}, {"min_size": 1}], ids=["all", "filtered"])


class Account:
    """What a program has got of one host's messages: events and gaps, each number once and in order."""

    def __init__(self) -> None:
        self.next: int | None = None
        self.received = self.missed = 0
        self.losses: list[str] = []

    def take(self, item: FleetItem) -> None:
        """One item. Raises `AssertionError` if its numbers do not follow."""
        assert not isinstance(item, Malformed), item
        if isinstance(item, HostLost):
            self.losses.append(item.cause)
        elif isinstance(item, HostGap):
            assert self.next in (None, item.first)
            self.next = item.first + item.missed
            self.missed += item.missed
        elif isinstance(item, HostEvent):
            assert self.next in (None, item.ordinal)
            self.next = item.ordinal + 1
            self.received += 1

    @property
    def known(self) -> int:
        """The messages that the program knows of."""
        return self.received + self.missed


async def read_until(feed: FleetFeed, account: Account, count: int) -> None:
    """Read until the program knows of so many messages."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while account.known < count:
            account.take(await anext(feed))


@BOTH
def test_over_the_ends_of_servers_received_and_missed_are_all_that_was_sent(options: Any) -> None:
    rounds, burst = 3, 40

    async def use(nats: Nats, peers: Crowd, peer: Peer) -> None:
        account = Account()
        async with connect(nats.url, cluster="test") as found, found.feed(TOPIC, snapshot=False, **options) as feed:
            await until_event(feed, peers, peer, payload(500))
            # It may have sent more than one until the first came.
            sent = 0
            while True:
                try:
                    async with asyncio.timeout(2.0):
                        account.take(await anext(feed))
                except TimeoutError:
                    break
            begun = account.known
            for number in range(rounds):
                for _ in range(burst):
                    await asyncio.to_thread(peers.send, peer, TRANSACTIONS, payload(600))
                    sent += 1
                    if sent % burst == burst // 2:
                        nats.kill(number)
                nats.start(number)
                await read_until(feed, account, begun + sent)
            assert account.known == begun + sent
            assert account.received > begun
            assert feed.missed == account.missed
            assert account.losses == []

    with Nats(3) as nats, fleet(nats, "a") as [engine], crowd() as peers:
        peer = peers.connect(engine)
        sessions_at(engine, 1)
        asyncio.run(use(nats, peers, peer))


@BOTH
def test_a_program_that_does_not_read_keeps_what_it_has_credit_for_and_knows_the_rest_by_number(options: Any) -> None:
    size, count, credit = 20_000, 1000, 1024 * 1024

    async def use(nats: Nats, peers: Crowd, peer: Peer) -> None:
        account = Account()
        async with (
            connect(nats.url, cluster="test") as found,
            found.feed(TOPIC, snapshot=False, credit=credit, **options) as feed,
        ):
            await until_event(feed, peers, peer, payload(500))
            for _ in range(count):
                await asyncio.to_thread(peers.send, peer, TRANSACTIONS, payload(size))
            # Nothing is read meanwhile, for longer than hosts need to be asked again.
            await asyncio.sleep(8.0)
            await read_until(feed, account, count)
            assert account.known >= count
            assert 0 < account.received * size <= credit + 2 * size
            # Then it reads as if nothing had happened.
            before = account.received
            await asyncio.to_thread(peers.send, peer, TRANSACTIONS, payload(700))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while account.received == before:
                    account.take(await anext(feed))

    with Nats() as nats, fleet(nats, "a") as [engine], crowd() as peers:
        peer = peers.connect(engine)
        sessions_at(engine, 1)
        asyncio.run(use(nats, peers, peer))


async def next_of(feed: FleetFeed, kind: type, host: str) -> Any:
    """The next item of this kind and host."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for item in feed:
            if isinstance(item, kind) and getattr(item, "host", "") == host:
                return item
    raise AssertionError("the feed has ended")


def test_a_host_that_is_started_again_under_its_name_has_a_snapshot_and_its_messages_come() -> None:
    async def use(found: Fleet, nats: Nats, first: RunningEngine, peers: Crowd) -> None:
        async with found.feed("session.established", TOPIC) as feed, found.feed(TOPIC, snapshot=False) as traffic:
            snapshot = await next_of(feed, HostSnapshot, "a")
            assert await asyncio.to_thread(first.stop) == 0
            second = await asyncio.to_thread(lambda: member(nats, "a").__enter__())
            with second:
                again = await next_of(feed, HostSnapshot, "a")
                assert again.run != snapshot.run
                peer = await asyncio.to_thread(peers.connect, second)
                event = await next_of(feed, HostEvent, "a")
                assert (event.topic, event.run) == ("session.established", again.run)
                assert "started again" in (await next_of(traffic, HostLost, "a")).cause
                await until_event(traffic, peers, peer, payload(500))
                sent = await next_of(feed, HostEvent, "a")
                assert (sent.topic, sent.run) == (TOPIC, again.run)

    async def run(nats: Nats, engine: RunningEngine, peers: Crowd) -> None:
        async with connect(nats.url, cluster="test") as found:
            await use(found, nats, engine, peers)

    with Nats() as nats, member(nats, "a") as engine, crowd() as peers:
        asyncio.run(run(nats, engine, peers))


def test_a_host_that_was_stopped_is_lost_and_has_a_snapshot_when_it_is_back() -> None:
    async def use(nats: Nats, engine: RunningEngine) -> None:
        async with connect(nats.url, cluster="test") as found, found.feed("session.", TOPIC) as feed:
            await next_of(feed, HostSnapshot, "a")
            os.kill(engine.process.pid, signal.SIGSTOP)
            try:
                assert "no heartbeat for 15 s" in (await next_of(feed, HostLost, "a")).cause
            finally:
                os.kill(engine.process.pid, signal.SIGCONT)
            assert (await next_of(feed, HostSnapshot, "a")).sessions == ()

    with Nats() as nats, member(nats, "a") as engine:
        asyncio.run(use(nats, engine))


def test_a_blocking_reader_waits_while_no_server_is_there_and_reads_on() -> None:
    with Nats() as nats, fleet(nats, "a") as [engine], crowd() as peers:
        peer = peers.connect(engine)
        sessions_at(engine, 1)
        with connect(nats.url, cluster="test") as found, found.feed("session.closed", snapshot=False) as feed:
            nats.kill_all()
            peers.leave(peer)
            eventually(lambda: engine.counts()[2] == 0, "the session has ended")
            assert feed.read(timeout=3.0) == []
            nats.start_all()
            [closed] = feed.read(timeout=PATIENCE_SECONDS)
            assert isinstance(closed, HostEvent)
            assert closed.fields["peer"] == peer.node_id.hex()
