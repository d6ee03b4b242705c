"""A filtered feed of the fleet is one feed at each worker of the host; what comes from it is passed on with its numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rlpx.engine.client.batch_reader import Event, Gap, Malformed
from rlpx.engine.client.relayed_reader import RelayedReader
from rlpx.engine.cluster.own_engine import OwnEngine
from rlpx.engine.cluster.relay import CREDIT_BYTES, Choice, Relay
from rlpx.protocol.bus.feeds import Where
from tests.engine.client.fake_workers import FakeEngine, fake_engine
from tests.engine.client.test_feed import confirm, send
from tests.engine.fake_worker import until

CHOICE = Choice(("eth.",), Where(client="Geth", sample=2))


class Listener:
    """What a listener reads of all that is passed on."""

    def __init__(self) -> None:
        self.reader = RelayedReader()
        self.items: list[Event | Gap | Malformed] = []
        self.messages = 0
        self.is_deaf = False

    def offer(self, head: bytes, body: bytes) -> bool:
        self.messages += 1
        if not self.is_deaf:
            self.items += self.reader.read(head + b"\n" + body)
        return not self.is_deaf

    @property
    def payloads(self) -> list[bytes]:
        return [item.payload for item in self.items if isinstance(item, Event)]


@asynccontextmanager
async def relayed(folder: Path) -> AsyncIterator[tuple[FakeEngine, Relay, Listener]]:
    async with fake_engine(folder, 0) as fake:
        engine = OwnEngine(f"ipc://{folder}/control.ipc")
        yield fake, Relay(engine), Listener()
        await engine.close()


async def opened(fake: FakeEngine, relay: Relay, listener: Listener) -> int:
    """Open the feed, and confirm it at the worker; returns its number there."""
    opening = asyncio.create_task(relay.open("key", CHOICE, listener.offer))
    number = await confirm(fake.workers[0])
    assert await opening is None
    return number


async def test_the_worker_gets_the_filter_and_its_messages_come_with_run_and_worker(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (fake, relay, listener):
        opening = asyncio.create_task(relay.open("key", CHOICE, listener.offer))
        head, _ = await fake.workers[0].take()
        number = head.pop("feed")
        assert head == {"topics": ["eth."], "where": {"client": "Geth", "sample": 2}, "credit": CREDIT_BYTES}
        await fake.workers[0].send({"feed": number, "run": "r1", "worker": 0, "sessions": []})
        assert await opening is None
        # Another listener with the same choice shares the feed.
        assert await relay.open("key", CHOICE, listener.offer) is None
        await send(fake.workers[0], number, 0, b"one", b"two\n")
        await until(lambda: len(listener.items) == 2)
        [first, second] = listener.items
        assert first == Event("eth.Transactions", 0, {"session": 1, "size": 3}, b"one", "r1", 0)
        assert isinstance(second, Event)
        assert (second.payload, second.ordinal) == (b"two\n", 1)
        assert await fake.workers[0].has_nothing()


async def test_what_was_passed_on_is_granted_again(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (fake, relay, listener):
        number = await opened(fake, relay, listener)
        cost = await send(fake.workers[0], number, 0, bytes(CREDIT_BYTES // 4))
        assert await fake.workers[0].has_nothing()
        cost += await send(fake.workers[0], number, 1, bytes(CREDIT_BYTES // 4))
        assert (await fake.workers[0].take())[0] == {"feed": number, "credit": cost}


async def test_a_quiet_feed_says_where_it_is_once_and_again_when_a_listener_asks(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (fake, relay, listener):
        number = await opened(fake, relay, listener)
        relay.tell_positions()
        relay.tell_positions()
        listener.is_deaf = True
        await send(fake.workers[0], number, 0, b"lost", b"lost")
        before = listener.messages
        await until(lambda: listener.messages == before + 1)
        listener.is_deaf = False
        # It may go on by itself: only after a while of silence is it told.
        relay.tell_positions()
        assert listener.items == []
        relay.tell_positions()
        assert listener.items == [Gap("", 0, 2, 0)]
        told = listener.messages
        relay.tell_positions()
        assert listener.messages == told
        relay.tell_positions("key")
        assert (listener.messages, len(listener.items)) == (told + 1, 1)


async def test_a_worker_that_is_replaced_begins_with_its_first_event(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (fake, relay, listener):
        number = await opened(fake, relay, listener)
        await send(fake.workers[0], number, 0, b"one")
        await until(lambda: listener.payloads == [b"one"])
        fake.workers[0].die()
        number = await confirm(fake.start_worker(0))
        await send(fake.workers[0], number, 3, b"two")
        await until(lambda: listener.payloads == [b"one", b"two"])
        assert [item for item in listener.items if isinstance(item, Gap)] == [Gap("", 0, 3, 0)]


async def test_a_feed_that_its_worker_closes_is_opened_again(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (fake, relay, listener):
        number = await opened(fake, relay, listener)
        await fake.workers[0].send({"feed": number, "closed": "too much waits", "first": 4, "dropped": 4})
        assert await confirm(fake.workers[0]) != number
        assert listener.items == [Gap("", 0, 4, 0)]


async def test_what_a_worker_refuses_is_told_and_may_be_asked_for_again(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (fake, relay, listener):
        opening = asyncio.create_task(relay.open("key", CHOICE, listener.offer))
        head, _ = await fake.workers[0].take()
        await fake.workers[0].send({"feed": head["feed"], "error": {"name": "refused", "message": "1024 feeds are open"}})
        assert await opening == "1024 feeds are open"
        assert (await fake.workers[0].take())[0] == {"feed": head["feed"], "close": True}
        await opened(fake, relay, listener)


async def test_the_last_listener_that_goes_ends_the_feed_and_the_connection(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (fake, relay, listener):
        number = await opened(fake, relay, listener)
        relay.close_feed("key")
        assert (await fake.workers[0].take())[0] == {"feed": number, "close": True}
        relay.close_feed("key")
        await opened(fake, relay, listener)
