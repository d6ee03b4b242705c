"""What the engine says and costs while a swarm is at it: its own counts and events, CPU and memory of its processes."""

from __future__ import annotations

import resource
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

from engine.client import Client, EngineError, EngineUnavailableError, Event, Subscriber
from engine.closing import Closing

_PROC: Final = Path("/proc")
_PAGE_BYTES: Final = resource.getpagesize()
# An engine that is busy answers within this; the command does nothing else meanwhile.
_CALL_SECONDS: Final = 10.0
# Lifecycle events that may still be on their way when the last peer has gone.
_SETTLE_SECONDS: Final = 5.0
TOPICS: Final = ("session.established", "session.closed", "session.refused", "worker.started", "worker.lost")


class Cost(msgspec.Struct, frozen=True):
    """CPU seconds so far and resident memory of all processes of the engine."""

    cpu_seconds: float
    memory_bytes: int


class Watch(Closing):
    """The engine of a run directory, from when it was made. Raises `EngineUnavailableError` where there is none."""

    def __init__(self, run_dir: str) -> None:
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        # CPU of every process there has been: what one has cost stays when it is replaced.
        self._cpu_ns: dict[int, int] = {}
        self._client = Client.of(run_dir, timeout_seconds=_CALL_SECONDS)
        # Before the status: a worker that starts meanwhile is in one of the two.
        self._events = Subscriber.of(run_dir, list(TOPICS))
        try:
            self.status: dict[str, Any] = self._client.call("status")
        except (EngineError, EngineUnavailableError):
            self.close()
            raise
        # By worker; that of the engine process itself under `None`.
        self._pids: dict[int | None, int] = {worker["worker"]: worker["pid"] for worker in self.status["workers"]}
        self._pids[None] = self.status["pid"]

    @property
    def enode(self) -> str:
        """Where it listens."""
        return str(self.status["enode"])

    @property
    def is_there(self) -> bool:
        """Whether it still answers."""
        try:
            self._client.call("counts")
        except EngineUnavailableError:
            return False
        return True

    def dial(self, enode: str) -> str | None:
        """Have it dial a peer; the name of the error where it does not."""
        try:
            self._client.call("dial", enode=enode)
        except EngineError as error:
            return error.name
        except EngineUnavailableError:
            return "no engine"
        return None

    def read(self) -> None:
        """Take the events that have come."""
        while batch := self._events.poll(0.0):
            for event in batch:
                if isinstance(event, Event):
                    self._take(event)

    def settle(self) -> None:
        """Wait until every session that was established has its end."""
        ends_at = monotonic() + _SETTLE_SECONDS
        while self.counts["closed_established"] < self.counts["established"] and monotonic() < ends_at:
            for event in self._events.poll(0.1):
                if isinstance(event, Event):
                    self._take(event)
        self.read()

    def cost(self) -> Cost:
        """What it has cost so far. The memory is that of the processes that are there."""
        memory = 0
        for pid in self._pids.values():
            try:
                threads = [int(file.read_text().split()[0]) for file in (_PROC / str(pid) / "task").glob("*/schedstat")]
                memory += int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES
            except (FileNotFoundError, ProcessLookupError):
                continue
            # A thread that has ended is not in the sum any more.
            self._cpu_ns[pid] = max(self._cpu_ns.get(pid, 0), sum(threads))
        return Cost(sum(self._cpu_ns.values()) / 1e9, memory)

    def close(self) -> None:
        """Let go of the sockets."""
        self._events.close()
        self._client.close()

    def _take(self, event: Event) -> None:
        fields = event.fields
        kind, _, name = event.topic.partition(".")
        if kind == "worker":
            self.counts["workers_lost"] += name == "lost"
            # The lost one's number is given to the next.
            self._pids[fields["worker"]] = fields["pid"]
            return
        self.counts[name] += 1
        if name == "closed":
            self.counts["messages_in"] += fields["messages_in"]
            self.counts["messages_out"] += fields["messages_out"]
            self.counts["closed_established"] += fields["stage"] == "active"
            self.ends[f"{fields['ended_by']} {fields['reason'] or '-'} at {fields['stage']}"] += 1
