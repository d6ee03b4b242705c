"""Listening peers that the engine is to dial: each at its time, and again after a while where the engine would not."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final

# What the engine would not dial, for its limits or as it holds the peer's last session still, is tried again after this.
REDIAL_SECONDS: Final = 2.0


class Dials:
    """`dial` has the engine dial an enode, and returns the name of its error where it would not. Times are of one clock."""

    def __init__(self, dial: Callable[[str], str | None]) -> None:
        self._dial = dial
        self._due: list[tuple[float, int, str]] = []
        self._has_stopped = False
        self.made = 0
        self.refused: Counter[str] = Counter()

    def add(self, at: float, peer: int, enode: str) -> None:
        """Dial this peer then."""
        if not self._has_stopped:
            heapq.heappush(self._due, (at, peer, enode))

    def carry_out(self, now: float, seconds: float) -> None:
        """Dial who is due, for so long at most: a slow engine must not keep the command from all else."""
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
        """Dial nobody any more."""
        self._has_stopped = True
        self._due.clear()
