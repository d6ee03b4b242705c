"""Programs connect to an engine of a few lines, with and without `async`, and never wait for nothing."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from rlpx.engine.client import (
    EndpointError,
    EngineError,
    EngineForbiddenError,
    EngineSilentError,
    EngineUnavailableError,
    InvalidParamsError,
    NoSuchSessionError,
    TimedOutError,
    connect,
)
from rlpx.engine.client.connection import Engine
from rlpx.protocol.bus.results import CountsResult, DoneResult
from rlpx.protocol.mistakes import ConfigError
from tests.engine.answering import answering, result
from tests.engine.client.fake_workers import fake_engine

COUNTS = {
    "unauthenticated": {"inbound": 1},
    "pending": {"inbound": 2, "outbound": 3},
    "active": {"inbound": 4, "outbound": 5},
    "limits": {
        "max_unauthenticated": 6,
        "max_pending_inbound": 7,
        "max_pending_outbound": 8,
        "max_active_inbound": 9,
        "max_active_outbound": 10,
    },
}


def counting(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
    return [result(request, COUNTS)]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("not within five seconds")


def failing(name: str, code: int = -32000) -> Any:
    def answer(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        error = {"code": code, "message": f"it is {name}", "data": {"name": name}}
        return [orjson.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error})]

    return answer


@pytest.mark.loop("asyncio")
async def test_a_command_gives_its_struct_on_asyncio(tmp_path: Path) -> None:
    with answering(tmp_path, counting):
        async with connect(tmp_path) as engine:
            counts = await engine.counts()
            assert isinstance(counts, CountsResult)
            assert counts.active.outbound == 5


async def test_many_calls_are_in_flight_at_once_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    held: list[dict[str, Any]] = []

    def in_reverse(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        held.append(request)
        if len(held) < 50:
            return []
        return [result(one, {"sessions": one["params"]["session"]}) for one in reversed(held)]

    with answering(tmp_path, in_reverse):
        async with connect(tmp_path) as engine:
            done = await asyncio.gather(*(engine.disconnect(number) for number in range(50)))
    assert done == [DoneResult(number) for number in range(50)]


async def test_more_calls_than_the_engine_takes_wait_here(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        return [result(request, {"sessions": request["params"]["session"]})]

    with answering(tmp_path, answer):
        async with connect(tmp_path) as engine:
            done = await asyncio.gather(*(engine.disconnect(number) for number in range(500)))
    assert [one.sessions for one in done] == list(range(500))


async def test_parameters_without_a_value_are_left_out_and_a_payload_is_a_frame(tmp_path: Path) -> None:
    seen: list[tuple[dict[str, Any], list[bytes]]] = []

    def answer(request: dict[str, Any], attachments: list[bytes]) -> list[bytes]:
        seen.append((request, attachments))
        return [result(request, {"sent": 1, "refused": {"3": "queue_full"}})]

    with answering(tmp_path, answer):
        async with connect(tmp_path) as engine:
            answered = await engine.broadcast("eth", "Transactions", b"\xc0", client="Geth")
    assert answered.refused == {"3": "queue_full"}
    request, attachments = seen[0]
    assert request["params"] == {
        "client": "Geth",
        "capability": "eth",
        "message": "Transactions",
        "raw": False,
        "except": [],
    }
    assert (request["method"], attachments) == ("broadcast", [b"\xc0"])


@pytest.mark.parametrize(
    ("name", "kind"), [("no_such_session", NoSuchSessionError), ("timed_out", TimedOutError), ("internal", EngineError)]
)
async def test_an_error_is_raised_as_its_class(tmp_path: Path, name: str, kind: type[EngineError]) -> None:
    with answering(tmp_path, failing(name)):
        async with connect(tmp_path) as engine:
            with pytest.raises(kind, match=f"it is {name}") as caught:
                await engine.session(9)
    assert (type(caught.value), caught.value.name) == (kind, name)


async def test_an_answer_of_another_form_is_an_error_of_the_engine(tmp_path: Path) -> None:
    with answering(tmp_path, lambda request, _: [result(request, {"sessions": "many"})]):
        async with connect(tmp_path) as engine:
            with pytest.raises(EngineError, match="not understood") as caught:
                await engine.disconnect(1)
    assert caught.value.name == "not_understood"


async def test_an_error_without_an_id_ends_every_call(tmp_path: Path) -> None:
    error = {"code": -32603, "message": "a fault of the engine", "data": {"name": "internal"}}
    fault = orjson.dumps({"jsonrpc": "2.0", "id": None, "error": error})
    with answering(tmp_path, lambda request, _: [fault] if request["id"] == 2 else []):
        async with connect(tmp_path) as engine:
            answers = await asyncio.gather(engine.counts(), engine.counts(), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["a fault of the engine"] * 2


async def test_a_call_without_an_answer_ends_in_time_and_is_cancelled_in_the_engine(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def silent(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        seen.append(request)
        return [result(request, COUNTS)] if request["method"] == "counts" else []

    with answering(tmp_path, silent):
        async with connect(tmp_path) as engine:
            with pytest.raises(EngineSilentError, match=r"no answer from ipc://.* within 0\.05 s"):
                await engine.dial("enode://", wait=True, timeout=0.05)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await engine.status()
            task = asyncio.create_task(engine.status())
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await engine.counts()
    cancelled = [request["params"]["id"] for request in seen if request["method"] == "cancel"]
    assert cancelled == [1, 2, 3]
    assert all("id" not in request for request in seen if request["method"] == "cancel")


async def test_leaving_cancels_what_is_under_way(tmp_path: Path) -> None:
    seen: list[str] = []

    def silent(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        seen.append(request["method"])
        return []

    with answering(tmp_path, silent):
        async with connect(tmp_path) as engine:
            task = asyncio.create_task(engine.status())
            await until(lambda: bool(seen))
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await until(lambda: "cancel" in seen)
        with pytest.raises(EngineUnavailableError, match="was closed"):
            await engine.counts()


async def test_calls_fail_when_the_engine_goes_and_work_when_it_is_back(tmp_path: Path) -> None:
    reached = threading.Event()

    def silent(*_: object) -> list[bytes]:
        reached.set()
        return []

    with answering(tmp_path, silent):
        context = connect(tmp_path)
        engine = await context.__aenter__()
        task = asyncio.create_task(engine.status())
        await asyncio.to_thread(reached.wait)
    with pytest.raises(EngineUnavailableError, match="has ended the connection"):
        await task
    with pytest.raises(EngineUnavailableError, match="no engine at ipc://"):
        await engine.counts()
    with answering(tmp_path, counting):
        assert (await engine.counts()).active.inbound == 4
        await context.__aexit__(None, None, None)


async def test_where_there_is_no_engine_entering_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    for place in (tmp_path, endpoint, f"ipc://{tmp_path}/control.ipc"):
        with pytest.raises(EngineUnavailableError, match="no engine at"):
            async with connect(place):
                pass
        with pytest.raises(EngineUnavailableError, match="no engine at"), connect(place):
            pass


async def test_another_users_engine_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(endpoint: str) -> None:
        raise EngineForbiddenError(f"{endpoint}: it belongs to another")

    monkeypatch.setattr("rlpx.engine.client.wire.check_there", forbidden)
    with pytest.raises(EngineForbiddenError):
        async with connect(tmp_path):
            pass


async def test_a_place_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.engine.client.wire.OPEN_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "control.ipc"))
        server.listen()
        with pytest.raises(EngineUnavailableError, match=r"did not accept the connection within|no engine at"):
            async with connect(tmp_path):
                pass


@pytest.mark.parametrize("endpoint", ["nonsense://", "tcp://", "tcp://127.0.0.1", "foo://x"])
async def test_a_text_that_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(EndpointError):
        async with connect(endpoint):
            pass


async def test_a_key_file_that_is_not_there_is_a_mistake_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        async with connect("tcp://127.0.0.1:1", key=tmp_path / "no.secret"):
            pass


def test_the_same_names_without_async(tmp_path: Path) -> None:
    with answering(tmp_path, counting), connect(tmp_path) as engine:
        assert engine.counts().pending.outbound == 3
        assert engine.set_limits(max_active_inbound=3).limits.max_active_inbound == 9


def test_threads_share_a_blocking_engine(tmp_path: Path) -> None:
    counted: list[int] = []

    def answer(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        return [result(request, {"sessions": request["params"]["session"]})]

    with answering(tmp_path, answer), connect(tmp_path) as engine:
        threads = [
            threading.Thread(
                target=lambda first=first: counted.extend(engine.disconnect(first + n).sessions for n in range(50))
            )
            for first in range(0, 400, 50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(counted) == list(range(400))


def test_an_interrupt_ends_a_blocking_call_and_cancels_it(tmp_path: Path) -> None:
    seen: list[str] = []

    def silent(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        seen.append(request["method"])
        if request["method"] == "status":
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return []

    with answering(tmp_path, silent):
        with pytest.raises(KeyboardInterrupt), connect(tmp_path) as engine:
            engine.status()
        for _ in range(1000):
            if "cancel" in seen:
                break
            threading.Event().wait(0.01)
    assert seen == ["status", "cancel"]


def test_a_blocking_call_times_out(tmp_path: Path) -> None:
    with answering(tmp_path, lambda *_: []), connect(tmp_path, timeout_seconds=0.05) as engine:
        with pytest.raises(EngineSilentError):
            engine.status()
        with pytest.raises(TimeoutError):
            engine.status(timeout=0.01)


@pytest.mark.parametrize("steps", range(6))
async def test_leaving_closes_everything_although_it_is_cancelled(tmp_path: Path, steps: int) -> None:
    async with fake_engine(tmp_path, 0):
        engine = await Engine.opened(f"ipc://{tmp_path}/control.ipc")
        await engine.links.complete()
        closing = asyncio.create_task(engine.close())
        for _ in range(steps):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        # A socket that was left open would be reported as a warning when it is collected, and stop this from ending.
        async with asyncio.timeout(60):
            await engine.close()
        del engine
        gc.collect()


async def test_what_would_end_the_connection_is_not_sent(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        with pytest.raises(InvalidParamsError, match="payload: 16777216 bytes; a message to a peer has at most 16777215"):
            await engine.send(1, "eth", 2, bytes(1 << 24))
        with pytest.raises(InvalidParamsError, match="the parameters take 3000"):
            await engine.sessions(client="x" * 300_000)
        assert fake.calls == []
