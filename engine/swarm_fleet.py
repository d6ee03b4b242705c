"""The processes of a swarm: started, told what to do, listened to. They end when their command does."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
from time import monotonic
from typing import Final

import msgspec

from engine.config import EXIT_SOFTWARE, EXIT_UNAVAILABLE, ConfigError
from protocol import swarm
from protocol.swarm import Begin, Go, Leave, Order, Ready, Word

# A process imports and makes its peers' keys: some seconds for ten thousand on a slow machine.
START_SECONDS: Final = 120.0
# A process that has said its last word ends at once.
END_SECONDS: Final = 10.0
# The peers begin a moment after they are told, together.
HEAD_START_SECONDS: Final = 0.05
_RECEIVE_BYTES: Final = 1 << 20


class SwarmFleet:
    """All processes of one swarm."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._streams: list[socket.socket] = []
        self.enodes: dict[int, str] = {}

    def spawn(self, begin: Begin) -> None:
        """Start every process with its part, and wait until all are ready. Raises `ConfigError`."""
        for index in range(begin.scenario.processes):
            ours, theirs = socket.socketpair()
            with theirs:
                command = [sys.executable, "-P", "-m", "workers.swarm", str(theirs.fileno())]
                self._processes.append(subprocess.Popen(command, pass_fds=[theirs.fileno()]))  # noqa: S603 - our own module
            self._streams.append(ours)
            self._selector.register(ours, selectors.EVENT_READ, (index, swarm.word_decoder()))
            self._send(ours, msgspec.structs.replace(begin, index=index))
        waiting, ends_at = begin.scenario.processes, monotonic() + START_SECONDS
        while waiting:
            if monotonic() > ends_at:
                raise ConfigError(f"the processes were not ready within {START_SECONDS:g} s", EXIT_SOFTWARE)
            for word in self.poll(1.0):
                if isinstance(word, Ready):
                    waiting -= 1
                    self.enodes.update(word.enodes)

    def go(self) -> float:
        """Begin; when, on the monotonic clock."""
        starts_at = monotonic() + HEAD_START_SECONDS
        self._tell(Go(starts_at))
        return starts_at

    def leave(self) -> None:
        """Everybody says goodbye and ends."""
        self._tell(Leave())

    @property
    def is_over(self) -> bool:
        """No process is there any more."""
        return not self._selector.get_map()

    def poll(self, seconds: float) -> list[Word]:
        """What the processes have said. Raises `ConfigError` where one has failed."""
        words: list[Word] = []
        for key, _ in self._selector.select(seconds):
            index, decoder = key.data
            stream = self._streams[index]
            data = stream.recv(_RECEIVE_BYTES)
            words += decoder.feed(data)
            if not data:
                self._selector.unregister(stream)
                code = self._processes[index].wait(END_SECONDS)
                if code:
                    is_unavailable = code == EXIT_UNAVAILABLE
                    raise ConfigError(
                        f"process {index} of the swarm ended with exit code {code}",
                        EXIT_UNAVAILABLE if is_unavailable else EXIT_SOFTWARE,
                    )
        return words

    def close(self) -> None:
        """Let go of the streams, which ends what is left, and wait for it."""
        for stream in self._streams:
            stream.close()
        self._selector.close()
        for process in self._processes:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _tell(self, order: Order) -> None:
        for stream in self._streams:
            self._send(stream, order)

    def _send(self, stream: socket.socket, order: Order) -> None:
        try:
            stream.sendall(swarm.encode(order))
        except BrokenPipeError:
            return  # it has ended: `poll` finds out how
