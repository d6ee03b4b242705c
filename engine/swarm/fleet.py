"""The processes of a swarm: starts them, gives them orders, reads their reports, and notices if one ends too soon."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeAlias

import msgspec

from rlpx.engine.process.spawn import StartProcess, spawn
from rlpx.engine.settings.addresses import dialable_enode
from rlpx.protocol.bus import swarm
from rlpx.protocol.bus.swarm import Begin, Failed, Go, Leave, Order, Ready, SwarmReport
from rlpx.protocol.mistakes import ConfigError

# A process imports its modules and makes its peers' keys, which takes seconds for ten thousand on a slow machine.
START_SECONDS: Final = 120.0
# A process ends at once after its last report.
END_SECONDS: Final = 10.0
# All peers begin together, this long after the order is given.
HEAD_START_SECONDS: Final = 0.05
# The longest time before the command notices that it should stop waiting.
_POLL_SECONDS: Final = 0.1
_RECEIVE_BYTES: Final = 1 << 20


class Lost(msgspec.Struct, frozen=True):
    """A process has ended too early, or with an error. `cause` completes a sentence, as "was ended by signal 9" does."""

    process: int
    cause: str


News: TypeAlias = SwarmReport | Lost


def start_process(descriptor: int) -> subprocess.Popen[bytes]:
    """Start a process of simulated peers. Ctrl-C in a terminal does not end it: the command orders it to leave."""
    return spawn("rlpx.workers.swarm", descriptor, {signal.SIGINT}, has_output=True)


class SwarmFleet:
    """All processes of one swarm. Set `is_leaving` if they may end on their own, as after a signal to all of them."""

    def __init__(self, start: StartProcess = start_process) -> None:
        self._start = start
        self._selector = selectors.DefaultSelector()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._streams: list[socket.socket] = []
        self.is_leaving = False
        self.enodes: dict[int, str] = {}

    def spawn(self, begin: Begin) -> None:
        """Start every process with its part of the scenario."""
        for index in range(begin.scenario.processes):
            ours, theirs = socket.socketpair()
            with theirs:
                self._processes.append(self._start(theirs.fileno()))
            self._streams.append(ours)
            self._selector.register(ours, selectors.EVENT_READ, (index, swarm.report_decoder()))
            self._send(ours, msgspec.structs.replace(begin, index=index))

    def await_ready(self, is_wanted: Callable[[], bool]) -> bool:
        """Wait until all processes are ready; returns `False` if that is no longer wanted. Raises `ConfigError`."""
        waiting, ends_at = len(self._processes), monotonic() + START_SECONDS
        while waiting and is_wanted():
            if monotonic() > ends_at:
                raise ConfigError(f"the processes were not ready within {START_SECONDS:g} s", os.EX_SOFTWARE)
            for news in self.poll(_POLL_SECONDS):
                if isinstance(news, Ready):
                    waiting -= 1
                    self.enodes.update((peer, dialable_enode(enode)) for peer, enode in news.enodes.items())
                elif isinstance(news, Failed):
                    raise ConfigError(news.cause, os.EX_UNAVAILABLE)
                elif isinstance(news, Lost) and not self.is_leaving:
                    raise ConfigError(f"process {news.process} of the swarm {news.cause}", os.EX_SOFTWARE)
        return not waiting

    def go(self) -> float:
        """Give the order to begin; returns the time of the start on the monotonic clock."""
        starts_at = monotonic() + HEAD_START_SECONDS
        self._tell(Go(starts_at))
        return starts_at

    def leave(self) -> None:
        """Order all peers to disconnect politely, and the processes to end."""
        self.is_leaving = True
        self._tell(Leave())

    @property
    def is_over(self) -> bool:
        """Whether all processes have ended."""
        return not self._selector.get_map()

    def poll(self, seconds: float) -> list[News]:
        """Return the new reports, and the newly lost processes, waiting up to this many seconds."""
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
        """Kill the processes that have not ended in time; returns these."""
        late = [key.data[0] for key in self._selector.get_map().values()]
        for index in late:
            self._selector.unregister(self._streams[index])
            self._processes[index].kill()
        return [Lost(index, "did not end when it was told to") for index in late]

    def close(self) -> None:
        """Close the streams, which ends the remaining processes, and wait for them."""
        for stream in self._streams:
            stream.close()
        self._selector.close()
        for process in self._processes:
            _wait(process)

    def _cause_of_end(self, index: int) -> str | None:
        """Return what went wrong with a process that has closed its stream, or None."""
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
            return  # the process has ended; `poll` finds out how

    def _receive(self, stream: socket.socket) -> bytes:
        try:
            return stream.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            return b""  # the process has ended with an order unread


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for the process to end; returns its exit code, or None if it must be killed."""
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None
