"""Workers' reports, and the consequences if a worker is lost, stuck or replaced."""

from __future__ import annotations

import asyncio
import socket
from time import sleep

import pytest

from rlpx.protocol.bus import control
from rlpx.protocol.bus.commands import (
    DialParameters,
    SetStatusParameters,
)
from rlpx.protocol.bus.control import Dial, Drain, HandoffLost, Reply, SendMessage, SetHead
from rlpx.protocol.lifecycle import Stage
from tests.engine.fake_worker import until
from tests.engine.harness import (
    HASH,
    OTHER,
    MakeEngine,
    closed,
    refusal,
    sent,
)


async def test_a_handoff_that_was_lost_is_ended_by_the_engine(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.accepted()
        harness.worker.report(HandoffLost(session, "the worker is out of file descriptors"))
        event = await harness.event("session.closed")
        assert (event["ended_by"], event["stage"], event["reason"]) == ("engine", "auth", None)
        assert event["cause"] == "the worker is out of file descriptors"
        assert await harness.counted() == {}


async def test_a_lost_worker_ends_each_of_its_sessions_once_answers_its_calls_and_is_replaced(
    make_engine: MakeEngine,
) -> None:
    async with make_engine() as harness:
        active, pending = await harness.active(), await harness.accepted()
        # The lost worker publishes neither end: one session is still on its way, the end of the other is reported.
        harness.worker.publishes_lives = False
        untold, ended = await harness.accepted(), await harness.accepted()
        harness.worker.report(closed(ended, Stage.AUTH))
        waiting = asyncio.ensure_future(
            harness.commands.sessions.dial(DialParameters(enode=f"enode://{OTHER.hex()}@127.0.0.1:1", wait=True))
        )
        await harness.worker.is_told(Dial)
        sending = asyncio.ensure_future(harness.commands.sending.send(*sent(active)))
        await harness.worker.is_told(SendMessage)
        harness.worker.die(-9)
        assert (await refusal(sending))[0] == "worker_lost"
        assert (await refusal(waiting))[0] == "worker_lost"
        opened = [(await harness.event("session.opened"))["session"] for _ in range(4)]
        assert opened == [active, pending, ended, untold]
        ends = {(event := await harness.event("session.closed"))["session"]: event["ended_by"] for _ in range(4)}
        lost_ones = dict.fromkeys((active, pending, untold), "worker_lost")
        assert ends == {ended: "peer", **lost_ones}
        assert (await harness.event("dial.failed"))["peer"] == OTHER.hex()
        lost = await harness.event("worker.lost")
        assert (lost["worker"], lost["cause"], lost["sessions"]) == (0, "signal 9", 4)
        assert await harness.counted() == {}
        await harness.event("worker.started")
        assert len(harness.workers) == 2
        # The worker that replaces it continues its numbers.
        assert harness.worker.begun is not None
        assert harness.worker.begun.numbers["session.opened"].next == 2
        harness.worker.publishes_lives = False
        await harness.accepted()
        assert not {item.topic for item in harness.events} & {"session.opened", "session.closed"}


async def test_a_worker_that_replaces_another_is_told_the_head(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        asked = asyncio.ensure_future(harness.commands.node.set_status(SetStatusParameters(number=9, hash=HASH)))
        harness.worker.report(Reply((await harness.worker.is_told(SetHead)).call))
        await asked
        harness.worker.die()
        await harness.event("worker.started")
        configured = harness.worker.configure
        assert configured is not None
        assert (configured.head.number, configured.is_head_known) == (9, True)


async def test_a_worker_that_says_nothing_for_long_is_killed_and_replaced(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        harness.worker.code = None
        monkeypatch.setattr("rlpx.engine.fleet.fleet.STUCK_SECONDS", 0.01)
        assert (await harness.event("worker.lost"))["cause"] == "signal 9"
        monkeypatch.setattr("rlpx.engine.fleet.fleet.STUCK_SECONDS", 10.0)
        assert (await harness.event("session.closed"))["session"] == session
        await harness.event("worker.started")


async def test_an_engine_that_was_held_up_itself_does_not_blame_its_workers(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal, a debugger or its host stopped the engine: the workers' reports of that time have not been read yet."""
    monkeypatch.setattr("rlpx.engine.fleet.fleet.STUCK_SECONDS", 1.0)
    async with make_engine() as harness:
        worker = harness.worker
        held_up = asyncio.Event()

        def hold_up() -> None:
            worker.report(control.Pulse(0, 0.5, 4096, 0, 0))
            sleep(1.5)
            held_up.set()

        ours, theirs = socket.socketpair()
        with ours, theirs:
            # Within what the loop reads, so that its timers come before what it would read next.
            asyncio.get_running_loop().add_reader(ours.fileno(), hold_up)
            theirs.send(b"x")
            await held_up.wait()
            asyncio.get_running_loop().remove_reader(ours.fileno())
        await until(lambda: any(process.pulse for process in harness.engine.fleet))
        assert worker.kills == 0


async def test_a_worker_that_fails_while_it_ends_is_lost_all_the_same(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await harness.active()
        closing = asyncio.ensure_future(harness.engine.close())
        await harness.worker.is_told(Drain)
        harness.worker.die(70)
        async with asyncio.timeout(60):
            await closing
        assert (await harness.event("session.closed"))["ended_by"] == "worker_lost"
        assert (await harness.event("worker.lost"))["cause"] == "exit code 70"
        harness.has_ended = True
