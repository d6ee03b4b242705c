"""The plan for a number of peers, worked out from what a few cost."""

from __future__ import annotations

import msgspec
import pytest

from rlpx.engine.swarm.capacity import BUSY_SHARE, PACKET_BYTES, Prices, assumptions, errors, plan, prices
from rlpx.engine.swarm.trial import Costs

QUIET = Costs(
    peers=100,
    workers=1,
    established=100,
    establish_seconds=1.0,
    establish_engine_cpu=0.02,
    establish_worker_cpu=0.08,
    base_bytes=90_000_000,
    session_bytes=10_000.0,
    hold_seconds=10.0,
    hold_engine_cpu=0.1,
    hold_worker_cpu=0.2,
    messages_in=70,
    messages_out=70,
    bytes_in=70,
    bytes_out=70,
    worst_lag_ms=1.0,
    ends={},
)
LIVELY = msgspec.structs.replace(
    QUIET,
    hold_engine_cpu=1.1,
    hold_worker_cpu=2.2,
    messages_in=4000,
    messages_out=1000,
    bytes_in=400_000,
    bytes_out=10_000,
    session_bytes=12_000.0,
)
BASE = (50_000_000, 40_000_000)
PRICE = prices(QUIET, LIVELY, BASE)


def test_prices_are_what_a_session_a_second_of_rest_and_a_message_add() -> None:
    assert msgspec.to_builtins(PRICE) == pytest.approx(
        {
            "session_engine_cpu": 200e-6,
            "session_worker_cpu": 800e-6,
            "idle_engine_cpu": 100e-6,
            "idle_worker_cpu": 200e-6,
            "message_engine_cpu": 200e-6,
            "message_worker_cpu": 400e-6,
            "engine_base_bytes": 50_000_000,
            "worker_base_bytes": 40_000_000,
            "session_bytes": 12_000.0,
            "bytes_per_message_in": 100.0,
            "bytes_per_message_out": 10.0,
            "messages_in_per_s": 4.0,
            "messages_out_per_s": 1.0,
        }
    )


def test_a_trial_with_more_messages_than_a_peer_sends_has_the_same_rate_and_its_own_price() -> None:
    lively = msgspec.structs.replace(LIVELY, messages_in=70 + 5 * 3930, messages_out=70 + 5 * 930, hold_worker_cpu=3.2)
    found = prices(QUIET, lively, BASE, factor=5.0)
    assert (found.messages_in_per_s, found.messages_out_per_s) == pytest.approx((4.0, 1.0))
    assert found.message_worker_cpu == pytest.approx(3.0 / (140 + 5 * 4860))


def test_a_plan_adds_them_up() -> None:
    found = plan(PRICE, 1000, 20_000, 1000.0)
    assert (found.handshakes_per_s, found.messages_in_per_s, found.messages_out_per_s) == (1.0, 4000.0, 1000.0)
    assert found.engine_cores == pytest.approx(200e-6 + 0.1 + 5000 * 200e-6)
    assert found.worker_cores == pytest.approx(800e-6 + 0.2 + 5000 * 400e-6)
    assert found.bits_in_per_s == pytest.approx(8 * 4000 * (100 + PACKET_BYTES))
    # 2.2 cores of work, none of them busy for more than its share.
    assert found.workers == 4
    assert found.worker_cores / found.workers < BUSY_SHARE
    assert found.memory_bytes == 50_000_000 + 4 * 40_000_000 + 1000 * 12_000


def test_descriptors_may_ask_for_more_workers_than_work_does() -> None:
    still = msgspec.structs.replace(PRICE, messages_in_per_s=0.0, messages_out_per_s=0.0, idle_worker_cpu=0.0)
    assert plan(still, 100_000, 20_000).workers == 6
    assert plan(still, 100_000, 200_000).workers == 1
    assert plan(still, 1, 20_000).workers == 1
    for limit in (1024, 20_000):
        found = plan(still, 5000, limit)
        assert found.descriptors_per_worker <= limit


def test_a_plan_for_the_same_run_is_right() -> None:
    found = errors(plan(PRICE, 100, 20_000, float("inf")), LIVELY)
    assert set(found) == {"memory", "worker_cpu", "engine_cpu", "messages_in", "bytes_in"}
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=0.02)


def test_noise_makes_no_negative_price_and_nothing_divides_by_zero() -> None:
    nothing = msgspec.structs.replace(LIVELY, established=0, messages_in=0, messages_out=0, hold_worker_cpu=0.0)
    found: Prices = prices(QUIET, nothing, BASE)
    assert all(value >= 0 for value in msgspec.to_builtins(found).values())
    assert errors(plan(found, 10, 1000), nothing)["memory"] < 1


def test_what_is_assumed_is_said() -> None:
    words = assumptions(PRICE, "mainnet", 1800.0)
    assert any("mainnet" in word and "4.00 messages a second in" in word for word in words)
    assert any("30 minutes" in word for word in words)
