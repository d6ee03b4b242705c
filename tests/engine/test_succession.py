"""Changes of the workers of a running engine: replaced one by one, more, fewer; one change at a time."""

from __future__ import annotations

import asyncio

import pytest
import structlog.testing

from rlpx.engine.fleet import fleet
from rlpx.protocol.bus.commands import NoParameters, RestartWorkersParameters, SetWorkersParameters
from rlpx.protocol.bus.control import Drain, WorkerId
from rlpx.protocol.bus.results import Replacement, RestartResult, WorkersResult
from tests.engine.fake_worker import until
from tests.engine.harness import MakeEngine, Worker, refusal

NOW = RestartWorkersParameters(drain_s=0, wait=True)


async def leaves(worker: Worker) -> None:
    """A worker is told to end, and ends."""
    await worker.is_told(Drain)
    worker.die()


async def test_one_after_the_other_is_replaced_and_the_next_one_when_the_last_has_gone(make_engine: MakeEngine) -> None:
    async with make_engine(workers=2) as harness:
        first, second = harness.workers
        restart = asyncio.ensure_future(
            harness.commands.workers.restart_workers(RestartWorkersParameters(drain_s=5, wait=True))
        )
        await first.is_told(Drain)
        assert len(harness.workers) == 3
        await asyncio.sleep(0.05)
        assert len(harness.workers) == 3
        first.die()
        await leaves(second)
        replaced = [Replacement(0, 2), Replacement(1, 0)]
        async with asyncio.timeout(60):
            assert await restart == RestartResult([0, 1], 5.0, replaced)
        status = await harness.commands.status.status(NoParameters())
        assert [worker.worker for worker in status.workers] == [0, 2]
        assert (status.workforce.replaced, status.workforce.restarting, status.workforce.error) == (2, False, None)
        assert (status.workforce.lost, status.workforce.respawned, status.workforce.failed) == (0, 0, 0)


async def test_without_a_wait_the_answer_comes_at_once_with_the_default_drain_time(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        result = await harness.commands.workers.restart_workers(RestartWorkersParameters())
        assert result == RestartResult([0], 30.0, [])
        assert (await harness.commands.status.status(NoParameters())).workforce.restarting
        await leaves(harness.workers[0])
        await until(lambda: not harness.engine.succession.is_restarting)


async def test_a_worker_that_joins_is_shown_as_such(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        growing = asyncio.ensure_future(harness.commands.workers.set_workers(SetWorkersParameters(workers=2)))
        await until(lambda: len(list(harness.engine.fleet)) == 2)
        status = await harness.commands.status.status(NoParameters())
        assert [(worker.ready, worker.joining, worker.leaving) for worker in status.workers] == [
            (True, False, False),
            (False, True, False),
        ]
        assert harness.engine.is_healthy
        await growing


async def test_one_change_at_a_time(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        commands = harness.commands.workers
        await commands.restart_workers(RestartWorkersParameters(drain_s=60))
        busy = ("busy", "the workers are being replaced already")
        assert await refusal(commands.restart_workers(NOW)) == busy
        assert await refusal(commands.set_workers(SetWorkersParameters(workers=2))) == busy
        with structlog.testing.capture_logs() as logged:
            harness.engine.restart_workers()
        assert logged == [{"event": "the workers are not replaced", "cause": busy[1], "log_level": "warning"}]
        assert session in harness.engine.ledger.views


async def test_while_workers_wait_for_their_sessions_there_is_no_restart(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await harness.active()
        assert (await harness.commands.workers.restart_workers(NOW)).replaced == [Replacement(0, 1)]
        name, text = await refusal(harness.commands.workers.restart_workers(NOW))
        assert (name, "still have sessions: 0." in text) == ("busy", True)


async def test_a_new_worker_that_fails_leaves_everything_as_it_was(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        harness.next_is_stillborn = True
        name, text = await refusal(harness.commands.workers.restart_workers(NOW))
        assert (name, text) == ("worker_lost", "worker 1 ended before it was ready: exit code 70; worker 0 stays")
        status = await harness.commands.status.status(NoParameters())
        assert [(worker.worker, worker.leaving) for worker in status.workers] == [(0, False)]
        assert (status.workforce.failed, status.workforce.error) == (1, text)
        harness.workers.pop().close()
        await harness.active()
        # Another attempt begins anew.
        await harness.commands.workers.restart_workers(NOW)
        assert (await harness.commands.status.status(NoParameters())).workforce.error is None


async def test_a_worker_that_is_lost_meanwhile_is_replaced_once(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "RESPAWN_FIRST_SECONDS", 0.2)
    async with make_engine() as harness:
        restart = asyncio.ensure_future(harness.commands.workers.restart_workers(NOW))
        await asyncio.sleep(0)
        harness.workers[0].die(1)
        async with asyncio.timeout(60):
            assert (await restart).replaced == []
        await until(lambda: harness.engine.fleet.get(WorkerId(0)) is not None)
        await until(lambda: len(list(harness.engine.fleet)) == 1)
        assert (await harness.commands.status.status(NoParameters())).workforce.respawned == 1


async def test_more_and_fewer_workers(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        commands = harness.commands.workers
        assert await commands.set_workers(SetWorkersParameters(workers=3)) == WorkersResult(3, [1, 2], [], 30.0)
        assert await commands.set_workers(SetWorkersParameters(workers=3)) == WorkersResult(3, [], [], 30.0)
        assert harness.engine.summary == "0 active and 0 pending sessions, 3 of 3 workers"
        result = await commands.set_workers(SetWorkersParameters(workers=2, drain_s=1))
        assert result == WorkersResult(2, [], [2], 1.0)
        await leaves(harness.workers[2])
        await until(lambda: len(list(harness.engine.fleet)) == 2)
        # The highest numbers leave; the workers that serve are healthy.
        assert harness.engine.is_healthy
        assert not (harness.run_dir.path / "worker-2.ipc").exists()


async def test_growth_that_fails_adds_none(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        harness.next_is_stillborn = True
        name, _ = await refusal(harness.commands.workers.set_workers(SetWorkersParameters(workers=3)))
        assert name == "worker_lost"
        await until(lambda: len(list(harness.engine.fleet)) == 1)
        assert await harness.commands.workers.set_workers(SetWorkersParameters(workers=1)) == WorkersResult(1, [], [], 30.0)


async def test_too_many_for_the_descriptors_is_refused(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_engine() as harness:
        monkeypatch.setattr("resource.getrlimit", lambda _: (512, 512))
        name, text = await refusal(harness.commands.workers.set_workers(SetWorkersParameters(workers=100)))
        assert (name, "file descriptors" in text) == ("refused", True)


async def test_nothing_begins_once_the_engine_ends(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await harness.active()
        restart = asyncio.ensure_future(
            harness.commands.workers.restart_workers(RestartWorkersParameters(drain_s=60, wait=True))
        )
        await harness.event("worker.leaving")
        harness.engine.stop()
        harness.workers[0].die()
        ending = ("refused", "the engine is shutting down")
        assert await refusal(restart) == ending
        assert await refusal(harness.commands.workers.set_workers(SetWorkersParameters(workers=2))) == ending
