"""Deadlines of many connections on one timer, in buckets of a tenth of a second.

A deadline that moves away costs nothing until its bucket comes; one that moves nearer is entered again.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

# Timeouts here are seconds, so a tenth late does not matter. Ten wake-ups a second cost under 0.1 % of a core.
BUCKET_SECONDS: Final = 0.1


class Timed(Protocol):
    """Something with a deadline. `bucket` belongs to the wheel."""

    bucket: int | None
    # When `on_deadline` is due, on the monotonic clock; infinite for never.
    deadline: float

    def on_deadline(self, now: float) -> None:
        """The deadline has passed."""


class Wheel:
    """Calls `on_deadline` of each entered item in the bucket after its deadline; drive it with `turn`.

    It holds an item once, until its bucket has come or it is removed.
    """

    __slots__ = ("_buckets", "_turned_to")

    def __init__(self, *, now: float) -> None:
        # The items of a bucket in the order in which they came.
        self._buckets: dict[int, dict[Timed, None]] = {}
        self._turned_to = int(now / BUCKET_SECONDS)

    def enter(self, item: Timed) -> None:
        """Enter an item by its deadline. Call it again whenever the deadline may have moved nearer."""
        if item.deadline == math.inf:
            return
        bucket = max(int(item.deadline / BUCKET_SECONDS), self._turned_to) + 1
        if item.bucket is None or bucket < item.bucket:
            self.remove(item)
            item.bucket = bucket
            self._buckets.setdefault(bucket, {})[item] = None

    def remove(self, item: Timed) -> None:
        """Remove an item; does nothing if it is not entered."""
        if item.bucket is not None:
            self._buckets.get(item.bucket, {}).pop(item, None)
            item.bucket = None

    def due(self, now: float) -> list[Timed]:
        """Take out all buckets up to `now`: returns the items whose deadline has passed, and enters the others again."""
        target = int(now / BUCKET_SECONDS)
        due: list[Timed] = []
        while self._turned_to < target:
            self._turned_to += 1
            for item in self._buckets.pop(self._turned_to, ()):
                item.bucket = None
                if item.deadline <= now:
                    due.append(item)
                else:
                    self.enter(item)
        return due

    def turn(self, now: float) -> None:
        """Call every item that is due by `now`, and enter it again."""
        self.judge(self.due(now), now)

    def judge(self, due: list[Timed], now: float) -> None:
        """Call those items whose deadline is still in the past, and enter all of them again."""
        for item in due:
            if item.deadline <= now:
                item.on_deadline(now)
            self.enter(item)
