"""The line a minute of the log."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
import structlog.testing

from rlpx.engine.minutes import SUMMARY_SECONDS, Minutes
from rlpx.engine.settings.settings import LogSettings
from rlpx.protocol.bus.commands import BanParameters
from rlpx.protocol.bus.control import Pulse, SessionAuthenticated, Verdict
from rlpx.protocol.bus.metrics import HandshakeCounts, MessageCounts, WorkerCounters
from rlpx.protocol.lifecycle import Direction
from tests.engine.fake_worker import until
from tests.engine.harness import OTHER, PEER, EngineHarness, MakeEngine, closed


def minutes_of(harness: EngineHarness) -> Minutes:
    """Its line a minute, which the test drives."""
    return harness.engine._minutes  # noqa: SLF001 - nothing else tells the time to it


def line(harness: EngineHarness, minute: int = 1) -> dict[str, Any]:
    """The line of this minute from now."""
    with structlog.testing.capture_logs() as logged:
        minutes_of(harness).on_second(monotonic() + minute * SUMMARY_SECONDS)
    [found] = logged
    return dict(found)


async def test_the_line_says_what_happened_since_the_last_one(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        first = await harness.active()
        await harness.active(OTHER)
        harness.worker.report(closed(first))
        await harness.event("session.closed")
        kinds = [MessageCounts("eth/69", "Status", 2, 10, 3, 20), MessageCounts("eth/69", "Transactions", 5, 50, 0, 0)]
        way = HandshakeCounts(Direction.INBOUND)
        way.established.observe(0.1)
        way.established.observe(0.1)
        counters = WorkerCounters(bytes_in=100, bytes_out=200, messages=kinds, handshakes=[way])
        harness.worker.report(Pulse(0, 7.25, 4, 5, 0, counters=counters))
        worker = next(iter(harness.engine.fleet))
        await until(lambda: worker.pulse is not None)
        found = line(harness)
        assert found["event"] == "the last minute"
        assert (found["active"], found["pending"], found["workers"]) == (1, 0, 1)
        assert (found["accepted"], found["established"], found["refused"]) == (2, 2, 0)
        assert found["ended"] == {"peer": 1}
        assert (found["messages_in"], found["messages_out"]) == (7, 3)
        assert (found["bytes_in"], found["bytes_out"], found["loop_lag_ms"]) == (100, 200, 7.2)
        # The next one counts from here, also if the worker is lost: what it had counted stays counted.
        harness.worker.die(1)
        await harness.event("worker.lost")
        found = line(harness, 2)
        assert (found["messages_in"], found["accepted"], found["ended"]) == (0, 0, {"worker_lost": 1})


async def test_it_comes_once_a_minute(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        now = monotonic()
        with structlog.testing.capture_logs() as logged:
            for second in range(1, 201):
                minutes_of(harness).on_second(now + second)
        assert [entry["event"] for entry in logged] == ["the last minute"] * 3


@pytest.mark.parametrize("has_summary", [True, False])
async def test_refusals_are_told_with_their_causes_also_without_the_summary(
    make_engine: MakeEngine, *, has_summary: bool
) -> None:
    async with make_engine(log=LogSettings(summary=has_summary)) as harness:
        for _ in range(2):
            harness.worker.report(SessionAuthenticated(await harness.accepted(), PEER))
        await until(lambda: sum(isinstance(word, Verdict) for word in harness.worker.heard) == 2)
        await harness.commands.peers.ban(BanParameters(address="127.0.0.1"))
        harness.connect()
        await harness.event("session.refused")
        found = line(harness)
        assert (found["event"] == "the last minute") is has_summary
        assert (found["refused"], found["causes"]) == (2, {"already_connected": 1, "the address is banned": 1})
        with structlog.testing.capture_logs() as logged:
            minutes_of(harness).on_second(monotonic() + 3 * SUMMARY_SECONDS)
        assert len(logged) == int(has_summary)
