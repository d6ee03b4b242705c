"""The dials of listening peers by the engine: each at its time, and again after a while if the engine refused."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final

# Delay after a refused dial: the engine is at its limits, or still holds the peer's last session.
REDIAL_SECONDS: Final = 2.0


class Dials:
    """See the module. `dial` makes the engine dial an enode; returns the error's name if refused. Times are of one clock."""

    def __init__(self, dial: Callable[[str], str | None]) -> None:
        self._dial = dial
        self._due: list[tuple[float, int, str]] = []
        self._has_stopped = False
        self.made = 0
        self.refused: Counter[str] = Counter()

    def add(self, at: float, peer: int, enode: str) -> None:
        """Schedule a dial of this peer at this time."""
        if not self._has_stopped:
            heapq.heappush(self._due, (at, peer, enode))

    def carry_out(self, now: float, seconds: float) -> None:
        """Dial the peers that are due, for a limited time: a slow engine must not hold up the command."""
        ends_at = monotonic() + seconds
        while self._due and self._due[0][0] <= now and monotonic() < ends_at:
            _, peer, enode = heapq.heappop(self._due)
            error = self._dial(enode)
            if error is None:
                self.made += 1
            else:
                self.refused[error] += 1
                self.add(now + REDIAL_SECONDS, peer, enode)

    def stop(self) -> None:
        """Cancel all dials."""
        self._has_stopped = True
        self._due.clear()
