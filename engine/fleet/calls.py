"""The calls that the engine makes to its workers: each ends in the worker's answer or in a `CommandError`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from rlpx.engine.fleet.process import WorkerProcess
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import CallId, WorkerId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.errors import ErrorName

# A worker answers a call within milliseconds; a worker that takes this long is stuck.
CALL_SECONDS: Final = 5.0


class PlacedSnapshot(msgspec.Struct, frozen=True):
    """A worker's snapshot and its place in the worker's stream: the ordinal of the next event of each topic."""

    call: CallId
    sessions: tuple[bytes, ...]
    next: dict[str, int]


WorkerReply = control.Reply | PlacedSnapshot | control.Stats | control.PeerResponse | control.Sent


class Calls:
    """See the module."""

    def __init__(self) -> None:
        self._open: dict[CallId, tuple[WorkerId, asyncio.Future[WorkerReply]]] = {}
        self._next = 0

    async def ask(
        self, worker: WorkerProcess, make: Callable[[CallId], control.Command], seconds: float | None = None
    ) -> WorkerReply:
        """Send a worker a call and await its answer. Raises `CommandError` if that is an error or comes too late."""
        if seconds is None:
            seconds = CALL_SECONDS
        self._next += 1
        call = CallId(self._next)
        future: asyncio.Future[WorkerReply] = asyncio.get_running_loop().create_future()
        self._open[call] = worker.index, future
        worker.command(make(call))
        try:
            async with asyncio.timeout(seconds):
                answer = await future
        except TimeoutError as error:
            worker.command(control.Forget(call))
            raise CommandError(
                ErrorName.TIMED_OUT, f"no answer within {seconds:g} s, by way of worker {worker.index}"
            ) from error
        except asyncio.CancelledError:
            worker.command(control.Forget(call))
            raise
        finally:
            del self._open[call]
        if isinstance(answer, control.Reply) and answer.error is not None:
            raise CommandError(answer.error, answer.message)
        return answer

    def on_answer(self, answer: WorkerReply) -> None:
        """A worker answers; answers to abandoned calls are ignored."""
        _, future = self._open.get(answer.call, (None, None))
        if future is not None and not future.done():
            future.set_result(answer)

    def on_worker_lost(self, index: WorkerId) -> None:
        """End the calls that a lost worker will not answer."""
        for call, (worker, future) in list(self._open.items()):
            if worker == index and not future.done():
                future.set_result(control.Reply(call, ErrorName.WORKER_LOST, f"worker {index} ended before it answered"))
