"""Changes the workers of a running engine: replaces all of them one by one, starts more, lets some leave.

New workers are ready before others leave, so there is always one that takes sessions. One change at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from rlpx.engine.departures import Departures
from rlpx.engine.fleet.fleet import Fleet, JoinError
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.protocol.bus.control import WorkerId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.results import Replacement, RestartResult, WorkersResult
from rlpx.protocol.errors import ErrorName

log = structlog.get_logger()


class Succession:
    """See the module. `drain_seconds` is the drain time if a command has none."""

    def __init__(
        self, fleet: Fleet, departures: Departures, update_listener: Callable[[], None], drain_seconds: float
    ) -> None:
        self._fleet = fleet
        self._departures = departures
        self._update_listener = update_listener
        self._drain_seconds = drain_seconds
        self._restart: asyncio.Task[list[Replacement]] | None = None
        self._resizing: asyncio.Task[WorkersResult] | None = None
        # Whether workers are being started for `resize`.
        self._is_growing = False
        self._is_stopped = False
        # All replacements so far, the new workers that did not become ready, and why the last restart failed.
        self.replaced = 0
        self.failed = 0
        self.error: str | None = None

    @property
    def is_restarting(self) -> bool:
        """Whether a restart is in progress: old workers are to be replaced, or the last one leaves within its drain time."""
        return self._restart is not None and not self._restart.done()

    def restart(self, drain_seconds: float | None = None) -> tuple[RestartResult, asyncio.Task[list[Replacement]]]:
        """Begin to replace all workers; returns who is to be replaced, and the task, which raises `CommandError`.

        Raises `CommandError` if another change is in progress, or workers of an earlier one are still there.
        """
        self._check()
        leaving = self._fleet.leaving
        if leaving:
            numbers = ", ".join(str(worker.index) for worker in leaving)
            raise CommandError(
                ErrorName.BUSY,
                f"workers that leave still have sessions: {numbers}. Wait, or give them a time with set-workers",
            )
        drain = self._drain_seconds if drain_seconds is None else drain_seconds
        old = self._fleet.serving
        self.error = None
        log.info("all workers are replaced, one by one", workers=[int(worker.index) for worker in old], drain_s=drain)
        self._restart = asyncio.get_running_loop().create_task(self._replace_all(old, drain))
        # A restart that nobody awaits has logged its error.
        self._restart.add_done_callback(lambda task: task.cancelled() or task.exception())
        return RestartResult([int(worker.index) for worker in old], drain, []), self._restart

    def resize(self, count: int, drain_seconds: float | None = None) -> asyncio.Task[WorkersResult]:
        """Have this many workers serve; the task raises `CommandError`. It goes on if nobody awaits it."""
        self._resizing = asyncio.get_running_loop().create_task(self._resize(count, drain_seconds))
        self._resizing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._resizing

    async def _resize(self, count: int, drain_seconds: float | None = None) -> WorkersResult:
        self._check()
        drain = self._drain_seconds if drain_seconds is None else drain_seconds
        serving = self._fleet.serving
        started: list[WorkerProcess] = []
        if count > len(serving):
            self._is_growing = True
            try:
                started = await self._join(count - len(serving))
            finally:
                self._is_growing = False
            self._admit(started)
        if drain_seconds is not None:
            self._departures.hasten(drain_seconds)
        for worker in serving[count:]:
            self._departures.begin(worker, None, drain)
        numbers = [int(worker.index) for worker in started]
        self._update_listener()
        log.info("the number of workers was set", workers=count, started=numbers)
        leaving = [int(worker.index) for worker in self._fleet.leaving]
        return WorkersResult(len(self._fleet.serving), numbers, leaving, drain)

    def stop(self) -> None:
        """The engine ends, and all workers with it."""
        self._is_stopped = True
        self._departures.stop()

    def _check(self) -> None:
        self._check_stopped()
        if self._is_growing or not self._fleet.has_started:
            raise CommandError(ErrorName.BUSY, "workers are being started")
        if self.is_restarting:
            raise CommandError(ErrorName.BUSY, "the workers are being replaced already")

    def _check_stopped(self) -> None:
        if self._is_stopped:
            raise CommandError(ErrorName.REFUSED, "the engine is shutting down")

    async def _replace_all(self, old: list[WorkerProcess], drain_seconds: float) -> list[Replacement]:
        done: list[Replacement] = []
        for worker in old:
            heir = await self._replace(worker, drain_seconds)
            if heir is not None:
                done.append(Replacement(worker.index, heir))
                if drain_seconds:
                    await worker.ended.wait()
                    self._check_stopped()
        log.info("all workers are replaced", replaced=len(done))
        return done

    async def _replace(self, worker: WorkerProcess, drain_seconds: float) -> WorkerId | None:
        """Replace one worker; returns the number of the new one, or nothing if it was lost and so is replaced anyway."""
        if not self._is_up(worker):
            return None
        try:
            [heir] = joined = await self._join(1)
        except CommandError as error:
            self._check_stopped()
            self.error = f"{error}; worker {worker.index} stays"
            log.error("the workers were not all replaced", cause=self.error)
            raise CommandError(error.name, self.error) from error
        if not self._is_up(worker):
            heir.is_leaving = True
            heir.dismiss()
            return None
        self._admit(joined)
        self._departures.begin(worker, heir.index, drain_seconds)
        self.replaced += 1
        return heir.index

    async def _join(self, count: int) -> list[WorkerProcess]:
        try:
            joined = await self._fleet.join(count)
        except JoinError as error:
            self._check_stopped()
            self.failed += 1
            raise CommandError(ErrorName.WORKER_LOST, str(error)) from error
        self._check_stopped()
        return joined

    def _is_up(self, worker: WorkerProcess) -> bool:
        return self._fleet.get(worker.index) is worker

    def _admit(self, joined: list[WorkerProcess]) -> None:
        self._fleet.admit(joined)
        self._update_listener()
