"""The blocking face has the names of the other one, and its feeds end as theirs do."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rlpx.engine.client import (
    BlockingEngine,
    BlockingFeed,
    BlockingPeer,
    BlockingResponder,
    Engine,
    EngineUnavailableError,
    Feed,
    InvalidParamsError,
    Peer,
    Responder,
    connect,
)
from rlpx.engine.client.commands import Commands
from tests.engine.client.fake_workers import FakeEngine, fake_engine
from tests.engine.client.test_feed import batch, confirm

# What the two faces of one connection use of each other.
INNER = {"links", "responding", "open_events", "opened"}
# Attributes of a responder that its owner alone uses.
OF_OWNER = {"topics", "at_a_time", "handler", "ended", "error"}


def names(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - INNER - OF_OWNER


@pytest.mark.parametrize(
    ("kind", "blocking"),
    [(Engine, BlockingEngine), (Feed, BlockingFeed), (Peer, BlockingPeer), (Responder, BlockingResponder)],
)
def test_both_faces_have_the_same_names(kind: type, blocking: type) -> None:
    # Attributes that are set, not defined, and what a responder need not wait for without async.
    assert names(kind) - {"registered"} <= names(blocking) | {"session"}
    assert names(blocking) - names(kind) <= {"answered", "refused"}


def test_every_command_is_on_both() -> None:
    assert names(Commands) <= names(Engine) & names(BlockingEngine)


def in_thread(program: Callable[[], None]) -> asyncio.Future[None]:
    return asyncio.get_running_loop().run_in_executor(None, program)


async def serve_batches(fake: FakeEngine, *payloads: bytes) -> None:
    number = await confirm(fake.workers[0])
    for ordinal, payload in enumerate(payloads):
        head, body = batch(number, ordinal, payload)
        await fake.workers[0].send(head, body)


async def test_a_blocking_feed_is_read_item_by_item_or_message_by_message(tmp_path: Path) -> None:
    def program() -> None:
        with connect(tmp_path) as engine, engine.feed("eth.") as feed:
            snapshot, first = next(feed), next(feed)
            assert (type(snapshot).__name__, getattr(first, "payload", None)) == ("Snapshot", b"one")
            assert [getattr(item, "payload", None) for item in feed.read(timeout=5)] == [b"two"]
            assert feed.read(timeout=0.05) == []
            assert (feed.received, feed.missed) == (2, 0)
            feed.close()
            assert list(feed) == []

    async with fake_engine(tmp_path, 0) as fake:
        running = in_thread(program)
        await serve_batches(fake, b"one", b"two")
        await running


async def test_a_reader_in_another_thread_ends_when_the_feed_is_closed(tmp_path: Path) -> None:
    read: list[object] = []

    def program() -> None:
        with connect(tmp_path) as engine:
            feed = engine.feed("eth.")
            reader = threading.Thread(target=lambda: read.extend(feed))
            reader.start()
            is_read.wait(10)
            feed.close()
            reader.join(10)
            assert not reader.is_alive()

    is_read = threading.Event()
    async with fake_engine(tmp_path, 0) as fake:
        running = in_thread(program)
        await serve_batches(fake)
        await asyncio.sleep(0.1)
        is_read.set()
        await running
    assert len(read) == 1


async def test_what_a_worker_refuses_is_raised_where_it_is_read(tmp_path: Path) -> None:
    def program() -> None:
        with connect(tmp_path) as engine, pytest.raises(InvalidParamsError, match="no"):
            next(engine.feed("eth.", peer="ab"))

    async with fake_engine(tmp_path, 0) as fake:
        running = in_thread(program)
        head, _ = await fake.workers[0].take()
        await fake.workers[0].send({"feed": head["feed"], "error": {"name": "invalid_params", "message": "no"}})
        await running


async def test_after_closing_everything_says_so_and_closing_again_is_harmless(tmp_path: Path) -> None:
    def program() -> None:
        connecting = connect(tmp_path)
        with connecting as engine:
            feed, peer = engine.feed("eth."), engine.peer(1)
            engine.close()
            uses: list[Callable[[], object]] = [
                engine.status,
                lambda: engine.feed("eth."),
                lambda: engine.respond("eth.GetBlockHeaders", lambda _: None),
                lambda: engine.peer(2),
                feed.read,
                lambda: next(feed),
                peer.show,
            ]
            for use in uses:
                with pytest.raises(EngineUnavailableError, match="was closed"):
                    use()
            feed.close()

    async with fake_engine(tmp_path, 0):
        await in_thread(program)


async def test_who_waits_in_another_thread_is_told_that_the_connection_was_closed(tmp_path: Path) -> None:
    told: list[BaseException] = []

    def wait(engine: BlockingEngine) -> None:
        try:
            engine.session(1)
        except BaseException as error:  # noqa: BLE001 - whatever it is told
            told.append(error)

    def program() -> None:
        with connect(tmp_path) as engine:
            waiting = threading.Thread(target=wait, args=(engine,))
            waiting.start()
            is_called.wait(10)
        waiting.join(10)
        assert not waiting.is_alive()

    is_called = threading.Event()
    async with fake_engine(tmp_path, 0) as fake:
        fake.answer = lambda *_: is_called.set()
        await in_thread(program)
    assert [type(error) for error in told] == [EngineUnavailableError]


async def test_a_fork_of_the_process_is_told_to_connect_again(tmp_path: Path) -> None:
    def program() -> int:
        with connect(tmp_path) as engine, engine.feed("eth.") as feed:
            child = os.fork()
            if child:
                return os.waitpid(child, 0)[1]
            # The forked process has no thread of the connection's loop, and would wait for ever.
            try:
                feed.close()
                engine.status()
            except EngineUnavailableError as error:
                engine.close()
                os._exit(0 if "forked" in str(error) else 2)
            os._exit(3)

    async with fake_engine(tmp_path, 0) as fake:
        running = asyncio.get_running_loop().run_in_executor(None, program)
        await confirm(fake.workers[0])
        assert os.waitstatus_to_exitcode(await running) == 0


async def test_a_time_that_is_no_number_is_a_mistake(tmp_path: Path) -> None:
    def program() -> None:
        with connect(tmp_path) as engine:
            for use in (
                lambda: engine.status(timeout=math.nan),
                lambda: engine.feed("eth.").read(timeout=math.nan),
                lambda: engine.peer(1).show(timeout=math.nan),
            ):
                with pytest.raises(ValueError, match="timeout: expected a number of seconds, for example 5; got nan"):
                    use()

    async with fake_engine(tmp_path, 0):
        await in_thread(program)


async def test_threads_share_the_items_of_a_feed(tmp_path: Path) -> None:
    read: list[object] = []

    def program() -> None:
        with connect(tmp_path) as engine:
            feed = engine.feed("eth.")
            readers = [threading.Thread(target=lambda: read.extend(feed)) for _ in range(4)]
            for reader in readers:
                reader.start()
            is_sent.wait(10)
            while feed.received < 40:
                threading.Event().wait(0.01)
            feed.close()
            for reader in readers:
                reader.join(10)
                assert not reader.is_alive()

    is_sent = threading.Event()
    async with fake_engine(tmp_path, 0) as fake:
        running = in_thread(program)
        await serve_batches(fake, *[b"x"] * 40)
        is_sent.set()
        await running
    assert len(read) == 41


async def test_a_handler_that_never_returns_keeps_no_program_alive_and_one_that_exits_ends_only_itself(
    tmp_path: Path,
) -> None:
    source = """
import sys, threading
from rlpx.engine.client import connect
def handler(request):
    if request.request_id == 1:
        sys.exit(3)
    answering.set()
    threading.Event().wait()
answering = threading.Event()
with connect(sys.argv[1]) as engine:
    engine.respond("eth.GetBlockHeaders", handler)
    assert answering.wait(10)
    engine.status(timeout=10)
"""
    async with fake_engine(tmp_path, 0) as fake:
        program = await asyncio.create_subprocess_exec(sys.executable, "-c", source, str(tmp_path))
        await fake.workers[0].take()
        offered = {"session": 3, "peer": "ab", "topic": "eth.GetBlockHeaders", "version": 69, "deadline_ms": 1000}
        await fake.workers[0].send({"token": 1, "request_id": 1, **offered}, b"\xc1\x01")
        assert await fake.workers[0].take() == ({"token": 1}, [])
        await fake.workers[0].send({"token": 2, "request_id": 2, **offered}, b"\xc1\x02")
        async with asyncio.timeout(60):
            assert await program.wait() == 0
