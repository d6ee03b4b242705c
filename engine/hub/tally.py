"""Counts what the engine decides and sees: accepts and refusals, dials, active sessions by client, ends, workers.

Every name that is counted comes from a bounded set, whatever peers send.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Final

from rlpx.protocol.bus.events import SessionClosed
from rlpx.protocol.bus.metrics import (
    CapabilityCount,
    ClientCount,
    DialCounts,
    Durations,
    EndCounts,
    WorkerCounters,
    added,
)
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction

# Clients by the beginning of their names, which every peer chooses as it likes; all else is `OTHER_CLIENT`.
FAMILIES: Final = {
    "geth": "geth",
    "nethermind": "nethermind",
    "besu": "besu",
    "erigon": "erigon",
    "reth": "reth",
    "ethereumjs": "ethereumjs",
    "nimbus": "nimbus",
    "rlpx-engine": "rlpx-engine",
}
OTHER_CLIENT: Final = "other"
_LONGEST_FAMILY: Final = max(map(len, FAMILIES))
_NO_REASON: Final = "none"
_UNKNOWN_REASON: Final = "unknown"


class Refused(StrEnum):
    """Why an accepted connection or a dial came to nothing before the peer could say anything."""

    ADDRESS = "address"
    BANNED = "banned"
    THROTTLE = "throttle"
    LIMITS = "limits"
    NO_WORKER = "no_worker"
    ALREADY_CONNECTED = "already_connected"
    SELF = "connected_to_self"
    STOPPING = "stopping"


class Tally:
    """See the module. All counts start at zero with the engine."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.not_dialled: Counter[str] = Counter()
        self.dialled = 0
        self.dials_failed = 0
        self.dials_established = 0
        self.worker_starts = 0
        self.worker_ends: Counter[str] = Counter()
        self.commands: Counter[str] = Counter()
        self.loop_lag = Durations()
        # What worker processes that have ended had counted.
        self.ended_workers = WorkerCounters()
        self._ends: Counter[tuple[str, str, Direction]] = Counter()
        self._clients: Counter[tuple[str, Direction]] = Counter()
        self._capabilities: Counter[str] = Counter()

    def established(self, view: SessionView) -> None:
        """A session is active."""
        self.dials_established += view.direction is Direction.OUTBOUND
        self._clients[family(view.client or ""), view.direction] += 1
        self._capabilities.update(view.shared)

    def ended(self, view: SessionView, event: SessionClosed) -> None:
        """A session or a dial has ended."""
        if view.established_us is not None:
            self._clients[family(view.client or ""), view.direction] -= 1
            self._capabilities.subtract(view.shared)
        self._ends[event.ended_by, _reason(event.reason), view.direction] += 1

    def worker_ended(self, how: str, counters: WorkerCounters | None) -> None:
        """A worker process has ended; `counters` are those of its last pulse."""
        self.worker_ends[how] += 1
        if counters is not None:
            self.ended_workers = added(self.ended_workers, counters)

    def clients(self) -> list[ClientCount]:
        """Active sessions by client and direction, those without any included, so that their graphs go on."""
        return [ClientCount(client, direction, sessions) for (client, direction), sessions in self._clients.items()]

    def capabilities(self) -> list[CapabilityCount]:
        """Active sessions by shared capability. One of a sub-protocol of the user's is left out while nobody shares it."""
        for name in [name for name, sessions in self._capabilities.items() if not sessions]:
            del self._capabilities[name]
        return [CapabilityCount(*item) for item in sorted(self._capabilities.items())]

    def ends(self) -> list[EndCounts]:
        """All ends."""
        return [EndCounts(*names, sessions) for names, sessions in self._ends.items()]

    def dials(self, static: dict[str, int], next_s: float | None) -> DialCounts:
        """Dials so far; `static` and `next_s` are what the static peers do now."""
        return DialCounts(self.dialled, self.dials_established, self.dials_failed, dict(self.not_dialled), static, next_s)


def family(client: str) -> str:
    """The family of a client's name, `Geth/v1.16.2-stable/linux`."""
    start = client[: _LONGEST_FAMILY + 1].lower()
    return next((name for prefix, name in FAMILIES.items() if start.startswith(prefix)), OTHER_CLIENT)


def _reason(label: str | None) -> str:
    if label is None:
        return _NO_REASON
    return label if label in _KNOWN_REASONS else _UNKNOWN_REASON


_KNOWN_REASONS: Final = frozenset(reason.label for reason in DisconnectReason)
