"""The engine during a run of the swarm: its counts and events, and the CPU and memory of its processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

from rlpx.engine.client.batch_reader import Event
from rlpx.engine.client.client import Client
from rlpx.engine.client.closing import Closing
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.process.proc import PROC, cpu_ns, resident_bytes

# Even a busy engine answers within this time. The command does nothing else meanwhile.
_CALL_SECONDS: Final = 10.0
# Time for lifecycle events that are still in transit when the last peer has left.
SETTLE_SECONDS: Final = 5.0
TOPICS: Final = ("session.established", "session.closed", "session.refused", "worker.started", "worker.lost")


class Cost(msgspec.Struct, frozen=True):
    """CPU seconds so far and resident memory of all processes of the engine."""

    cpu_seconds: float
    memory_bytes: int


class Watch(Closing):
    """Watches the engine of a run directory from now on. Raises `EngineUnavailableError` if there is none."""

    def __init__(self, run_dir: str, proc: Path = PROC) -> None:
        self._proc = proc
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        # The CPU time of every process so far; that of replaced processes is kept.
        self._cpu_ns: dict[int, int] = {}
        self._client = Client.of(run_dir, timeout_seconds=_CALL_SECONDS)
        self._events = Subscriber.of(run_dir, list(TOPICS))
        try:
            # This fails at once if there is no engine that answers; nothing else would.
            self._client.call("counts")
            # Subscribe before asking for the status, so that the events include everything that happens afterwards.
            self._events.confirm(_CALL_SECONDS)
            self.status: dict[str, Any] = self._client.call("status")
        except (EngineError, EngineUnavailableError):
            self.close()
            raise
        # Process ids by worker; the engine process itself has the key `None`.
        self._pids: dict[int | None, int] = {worker["worker"]: worker["pid"] for worker in self.status["workers"]}
        self._pids[None] = self.status["pid"]

    @property
    def enode(self) -> str | None:
        """The enode of the engine, or None if it does not listen."""
        enode: str | None = self.status["enode"]
        return enode

    @property
    def is_there(self) -> bool:
        """Whether the engine still answers."""
        try:
            self._client.call("counts")
        except EngineUnavailableError:
            return False
        return True

    def dial(self, enode: str) -> str | None:
        """Make the engine dial a peer; returns the name of the error if it refuses."""
        try:
            self._client.call("dial", enode=enode)
        except EngineError as error:
            return error.name
        except EngineUnavailableError:
            return "no engine"
        return None

    def read(self) -> None:
        """Count the events that have arrived."""
        while batch := self._events.poll(0.0):
            for event in batch:
                if isinstance(event, Event):
                    self._take(event)

    def settle(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait, at most this long, until every established session has ended."""
        ends_at = monotonic() + seconds
        while self.counts["closed_established"] < self.counts["established"] and monotonic() < ends_at:
            for event in self._events.poll(0.1):
                if isinstance(event, Event):
                    self._take(event)
        self.read()

    def cost(self) -> Cost:
        """Return the cost so far. The memory is that of the current processes."""
        memory = 0
        for pid in self._pids.values():
            try:
                cpu_now = cpu_ns(pid, self._proc)
                memory += resident_bytes(pid, self._proc)
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The new sum lacks threads that have ended since.
            self._cpu_ns[pid] = max(self._cpu_ns.get(pid, 0), cpu_now)
        return Cost(sum(self._cpu_ns.values()) / 1e9, memory)

    def close(self) -> None:
        """Close the sockets."""
        self._events.close()
        self._client.close()

    def _take(self, event: Event) -> None:
        fields = event.fields
        kind, _, name = event.topic.partition(".")
        if kind == "worker":
            self.counts["workers_lost"] += name == "lost"
            # The replacement has the index of the lost worker.
            self._pids[fields["worker"]] = fields["pid"]
            return
        self.counts[name] += 1
        if name == "closed":
            self.counts["messages_in"] += fields["messages_in"]
            self.counts["messages_out"] += fields["messages_out"]
            self.counts["closed_established"] += fields["stage"] == "active"
            self.ends[f"{fields['ended_by']} {fields['reason'] or '-'} at {fields['stage']}"] += 1
