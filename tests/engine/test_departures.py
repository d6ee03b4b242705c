"""Workers that leave: how their sessions are spread over the drain time, and what becomes of the rest."""

from __future__ import annotations

from typing import cast

import pytest

from rlpx.engine.departures import GOODBYES_PER_TICK, SPREAD, Departure
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.protocol.bus import control
from rlpx.protocol.bus.commands import DialParameters, RestartWorkersParameters
from rlpx.protocol.bus.control import DisconnectSession, Drain, SessionId, WorkerId
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy
from tests.engine.fake_worker import until
from tests.engine.harness import OTHER, PEER, MakeEngine, closed


def departure(sessions: int) -> Departure:
    """A worker with this many sessions that leaves."""
    return Departure(cast("WorkerProcess", None), [SessionId(number) for number in range(sessions)])


def ends(leaving: Departure, *, now: float) -> int:
    """End what is due; returns how many that is."""
    due = leaving.due(now=now)
    for _ in range(due):
        leaving.waiting.popleft()
    return due


def test_sessions_end_evenly_and_all_of_them_before_the_deadline() -> None:
    leaving = departure(100)
    leaving.hasten(10.0, now=5.0)
    found = [ends(leaving, now=5.0 + tick * 0.1) for tick in range(101)]
    assert sum(found) == 100
    assert max(found) <= 2
    assert sum(found[: int(100 * SPREAD) + 1]) == 100
    assert sum(found[:46]) in range(49, 52)


def test_with_a_drain_time_of_zero_nothing_is_due_until_a_time_is_given() -> None:
    leaving = departure(10)
    leaving.hasten(0.0, now=0.0)
    assert (leaving.due(now=1e6), leaving.deadline) == (0, None)
    leaving.hasten(1.0, now=1e6)
    assert ends(leaving, now=1e6 + 1.0) == 10


def test_a_time_is_only_ever_shortened_and_counts_for_those_that_are_left() -> None:
    leaving = departure(100)
    leaving.hasten(10.0, now=0.0)
    assert ends(leaving, now=4.5) == 50
    leaving.hasten(60.0, now=4.5)
    leaving.hasten(0.0, now=4.5)
    assert leaving.deadline == 10.0
    leaving.hasten(1.0, now=4.5)
    assert leaving.deadline == 5.5
    assert ends(leaving, now=4.5 + 0.45) == 25
    assert ends(leaving, now=5.5) == 25


def test_a_tick_has_a_budget() -> None:
    leaving = departure(10 * GOODBYES_PER_TICK)
    leaving.hasten(0.1, now=0.0)
    assert ends(leaving, now=0.1) == GOODBYES_PER_TICK


async def test_sessions_are_told_to_end_then_the_worker(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        old = harness.worker
        session = await harness.active()
        await harness.commands.workers.restart_workers(RestartWorkersParameters(drain_s=0.2))
        told = await old.is_told(DisconnectSession)
        assert told == DisconnectSession(session, DisconnectReason.CLIENT_QUITTING, "worker 0 leaves", EndedBy.ENGINE)
        leaving = await harness.event("worker.leaving")
        assert (leaving["worker"], leaving["heir"], leaving["sessions"], leaving["drain_s"]) == (0, 1, 1, 0.2)
        old.report(closed(session))
        assert await old.is_told(Drain) == Drain(DisconnectReason.CLIENT_QUITTING, "worker 0 leaves")
        old.die()
        stopped = await harness.event("worker.stopped")
        assert (stopped["worker"], stopped["sessions"]) == (0, 0)
        assert [worker.index for worker in harness.engine.fleet] == [1]
        # The next session is the new one's.
        await harness.active(OTHER)


@pytest.mark.parametrize("has_drain", [True, False])
async def test_a_worker_that_does_not_end_is_killed(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, *, has_drain: bool
) -> None:
    monkeypatch.setattr("rlpx.engine.departures.END_GRACE_SECONDS", -2.0)
    async with make_engine() as harness:
        old = harness.worker
        old.code = None
        if has_drain:
            await harness.active()
        await harness.commands.workers.restart_workers(RestartWorkersParameters(drain_s=0.05))
        await until(lambda: old.kills)
        assert (await harness.event("worker.stopped"))["sessions"] == int(has_drain)
        assert await harness.counted() == {}


async def test_a_dial_whose_name_is_being_resolved_goes_to_another_worker(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine() as harness:
        old, dials = harness.worker, harness.engine.dials
        resolved = [False]

        async def addresses(_host: str) -> list[str]:
            await until(lambda: resolved[0])
            return ["127.0.0.1"]

        monkeypatch.setattr(dials._resolver, "addresses", addresses)  # noqa: SLF001 - a resolver that the test controls
        result = await harness.commands.sessions.dial(DialParameters(enode=f"enode://{PEER.hex()}@a.name:30303"))
        await harness.commands.workers.restart_workers(RestartWorkersParameters(drain_s=0))
        await old.is_told(Drain)
        old.die()
        await harness.event("worker.stopped")
        resolved[0] = True
        dial = await harness.worker.is_told(control.Dial)
        assert (dial.session, harness.worker.index) == (result.session, WorkerId(1))
