"""What the engine has asked its workers and awaits: every call ends in the worker's answer or in a `CommandError`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from engine.fleet import WorkerProcess
from engine.rpc import CommandError
from protocol import control
from protocol.control import CallId, WorkerId

# A worker answers a call within milliseconds; one that takes this long is stuck.
CALL_SECONDS: Final = 5.0

Answer = control.Reply | control.Figures | control.Answer | control.Sent


class Calls:
    """See the module."""

    def __init__(self) -> None:
        self._open: dict[CallId, tuple[WorkerId, asyncio.Future[Answer]]] = {}
        self._next = 0

    async def ask(
        self, worker: WorkerProcess, make: Callable[[CallId], control.Command], seconds: float = CALL_SECONDS
    ) -> Answer:
        """Ask a worker something and await its answer. Raises `CommandError` where none comes in time, or an error does."""
        self._next += 1
        call = CallId(self._next)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._open[call] = worker.index, future
        worker.command(make(call))
        try:
            async with asyncio.timeout(seconds):
                answer = await future
        except TimeoutError as error:
            worker.command(control.Forget(call))
            raise CommandError("timed_out", f"no answer within {seconds:g} s, by way of worker {worker.index}") from error
        except asyncio.CancelledError:
            worker.command(control.Forget(call))
            raise
        finally:
            del self._open[call]
        if isinstance(answer, control.Reply) and answer.error is not None:
            raise CommandError(answer.error, answer.message)
        return answer

    def on_answer(self, answer: Answer) -> None:
        """A worker answers; a call that was given up is nobody's."""
        _, future = self._open.get(answer.call, (None, None))
        if future is not None and not future.done():
            future.set_result(answer)

    def on_worker_lost(self, index: WorkerId) -> None:
        """What a lost worker was asked, it will not answer."""
        for call, (worker, future) in list(self._open.items()):
            if worker == index and not future.done():
                future.set_result(control.Reply(call, "worker_lost", f"worker {index} ended before it answered"))
