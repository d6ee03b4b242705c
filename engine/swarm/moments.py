"""A run, second by second: rates, latencies and costs of all processes of the swarm, and costs of the engine."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rlpx.engine.swarm.watch import Cost
from rlpx.protocol.bus.swarm import Latencies, Report, percentile


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One second of the whole swarm."""

    seconds: float
    established: int
    rates: dict[str, float]
    handshake_p50: float | None
    handshake_p99: float | None
    request_p99: float | None
    swarm_cpu: float
    engine_cpu: float | None
    engine_memory_bytes: int | None


class Moments:
    """Makes a `Moment` of the reports of each second. `cost` returns the engine's costs so far, or None."""

    def __init__(self, cost: Callable[[], Cost | None]) -> None:
        self.all: list[Moment] = []
        self._read_cost = cost
        # The reports since the last moment.
        self._reports: list[Report] = []
        self._cost: Cost | None = None
        self._starts_at = 0.0
        self._taken_at = 0.0

    def begin(self, now: float) -> None:
        """Start to count at this time."""
        self._starts_at = self._taken_at = now
        self._cost = self._read_cost()

    def add(self, report: Report) -> None:
        """Add a report of one process."""
        self._reports.append(report)

    def is_due(self, now: float, seconds: float) -> bool:
        """Whether there are reports and the last moment is at least this many seconds ago."""
        return bool(self._reports) and now - self._taken_at >= seconds

    def take(self, now: float, established: int) -> None:
        """Make a moment of the reports since the last one; `established` sessions are open now."""
        reports, self._reports = self._reports, []
        seconds = max(now - self._taken_at, 1e-9)
        self._taken_at = now
        before, cost = self._cost, self._read_cost()
        self._cost = cost
        handshakes, requests = _merged(reports, "handshake"), _merged(reports, "request")

        def rate(*names: str) -> float:
            return sum(report.counts.get(name, 0) for report in reports for name in names) / seconds

        self.all.append(
            Moment(
                seconds=now - self._starts_at,
                established=established,
                rates={
                    "established": rate("established"),
                    "messages": rate("announcements", "transactions", "requests_sent"),
                    "requests_answered": rate("requests_answered"),
                },
                handshake_p50=percentile(handshakes, 0.5),
                handshake_p99=percentile(handshakes, 0.99),
                request_p99=percentile(requests, 0.99),
                swarm_cpu=sum(report.cpu_seconds for report in reports) / seconds,
                engine_cpu=(cost.cpu_seconds - before.cpu_seconds) / seconds
                if cost is not None and before is not None
                else None,
                engine_memory_bytes=cost.memory_bytes if cost is not None else None,
            )
        )


def _merged(reports: list[Report], name: str) -> Latencies:
    merged: Latencies = {}
    for report in reports:
        for bucket, count in report.latencies.get(name, {}).items():
            merged[bucket] = merged.get(bucket, 0) + count
    return merged
