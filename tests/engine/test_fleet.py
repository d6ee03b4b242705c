"""Worker processes as the engine sees them, each played by the test on the other end of its sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import structlog.testing

from engine import fleet
from engine.fleet import (
    RESPAWN_FIRST_SECONDS,
    RESPAWN_FORGIVEN_SECONDS,
    RESPAWN_MOST_SECONDS,
    Fleet,
    WorkerProcess,
)
from protocol import control
from protocol.control import Drain, Handoff, Handoffs, Judge, SessionId, WorkerId
from protocol.errors import DisconnectReason
from tests.engine import virtual
from tests.engine.played import PlayedWorker, configuration, until

DRAIN = Drain(DisconnectReason.CLIENT_QUITTING, "the end")
FIRST, SECOND = WorkerId(0), WorkerId(1)


def one(session: int) -> Handoffs:
    """Of a single socket."""
    return Handoffs((Handoff(SessionId(session)),))


class Owner:
    """An engine that keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[tuple[WorkerId, control.Report]] = []
        self.lost: list[tuple[WorkerProcess, str]] = []

    def on_report(self, worker: WorkerProcess, report: control.Report) -> None:
        """Keep it."""
        self.reports.append((worker.index, report))

    def on_worker_lost(self, worker: WorkerProcess, cause: str) -> None:
        """Keep it."""
        self.lost.append((worker, cause))


class Stage:
    """A fleet whose workers are played, the owner it tells, and how busy each worker is said to be."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.loads: dict[WorkerId, tuple[int, int]] = {}
        self.fleet = Fleet(self.owner, configuration, lambda index: self.loads.get(index, (0, 0)))
        self.played: list[PlayedWorker] = []

    def start_process(self, descriptor: int) -> subprocess.Popen[bytes]:
        """In place of the real one."""
        worker = PlayedWorker(descriptor)
        self.played.append(worker)
        return cast("subprocess.Popen[bytes]", worker)

    async def spawned(self, index: WorkerId, *, is_ready: bool = True) -> PlayedWorker:
        """A worker that has begun and, if it is asked for, is ready."""
        await self.fleet.spawn(index)
        worker = self.played[-1]
        worker.begin()
        if is_ready:
            worker.report(control.Ready(worker.pid))
            await until(lambda: self.fleet.get(index) is not None)
        return worker


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage()
    monkeypatch.setattr(fleet, "_start_process", made.start_process)
    yield made
    for worker in made.played:
        worker.close()


async def ended(stage: Stage) -> None:
    """Let every worker that still runs end at its drain, and the fleet with it."""
    for worker in stage.played:
        worker.close()
    async with asyncio.timeout(10):
        await stage.fleet.retire(DRAIN, 5)


# -- one worker -------------------------------------------------------------------------------------------------------------


def test_a_worker_is_configured_and_ready_when_it_says_so(stage: Stage) -> None:
    async def scenario() -> None:
        worker = await stage.spawned(SECOND, is_ready=False)
        assert worker.configure == configuration(SECOND)
        assert stage.fleet.get(SECOND) is None
        is_open = [stage.fleet.is_open]
        worker.report(control.Ready(worker.pid))
        await until(lambda: stage.fleet.get(SECOND))
        is_open.append(stage.fleet.is_open)
        assert is_open == [False, True]
        [process] = stage.fleet
        assert (process.index, process.pid, process.is_ready) == (SECOND, worker.pid, True)
        assert stage.owner.reports == [(SECOND, control.Ready(worker.pid))]
        await ended(stage)

    asyncio.run(scenario())


def test_handoffs_bring_their_sockets_and_the_caller_keeps_its_copies(stage: Stage) -> None:
    async def scenario() -> None:
        worker = await stage.spawned(FIRST)
        [process] = stage.fleet
        handoffs = Handoffs((Handoff(SessionId(7), DisconnectReason.TOO_MANY_PEERS), Handoff(SessionId(8))))
        pairs = [socket.socketpair() for _ in handoffs.sockets]
        assert process.hand_over(handoffs, [ours.fileno() for ours, _ in pairs])
        for number, (ours, peer) in enumerate(pairs):
            with peer:
                assert ours.fileno() != -1
                ours.close()
                handoff, taken = worker.taken()
                with taken:
                    assert handoff == handoffs.sockets[number]
                    peer.send(b"hello")
                    assert taken.recv(5) == b"hello"
        await ended(stage)

    asyncio.run(scenario())


def test_a_worker_that_takes_no_handoffs_is_full_and_never_makes_us_wait(stage: Stage) -> None:
    async def scenario() -> None:
        worker = await stage.spawned(FIRST)
        [process] = stage.fleet
        ours, peer = socket.socketpair()
        with ours, peer:
            count = 0
            while process.hand_over(one(count), [ours.fileno()]):
                count += 1
                assert count < 100_000
            assert count > 10
            record, taken = worker.taken()
            taken.close()
            assert record.session == 0
            assert process.hand_over(one(count), [ours.fileno()])
        await ended(stage)

    asyncio.run(scenario())


def test_reports_arrive_whole_and_in_order_however_the_stream_is_cut(stage: Stage) -> None:
    async def scenario() -> None:
        worker = await stage.spawned(FIRST)
        pulse = control.Pulse(3, 0.5, 4, 5, 0)
        reports: list[control.Report] = [pulse, control.Reply(control.CallId(1)), pulse]
        for byte in b"".join(map(control.encode, reports)):
            worker.its_stream.send(bytes([byte]))
            await asyncio.sleep(0)
        await until(lambda: len(stage.owner.reports) == 4)
        assert [report for _, report in stage.owner.reports[1:]] == reports
        [process] = stage.fleet
        assert process.pulse == pulse
        await ended(stage)

    asyncio.run(scenario())


def test_commands_arrive_and_what_waits_is_counted(stage: Stage) -> None:
    async def scenario() -> None:
        worker = await stage.spawned(FIRST)
        [process] = stage.fleet
        process.command(Judge(SessionId(1)))
        process.command(DRAIN)
        assert worker.hear() == [Judge(SessionId(1)), DRAIN]
        assert process.queued_command_bytes == 0
        big = control.SendMessage(control.CallId(1), SessionId(1), "eth", 2, bytes(1 << 22))
        process.command(big)
        assert process.queued_command_bytes > 1 << 20
        await ended(stage)

    asyncio.run(scenario())


def test_what_a_crowd_of_reports_brings_about_is_told_in_their_order(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that follow from reports wait until all that came with those are read: nothing may pass them by."""

    async def scenario() -> None:
        worker = await stage.spawned(FIRST)
        [process] = stage.fleet

        judged: list[SessionId] = []

        def judge(of: WorkerProcess, report: control.Report) -> None:
            assert isinstance(report, control.SessionAuthenticated)
            of.command(Judge(report.session))
            judged.append(report.session)

        monkeypatch.setattr(stage.owner, "on_report", judge)
        sessions = [SessionId(number) for number in range(100)]
        worker.report(*[control.SessionAuthenticated(session, bytes(64)) for session in sessions])
        await until(lambda: judged == sessions)
        process.command(DRAIN)
        told: list[control.Command] = []
        while DRAIN not in told:
            told += worker.hear()
        assert told == [*map(Judge, sessions), DRAIN]
        await ended(stage)

    asyncio.run(scenario())


@pytest.mark.parametrize(("code", "cause"), [(0, "exit code 0"), (70, "exit code 70"), (-9, "signal 9"), (-11, "signal 11")])
def test_a_lost_worker_is_told_once_with_its_cause(stage: Stage, code: int, cause: str) -> None:
    async def scenario() -> None:
        worker = await stage.spawned(FIRST)
        [process] = stage.fleet
        worker.report(control.HandoffLost(SessionId(1), "its last words"))
        worker.die(code)
        await until(process.ended.is_set)
        assert stage.owner.lost == [(process, cause)]
        assert stage.owner.reports[-1] == (FIRST, control.HandoffLost(SessionId(1), "its last words"))
        assert process.is_lost
        assert not process.is_ready
        assert stage.fleet.get(FIRST) is None
        assert stage.fleet.choose(set()) is None

    asyncio.run(scenario())


def test_a_lost_worker_takes_nothing_and_hears_nothing(stage: Stage) -> None:
    async def scenario() -> None:
        worker = await stage.spawned(FIRST)
        [process] = stage.fleet
        worker.die()
        ours, peer = socket.socketpair()
        with ours, peer:
            # Its end of the pair is closed before we have noticed anything.
            assert not process.hand_over(one(1), [ours.fileno()])
            await until(process.ended.is_set)
            assert not process.hand_over(one(1), [ours.fileno()])
        process.command(DRAIN)
        assert process.queued_command_bytes == 0

    asyncio.run(scenario())


def test_a_worker_that_closes_its_stream_and_does_not_end_is_killed(stage: Stage) -> None:
    async def scenario() -> None:
        worker = await stage.spawned(FIRST)
        [process] = stage.fleet
        worker.code = None
        worker.close()
        await until(process.ended.is_set)
        assert worker.kills == 1
        assert stage.owner.lost == [(process, "signal 9")]

    asyncio.run(scenario())


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
def test_pending_work_counts_first_then_sessions_then_the_number(
    stage: Stage, loads: dict[int, tuple[int, int]], chosen: int | None
) -> None:
    async def scenario() -> None:
        # The last one begins first.
        for index in reversed(loads):
            await stage.spawned(WorkerId(index))
            stage.loads[WorkerId(index)] = loads[index]
        worker = stage.fleet.choose(set())
        assert (None if worker is None else worker.index) == chosen
        await ended(stage)

    asyncio.run(scenario())


def test_the_fleet_chooses_among_the_ready_ones_that_are_not_excluded(stage: Stage) -> None:
    async def scenario() -> None:
        await stage.spawned(FIRST)
        await stage.spawned(SECOND)
        await stage.spawned(WorkerId(2), is_ready=False)
        stage.loads = {FIRST: (3, 3), SECOND: (1, 9)}

        def chosen(*excluded: WorkerId) -> WorkerId | None:
            worker = stage.fleet.choose(set(excluded))
            return worker.index if worker is not None else None

        assert chosen() == SECOND
        assert chosen(SECOND) == FIRST
        assert chosen(FIRST, SECOND) is None
        await ended(stage)

    asyncio.run(scenario())


# -- the end ----------------------------------------------------------------------------------------------------------------


def test_retiring_tells_everyone_and_waits_until_all_have_ended(stage: Stage) -> None:
    async def scenario() -> None:
        workers = [await stage.spawned(FIRST), await stage.spawned(SECOND)]
        retiring = asyncio.ensure_future(stage.fleet.retire(DRAIN, 10))
        await asyncio.sleep(0)
        for worker in workers:
            assert worker.hear() == [DRAIN]
        workers[0].die()
        await until(lambda: stage.owner.lost)
        assert not retiring.done()
        workers[1].die()
        async with asyncio.timeout(10):
            await retiring
        assert len(stage.owner.lost) == 2

    asyncio.run(scenario())


def test_a_worker_that_does_not_end_in_time_is_killed(stage: Stage) -> None:
    async def scenario() -> None:
        worker = await stage.spawned(FIRST)
        worker.code = None
        async with asyncio.timeout(10):
            await stage.fleet.retire(DRAIN, 0.01)
        assert worker.kills == 1
        assert [cause for _, cause in stage.owner.lost] == ["signal 9"]

    asyncio.run(scenario())


@contextmanager
def nothing_left_for_other_tests() -> Iterator[None]:
    """What a failed start leaves open is one test's business: the collector's warning must not reach another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def open_descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def failing(_: int) -> subprocess.Popen[bytes]:
    """A process that cannot be started."""
    raise BlockingIOError(11, "Resource temporarily unavailable")


def test_a_worker_that_could_not_be_started_does_not_hold_up_the_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> bool:
        with suppress(BlockingIOError):
            await stage.fleet.spawn(FIRST)
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await stage.fleet.retire(DRAIN, 0.01)
                return True
        return False

    monkeypatch.setattr(fleet, "_start_process", failing)
    with nothing_left_for_other_tests():
        has_ended = asyncio.run(scenario())
    assert has_ended


def test_a_worker_that_could_not_be_started_leaves_no_descriptor_open(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> int:
        before = open_descriptors()
        try:
            await stage.fleet.spawn(FIRST)
        except BlockingIOError:
            # Here the error still holds the frames, as it does while the engine logs it.
            return open_descriptors() - before
        return -1

    monkeypatch.setattr(fleet, "_start_process", failing)
    with nothing_left_for_other_tests():
        left = asyncio.run(scenario())
    assert left == 0


# -- replacing --------------------------------------------------------------------------------------------------------------


class Respawns(Fleet):
    """A fleet that notes when it would start a worker; `fails` says whether that goes wrong."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(Owner(), configuration, lambda _: (0, 0))
        self.spawned_at: list[float] = []
        self.has_spawned = asyncio.Event()
        self.fails = fails

    async def spawn(self, index: WorkerId) -> None:
        """Note it."""
        self.spawned_at.append(asyncio.get_running_loop().time())
        if self.fails:
            raise OSError(24, "Too many open files")
        assert index == FIRST
        self.has_spawned.set()


def lost_worker(started_at: float) -> WorkerProcess:
    """A worker that began then and has ended now."""
    worker = WorkerProcess(FIRST, Owner())
    worker.started_at = started_at
    return worker


def waits(lives: list[float]) -> list[float]:
    """How long the fleet waits to replace a worker that lives so long each time."""

    async def scenario() -> list[float]:
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

    return virtual.played(scenario())


def test_a_lost_worker_is_replaced_almost_at_once() -> None:
    assert waits([1000.0]) == pytest.approx([RESPAWN_FIRST_SECONDS], abs=0.01)


def test_one_that_keeps_dying_waits_twice_as_long_each_time_up_to_a_limit() -> None:
    expected = [min(RESPAWN_FIRST_SECONDS * 2**index, RESPAWN_MOST_SECONDS) for index in range(12)]
    assert waits([0.01] * 12) == pytest.approx(expected, abs=0.01)


def test_one_that_has_lived_long_enough_is_forgiven() -> None:
    lives = [0.0, 0.0, 0.0, RESPAWN_FORGIVEN_SECONDS, 0.0, RESPAWN_FORGIVEN_SECONDS - 1, 0.0]
    first = RESPAWN_FIRST_SECONDS
    assert waits(lives) == pytest.approx([first, first * 2, first * 4, first, first * 2, first * 4, first * 8], abs=0.01)


@pytest.mark.parametrize("life", [0.0, RESPAWN_FORGIVEN_SECONDS * 2])
def test_one_that_cannot_be_started_is_tried_again_ever_more_slowly(life: float) -> None:
    async def scenario() -> list[float]:
        respawns = Respawns(fails=True)
        await asyncio.sleep(life)
        with structlog.testing.capture_logs():
            respawns.respawn(lost_worker(0.0))
            await asyncio.sleep(300)
        return [later - earlier for earlier, later in pairwise(respawns.spawned_at)]

    pauses = virtual.played(scenario())
    assert all(later > earlier - 0.01 for earlier, later in pairwise(pauses))
    assert pauses[-1] == pytest.approx(RESPAWN_MOST_SECONDS, abs=0.01)
    assert len(pauses) < 30


def test_a_fleet_that_retires_replaces_nobody() -> None:
    async def scenario() -> list[float]:
        respawns = Respawns()
        await respawns.retire(DRAIN, 1)
        respawns.respawn(lost_worker(0.0))
        await asyncio.sleep(100)
        return respawns.spawned_at

    assert virtual.played(scenario()) == []


def test_a_worker_that_waits_to_be_replaced_is_not_when_the_end_has_come() -> None:
    async def scenario() -> list[float]:
        respawns = Respawns()
        respawns.respawn(lost_worker(0.0))
        await respawns.retire(DRAIN, 1)
        await asyncio.sleep(100)
        return respawns.spawned_at

    assert virtual.played(scenario()) == []


# -- the process ------------------------------------------------------------------------------------------------------------


def test_a_process_inherits_one_descriptor_and_finds_our_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}

    def popen(arguments: list[str], **options: Any) -> object:
        started.update(options, arguments=arguments)
        return object()

    monkeypatch.setattr("subprocess.Popen", popen)
    # The only way to see what is started without starting it.
    fleet._start_process(7)  # noqa: SLF001
    assert started["arguments"][1:] == ["-P", "-m", "workers", "7"]
    assert started["pass_fds"] == [7]
    assert (Path(started["env"]["PYTHONPATH"]) / "workers").is_dir()
    assert not any("11" * 32 in text for text in started["arguments"])
