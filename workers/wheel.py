"""Deadlines of many connections with one timer: buckets of a tenth of a second.

A deadline that moves away costs nothing until its bucket comes; one that moves nearer is entered again.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

# Timeouts here are seconds; a tenth late is nothing. One wake-up a tenth costs under 0.1 % of a core.
BUCKET_SECONDS: Final = 0.1


class Timed(Protocol):
    """Something with a deadline. `bucket` belongs to the wheel."""

    bucket: int | None

    @property
    def deadline(self) -> float:
        """When `on_deadline` is due, on the monotonic clock; infinite for never."""

    def on_deadline(self, now: float) -> None:
        """The deadline has passed."""


class Wheel:
    """Calls `on_deadline` of each entered item in the bucket after its deadline; drive it with `turn`."""

    __slots__ = ("_buckets", "_turned_to")

    def __init__(self, *, now: float) -> None:
        self._buckets: dict[int, list[Timed]] = {}
        self._turned_to = int(now / BUCKET_SECONDS)

    def enter(self, item: Timed) -> None:
        """Heed the item's deadline; call it whenever that may have moved nearer."""
        if item.deadline == math.inf:
            return
        bucket = max(int(item.deadline / BUCKET_SECONDS), self._turned_to) + 1
        if item.bucket is None or bucket < item.bucket:
            item.bucket = bucket
            self._buckets.setdefault(bucket, []).append(item)

    def turn(self, now: float) -> None:
        """Let all buckets up to `now` come."""
        target = int(now / BUCKET_SECONDS)
        while self._turned_to < target:
            self._turned_to += 1
            for item in self._buckets.pop(self._turned_to, ()):
                if item.bucket != self._turned_to:
                    continue  # it was entered again for an earlier bucket, which has had it
                item.bucket = None
                if item.deadline <= now:
                    item.on_deadline(now)
                self.enter(item)
