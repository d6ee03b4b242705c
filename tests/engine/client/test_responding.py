"""Handlers of peers' requests: at every worker, of any kind, and one registration for all of them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from rlpx.engine.client import EngineUnavailableError, Request, UnknownTopicWarning, connect
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.messages import BlockHeaders, GetBlockHeaders, HeadersQuery, Receipts
from tests.engine.client.fake_workers import FakeWorker, fake_engine
from tests.engine.fake_worker import until

HEADERS, BODIES = "eth.GetBlockHeaders", "eth.GetBlockBodies"
QUESTION = eth_messages.encode(69, GetBlockHeaders(7, HeadersQuery(5, 3)))


async def offer(worker: FakeWorker, token: int, topic: str = HEADERS, payload: bytes = QUESTION) -> None:
    head = {"token": token, "session": 3, "peer": "ab", "topic": topic, "version": 69, "request_id": 7, "deadline_ms": 5000}
    await worker.send(head, payload)


async def test_a_handler_is_registered_everywhere_and_answers(tmp_path: Path) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> BlockHeaders:
        asked.append(request)
        return BlockHeaders(0)

    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        responder = engine.respond(HEADERS, answer, at_a_time=5)
        for worker in fake.workers.values():
            assert await worker.take() == ({"register": [HEADERS], "credit": 5}, [])
        await responder.registered()
        await offer(fake.workers[1], 99)
        assert await fake.workers[1].take() == ({"token": 99}, [eth_messages.encode(69, BlockHeaders(0))])
        assert asked == [Request(HEADERS, 3, "ab", 69, 7, QUESTION)]
        assert asked[0].decode_as(GetBlockHeaders).query.start == 5
        assert responder.answered == 1
        # A worker that replaces another learns of it, and so does one that is added.
        fake.workers.pop(0).die()
        assert (await fake.start_worker(0).take())[0]["register"] == [HEADERS]
        assert (await fake.start_worker(2).take())[0]["credit"] == 5
        responder.close()
        assert await fake.workers[1].take() == ({"register": [], "credit": 0}, [])
        await responder.wait()


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (lambda _: b"bytes", [b"bytes"]),
        (lambda _: None, []),
        (lambda request: request.decode_as(Receipts), []),  # a peer's fault: MessageError
        (lambda _: Receipts(0), [eth_messages.encode(69, eth_messages.Receipts69(0))]),
    ],
)
async def test_whatever_a_handler_returns_the_peer_has_an_answer(
    tmp_path: Path, handler: Any, expected: list[bytes]
) -> None:
    async def waiting(request: Request) -> Any:
        await asyncio.sleep(0)
        return handler(request)

    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        worker = fake.workers[0]
        for kind in (handler, waiting):
            responder = engine.respond([HEADERS], kind)
            await worker.take()
            await offer(worker, 1)
            assert await worker.take() == ({"token": 1}, expected)
            responder.close()
            await worker.take()


@pytest.mark.loop("asyncio")
async def test_a_handler_that_fails_is_reported_and_the_peer_has_the_empty_answer(tmp_path: Path) -> None:
    def broken(_: Request) -> None:
        raise RuntimeError("ours")

    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        responder = engine.respond(HEADERS, broken)
        await fake.workers[0].take()
        await offer(fake.workers[0], 1)
        assert await fake.workers[0].take() == ({"token": 1}, [])
        # A typed answer that does not fit is a fault of the program, too.
        responder.close()
        engine.respond(HEADERS, lambda _: BlockHeaders(-1))
        await fake.workers[0].take()
        await fake.workers[0].take()
        await offer(fake.workers[0], 2)
        assert await fake.workers[0].take() == ({"token": 2}, [])
        # So is one that would end the connection, as no peer could read it.
        engine.respond(BODIES, lambda _: bytes(1 << 24))
        await fake.workers[0].take()
        await offer(fake.workers[0], 3, BODIES)
        assert await fake.workers[0].take() == ({"token": 3}, [])
    failed = [f"the handler of {topic} failed" for topic in (HEADERS, HEADERS, BODIES)]
    assert [context["message"] for context in reported] == failed


async def test_handlers_run_at_once_and_share_one_registration(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def slow(_: Request) -> bytes:
        await gate.wait()
        return b"slow"

    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        worker = fake.workers[0]
        engine.respond(HEADERS, slow, at_a_time=2)
        await worker.take()
        bodies = engine.respond(BODIES, lambda _: b"quick", at_a_time=3)
        assert await worker.take() == ({"register": [HEADERS, BODIES], "credit": 5}, [])
        await offer(worker, 1)
        await offer(worker, 2)
        await offer(worker, 3, BODIES)
        assert await worker.take() == ({"token": 3}, [b"quick"])
        gate.set()
        assert [(await worker.take())[0]["token"] for _ in range(2)] == [1, 2]
        with pytest.raises(ValueError, match="has a handler in this program already"):
            engine.respond(HEADERS, slow)
        bodies.close()
        assert await worker.take() == ({"register": [HEADERS], "credit": 2}, [])
        # A request that crossed the change is answered with nothing.
        await offer(worker, 4, BODIES)
        assert await worker.take() == ({"token": 4}, [])
        await worker.send({"error": "token 1: no"})
        await until(lambda: bool(bodies.refused))
        assert list(bodies.refused) == ["token 1: no"]


async def test_a_handler_has_no_more_requests_at_a_time_than_its_own_number(tmp_path: Path) -> None:
    gate = asyncio.Event()
    running: list[Request] = []

    async def slow(request: Request) -> bytes:
        running.append(request)
        await gate.wait()
        return b"slow"

    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        worker = fake.workers[0]
        engine.respond(HEADERS, slow, at_a_time=1)
        await worker.take()
        engine.respond(BODIES, lambda _: b"quick", at_a_time=2)
        await worker.take()
        for token in (1, 2):
            await offer(worker, token)
        await offer(worker, 3, BODIES)
        assert await worker.take() == ({"token": 3}, [b"quick"])
        assert len(running) == 1
        gate.set()
        assert [(await worker.take())[0]["token"] for _ in range(2)] == [1, 2]


async def test_what_cannot_be_served_is_an_error_or_a_warning_at_once(tmp_path: Path) -> None:
    async with fake_engine(tmp_path), connect(tmp_path) as engine:
        for at_a_time in (0, -1, 1025):
            with pytest.raises(ValueError, match=r"at_a_time: expected a whole number from 1 to 1024, for example 64; got"):
                engine.respond(HEADERS, lambda _: None, at_a_time=at_a_time)
        with pytest.warns(UnknownTopicWarning, match=r"did you mean eth\.GetReceipts\?") as caught:
            engine.respond("eth.GetReceipt", lambda _: None)
        assert Path(caught[0].filename) == Path(__file__)
        with pytest.raises(TypeError, match="topics: expected a list"):
            engine.respond([b"eth."], lambda _: None)  # type: ignore[list-item]  # what a program may do


async def test_without_an_engine_a_responder_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.engine.client.connection.PATIENCE_SECONDS", 0.1)
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        responder = engine.respond(HEADERS, lambda _: None)
        await fake.workers[0].take()
        await fake.stop()
        with pytest.raises(EngineUnavailableError, match="no engine at"):
            async with asyncio.timeout(60):
                await responder.wait()


async def test_without_async_handlers_run_in_threads(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=10)

    def slow(_: Request) -> bytes:
        both.wait()
        return threading.current_thread().name.encode()

    def program() -> None:
        with connect(tmp_path) as engine:
            with pytest.warns(UnknownTopicWarning) as caught:
                engine.respond("eth.GetReceipt", lambda _: None).close()
            assert Path(caught[0].filename) == Path(__file__)
            responder = engine.respond(HEADERS, slow, at_a_time=2)
            is_up.set()
            done.wait(10)
            assert responder.answered == 2
            assert responder.refused == []
            responder.close()
            responder.wait()

    is_up, done = threading.Event(), threading.Event()
    async with fake_engine(tmp_path, 0) as fake:
        running = asyncio.create_task(asyncio.to_thread(program))
        await asyncio.to_thread(is_up.wait, 10)
        worker = fake.workers[0]
        while (await worker.take())[0] != {"register": [HEADERS], "credit": 2}:
            pass
        await offer(worker, 1)
        await offer(worker, 2)
        answers = [await worker.take() for _ in range(2)]
        assert {head["token"] for head, _ in answers} == {1, 2}
        assert len({body[0] for _, body in answers}) == 2
        done.set()
        await running
