"""Rates from counters that only grow, and counts within a sliding window. Keys that strangers choose are bounded."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Mapping
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# Rates are means over this time: one burst of a slot (12 s) still shows as a burst, and a single message does not flicker.
RATE_SECONDS: Final = 5.0
# A window consists of parts of this length, the oldest of which is dropped as a whole.
PART_SECONDS: Final = 10.0
WINDOW_SECONDS: Final = 600.0


class Rates(Generic[K]):
    """Rates per second of counters by key, as means over the last `RATE_SECONDS`."""

    def __init__(self, seconds: float = RATE_SECONDS) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, Mapping[K, float]]] = deque()

    def add(self, counters: Mapping[K, float], *, now: float) -> None:
        """Add a reading. The mapping is kept. A counter that has fallen began anew: all earlier readings are void."""
        if self._samples and any(counters.get(key, 0) < value for key, value in self._samples[-1][1].items()):
            self._samples.clear()
        self._samples.append((now, counters))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self._seconds:  # noqa: PLR2004 - two are the least
            self._samples.popleft()

    def clear(self) -> None:
        """Forget all readings."""
        self._samples.clear()

    @property
    def is_known(self) -> bool:
        """Whether there were two readings."""
        return len(self._samples) > 1

    def per_second(self) -> dict[K, float]:
        """The rates of all keys of the last reading; empty before the second one."""
        if not self.is_known:
            return {}
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        seconds = max(ended - began, 1e-3)
        return {key: (value - first.get(key, 0)) / seconds for key, value in last.items()}


class Window(Generic[K]):
    """Counts of the last `WINDOW_SECONDS` by key. Keys beyond `max_keys` in a part are counted as `other`."""

    def __init__(self, other: K, max_keys: int) -> None:
        self._other = other
        self._max_keys = max_keys
        self._parts: deque[tuple[float, Counter[K]]] = deque()
        self.total = 0

    def add(self, key: K, *, now: float) -> None:
        """Count one."""
        part = self._part(now)
        part[key if key in part or len(part) < self._max_keys else self._other] += 1
        self.total += 1

    def counts(self, *, now: float) -> Counter[K]:
        """The counts within the window; beyond `max_keys` the rarest keys are summed up as `other`."""
        self._forget(now)
        found: Counter[K] = Counter()
        for _, part in self._parts:
            found.update(part)
        kept = Counter(dict(found.most_common(self._max_keys)))
        rest = found.total() - kept.total()
        if rest:
            kept[self._other] += rest
        return kept

    def _part(self, now: float) -> Counter[K]:
        if not self._parts or now - self._parts[-1][0] >= PART_SECONDS:
            self._forget(now)
            self._parts.append((now, Counter()))
        return self._parts[-1][1]

    def _forget(self, now: float) -> None:
        while self._parts and now - self._parts[0][0] >= WINDOW_SECONDS:
            self._parts.popleft()
