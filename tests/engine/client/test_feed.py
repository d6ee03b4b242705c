"""One feed joins all workers, grants credit as it is read, and counts what is missing, whatever workers do."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import orjson
import pytest
import zmq

from rlpx.engine.client import EngineUnavailableError, InvalidParamsError, RefusedError, UnknownTopicWarning, connect
from rlpx.engine.client.batch_reader import Event, Gap
from rlpx.engine.client.connection import Engine
from rlpx.engine.client.feed import Feed
from rlpx.engine.client.feed_items import Lost, Snapshot
from tests.engine.client.fake_workers import FakeEngine, FakeWorker, fake_engine, shown_session
from tests.engine.fake_worker import until

TRANSACTIONS = "eth.Transactions"


def batch(number: int, first: int, *payloads: bytes, dropped: int = 0) -> tuple[dict[str, Any], bytes]:
    events = [{"topic": TRANSACTIONS, "session": 1, "size": len(payload)} for payload in payloads]
    return {"feed": number, "first": first, "dropped": dropped, "events": events}, b"".join(payloads)


async def confirm(worker: FakeWorker, run: str = "r1", *sessions: int) -> int:
    """Take the opening of a feed, and confirm it; returns its number."""
    head, _ = await worker.take()
    shown = [shown_session(session, worker=worker.index) for session in sessions]
    await worker.send({"feed": head["feed"], "run": run, "worker": worker.index, "sessions": shown})
    number: int = head["feed"]
    return number


async def send(worker: FakeWorker, number: int, first: int, *payloads: bytes) -> int:
    """Send a batch; returns what it costs."""
    head, body = batch(number, first, *payloads)
    await worker.send(head, body)
    return len(orjson.dumps(head)) + len(body)


async def items(feed: Feed, count: int) -> list[Any]:
    async with asyncio.timeout(60):
        return [await anext(feed) for _ in range(count)]


async def test_a_feed_says_what_it_wants_and_begins_with_the_sessions_of_each_worker(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        feed = engine.feed("session.", TRANSACTIONS, session=7, client="Geth", types=[3], sample=10, credit=1000)
        reading = asyncio.create_task(items(feed, 2))
        head, _ = await fake.workers[0].take()
        number = head.pop("feed")
        assert head == {
            "topics": ["session.", TRANSACTIONS],
            "where": {"session": [7], "client": "Geth", "types": [3], "sample": 10},
            "credit": 1000,
            "lossless": False,
            "snapshot": True,
        }
        await fake.workers[0].send({"feed": number, "run": "r1", "worker": 0, "sessions": [shown_session(7)]})
        assert await confirm(fake.workers[1]) != number
        first, second = await reading
        assert isinstance(first, Snapshot)
        assert (first.run, first.worker, [shown.session for shown in first.sessions]) == ("r1", 0, [7])
        assert second == Snapshot("r1", 1, ())


async def test_entering_waits_for_every_worker_and_leaving_closes(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        entering = asyncio.create_task(feed.__aenter__())
        numbers = [await confirm(fake.workers[0])]
        await asyncio.sleep(0.05)
        assert not entering.done()
        numbers.append(await confirm(fake.workers[1]))
        await entering
        await feed.__aexit__(None, None, None)
        for index, number in enumerate(numbers):
            assert await fake.workers[index].take() == ({"feed": number, "close": True}, [])
        assert [item async for item in feed] == []
        with pytest.raises(EngineUnavailableError, match="closed"):
            await feed.read()


async def test_events_have_their_payloads_and_their_place(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        reading = asyncio.create_task(items(feed, 4))
        number = await confirm(fake.workers[0])
        await send(fake.workers[0], number, 0, b"one", b"")
        await send(fake.workers[0], number, 2, b"three")
        _, *events = await reading
        fields = {"session": 1, "size": 3}
        assert events[0] == Event(TRANSACTIONS, 0, fields, b"one", "r1", 0)
        assert [(event.payload, event.ordinal) for event in events] == [(b"one", 0), (b"", 1), (b"three", 2)]
        assert (feed.received, feed.missed) == (3, 0)


async def test_credit_is_granted_only_as_items_are_read(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        worker = fake.workers[0]
        feed = engine.feed("eth.", credit=1000)
        reading = asyncio.create_task(items(feed, 1))
        number = await confirm(worker)
        await reading
        cost = [await send(worker, number, index, bytes(600)) for index in range(3)]
        assert await worker.has_nothing()
        # The first batch is read, and paid for when the next is asked for.
        await items(feed, 1)
        assert await worker.has_nothing()
        await items(feed, 1)
        assert await worker.take() == ({"feed": number, "credit": cost[0]}, [])
        # One message over the whole credit is granted in full, too.
        await items(feed, 1)
        cost.append(await send(worker, number, 3, bytes(5000)))
        await items(feed, 1)
        asking = asyncio.create_task(items(feed, 1))
        granted = [(await worker.take())[0]["credit"] for _ in range(3)]
        assert granted == cost[1:]
        asking.cancel()


async def test_small_batches_are_granted_together(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        worker = fake.workers[0]
        feed = engine.feed("eth.", credit=100_000)
        reading = asyncio.create_task(items(feed, 1001))
        number = await confirm(worker)
        cost = sum([await send(worker, number, index, b"x") for index in range(1000)])
        await reading
        granted = 0
        while not await worker.has_nothing(0.05):
            granted += (await worker.take())[0]["credit"]
        assert cost - 50_000 < granted <= cost


async def test_what_is_missing_is_counted_and_received_and_missed_are_what_was_sent(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        reading = asyncio.create_task(items(feed, 2 + 6))
        numbers = [await confirm(fake.workers[index]) for index in (0, 1)]
        await send(fake.workers[0], numbers[0], 5, b"a")
        await send(fake.workers[0], numbers[0], 6, b"b")
        await send(fake.workers[0], numbers[0], 10)  # nothing but news of a loss
        await send(fake.workers[1], numbers[1], 2, b"c")
        found = [item for item in await reading if not isinstance(item, Snapshot)]
        of_first = [item for item in found if item.worker == 0]
        assert of_first[0] == Gap("", 0, 5, 0)
        assert [event.payload for event in of_first[1:3]] == [b"a", b"b"]
        assert of_first[3] == Gap("", 0, 3, 7)
        assert next(item for item in found if item.worker == 1) == Gap("", 1, 2, 0)
        assert (feed.received, feed.missed) == (3, 10)


async def test_a_worker_that_is_replaced_is_said_to_be_lost_and_joins_again(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        reading = asyncio.create_task(items(feed, 2 + 2))
        numbers = [await confirm(fake.workers[0], "r1", 7), await confirm(fake.workers[1])]
        await send(fake.workers[0], numbers[0], 0, b"last words")
        await asyncio.sleep(0.05)
        fake.workers.pop(0).die()
        _, last, lost = [item for item in await reading if item.worker == 0]
        assert last.payload == b"last words"
        assert (lost.worker, lost.run) == (0, "r1")
        reading = asyncio.create_task(items(feed, 3))
        worker = fake.start_worker(0)
        again = await confirm(worker, "r1", 8)
        assert again not in numbers
        # Its ordinals begin anew, and what is late from before concerns nobody.
        await send(worker, again, 3, b"new")
        snapshot, gap, event = await reading
        assert [shown.session for shown in snapshot.sessions] == [8]
        assert gap == Gap("", 0, 3, 0)
        assert event.payload == b"new"
        assert (feed.received, feed.missed) == (2, 3)


async def test_an_engine_that_starts_again_is_joined_again(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        reading = asyncio.create_task(items(feed, 3))
        await confirm(fake.workers[0], "r1")
        await asyncio.sleep(0.05)
        await fake.stop()
        await asyncio.sleep(0.2)
        fake.start(0)
        await confirm(fake.workers[0], "r2")
        first, lost, second = await reading
        assert (first, second) == (Snapshot("r1", 0, ()), Snapshot("r2", 0, ()))
        assert isinstance(lost, Lost)


async def test_a_worker_that_is_added_joins_too(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        reading = asyncio.create_task(items(feed, 2))
        await confirm(fake.workers[0])
        fake.start_worker(5)
        await confirm(fake.workers[5])
        assert [item.worker for item in await reading] == [0, 5]


async def test_a_feed_that_a_worker_ends_says_what_was_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        reading = asyncio.create_task(items(feed, 3))
        number = await confirm(fake.workers[0])
        await fake.workers[0].send({"feed": number, "closed": "it ends", "first": 4, "dropped": 4})
        _, gap, lost = await reading
        assert (gap, lost) == (Gap("", 0, 4, 0), Lost("r1", 0, "it ends"))
        assert feed.missed == 4
        # It is not asked again at once, as it may be about to end; then that is no second loss.
        assert await fake.workers[0].has_nothing()
        fake.workers.pop(0).die()
        reading = asyncio.create_task(items(feed, 1))
        again = await confirm(fake.start_worker(0))
        assert isinstance((await reading)[0], Snapshot)
        # If it stays, it is.
        monkeypatch.setattr("rlpx.engine.client.feed.REOPEN_SECONDS", 0.1)
        reading = asyncio.create_task(items(feed, 2))
        await fake.workers[0].send({"feed": again, "closed": "no room", "first": 0, "dropped": 0})
        await confirm(fake.workers[0])
        assert [type(item) for item in await reading] == [Lost, Snapshot]


@pytest.mark.parametrize(("name", "kind"), [("invalid_params", InvalidParamsError), ("refused", RefusedError)])
async def test_a_feed_that_is_refused_raises_that(tmp_path: Path, name: str, kind: type[Exception]) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.", sample=9)
        entering = asyncio.create_task(feed.__aenter__())
        head, _ = await fake.workers[0].take()
        await fake.workers[0].send({"feed": head["feed"], "error": {"name": name, "message": "sample: no"}})
        with pytest.raises(kind, match="sample: no"):
            await entering


async def test_a_feed_that_one_worker_refuses_is_ended_at_the_others(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        reading = asyncio.create_task(items(feed, 1))
        number = await confirm(fake.workers[1])
        await reading
        head, _ = await fake.workers[0].take()
        await fake.workers[0].send({"feed": head["feed"], "error": {"name": "refused", "message": "too many"}})
        assert await fake.workers[1].take() == ({"feed": number, "close": True}, [])
        with pytest.raises(RefusedError, match="too many"):
            await feed.read()
        assert await fake.workers[0].has_nothing()


async def test_where_there_is_no_engine_for_long_reading_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.engine.client.connection.PATIENCE_SECONDS", 0.2)
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        reading = asyncio.create_task(items(feed, 3))
        await confirm(fake.workers[0])
        await asyncio.sleep(0.05)
        await fake.stop()
        with pytest.raises(EngineUnavailableError, match=r"no engine at .* for 0\.2 s"):
            await reading


async def test_a_feed_that_is_dropped_is_closed(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        await read_one(engine, fake)
        gc.collect()
        head, _ = await fake.workers[0].take()
        assert head["close"]


async def read_one(engine: Engine, fake: FakeEngine) -> None:
    task = asyncio.create_task(confirm(fake.workers[0]))
    async for _ in engine.feed("eth."):
        break
    await task


async def test_a_reader_that_waits_when_the_program_leaves_is_told(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake:
        async with connect(tmp_path) as engine:
            reading = asyncio.create_task(items(engine.feed("eth."), 2))
            await confirm(fake.workers[0])
        with pytest.raises(EngineUnavailableError, match="was closed"):
            await reading


async def test_leaving_ends_a_feed_that_also_has_the_engines_own_events(tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as events:
        events.bind(f"ipc://{tmp_path}/events.ipc")
        async with asyncio.timeout(60), fake_engine(tmp_path, 0) as fake:
            async with connect(tmp_path) as engine:
                feed = engine.feed("session.")
                reading = asyncio.create_task(items(feed, 1))
                await confirm(fake.workers[0])
                await reading
                await until(lambda: events.poll(0) != 0)
            with pytest.raises(EngineUnavailableError, match="was closed"):
                await feed.read()
            later = engine.feed("session.")
            with pytest.raises(EngineUnavailableError, match="was closed"):
                await later.read()


async def test_what_several_tasks_read_is_granted_whoever_reads_last(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.", credit=100)
        reading = [asyncio.create_task(feed.read()) for _ in range(3)]
        number = await confirm(fake.workers[0])
        cost = [await send(fake.workers[0], number, index, bytes(100)) for index in range(2)]
        await asyncio.gather(*reading)
        assert await fake.workers[0].take() == ({"feed": number, "credit": cost[0]}, [])
        again = asyncio.create_task(feed.read())
        assert await fake.workers[0].take() == ({"feed": number, "credit": cost[1]}, [])
        again.cancel()


async def test_workers_that_end_again_and_again_cost_a_program_that_does_not_read_one_credit(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        feed = engine.feed("eth.")
        reading = asyncio.create_task(items(feed, 1))
        number = await confirm(fake.workers[0])
        await reading
        await send(fake.workers[0], number, 0, b"one")
        for _ in range(2):
            fake.workers.pop(0).die()
            fake.start_worker(0)
            # A connection that carries another feed shows that the worker has been joined.
            other = engine.feed("snap.")
            joining = asyncio.create_task(items(other, 1))
            assert (await fake.workers[0].take())[0]["topics"] == ["snap."]
            assert await fake.workers[0].has_nothing()
            joining.cancel()
            other.close()
        first, second = await items(feed, 2)
        assert (first.payload, type(second)) == (b"one", Lost)
        reading = asyncio.create_task(items(feed, 1))
        while (await fake.workers[0].take())[0].get("topics") != ["eth."]:
            pass
        reading.cancel()


async def test_two_feeds_are_on_one_connection(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        feeds = [engine.feed("eth."), engine.feed("snap.")]
        reading = [asyncio.create_task(items(feed, 2)) for feed in feeds]
        numbers = [await confirm(fake.workers[0]) for _ in feeds]
        program = fake.workers[0].program
        await send(fake.workers[0], numbers[1], 0, b"second")
        await send(fake.workers[0], numbers[0], 0, b"first")
        found = await asyncio.gather(*reading)
        assert [read[1].payload for read in found] == [b"first", b"second"]
        assert fake.workers[0].program == program


async def test_a_topic_that_there_is_not_is_a_warning_and_a_list_of_letters_an_error(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0), connect(tmp_path) as engine:
        with pytest.warns(UnknownTopicWarning, match=r"eth\.Transactions"):
            engine.feed("eth.Transaction.")
        with pytest.raises(TypeError, match="topics"):
            engine.feed(b"eth.")  # type: ignore[arg-type]  # what a program may do
