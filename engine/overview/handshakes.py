"""How long handshakes take: from the connection, or our dial, to both Statuses, and how far those came that failed."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

import msgspec

from rlpx.engine.overview.counters import WINDOW_SECONDS, Window

# In ten minutes of 50 handshakes a second there are 30,000. Beyond this number the window is shorter.
MAX_KEPT: Final = 20_000
# Upper bounds of the bars, in milliseconds; above the last one is one more bar. The engine gives a handshake 20 s.
BAR_LIMITS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
# The stages of `rlpx.protocol.lifecycle`, and room for those of a newer engine.
_MAX_STAGES: Final = 16
# A moment's percentiles are those of the last handshakes within this time.
MOMENT_SECONDS: Final = 10.0


class Latencies(msgspec.Struct, frozen=True):
    """Percentiles in milliseconds, `None` without any handshake. `bars`: counts by `BAR_LIMITS_MS`, and of all above."""

    count: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    bars: list[int]


class Handshakes:
    """The completed handshakes of the last ten minutes, and the failed ones by stage."""

    def __init__(self) -> None:
        self._taken: deque[tuple[float, float]] = deque(maxlen=MAX_KEPT)
        self._failed: Window[str] = Window("other", _MAX_STAGES)

    def add(self, milliseconds: float, *, now: float) -> None:
        """Add a completed handshake."""
        self._taken.append((now, max(0.0, milliseconds)))

    def fail(self, stage: str, *, now: float) -> None:
        """Count a session that ended at this stage, before it was active."""
        self._failed.add(stage, now=now)

    def latencies(self, *, now: float) -> Latencies:
        """The latencies of the last ten minutes."""
        while self._taken and now - self._taken[0][0] >= WINDOW_SECONDS:
            self._taken.popleft()
        values = sorted(milliseconds for _, milliseconds in self._taken)
        bars = [0] * (len(BAR_LIMITS_MS) + 1)
        bar = 0
        for value in values:
            while bar < len(BAR_LIMITS_MS) and value > BAR_LIMITS_MS[bar]:
                bar += 1
            bars[bar] += 1
        return Latencies(len(values), percentile(values, 0.5), percentile(values, 0.9), percentile(values, 0.99), bars)

    def moment(self, *, now: float) -> tuple[float | None, float | None]:
        """The median and the 99th percentile of the last ten seconds."""
        values = []
        for at, milliseconds in reversed(self._taken):
            if now - at > MOMENT_SECONDS:
                break
            values.append(milliseconds)
        values.sort()
        return percentile(values, 0.5), percentile(values, 0.99)

    def failed(self, *, now: float) -> Counter[str]:
        """The sessions of the last ten minutes that ended before they were active, by their last stage."""
        return self._failed.counts(now=now)


def percentile(ordered: list[float], share: float) -> float | None:
    """The smallest value that is not below this share of all (nearest rank)."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
