"""A program that runs beside the engine, as a process of its own: started, started again if it ends, ended with the engine.

It listens on a socket that the engine has bound and keeps, so that its clients wait while it is started again. Nothing here
waits for it. If it hangs, it is only not there for its clients.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from rlpx.engine.process.listening import listening
from rlpx.engine.process.spawn import spawn
from rlpx.protocol.errors import printable
from rlpx.protocol.rlpx.host_port import format_host_port

# The wait before it is started again doubles while it keeps ending, and begins anew if it ran this long.
FIRST_WAIT_SECONDS: Final = 0.5
MAX_WAIT_SECONDS: Final = 30.0
FORGIVEN_SECONDS: Final = 60.0
# At the end of the engine it has this long to end by itself.
END_SECONDS: Final = 2.0
# It says every few seconds that it lives. If it has said nothing for this long, it hangs; it may take as long to start.
SILENT_SECONDS: Final = 30.0
# After its end, what it wrote last is read for this long: a process that it started may hold the pipe.
LAST_OUTPUT_SECONDS: Final = 1.0
# Connections that wait while it is started again.
BACKLOG: Final = 128
# Signals that a terminal sends to the whole process group: the engine ends it.
_BLOCKED: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
# Characters kept of what it writes at once.
OUTPUT_MAX_CHARACTERS: Final = 4096

log = structlog.get_logger()


class CompanionState(msgspec.Struct):
    """What is known of it: its process while there is one, whether it serves, how often it was started, and its last end."""

    pid: int | None = None
    is_up: bool = False
    starts: int = 0
    last_end: str | None = None


class Companion:
    """See the module. `module` is started with `arguments`, once it has a socket to listen on (`listen`, then `start`)."""

    def __init__(self, name: str, module: str, arguments: list[str]) -> None:
        self._name = name
        self._module = module
        self._arguments = arguments
        self._listening: socket.socket | None = None
        self.state = CompanionState()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Our end of its socket: closing it tells it to end.
        self._line: socket.socket | None = None

    @property
    def address(self) -> str | None:
        """Where it listens, HOST:PORT; null before `listen` and after `close`."""
        return None if self._listening is None else format_host_port(*self._listening.getsockname()[:2])

    def listen(self, host: str, port: int) -> None:
        """Bind its socket, to a numeric address. Raises `OSError`."""
        self._listening = listening(socket.socket, host, port, BACKLOG)

    def start(self) -> None:
        """Start it, and again whenever it ends, until `close`."""
        self._task = asyncio.get_running_loop().create_task(self._keep_running())

    async def close(self) -> None:
        """End it, and stop listening."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        self._closing.set()
        if self._line is not None:
            # Both it and our task, which waits for its beats, see the end.
            with suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)
        if self._task is not None:
            await self._task

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        wait = FIRST_WAIT_SECONDS
        while not self._closing.is_set():
            started = loop.time()
            cause = await self._run()
            if self._closing.is_set():
                return
            if loop.time() - started >= FORGIVEN_SECONDS:
                wait = FIRST_WAIT_SECONDS
            self.state.last_end = cause
            log.error(
                "a program beside the engine has ended and is started again",
                program=self._name,
                cause=cause,
                pause_ms=int(wait * 1000),
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._closing.wait()
            wait = min(2 * wait, MAX_WAIT_SECONDS)

    async def _run(self) -> str:
        """Run it once; returns why it has ended."""
        try:
            process = self._begin()
        except OSError as error:
            return f"it could not be started: {error.strerror}"
        self.state.pid, self.state.starts = process.pid, self.state.starts + 1
        line = self._line
        loop = asyncio.get_running_loop()
        output = _Output(self._name)
        written, _ = await loop.connect_read_pipe(lambda: output, process.stdout)
        try:
            # A byte comes when it serves, and then again and again, until its end is closed.
            while line is not None:
                async with asyncio.timeout(SILENT_SECONDS):
                    if not await loop.sock_recv(line, 1):
                        break
                self.state.is_up = True
        except TimeoutError:
            process.kill()
        except OSError:
            pass  # it has reset the connection: it has ended
        finally:
            self.state.is_up = False
            self._hang_up()
            code = await self._reap(process, END_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_OUTPUT_SECONDS):
                    await output.ended.wait()
            written.close()
        self.state.pid = None
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _begin(self) -> subprocess.Popen[bytes]:
        """Start the process, and pass it its socket and its arguments. Raises `OSError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line = ours
        try:
            with theirs:
                process = spawn(self._module, theirs.fileno(), _BLOCKED, has_output=False)
            listening = [] if self._listening is None else [self._listening.fileno()]
            socket.send_fds(ours, [msgspec.json.encode(self._arguments)], listening)
        except OSError:
            self._hang_up()
            raise
        ours.setblocking(False)
        return process

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    async def _reap(self, process: subprocess.Popen[bytes], seconds: float) -> int:
        """The exit code of a process that has been told to end; it is killed if it does not."""
        try:
            return await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return await asyncio.to_thread(process.wait)


class _Output(asyncio.Protocol):
    """Logs what it writes to its stdout and stderr, such as a fault of the interpreter."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.ended = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """It has closed both."""
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        """It has written some lines, or a part of one."""
        text = printable(data.decode(errors="replace").rstrip(), OUTPUT_MAX_CHARACTERS)
        log.warning("a program beside the engine wrote to stderr", program=self._name, text=text)
