"""All workers together: which one takes a session, how they are replaced, how they end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import structlog.testing

from rlpx.engine.fleet import fleet
from rlpx.engine.fleet.fleet import (
    RESPAWN_FIRST_SECONDS,
    RESPAWN_FORGIVEN_SECONDS,
    RESPAWN_MAX_SECONDS,
    Fleet,
    JoinError,
)
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import WorkerId
from tests.engine.fake_worker import configuration, until
from tests.engine.fleet.harness import DRAIN, FIRST, SECOND, FleetHarness, Owner, ended

# -- choosing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loads", "chosen"),
    [
        ({0: (5, 5), 1: (4, 900)}, 1),
        ({0: (4, 900), 1: (4, 899)}, 1),
        ({0: (4, 9), 1: (4, 9)}, 0),
        ({0: (4, 9)}, 0),
        ({}, None),
    ],
)
async def test_pending_work_counts_first_then_sessions_then_the_number(
    harness: FleetHarness, loads: dict[int, tuple[int, int]], chosen: int | None
) -> None:
    # The last one begins first.
    for index in reversed(loads):
        await harness.spawned(WorkerId(index))
        harness.loads[WorkerId(index)] = loads[index]
    worker = harness.fleet.choose(set())
    assert (None if worker is None else worker.index) == chosen
    await ended(harness)


async def test_the_fleet_chooses_among_the_ready_ones_that_are_not_excluded(harness: FleetHarness) -> None:
    await harness.spawned(FIRST)
    await harness.spawned(SECOND)
    await harness.spawned(WorkerId(2), is_ready=False)
    harness.loads = {FIRST: (3, 3), SECOND: (1, 9)}

    def chosen(*excluded: WorkerId) -> WorkerId | None:
        worker = harness.fleet.choose(set(excluded))
        return worker.index if worker is not None else None

    assert chosen() == SECOND
    assert chosen(SECOND) == FIRST
    assert chosen(FIRST, SECOND) is None
    await ended(harness)


async def test_a_worker_without_descriptors_to_spare_is_not_chosen_until_it_has_some(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    found = harness.fleet.get(FIRST)
    assert found is not None
    for has_descriptors in (False, True):
        worker.report(control.Pulse(0, 0.5, 4, 5, 0, has_descriptors=has_descriptors))
        await until(lambda: found.pulse is not None and found.pulse.has_descriptors is has_descriptors)  # noqa: B023
        assert harness.fleet.is_open is has_descriptors
        assert (harness.fleet.choose(set()) is found) is has_descriptors
    await ended(harness)


# -- the end ----------------------------------------------------------------------------------------------------------------


async def test_retiring_tells_everyone_and_waits_until_all_have_ended(harness: FleetHarness) -> None:
    workers = [await harness.spawned(FIRST), await harness.spawned(SECOND)]
    retiring = asyncio.ensure_future(harness.fleet.retire(DRAIN, 10))
    await asyncio.sleep(0)
    for worker in workers:
        assert worker.hear() == [DRAIN]
    workers[0].die()
    await until(lambda: harness.owner.lost)
    assert not retiring.done()
    workers[1].die()
    async with asyncio.timeout(60):
        await retiring
    assert [worker.is_told_to_end for worker, _ in harness.owner.lost] == [True, True]


@pytest.mark.parametrize(("code", "is_as_told"), [(0, True), (-9, True), (70, False), (-11, False)])
async def test_a_worker_that_fails_at_its_end_has_not_ended_as_it_was_told(
    harness: FleetHarness, code: int, *, is_as_told: bool
) -> None:
    worker = await harness.spawned(FIRST)
    retiring = asyncio.ensure_future(harness.fleet.retire(DRAIN, 10))
    await asyncio.sleep(0)
    worker.die(code)
    async with asyncio.timeout(60):
        await retiring
    assert [worker.is_told_to_end for worker, _ in harness.owner.lost] == [is_as_told]


async def test_workers_killed_on_purpose_are_not_lost_and_not_replaced(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    worker.code = None
    harness.fleet.kill()
    await until(lambda: harness.owner.lost)
    [(lost, cause)] = harness.owner.lost
    assert (lost.is_told_to_end, cause, harness.fleet.is_retiring) == (True, "signal 9", True)


async def test_a_worker_that_does_not_end_in_time_is_killed(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    worker.code = None
    async with asyncio.timeout(60):
        await harness.fleet.retire(DRAIN, 0.01)
    assert worker.kills == 1
    assert [cause for _, cause in harness.owner.lost] == ["signal 9"]


@contextmanager
def nothing_left_for_other_tests() -> Iterator[None]:
    """Collect what a failed start leaves open, without the collector's warning, which must not reach another test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def open_descriptors() -> int:
    """The number of descriptors that this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def failing(_: int) -> subprocess.Popen[bytes]:
    """A process that cannot be started."""
    raise BlockingIOError(11, "Resource temporarily unavailable")


async def test_a_worker_that_could_not_be_started_does_not_hold_up_the_end() -> None:
    harness = FleetHarness(failing)
    with nothing_left_for_other_tests():
        with pytest.raises(BlockingIOError):
            await harness.fleet.spawn(FIRST)
        async with asyncio.timeout(1.0):
            await harness.fleet.retire(DRAIN, 0.01)


async def test_a_worker_that_could_not_be_started_leaves_no_descriptor_open() -> None:
    harness = FleetHarness(failing)
    with nothing_left_for_other_tests():
        before = open_descriptors()
        try:
            await harness.fleet.spawn(FIRST)
        except BlockingIOError:
            # Here the error still holds the stack frames, as it does while the engine logs it.
            assert open_descriptors() == before
        else:
            pytest.fail("it was started")


# -- replacing --------------------------------------------------------------------------------------------------------------


class Respawns(Fleet):
    """A fleet that records when it would start a worker; `fails` says whether the start fails."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(configuration, lambda _: (0, 0))
        self.spawned_at: list[float] = []
        self.has_spawned = asyncio.Event()
        self.fails = fails

    async def spawn(self, index: WorkerId, *, is_joining: bool = False) -> WorkerProcess:
        """Record it."""
        assert not is_joining
        self.spawned_at.append(asyncio.get_running_loop().time())
        if self.fails:
            raise OSError(24, "Too many open files")
        assert index == FIRST
        self.has_spawned.set()
        return lost_worker(0.0)


def lost_worker(started_at: float) -> WorkerProcess:
    """A worker that began at this time and has ended now."""
    worker = WorkerProcess(FIRST, Owner(), asyncio.Event())
    worker.started_at = started_at
    return worker


async def waits(lives: list[float]) -> list[float]:
    """The times that the fleet waits to replace workers, each of which lives this long."""
    respawns, found = Respawns(), []
    now = asyncio.get_running_loop().time
    for life in lives:
        started_at = now()
        await asyncio.sleep(life)
        lost_at = now()
        respawns.has_spawned.clear()
        respawns.respawn(lost_worker(started_at))
        await respawns.has_spawned.wait()
        found.append(respawns.spawned_at[-1] - lost_at)
    return found


@pytest.mark.loop("virtual")
async def test_a_lost_worker_is_replaced_almost_at_once() -> None:
    assert await waits([1000.0]) == pytest.approx([RESPAWN_FIRST_SECONDS], abs=0.01)


@pytest.mark.loop("virtual")
async def test_one_that_keeps_dying_waits_twice_as_long_each_time_up_to_a_limit() -> None:
    expected = [min(RESPAWN_FIRST_SECONDS * 2**index, RESPAWN_MAX_SECONDS) for index in range(12)]
    assert await waits([0.01] * 12) == pytest.approx(expected, abs=0.01)


@pytest.mark.loop("virtual")
async def test_one_that_has_lived_long_enough_is_forgiven() -> None:
    lives = [0.0, 0.0, 0.0, RESPAWN_FORGIVEN_SECONDS, 0.0, RESPAWN_FORGIVEN_SECONDS - 1, 0.0]
    first = RESPAWN_FIRST_SECONDS
    assert await waits(lives) == pytest.approx(
        [first, first * 2, first * 4, first, first * 2, first * 4, first * 8], abs=0.01
    )


@pytest.mark.loop("virtual")
@pytest.mark.parametrize("life", [0.0, RESPAWN_FORGIVEN_SECONDS * 2])
async def test_one_that_cannot_be_started_is_tried_again_ever_more_slowly(life: float) -> None:
    respawns = Respawns(fails=True)
    await asyncio.sleep(life)
    with structlog.testing.capture_logs():
        respawns.respawn(lost_worker(0.0))
        await asyncio.sleep(300)
    pauses = [later - earlier for earlier, later in pairwise(respawns.spawned_at)]
    assert all(later > earlier - 0.01 for earlier, later in pairwise(pauses))
    assert pauses[-1] == pytest.approx(RESPAWN_MAX_SECONDS, abs=0.01)
    assert len(pauses) < 30


@pytest.mark.loop("virtual")
async def test_a_fleet_that_retires_replaces_nobody() -> None:
    respawns = Respawns()
    await respawns.retire(DRAIN, 1)
    respawns.respawn(lost_worker(0.0))
    await asyncio.sleep(100)
    assert respawns.spawned_at == []


@pytest.mark.loop("virtual")
async def test_a_worker_that_waits_to_be_replaced_is_not_when_the_end_has_come() -> None:
    respawns = Respawns()
    respawns.respawn(lost_worker(0.0))
    await respawns.retire(DRAIN, 1)
    await asyncio.sleep(100)
    assert respawns.spawned_at == []


# -- joining and leaving ----------------------------------------------------------------------------------------------------


async def joined(harness: FleetHarness, count: int) -> list[WorkerProcess]:
    """Workers that have joined and take no sessions yet."""
    joining = asyncio.ensure_future(harness.fleet.join(count))
    known = len(harness.workers)
    await until(lambda: len(harness.workers) == known + count)
    for worker in harness.workers[known:]:
        worker.begin()
        worker.report(control.Ready(worker.pid))
    async with asyncio.timeout(60):
        return await joining


async def test_workers_that_join_have_the_lowest_free_numbers_and_take_sessions_once_admitted(harness: FleetHarness) -> None:
    await harness.spawned(FIRST)
    await harness.spawned(WorkerId(2))
    harness.loads = {FIRST: (1, 1), WorkerId(2): (1, 1)}
    found = await joined(harness, 2)
    assert [worker.index for worker in found] == [1, 3]
    assert [worker.index for worker in harness.fleet] == [0, 1, 2, 3]
    assert [worker.index for worker in harness.fleet.serving] == [0, 2]
    chosen = harness.fleet.choose(set())
    assert chosen is not None
    assert chosen.index == FIRST
    harness.fleet.admit(found)
    assert len(harness.fleet.serving) == 4
    chosen = harness.fleet.choose(set())
    assert chosen is found[0]
    await ended(harness)


async def test_if_one_does_not_become_ready_none_stays(harness: FleetHarness) -> None:
    await harness.spawned(FIRST)
    joining = asyncio.ensure_future(harness.fleet.join(2))
    await until(lambda: len(harness.workers) == 3)
    for worker in harness.workers[1:]:
        worker.begin()
    harness.workers[1].code = None
    harness.workers[1].report(control.Ready(1))
    harness.workers[2].die(70)
    with pytest.raises(JoinError, match=r"^worker 2 ended before it was ready: exit code 70$"):
        await joining
    await until(lambda: len(harness.owner.lost) == 2)
    for lost, _ in harness.owner.lost:
        harness.fleet.on_lost(lost)
    assert [worker.index for worker in harness.fleet] == [0]
    assert (harness.fleet.lost, harness.fleet.is_healthy) == (0, True)
    # Their numbers are free again.
    assert [worker.index for worker in await joined(harness, 1)] == [1]
    await ended(harness)


async def test_a_worker_that_takes_too_long_is_dismissed(harness: FleetHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await harness.spawned(FIRST)
    monkeypatch.setattr(fleet, "START_SECONDS", 0.05)
    joining = asyncio.ensure_future(harness.fleet.join(1))
    await until(lambda: len(harness.workers) == 2)
    harness.workers[1].code = None
    with pytest.raises(JoinError, match=r"^a new worker was not ready within 0.05 s$"):
        await joining
    assert harness.workers[1].kills == 1
    await until(lambda: harness.owner.lost)
    assert harness.owner.lost[0][0].is_told_to_end
    await ended(harness)


async def test_a_process_that_cannot_be_started_and_numbers_that_are_all_in_use_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = FleetHarness(failing)
    with nothing_left_for_other_tests():
        with pytest.raises(JoinError, match=r"^a worker could not be started: Resource temporarily unavailable$"):
            await harness.fleet.join(1)
        monkeypatch.setattr(fleet, "WORKER_NUMBERS", 0)
        with pytest.raises(JoinError, match=r"^all 0 worker numbers are in use$"):
            await harness.fleet.join(1)
    assert list(harness.fleet) == []


async def test_a_worker_that_leaves_takes_nothing_serves_its_own_and_is_not_replaced(harness: FleetHarness) -> None:
    leaving, stays = await harness.spawned(FIRST), await harness.spawned(SECOND)
    found = harness.fleet.get(FIRST)
    assert found is not None
    harness.fleet.leave(found)
    chosen = harness.fleet.choose(set())
    assert chosen is not None
    assert chosen.index == SECOND
    assert harness.fleet.get(FIRST) is found
    assert [worker.index for worker in harness.fleet.leaving] == [FIRST]
    leaving.die(-9)
    await until(lambda: harness.owner.lost)
    assert harness.fleet.is_healthy
    harness.fleet.on_lost(found)
    assert [worker.index for worker in harness.fleet] == [SECOND]
    assert harness.fleet.lost == 1
    assert harness.workers == [leaving, stays]
    await ended(harness)


async def test_a_lost_worker_that_is_to_leave_is_forgotten_while_its_replacement_waits(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    found = harness.fleet.get(FIRST)
    assert found is not None
    worker.die(-9)
    await until(found.ended.is_set)
    harness.fleet.on_lost(found)
    harness.fleet.leave(found)
    assert list(harness.fleet) == []
    await asyncio.sleep(RESPAWN_FIRST_SECONDS * 2)
    assert len(harness.workers) == 1
    await ended(harness)
