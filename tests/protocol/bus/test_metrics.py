"""Counters of several processes add up, and histograms count every duration once."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus.metrics import (
    BOUNDS_SECONDS,
    Durations,
    HandshakeCounts,
    MessageCounts,
    RequestCounts,
    StageCounts,
    WorkerCounters,
    added,
)
from rlpx.protocol.lifecycle import Direction, Stage


def durations(*seconds: float) -> Durations:
    counted = Durations()
    for each in seconds:
        counted.observe(each)
    return counted


def test_a_duration_counts_in_the_bucket_of_the_first_bound_that_it_does_not_exceed() -> None:
    assert durations(0.0, 0.001).counts[:2] == [2, 0]
    assert durations(0.0011).counts[:2] == [0, 1]
    assert durations(20.0, 20.1, 1e9).counts[-2:] == [1, 2]


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_histograms_add_up(first: list[float], second: list[float]) -> None:
    total = added(durations(*first), durations(*second))
    assert total.counts == durations(*first, *second).counts
    assert sum(total.counts) == len(first) + len(second)
    assert len(total.counts) == len(BOUNDS_SECONDS) + 1


def test_counters_of_two_workers_are_matched_by_name() -> None:
    first = WorkerCounters(
        bytes_in=5,
        messages=[MessageCounts("eth/69", "Transactions", 1, 10, 2, 20), MessageCounts("eth/69", "Status", 1, 1, 1, 1)],
        stages=[StageCounts(Direction.INBOUND, Stage.AUTH, durations(0.1), {"us": 1})],
        requests_out=[RequestCounts("eth", "GetBlockHeaders", durations(1.0), {"answered": 1})],
        misconduct={"breach": 1},
        loop_lag=durations(0.1),
    )
    second = WorkerCounters(
        bytes_in=7,
        messages=[MessageCounts("eth/69", "Transactions", 3, 30, 4, 40), MessageCounts("eth/70", "Status", 9, 9, 9, 9)],
        stages=[
            StageCounts(Direction.INBOUND, Stage.AUTH, durations(0.1), {"us": 2, "peer": 3}),
            StageCounts(Direction.OUTBOUND, Stage.AUTH, durations(), {}),
        ],
        handshakes=[HandshakeCounts(Direction.INBOUND, durations(2.0))],
        misconduct={"bad_message": 4},
    )
    assert added(first, second) == WorkerCounters(
        bytes_in=12,
        messages=[
            MessageCounts("eth/69", "Transactions", 4, 40, 6, 60),
            MessageCounts("eth/69", "Status", 1, 1, 1, 1),
            MessageCounts("eth/70", "Status", 9, 9, 9, 9),
        ],
        stages=[
            StageCounts(Direction.INBOUND, Stage.AUTH, durations(0.1, 0.1), {"us": 3, "peer": 3}),
            StageCounts(Direction.OUTBOUND, Stage.AUTH, durations(), {}),
        ],
        handshakes=[HandshakeCounts(Direction.INBOUND, durations(2.0))],
        requests_out=[RequestCounts("eth", "GetBlockHeaders", durations(1.0), {"answered": 1})],
        misconduct={"breach": 1, "bad_message": 4},
        loop_lag=durations(0.1),
    )


def test_nothing_added_changes_nothing_and_neither_summand_changes() -> None:
    counters = WorkerCounters(bytes_in=5, stages=[StageCounts(Direction.INBOUND, Stage.AUTH, durations(0.1), {"us": 1})])
    before = msgspec.json.encode(counters)
    assert added(counters, WorkerCounters()) == added(WorkerCounters(), counters) == counters
    added(counters, counters)
    assert msgspec.json.encode(counters) == before
