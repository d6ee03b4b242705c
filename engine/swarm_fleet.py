"""The processes of a swarm: started, told what to do, listened to, missed where they end too soon."""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeAlias

import msgspec

from engine.config import EXIT_SOFTWARE, EXIT_UNAVAILABLE, ConfigError
from protocol import swarm
from protocol.swarm import Begin, Failed, Go, Leave, Order, Ready, Word

# A process imports and makes its peers' keys: some seconds for ten thousand on a slow machine.
START_SECONDS: Final = 120.0
# A process that has said its last word ends at once.
END_SECONDS: Final = 10.0
# The peers begin a moment after they are told, together.
HEAD_START_SECONDS: Final = 0.05
# So soon is it noticed that nobody wants the swarm any more.
_POLL_SECONDS: Final = 0.1
_RECEIVE_BYTES: Final = 1 << 20


class Lost(msgspec.Struct, frozen=True):
    """A process is gone before its time, or not as it should. `cause` says what it did: "was ended by signal 9"."""

    process: int
    cause: str


News: TypeAlias = Word | Lost


class SwarmFleet:
    """All processes of one swarm. Set `is_leaving` where they may end by themselves, as after a signal to all of them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._streams: list[socket.socket] = []
        self.is_leaving = False
        self.enodes: dict[int, str] = {}

    def spawn(self, begin: Begin) -> None:
        """Start every process with its part."""
        for index in range(begin.scenario.processes):
            ours, theirs = socket.socketpair()
            with theirs:
                command = [sys.executable, "-P", "-m", "workers.swarm", str(theirs.fileno())]
                # Ctrl-C on a terminal reaches every process: they inherit that it is blocked, and are told when to leave.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                self._processes.append(subprocess.Popen(command, pass_fds=[theirs.fileno()]))  # noqa: S603 - our own module
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._streams.append(ours)
            self._selector.register(ours, selectors.EVENT_READ, (index, swarm.word_decoder()))
            self._send(ours, msgspec.structs.replace(begin, index=index))

    def await_ready(self, is_wanted: Callable[[], bool]) -> bool:
        """Whether all are ready, for as long as that is wanted. Raises `ConfigError`."""
        waiting, ends_at = len(self._processes), monotonic() + START_SECONDS
        while waiting and is_wanted():
            if monotonic() > ends_at:
                raise ConfigError(f"the processes were not ready within {START_SECONDS:g} s", EXIT_SOFTWARE)
            for news in self.poll(_POLL_SECONDS):
                if isinstance(news, Ready):
                    waiting -= 1
                    self.enodes.update(news.enodes)
                elif isinstance(news, Failed):
                    raise ConfigError(news.cause, EXIT_UNAVAILABLE)
                elif isinstance(news, Lost) and not self.is_leaving:
                    raise ConfigError(f"process {news.process} of the swarm {news.cause}", EXIT_SOFTWARE)
        return not waiting

    def go(self) -> float:
        """Begin; when, on the monotonic clock."""
        starts_at = monotonic() + HEAD_START_SECONDS
        self._tell(Go(starts_at))
        return starts_at

    def leave(self) -> None:
        """Everybody says goodbye and ends."""
        self.is_leaving = True
        self._tell(Leave())

    @property
    def is_over(self) -> bool:
        """No process is there any more."""
        return not self._selector.get_map()

    def poll(self, seconds: float) -> list[News]:
        """What the processes have said, and which of them are lost."""
        found: list[News] = []
        for key, _ in self._selector.select(seconds):
            index, decoder = key.data
            data = self._receive(self._streams[index])
            found += decoder.feed(data)
            if not data:
                self._selector.unregister(self._streams[index])
                cause = self._cause_of_end(index)
                if cause is not None:
                    found.append(Lost(index, cause))
        return found

    def give_up(self) -> list[Lost]:
        """End those that have not ended in time."""
        late = [key.data[0] for key in self._selector.get_map().values()]
        for index in late:
            self._selector.unregister(self._streams[index])
            self._processes[index].kill()
        return [Lost(index, "did not end when it was told to") for index in late]

    def close(self) -> None:
        """Let go of the streams, which ends what is left, and wait for it."""
        for stream in self._streams:
            stream.close()
        self._selector.close()
        for process in self._processes:
            _wait(process)

    def _cause_of_end(self, index: int) -> str | None:
        """What a process did that has let go of its stream; `None` where that was right."""
        code = _wait(self._processes[index])
        if code is None:
            return "did not end by itself"
        if code < 0:
            return f"was ended by signal {-code}"
        if code:
            return f"ended with exit code {code}"
        return None if self.is_leaving else "left before it was told to"

    def _tell(self, order: Order) -> None:
        for stream in self._streams:
            self._send(stream, order)

    def _send(self, stream: socket.socket, order: Order) -> None:
        try:
            stream.sendall(swarm.encode(order))
        except (BrokenPipeError, ConnectionResetError):
            return  # it has ended: `poll` finds out how

    def _receive(self, stream: socket.socket) -> bytes:
        try:
            return stream.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            return b""  # it has ended with an order unread


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code; `None` of one that has to be killed."""
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None
