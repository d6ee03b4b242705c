"""All workers: started together, chosen for new sessions, replaced when lost, ended together.

Besides the workers that serve there may be some that join, until all of them are ready, and some that leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog

from rlpx.engine.fleet.calls import Calls
from rlpx.engine.fleet.process import Owner, WorkerProcess, start_process
from rlpx.engine.process.spawn import StartProcess
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import WorkerId
from rlpx.protocol.bus.places import WORKER_NUMBERS
from rlpx.protocol.bus.records import Configure

# Workers load their libraries in about half a second each, two at a time on a small machine.
START_SECONDS: Final = 30.0
# Workers report once a second. One that has been silent this long is hung, and so are its sessions.
STUCK_SECONDS: Final = 10.0
# If our own timer is this late, the engine was stalled, not the worker.
LATE_SECONDS: Final = 0.4
# A lost worker is replaced almost at once; while it keeps dying the wait doubles each time.
RESPAWN_FIRST_SECONDS: Final = 0.1
RESPAWN_MAX_SECONDS: Final = 30.0
# If a worker has lived this long, the wait before its replacement starts at the first one again.
RESPAWN_FORGIVEN_SECONDS: Final = 60.0

log = structlog.get_logger()


class JoinError(Exception):
    """New workers have not become ready; none of them has stayed."""


class Fleet:
    """All workers. `configure` makes the configuration of one; `load` says how busy one is; `listening` gives the listening
    sockets that one inherits, or raises `OSError`.

    Set `owner`, who takes the workers' reports, before the first worker is started. `on_forgotten` is called if a
    number is free again.
    """

    owner: Owner
    on_forgotten: Callable[[WorkerId], None] = staticmethod(lambda _: None)

    def __init__(
        self,
        configure: Callable[[WorkerId], Configure],
        load: Callable[[WorkerId], tuple[int, int]],
        start: StartProcess = start_process,
        listening: Callable[[WorkerId], Sequence[int]] = lambda _: (),
    ) -> None:
        self._configure = configure
        self._load = load
        self._start = start
        self._listening = listening
        self.calls = Calls()
        # Set when a worker has started, has become ready or is lost.
        self._changed = asyncio.Event()
        self._workers: dict[WorkerId, WorkerProcess] = {}
        self._waits: dict[WorkerId, float] = {}
        # The workers that were lost, and those started in their place.
        self.lost = 0
        self.respawned = 0
        self._tasks: set[asyncio.Task[None]] = set()
        # Whether all workers have been ready once: a worker that becomes ready after that replaces a lost one.
        self.has_started = False
        self.is_retiring = False

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(sorted(self._workers.values(), key=lambda worker: worker.index))

    @property
    def serving(self) -> list[WorkerProcess]:
        """The workers that serve, including lost ones that are about to be replaced."""
        return [worker for worker in self if worker.serves]

    @property
    def leaving(self) -> list[WorkerProcess]:
        """The workers that leave."""
        return [worker for worker in self if worker.is_leaving]

    @property
    def is_open(self) -> bool:
        """Whether any worker takes sessions."""
        return any(worker.takes_sessions for worker in self._workers.values())

    @property
    def is_healthy(self) -> bool:
        """Whether every worker that serves is up and has reported lately."""
        now = asyncio.get_running_loop().time()
        return all(worker.is_ready and now - worker.heard_at < STUCK_SECONDS for worker in self.serving)

    def get(self, index: WorkerId) -> WorkerProcess | None:
        """A worker, if it is up."""
        worker = self._workers.get(index)
        return worker if worker is not None and worker.is_ready else None

    def tell(self, index: WorkerId, command: control.Command) -> bool:
        """Pass a command to a worker; `False` if that worker is not up."""
        worker = self.get(index)
        if worker is None:
            return False
        worker.command(command)
        return True

    def tell_all(self, command: control.Command) -> None:
        """Pass a command to every worker that has begun, whether it is ready or not."""
        for worker in self:
            worker.command(command)

    async def start(self, workers: int) -> None:
        """Start this many workers and wait until all are ready.

        Raises `OSError` if a process cannot be started, `TimeoutError` if they take too long, and `RuntimeError` if one
        ends before it was ready.
        """
        for index in range(workers):
            await self.spawn(WorkerId(index))
        async with asyncio.timeout(START_SECONDS):
            while not all(worker.is_ready for worker in self):
                # A worker that was ready and has been lost since is replaced, as at any other time.
                if any(worker.is_lost and not worker.was_ready for worker in self):
                    raise RuntimeError("a worker ended while it was starting")
                self._changed.clear()
                await self._changed.wait()
        self.has_started = True

    async def join(self, count: int) -> list[WorkerProcess]:
        """Start this many workers beside the present ones, with the lowest free numbers, and wait until all are ready.

        They take no sessions before `admit`. Raises `JoinError`.
        """
        joining: list[WorkerProcess] = []
        try:
            for _ in range(count):
                # Not within the time limit: a start must not be left half done.
                worker = await self.spawn(self._free_number(), is_joining=True)
                joining.append(worker)
            async with asyncio.timeout(START_SECONDS):
                await self._until_ready(joining)
        except TimeoutError as error:
            self._dismiss(joining)
            raise JoinError(f"a new worker was not ready within {START_SECONDS:g} s") from error
        except OSError as error:
            self._dismiss(joining)
            raise JoinError(f"a worker could not be started: {error.strerror or error}") from error
        except JoinError:
            self._dismiss(joining)
            raise
        return joining

    def admit(self, joined: list[WorkerProcess]) -> None:
        """Let workers that have joined take sessions from now on."""
        for worker in joined:
            worker.is_joining = False

    def leave(self, worker: WorkerProcess) -> None:
        """Give a worker no more sessions, and do not replace it when it ends."""
        worker.is_leaving = True
        if worker.ended.is_set():
            self._forget(worker)

    async def _until_ready(self, joining: list[WorkerProcess]) -> None:
        """Wait until all are ready. Raises `JoinError` if one has ended."""
        while not all(worker.is_ready for worker in joining):
            lost = next((worker for worker in joining if worker.is_lost), None)
            if lost is not None:
                await lost.ended.wait()
                raise JoinError(f"worker {lost.index} ended before it was ready: {lost.end_cause}")
            self._changed.clear()
            await self._changed.wait()

    def _dismiss(self, joining: list[WorkerProcess]) -> None:
        for worker in joining:
            worker.dismiss()

    def _free_number(self) -> WorkerId:
        """The lowest number that no worker has. Raises `JoinError`."""
        for number in range(WORKER_NUMBERS):
            if number not in self._workers:
                return WorkerId(number)
        raise JoinError(f"all {WORKER_NUMBERS} worker numbers are in use")

    def _forget(self, worker: WorkerProcess) -> None:
        if self._workers.get(worker.index) is worker:
            del self._workers[worker.index]
            self._waits.pop(worker.index, None)
            self.on_forgotten(worker.index)

    async def spawn(self, index: WorkerId, *, is_joining: bool = False) -> WorkerProcess:
        """Start one worker. Raises `OSError`."""
        lost = self._workers.get(index)
        worker = self._workers[index] = WorkerProcess(index, self.owner, self._changed)
        worker.is_joining = is_joining
        try:
            await worker.spawn(self._configure(index), self._start, self._listening(index))
        except OSError:
            if lost is None:
                del self._workers[index]
            else:
                self._workers[index] = lost
            raise
        if self.is_retiring:
            # The others were told to end meanwhile.
            worker.dismiss()
        return worker

    def choose(self, excluded: set[WorkerId]) -> WorkerProcess | None:
        """The worker that takes sessions and has the least pending work, and among equals the fewest sessions."""
        ready = [worker for worker in self._workers.values() if worker.takes_sessions and worker.index not in excluded]
        if len(ready) == 1:
            return ready[0]
        return min(ready, key=lambda worker: (*self._load(worker.index), worker.index), default=None)

    def on_lost(self, lost: WorkerProcess) -> None:
        """A worker has ended: replace it if it served, else forget it."""
        self.lost += not (lost.is_told_to_end or lost.is_joining)
        if lost.serves:
            self.respawn(lost)
        else:
            self._forget(lost)

    def respawn(self, lost: WorkerProcess) -> None:
        """Replace a lost worker after a wait, which doubles while it keeps dying."""
        if self.is_retiring:
            return
        loop = asyncio.get_running_loop()
        wait = self._waits.get(lost.index, RESPAWN_FIRST_SECONDS)
        if loop.time() - lost.started_at >= RESPAWN_FORGIVEN_SECONDS:
            wait = RESPAWN_FIRST_SECONDS
        self._waits[lost.index] = min(wait * 2, RESPAWN_MAX_SECONDS)
        task = loop.create_task(self._respawn_after(lost, wait))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respawn_after(self, lost: WorkerProcess, wait: float) -> None:
        while True:
            await asyncio.sleep(wait)
            if self.is_retiring or lost.is_leaving:
                return
            try:
                await self.spawn(lost.index)
            except OSError as error:
                wait = self._waits[lost.index]
                self._waits[lost.index] = min(wait * 2, RESPAWN_MAX_SECONDS)
                log.error("a worker could not be started", worker=lost.index, error=error.strerror)
            else:
                self.respawned += 1
                return

    def end_stuck(self, due: float) -> None:
        """Kill the workers that have been silent for too long; `due` is when this call should have come (loop's clock)."""
        now = asyncio.get_running_loop().time()
        if now - due >= LATE_SECONDS:
            return  # the workers' reports of that time have not been read yet
        for worker in self:
            if worker.is_ready and now - worker.heard_at > STUCK_SECONDS:
                worker.kill()
                log.error("a worker is stuck and was ended", worker=worker.index, pid=worker.pid, is_replaced=worker.serves)

    def kill(self) -> None:
        """End every worker at once, without goodbyes."""
        self.is_retiring = True
        for worker in self:
            worker.dismiss()

    async def retire(self, drain: control.Drain, grace_seconds: float) -> None:
        """Let every worker say its goodbyes and end; kill what is left after `grace_seconds`."""
        self.is_retiring = True
        for worker in self:
            worker.retire(drain)
        waiting = [asyncio.ensure_future(worker.ended.wait()) for worker in self if not worker.ended.is_set()]
        if waiting:
            await asyncio.wait(waiting, timeout=grace_seconds)
        for worker in self:
            worker.kill()
        for future in waiting:
            if not future.done():
                await future
