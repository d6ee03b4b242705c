"""An engine of a few lines whose workers a test plays: the control endpoint with `status`, and data endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import orjson
import zmq
import zmq.asyncio

from rlpx.protocol.bus import results
from rlpx.protocol.lifecycle import Direction, Stage

PATIENCE_SECONDS = 60.0
_NONE = results.DirectionCounts(0, 0)


def shown_session(session: int, shared: tuple[str, ...] = ("eth/69",), worker: int = 0) -> dict[str, Any]:
    """A session object as the engine gives it."""
    shown = results.SessionObject(
        session=session,
        peer=f"{session:0128x}",
        enode=None,
        direction=Direction.INBOUND,
        phase="active",
        stage=Stage.ACTIVE,
        worker=worker,
        remote="192.0.2.1:30303",
        local=None,
        client="Geth",
        # What is announced plays no part.
        capabilities=("eth/66", "eth/72", "snap/1", "snap/2"),
        shared=shared,
        opened_us=1,
        established_us=2,
        bytes_in=0,
        bytes_out=0,
        messages_in=0,
        messages_out=0,
        rtt_ms=None,
        queued_bytes=0,
        chain=None,
    )
    found: dict[str, Any] = msgspec.to_builtins(shown)
    return found


def shown_status(workers: list[dict[str, Any]]) -> dict[str, Any]:
    """A status with these workers, and nothing else of interest."""
    counts = results.CountsResult(results.InboundCount(0), _NONE, _NONE, results.LimitCounts(*[0] * 5))
    given: dict[type, Any] = {str: "", int: 0, bool: False, float: 0.0}
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(results.StatusResult):
        if field.required:
            fields[field.name] = given.get(field.type)
    fields |= {
        "chain": {"name": "dev", "network_id": 1, "genesis": "", "fork_hash": "", "fork_next": 0},
        "head": {"number": 0, "hash": "", "earliest": 0, "time": None},
        "counts": msgspec.to_builtins(counts),
        "budgets": dict.fromkeys(results.Budgets.__struct_fields__, 0),
        "workers": workers,
        "subscribers": [],
        "endpoints": {},
    }
    return fields


def shown_worker(index: int, pid: int, *, ready: bool = True) -> dict[str, Any]:
    """A worker in a status."""
    fields = {field.name: None for field in msgspec.structs.fields(results.WorkerStatus) if field.required}
    return {**fields, "worker": index, "pid": pid, "ready": ready, "unauthenticated": 0, "pending": 0, "active": 0}


class FakeWorker:
    """A worker's data endpoint. `take` gives what programs send, `send` sends to the program that sent last."""

    def __init__(self, context: zmq.asyncio.Context, folder: Path, index: int, pid: int) -> None:
        self.index = index
        self.pid = pid
        self.program = b""
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        # By default, a ROUTER drops what follows a thousand messages that wait.
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._path = folder / f"worker-{index}.ipc"
        self._path.unlink(missing_ok=True)
        self._socket.bind(f"ipc://{self._path}")

    async def take(self) -> tuple[dict[str, Any], list[bytes]]:
        """The next message of a program: its head, and what follows."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.program, head, *rest = await self._socket.recv_multipart()
        return orjson.loads(head), rest

    async def send(self, head: dict[str, Any], *body: bytes) -> None:
        """Send to the program."""
        await self._socket.send_multipart([self.program, orjson.dumps(head), *body])

    async def has_nothing(self, seconds: float = 0.1) -> bool:
        """Whether no program sends anything for a while."""
        return not await self._socket.poll(int(seconds * 1000))

    def die(self) -> None:
        """End as a process does."""
        self._socket.close(0)


class FakeEngine:
    """See the module. `answer` answers commands besides `status`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: dict[int, FakeWorker] = {}
        self.calls: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any], list[bytes]], object] = lambda *_: None
        self._context = zmq.asyncio.Context()
        self._pids = iter(range(1000, 2000))
        self._task: asyncio.Task[None] | None = None
        self._control: zmq.asyncio.Socket | None = None

    def start(self, *workers: int) -> Self:
        """Serve commands, with these workers."""
        for index in workers:
            self.start_worker(index)
        (self.folder / "control.ipc").unlink(missing_ok=True)
        self._control = self._context.socket(zmq.ROUTER)
        self._control.setsockopt(zmq.LINGER, 0)
        self._control.bind(f"ipc://{self.folder}/control.ipc")
        self._task = asyncio.create_task(self._serve(self._control))
        return self

    def start_worker(self, index: int) -> FakeWorker:
        """A worker, in place of one that died."""
        self.workers[index] = FakeWorker(self._context, self.folder, index, next(self._pids))
        return self.workers[index]

    async def stop(self) -> None:
        """End with all workers."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._control is not None:
            self._control.close(0)
        for worker in self.workers.values():
            worker.die()
        self.workers.clear()

    async def close(self) -> None:
        """End for good."""
        await self.stop()
        self._context.destroy(0)

    async def _serve(self, control: zmq.asyncio.Socket) -> None:
        while True:
            identity, body, *attachments = await control.recv_multipart()
            call = orjson.loads(body)
            self.calls.append(call)
            result: object
            if call["method"] == "status":
                result = shown_status([shown_worker(worker.index, worker.pid) for worker in self.workers.values()])
            else:
                result = self.answer(call, attachments)
            if result is not None:
                reply = {"jsonrpc": "2.0", "id": call["id"], "result": result}
                await control.send_multipart([identity, orjson.dumps(reply)])


@asynccontextmanager
async def fake_engine(folder: Path, *workers: int) -> AsyncIterator[FakeEngine]:
    """An engine with these workers."""
    engine = FakeEngine(folder)
    engine.start(*workers)
    try:
        yield engine
    finally:
        await engine.close()
