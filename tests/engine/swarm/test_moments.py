"""Each second of a run has its rates, latencies and costs."""

from __future__ import annotations

import pytest

from rlpx.engine.swarm.moments import Moments
from rlpx.engine.swarm.watch import Cost
from rlpx.protocol.bus.swarm import Report, bucket_of

MIB = 1 << 20


def report(index: int, established: int, latencies: dict[int, int]) -> Report:
    """A report of one process."""
    return Report(
        index=index,
        seconds=1.0,
        counts={"established": established, "announcements": 6, "requests_sent": 2, "requests_answered": 1},
        ends={},
        faults={},
        latencies={"handshake": latencies},
        established=established,
        cpu_seconds=0.25,
        waiting_seconds=0.0,
        lag_seconds=0.0,
        memory_bytes=MIB,
    )


def test_a_moment_sums_up_the_reports_since_the_last_one() -> None:
    costs = iter([Cost(1.0, MIB), Cost(1.5, 2 * MIB), Cost(1.5, 2 * MIB)])
    moments = Moments(lambda: next(costs))
    moments.begin(100.0)
    moments.add(report(0, 4, {bucket_of(0.01): 1}))
    moments.add(report(1, 2, {bucket_of(0.01): 1, bucket_of(0.1): 8}))
    moments.take(102.0, 6)
    moments.take(103.0, 5)
    first, second = moments.all
    assert (first.seconds, first.established) == (2.0, 6)
    assert first.rates == {"established": 3.0, "messages": 8.0, "requests_answered": 1.0}
    assert first.handshake_p99 == pytest.approx(0.1, rel=0.03)
    assert first.request_p99 is None
    assert (first.swarm_cpu, first.engine_cpu, first.engine_memory_bytes) == (0.25, 0.25, 2 * MIB)
    assert (second.seconds, second.established, second.swarm_cpu, second.engine_cpu) == (3.0, 5, 0.0, 0.0)


def test_a_moment_is_due_when_its_time_is_over_and_there_are_reports() -> None:
    moments = Moments(lambda: None)
    moments.begin(100.0)
    assert not moments.is_due(105.0, 1.0)
    moments.add(report(0, 1, {}))
    assert not moments.is_due(100.9, 1.0)
    assert moments.is_due(101.0, 1.0)


def test_without_an_engine_to_watch_its_costs_are_unknown() -> None:
    moments = Moments(lambda: None)
    moments.begin(100.0)
    moments.take(100.0, 0)
    assert (moments.all[0].engine_cpu, moments.all[0].engine_memory_bytes) == (None, None)
