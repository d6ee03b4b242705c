"""A program beside the engine: started, started again however it ends, and ended with the engine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
import structlog.testing

from rlpx.engine.process import companion as module
from rlpx.engine.process.companion import Companion
from tests.engine.fake_worker import until

# Takes its record, says that it serves, and ends when the other end is closed.
OBEDIENT = """
import os, socket, sys
engine = socket.socket(fileno=int(sys.argv[1]))
record, descriptors, _, _ = socket.recv_fds(engine, 65536, 1)
assert record == b'["--a","b"]' and socket.socket(fileno=descriptors[0]).getsockname()[0] == "127.0.0.1"
engine.send(b"\\1")
engine.recv(1)
"""
STUBBORN = OBEDIENT.replace("engine.recv(1)", "import time; time.sleep(60)")
FAILING = "print('a fault of ours', flush=True); raise SystemExit(70)"


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, program: str) -> AsyncIterator[Companion]:
    """A companion that runs this program instead of a module."""

    def spawn(_module: str, descriptor: int, _blocked: Iterable[int], *, has_output: bool) -> subprocess.Popen[bytes]:
        assert not has_output
        return subprocess.Popen(
            [sys.executable, "-I", "-c", program, str(descriptor)],
            pass_fds=[descriptor],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    monkeypatch.setattr(module, "spawn", spawn)
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(module, "END_SECONDS", 0.3)
    companion = Companion("program", "rlpx.nothing", ["--a", "b"])
    companion.listen("127.0.0.1", 0)
    with structlog.testing.capture_logs():
        companion.start()
        try:
            yield companion
        finally:
            await companion.close()


async def test_it_serves_on_a_socket_that_stays_while_it_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, OBEDIENT) as companion:
        await until(lambda: companion.state.is_up)
        assert companion.address is not None
        first = companion.state.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: companion.state.last_end is not None)
        with socket.create_connection(("127.0.0.1", int(companion.address.rpartition(":")[2])), 1.0):
            pass
        await until(lambda: companion.state.is_up and companion.state.pid != first)
        assert (companion.state.last_end, companion.state.starts) == ("signal 9", 2)
    assert not companion.state.is_up
    assert companion.address is None


async def test_it_ends_with_the_engine_and_is_killed_if_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in (OBEDIENT, STUBBORN):
        async with running(monkeypatch, program) as companion:
            await until(lambda: companion.state.is_up)
            pid = companion.state.pid
            assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_one_that_keeps_failing_is_started_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, FAILING) as companion:
        with structlog.testing.capture_logs() as logs:
            await until(lambda: companion.state.starts >= 3)
    ends = [line for line in logs if "pause_ms" in line]
    assert [line["pause_ms"] for line in ends][:2] == [50, 100]
    assert {line["cause"] for line in ends} == {"exit code 70"}
    assert any(line.get("text") == "a fault of ours" for line in logs)


async def test_one_that_hangs_is_killed_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.3)
    async with running(monkeypatch, STUBBORN) as companion:
        await until(lambda: companion.state.starts >= 2)
        assert companion.state.last_end == "signal 9"


async def test_one_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, OBEDIENT) as companion:
        await until(lambda: companion.state.is_up)

        def fail(*_: object, **__: object) -> subprocess.Popen[bytes]:
            raise OSError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(module, "spawn", fail)
        assert companion.state.pid is not None
        os.kill(companion.state.pid, signal.SIGKILL)
        await until(lambda: companion.state.last_end == "it could not be started: Resource temporarily unavailable")
        await asyncio.sleep(0)
