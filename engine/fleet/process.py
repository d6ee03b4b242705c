"""One worker process: starts it, hands it sockets, sends it commands and reads its reports.

It knows the two sockets and the process, not what a report means.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol, cast

import structlog

from rlpx.engine.process.spawn import StartProcess, spawn
from rlpx.protocol.bus import control
from rlpx.protocol.bus.agreement import DISAGREES_EXIT, fingerprint
from rlpx.protocol.bus.control import WorkerId
from rlpx.protocol.bus.records import Configure, Handoffs, encode_record
from rlpx.protocol.bus.reports import Published, ReportReader
from rlpx.protocol.errors import printable

# After its goodbyes a worker has this long to end before it is killed.
RETIRE_GRACE_SECONDS: Final = 2.0
# The characters kept of what a worker writes to its stderr at once: a traceback of some depth.
OUTPUT_MAX_CHARACTERS: Final = 8192
# Signals that workers ignore: the engine ends them, and if it is gone they see that by their sockets.
LEFT_TO_THE_ENGINE: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})

# The send buffer that is requested for a worker's stream; by default the kernel lets 208 KiB wait.
STREAM_BYTES: Final = 1024 * 1024
# Bytes read from one worker in a loop iteration: a few milliseconds' work if subscribers want all of it.
READ_BUDGET_BYTES: Final = 1024 * 1024
# After a worker's end its stream is read in pieces of this size, as many as it can hold (`net.core.wmem_max`, rarely more
# than some MiB).
REST_BYTES: Final = 256 * 1024
REST_READS: Final = 256

log = structlog.get_logger()


class Owner(Protocol):
    """Whoever takes what the workers report."""

    def on_report(self, worker: WorkerProcess, report: control.Report) -> None:
        """A worker reports something."""

    def on_begun(self, worker: WorkerProcess) -> None:
        """A worker's stream is up; no command has been sent yet."""

    def on_published(self, worker: WorkerProcess, published: Published) -> None:
        """A worker publishes a batch."""

    def on_worker_lost(self, worker: WorkerProcess, cause: str) -> None:
        """A worker has ended; nothing more comes from it."""


def start_process(descriptor: int) -> subprocess.Popen[bytes]:
    """Start a worker with one inherited descriptor; its output comes back through a pipe, and the engine logs it."""
    return spawn("rlpx.workers", descriptor, LEFT_TO_THE_ENGINE, fingerprint(), has_output=False)


class WorkerProcess(asyncio.BufferedProtocol):
    """One worker process, and our ends of its two sockets. The stream is this protocol's transport."""

    def __init__(self, index: WorkerId, owner: Owner, changed: asyncio.Event) -> None:
        self.index = index
        self.is_ready = False
        # Whether it has ever been ready.
        self.was_ready = False
        self.is_lost = False
        # Whether we have told the worker to end. Reset if it fails while it ends.
        self.is_told_to_end = False
        # Whether it stands beside the workers that serve: it is not to take sessions yet, or no more.
        self.is_joining = False
        self.is_leaving = False
        # How it ended.
        self.end_cause = ""
        self.started_at = 0.0
        # The time of its last report, on the loop's clock.
        self.heard_at = 0.0
        # The last pulse, and its time on the loop's clock.
        self.pulse: control.Pulse | None = None
        self.pulse_at = 0.0
        self._owner = owner
        # Set when the worker becomes ready or is lost.
        self._changed = changed
        self._reports = ReportReader()
        self._stream: asyncio.Transport | None = None
        # A second descriptor of the stream, to read the rest if a write of ours has failed because the worker died.
        self._rest: socket.socket | None = None
        # Commands issued while a batch of reports is handled; they are sent in one write.
        self._answers: list[bytes] | None = None
        self._handoffs: socket.socket | None = None
        # Bytes read in this iteration of the loop.
        self._turn_bytes = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.ended = asyncio.Event()

    @property
    def takes_sessions(self) -> bool:
        """Whether the worker is up and serves, and has file descriptors to spare."""
        return self.is_ready and self.serves and (self.pulse is None or self.pulse.has_descriptors)

    @property
    def serves(self) -> bool:
        """Whether it is one of the workers that the engine keeps up: it is replaced if it is lost."""
        return not (self.is_joining or self.is_leaving)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid if self._process is not None else 0

    @property
    def queued_command_bytes(self) -> int:
        """Bytes of commands that the worker has not taken yet."""
        return self._stream.get_write_buffer_size() if self._stream is not None else 0

    async def spawn(self, configure: Configure, start: StartProcess, listening: Sequence[int] = ()) -> None:
        """Start the process and configure it; it inherits the `listening` sockets as well. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        self.started_at = loop.time()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stream_ours, stream_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # The kernel grants what it allows (`net.core.wmem_max`). The larger the buffer, the fewer iterations a batch takes.
        stream_theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BYTES)
        try:
            with theirs, stream_theirs:
                self._process = start(theirs.fileno())
                socket.send_fds(ours, [encode_record(configure)], [stream_theirs.fileno(), *listening])
        except OSError:
            ours.close()
            stream_ours.close()
            raise
        ours.setblocking(False)
        self._handoffs = ours
        self._rest = stream_ours.dup()
        await loop.create_connection(lambda: self, sock=stream_ours)
        if self._process.stdout is not None:
            await loop.connect_read_pipe(lambda: WorkerOutput(self.index), self._process.stdout)

    def hand_over(self, handoffs: Handoffs, descriptors: list[int]) -> bool:
        """Pass accepted sockets, all or none; `False` if the worker's queue is full or the worker is gone.

        The caller closes its own copies.
        """
        if self._handoffs is None:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
        try:
            self._handoffs.sendmsg([encode_record(handoffs)], rights)
        except OSError:
            return False
        return True

    def command(self, command: control.Command) -> None:
        """Send the worker a command. Commands to a lost worker are dropped; the engine ends its sessions."""
        if self._answers is not None:
            self._answers.append(control.encode(command))
        elif self._stream is not None and not self._stream.is_closing():
            self._stream.write(control.encode(command))

    def command_all(self, commands: Iterable[control.Command]) -> None:
        """Send the worker several commands in one write."""
        if self._answers is not None:
            self._answers.extend(map(control.encode, commands))
        elif self._stream is not None and not self._stream.is_closing():
            self._stream.write(b"".join(map(control.encode, commands)))

    def retire(self, drain: control.Drain) -> None:
        """Tell the worker to say goodbye to its peers and end."""
        self.is_told_to_end = True
        self.command(drain)

    def dismiss(self) -> None:
        """End the process at once, on purpose."""
        self.is_told_to_end = True
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is up."""
        self._stream = cast("asyncio.Transport", transport)
        self._owner.on_begun(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the reader knows how much fits
        """The buffer for the next read."""
        return self._reports.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Reports have arrived, and batches between them."""
        loop = asyncio.get_running_loop()
        self.heard_at = loop.time()
        if not self._turn_bytes:
            loop.call_soon(self._on_turn)
        self._turn_bytes += nbytes
        if self._turn_bytes >= READ_BUDGET_BYTES and self._stream is not None:
            self._stream.pause_reading()
        answers: list[bytes] = []
        self._answers = answers
        try:
            self._take(self._reports.received(nbytes))
        finally:
            self._answers = None
        if answers and self._stream is not None:
            self._stream.writelines(answers)

    def _take(self, reports: list[control.Report | Published]) -> None:
        on_report, on_published = self._owner.on_report, self._owner.on_published
        for report in reports:
            if isinstance(report, Published):
                on_published(self, report)
                continue
            if type(report) is control.Ready:
                self.is_ready = self.was_ready = True
                self._changed.set()
            elif type(report) is control.Pulse:
                self.pulse, self.pulse_at = report, self.heard_at
            on_report(self, report)

    def _on_turn(self) -> None:
        """The other workers have had their turn: read on."""
        is_paused, self._turn_bytes = self._turn_bytes >= READ_BUDGET_BYTES, 0
        if is_paused and self._stream is not None and not self._stream.is_closing():
            self._stream.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the process says how it ended
        """The process has ended, or is about to. Read its last reports even if a write of ours failed."""
        self.is_lost, self.is_ready = True, False
        self._changed.set()
        self._stream = None
        self._read_rest()
        if self._handoffs is not None:
            self._handoffs.close()
            self._handoffs = None
        task = asyncio.get_running_loop().create_task(self._reap())
        task.add_done_callback(lambda _: self.ended.set())

    def _read_rest(self) -> None:
        rest, self._rest = self._rest, None
        if rest is None:
            return
        with rest, suppress(OSError):  # nothing is left: the process is still there and silent, or has reset the stream
            for _ in range(REST_READS):
                data = rest.recv(REST_BYTES, socket.MSG_DONTWAIT)
                if not data:
                    return
                self._take(self._reports.feed(data))

    async def _reap(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            code = await asyncio.to_thread(process.wait, RETIRE_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = await asyncio.to_thread(process.wait)
        self.end_cause = cause = _cause(code)
        self.is_told_to_end = self.is_told_to_end and code in {0, -signal.SIGKILL}
        self._owner.on_worker_lost(self, cause)


def _cause(code: int) -> str:
    """How a process ended, for people."""
    if code == DISAGREES_EXIT:
        return "the code on disk has other messages than this engine, which must be started again to use it"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


class WorkerOutput(asyncio.Protocol):
    """Logs what a worker writes to its stdout and stderr, such as a fault of the interpreter."""

    def __init__(self, index: WorkerId) -> None:
        self._index = index

    def data_received(self, data: bytes) -> None:
        """The worker has written some lines, or a part of one."""
        text = printable(data.decode(errors="replace").rstrip(), OUTPUT_MAX_CHARACTERS)
        log.error("a worker wrote to stderr", worker=self._index, text=text)
