"""What the engine says and costs while a swarm is at it: its own counts and events, CPU and memory of its processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

from engine.client import Client, Event, Subscriber

_PAGE_BYTES: Final = 4096
# Lifecycle events that may still be on their way when the last peer has gone.
_SETTLE_SECONDS: Final = 5.0


class Cost(msgspec.Struct, frozen=True):
    """CPU seconds so far and resident memory of all processes of the engine."""

    cpu_seconds: float
    memory_bytes: int


class Watch:
    """The engine of a run directory, from when it was made."""

    def __init__(self, run_dir: str) -> None:
        self.client = Client.of(run_dir)
        self.status: dict[str, Any] = self.client.call("status")
        self._events = Subscriber.of(run_dir, ["session.established", "session.closed", "session.refused"])
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self._pids = [self.status["pid"], *(worker["pid"] for worker in self.status["workers"])]

    @property
    def enode(self) -> str:
        """Where it listens."""
        return str(self.status["enode"])

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
        """What it has cost so far; a process that has gone counts no more."""
        cpu = memory = 0
        for pid in self._pids:
            try:
                for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                    cpu += int(file.read_text().split()[0])
                memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
            except (FileNotFoundError, ProcessLookupError):
                continue
        return Cost(cpu / 1e9, memory)

    def close(self) -> None:
        """Let go of the sockets."""
        self._events.close()
        self.client.close()

    def _take(self, event: Event) -> None:
        name = event.topic.removeprefix("session.")
        self.counts[name] += 1
        fields = event.fields
        if name == "closed":
            self.counts["messages_in"] += fields["messages_in"]
            self.counts["messages_out"] += fields["messages_out"]
            self.counts["closed_established"] += fields["stage"] == "active"
            self.ends[f"{fields['ended_by']} {fields['reason'] or '-'} at {fields['stage']}"] += 1
