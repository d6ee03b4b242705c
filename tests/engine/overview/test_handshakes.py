from __future__ import annotations

import pytest

from rlpx.engine.overview.handshakes import BAR_LIMITS_MS, Handshakes, percentile


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_the_nearest_rank(share: float, value: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == value


def test_without_handshakes_there_is_no_percentile() -> None:
    handshakes = Handshakes()
    assert handshakes.moment(now=1.0) == (None, None)
    latencies = handshakes.latencies(now=1.0)
    assert (latencies.count, latencies.p50_ms, sum(latencies.bars)) == (0, None, 0)


def test_every_handshake_is_in_one_bar() -> None:
    handshakes = Handshakes()
    for milliseconds in (0.5, 1, 1.1, 99, 100, 101, 60_000):
        handshakes.add(milliseconds, now=1.0)
    latencies = handshakes.latencies(now=2.0)
    bars = dict(zip((*BAR_LIMITS_MS, 0), latencies.bars, strict=True))
    assert {limit: count for limit, count in bars.items() if count} == {1: 2, 2: 1, 100: 2, 200: 1, 0: 1}
    assert (latencies.count, latencies.p50_ms, latencies.p99_ms) == (7, 99, 60_000)


def test_old_handshakes_are_forgotten() -> None:
    handshakes = Handshakes()
    handshakes.add(10, now=0.0)
    handshakes.fail("hello", now=0.0)
    handshakes.add(20, now=500.0)
    assert handshakes.moment(now=505.0) == (20, 20)
    assert handshakes.latencies(now=601.0).count == 1
    assert handshakes.failed(now=500.0) == {"hello": 1}
    assert handshakes.failed(now=700.0) == {}


def test_a_clock_that_steps_back_makes_no_negative_latency() -> None:
    handshakes = Handshakes()
    handshakes.add(-5.0, now=1.0)
    assert handshakes.latencies(now=1.0).p50_ms == 0
