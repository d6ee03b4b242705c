"""The worker processes: started, handed sockets, told commands, listened to, replaced when lost."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol, cast

import structlog

from protocol import control
from protocol.control import Configure, WorkerId

# A lost worker is replaced at once; one that dies right away waits twice as long each time.
RESPAWN_FIRST_SECONDS: Final = 0.1
RESPAWN_MOST_SECONDS: Final = 30.0
# One that has lived this long starts over with the first wait.
RESPAWN_FORGIVEN_SECONDS: Final = 60.0
# After its goodbyes a worker has this long to end before it is killed.
RETIRE_GRACE_SECONDS: Final = 2.0

log = structlog.get_logger()


class Owner(Protocol):
    """What the fleet tells its engine."""

    def on_report(self, worker: WorkerProcess, report: control.Report) -> None:
        """A worker says something."""

    def on_worker_lost(self, worker: WorkerProcess, cause: str) -> None:
        """A worker has ended; nothing more comes from it."""


class WorkerProcess(asyncio.Protocol):
    """One process and our ends of its two sockets. The stream is this protocol's transport."""

    def __init__(self, index: WorkerId, owner: Owner) -> None:
        self.index = index
        self.is_ready = False
        self.is_lost = False
        self.started_at = 0.0
        # When it last said anything, on the loop's clock.
        self.heard_at = 0.0
        self.pulse: control.Pulse | None = None
        self._owner = owner
        self._decoder = control.report_decoder()
        self._stream: asyncio.Transport | None = None
        # While reports are read, the commands that they bring about: these leave in one write.
        self._answers: list[bytes] | None = None
        self._handoffs: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.ended = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid if self._process is not None else 0

    @property
    def queued_command_bytes(self) -> int:
        """Commands that the worker has not taken yet."""
        return self._stream.get_write_buffer_size() if self._stream is not None else 0

    async def spawn(self, configure: Configure) -> None:
        """Start the process and configure it. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        self.started_at = loop.time()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stream_ours, stream_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs, stream_theirs:
                self._process = _start_process(theirs.fileno())
                socket.send_fds(ours, [control.encode_record(configure)], [stream_theirs.fileno()])
        except OSError:
            ours.close()
            stream_ours.close()
            raise
        ours.setblocking(False)
        self._handoffs = ours
        await loop.create_connection(lambda: self, sock=stream_ours)

    def hand_over(self, handoffs: control.Handoffs, descriptors: list[int]) -> bool:
        """Pass accepted sockets, all or none: `False` where the worker's queue is full or it is gone.

        The caller closes its copies.
        """
        if self._handoffs is None:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
        try:
            self._handoffs.sendmsg([control.encode_record(handoffs)], rights)
        except OSError:
            return False
        return True

    def command(self, command: control.Command) -> None:
        """Tell the worker something; one that is lost hears nothing, and its sessions are closed by the engine."""
        if self._answers is not None:
            self._answers.append(control.encode(command))
        elif self._stream is not None and not self._stream.is_closing():
            self._stream.write(control.encode(command))

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is up."""
        self._stream = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Reports."""
        self.heard_at = asyncio.get_running_loop().time()
        answers: list[bytes] = []
        self._answers = answers
        on_report = self._owner.on_report
        try:
            for report in self._decoder.feed(data):
                if type(report) is control.Ready:
                    self.is_ready = True
                elif type(report) is control.Pulse:
                    self.pulse = report
                on_report(self, report)
        finally:
            self._answers = None
        if answers and self._stream is not None:
            self._stream.writelines(answers)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it ended is asked of the process
        """The process has ended, or is about to."""
        self.is_lost, self.is_ready = True, False
        self._stream = None
        if self._handoffs is not None:
            self._handoffs.close()
            self._handoffs = None
        task = asyncio.get_running_loop().create_task(self._reap())
        task.add_done_callback(lambda _: self.ended.set())

    async def _reap(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            code = await asyncio.to_thread(process.wait, RETIRE_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = await asyncio.to_thread(process.wait)
        cause = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._owner.on_worker_lost(self, cause)


def _start_process(descriptor: int) -> subprocess.Popen[bytes]:
    """`python -m workers` with one inherited descriptor; it finds our modules where we do."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-P", "-m", "workers", str(descriptor)],
        pass_fds=[descriptor],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        stdin=subprocess.DEVNULL,
        # A group of its own: Ctrl-C reaches the engine alone, which says goodbye to the peers first.
        process_group=0,
    )


class Fleet:
    """All workers. `configure` makes the configuration of one; `load` says how busy one is."""

    def __init__(
        self,
        owner: Owner,
        configure: Callable[[WorkerId], Configure],
        load: Callable[[WorkerId], tuple[int, int]],
    ) -> None:
        self._owner = owner
        self._configure = configure
        self._load = load
        self._workers: dict[WorkerId, WorkerProcess] = {}
        self._waits: dict[WorkerId, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_retiring = False

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(list(self._workers.values()))

    @property
    def is_open(self) -> bool:
        """Whether any worker takes sessions."""
        return any(worker.is_ready for worker in self._workers.values())

    def get(self, index: WorkerId) -> WorkerProcess | None:
        """A worker that is up."""
        worker = self._workers.get(index)
        return worker if worker is not None and worker.is_ready else None

    async def spawn(self, index: WorkerId) -> None:
        """Start one worker. Raises `OSError`."""
        lost = self._workers.get(index)
        worker = self._workers[index] = WorkerProcess(index, self._owner)
        try:
            await worker.spawn(self._configure(index))
        except OSError:
            if lost is None:
                del self._workers[index]
            else:
                self._workers[index] = lost
            raise

    def choose(self, excluded: set[WorkerId]) -> WorkerProcess | None:
        """The ready worker with the least pending work, among equals the one with the fewest sessions, or none."""
        ready = [worker for worker in self._workers.values() if worker.is_ready and worker.index not in excluded]
        if len(ready) == 1:
            return ready[0]
        return min(ready, key=lambda worker: (*self._load(worker.index), worker.index), default=None)

    def respawn(self, lost: WorkerProcess) -> None:
        """Replace a lost worker, after a wait that doubles while it keeps dying."""
        if self.is_retiring:
            return
        loop = asyncio.get_running_loop()
        wait = self._waits.get(lost.index, RESPAWN_FIRST_SECONDS)
        if loop.time() - lost.started_at >= RESPAWN_FORGIVEN_SECONDS:
            wait = RESPAWN_FIRST_SECONDS
        self._waits[lost.index] = min(wait * 2, RESPAWN_MOST_SECONDS)
        task = loop.create_task(self._respawn_after(lost, wait))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respawn_after(self, lost: WorkerProcess, wait: float) -> None:
        while True:
            await asyncio.sleep(wait)
            if self.is_retiring:
                return
            try:
                await self.spawn(lost.index)
            except OSError as error:
                log.error("a worker could not be started", worker=lost.index, error=error.strerror)
                wait = self._waits[lost.index]
                self._waits[lost.index] = min(wait * 2, RESPAWN_MOST_SECONDS)
            else:
                return

    async def retire(self, drain: control.Drain, grace_seconds: float) -> None:
        """Let every worker say its goodbyes and end; kill what is left after `grace_seconds`."""
        self.is_retiring = True
        for worker in self:
            worker.command(drain)
        waiting = [asyncio.ensure_future(worker.ended.wait()) for worker in self if not worker.ended.is_set()]
        if waiting:
            await asyncio.wait(waiting, timeout=grace_seconds)
        for worker in self:
            worker.kill()
        for future in waiting:
            if not future.done():
                await future
