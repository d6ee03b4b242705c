"""The counters of the engine and its workers: what they show, and that a worker's end takes nothing away."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec

from rlpx.protocol.bus import control
from rlpx.protocol.bus.metrics import MetricsResult, WorkerCounters, added
from tests.declared import check_result
from tests.engine.fake_worker import until
from tests.engine.harness import NOTHING, EngineHarness, MakeEngine


def pulse(bytes_in: int, **fields: Any) -> control.Pulse:
    return control.Pulse(
        2, 0.5, 4096, 7, 3, counters=WorkerCounters(bytes_in=bytes_in), program_queue_limit_bytes=1 << 20, **fields
    )


async def pulsed(harness: EngineHarness, bytes_in: int) -> None:
    """The worker reports its counters, so recently that they are not asked for again."""
    harness.worker.report(pulse(bytes_in))
    await until(lambda: any(worker.pulse and worker.pulse.counters.bytes_in == bytes_in for worker in harness.engine.fleet))


def total(result: MetricsResult) -> int:
    """The bytes of all workers since the start of the engine."""
    counters = result.ended
    for worker in result.workers:
        counters = added(counters, worker.counters)
    return counters.bytes_in


async def test_sessions_are_counted_by_phase_client_and_capability(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await harness.active()
        await pulsed(harness, 5)
        result = await harness.commands.metrics.metrics(NOTHING)
        check_result("metrics", msgspec.to_builtins(result))
        engine = result.engine
        assert engine.process.pid == os.getpid()
        assert (engine.process.descriptors > 3, engine.process.cpu_seconds > 0) == (True, True)
        active = {item.direction: item.sessions for item in engine.sessions if item.phase == "active"}
        assert sum(active.values()) == 1
        assert sum(item.sessions for item in engine.clients) == 1
        assert {item.capability for item in engine.capabilities} == {"eth/69"}
        assert (engine.worker_starts, engine.worker_ends, engine.accepted) == (1, {}, 1)
        [worker] = result.workers
        assert (worker.ready, worker.goodbyes, worker.counters.bytes_in) == (True, 2, 5)
        names = {"progress", "worker_events", "worker_programs", "worker_feeds", "worker_commands"}
        assert {queue.queue for queue in worker.queues} == names
        assert all(0 <= queue.used_bytes < queue.limit_bytes for queue in worker.queues)


async def test_a_worker_whose_figures_are_old_is_asked_and_one_that_does_not_answer_is_not_waited_for(
    make_engine: MakeEngine,
) -> None:
    async with make_engine() as harness:
        result = await harness.commands.metrics.metrics(NOTHING)
        assert result.workers[0].age_ms is None
        assert isinstance(await harness.worker.is_told(control.SendPulse), control.SendPulse)


async def test_the_counters_of_a_worker_that_has_ended_are_kept(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await pulsed(harness, 5)
        harness.worker.die(1)
        while True:
            result = await harness.commands.metrics.metrics(NOTHING)
            assert total(result) == 5
            if result.engine.worker_ends:
                break
            await asyncio.sleep(0.01)
        assert (result.ended.bytes_in, result.engine.worker_ends) == (5, {"lost": 1})
