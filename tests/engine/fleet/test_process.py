"""One worker process as the engine sees it; the test controls the other end of its sockets."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import structlog.testing

from rlpx.engine.fleet.fleet import JoinError
from rlpx.engine.fleet.process import LEFT_TO_THE_ENGINE, WorkerProcess, start_process
from rlpx.engine.process.spawn import spawn
from rlpx.protocol.bus import control
from rlpx.protocol.bus.batches import Numbers
from rlpx.protocol.bus.control import SessionId, Verdict
from rlpx.protocol.bus.records import Handoff, Handoffs
from rlpx.protocol.bus.reports import SCRATCH_BYTES, Published, encode_published
from rlpx.protocol.errors import DisconnectReason
from tests.engine.fake_worker import configuration, until
from tests.engine.fleet.harness import DRAIN, FIRST, SECOND, FleetHarness, ended, one

# -- one worker -------------------------------------------------------------------------------------------------------------


async def test_a_worker_is_configured_and_ready_when_it_says_so(harness: FleetHarness) -> None:
    worker = await harness.spawned(SECOND, is_ready=False)
    assert worker.configure == configuration(SECOND)
    assert harness.fleet.get(SECOND) is None
    is_open = [harness.fleet.is_open]
    worker.report(control.Ready(worker.pid))
    await until(lambda: harness.fleet.get(SECOND))
    is_open.append(harness.fleet.is_open)
    assert is_open == [False, True]
    [process] = harness.fleet
    assert (process.index, process.pid, process.is_ready) == (SECOND, worker.pid, True)
    assert harness.owner.reports == [(SECOND, control.Ready(worker.pid))]
    await ended(harness)


async def test_handoffs_bring_their_sockets_and_the_caller_keeps_its_copies(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    [process] = harness.fleet
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
    await ended(harness)


async def test_a_worker_that_takes_no_handoffs_is_full_and_never_makes_us_wait(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    [process] = harness.fleet
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
    await ended(harness)


async def test_reports_arrive_whole_and_in_order_however_the_stream_is_cut(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    pulse = control.Pulse(3, 0.5, 4, 5, 0)
    reports: list[control.Report] = [pulse, control.Reply(control.CallId(1)), pulse]
    for byte in b"".join(map(control.encode, reports)):
        worker.its_stream.send(bytes([byte]))
        await asyncio.sleep(0)
    await until(lambda: len(harness.owner.reports) == 4)
    assert [report for _, report in harness.owner.reports[1:]] == reports
    [process] = harness.fleet
    assert process.pulse == pulse
    await ended(harness)


async def test_commands_arrive_and_what_waits_is_counted(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    [process] = harness.fleet
    process.command(Verdict(SessionId(1)))
    process.command(DRAIN)
    assert worker.hear() == [Verdict(SessionId(1)), DRAIN]
    verdicts = [Verdict(SessionId(2)), Verdict(SessionId(3))]
    process.command_all(verdicts)
    assert worker.hear() == verdicts
    assert process.queued_command_bytes == 0
    big = control.SendMessage(control.CallId(1), SessionId(1), "eth", 2, bytes(1 << 22))
    process.command(big)
    assert process.queued_command_bytes > 1 << 20
    await ended(harness)


async def test_what_a_crowd_of_reports_brings_about_is_told_in_their_order(
    harness: FleetHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that follow from reports wait until every report of the same read is handled: nothing may overtake them."""
    worker = await harness.spawned(FIRST)
    [process] = harness.fleet

    judged: list[SessionId] = []

    def judge(of: WorkerProcess, report: control.Report) -> None:
        assert isinstance(report, control.SessionAuthenticated)
        of.command(Verdict(report.session))
        judged.append(report.session)

    monkeypatch.setattr(harness.owner, "on_report", judge)
    sessions = [SessionId(number) for number in range(100)]
    worker.report(*[control.SessionAuthenticated(session, bytes(64)) for session in sessions])
    await until(lambda: judged == sessions)
    process.command(DRAIN)
    told: list[control.Command] = []
    while DRAIN not in told:
        told += worker.hear()
    assert told == [*map(Verdict, sessions), DRAIN]
    await ended(harness)


def batch(number: int, size: int) -> Published:
    """A batch of one event."""
    return Published("eth.Transactions", number, Numbers(number + 1, number + 1, 0), (), bytes(size))


async def test_batches_and_reports_are_heard_in_the_order_in_which_they_were_said(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    parts = (
        *encode_published(batch(0, 10)),
        control.encode(control.InterestSet(1)),
        *encode_published(batch(1, 90_000)),
    )
    sending = asyncio.to_thread(worker.its_stream.sendall, b"".join(parts))
    await asyncio.gather(sending, until(lambda: len(harness.owner.published) == 2))
    assert [(published.first, len(published.wire)) for _, published in harness.owner.published] == [(0, 10), (1, 90_000)]
    assert harness.owner.reports[-1] == (FIRST, control.InterestSet(1))
    assert harness.owner.begun == [FIRST]
    await ended(harness)


async def test_a_worker_that_says_much_leaves_the_others_their_turn(
    harness: FleetHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlpx.engine.fleet.process.READ_BUDGET_BYTES", 50_000)
    worker = await harness.spawned(FIRST)
    turns: list[int] = []

    def turn() -> None:
        turns.append(len(harness.owner.published))
        if turns[-1] < 300:
            asyncio.get_running_loop().call_soon(turn)

    stream = b"".join(b"".join(encode_published(batch(number, 10_000))) for number in range(300))
    sending = asyncio.ensure_future(asyncio.to_thread(worker.its_stream.sendall, stream))
    turn()
    await until(lambda: len(harness.owner.published) == 300)
    await sending
    # Of a chunk that is read at once, what is over the budget is what the buffer holds.
    assert max(after - before for before, after in itertools.pairwise(turns)) <= SCRATCH_BYTES // 10_000 + 1
    await ended(harness)


async def test_what_a_worker_has_said_is_heard_though_a_write_to_it_fails_first(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    [process] = harness.fleet
    said = control.SessionAuthenticated(SessionId(1), bytes(64))
    worker.report(said)
    worker.its_stream.sendall(b"".join(encode_published(batch(0, 300_00))))
    worker.close()
    # Before the loop reads, the kernel reports that nobody is there.
    process.command(control.Verdict(SessionId(1)))
    await until(lambda: harness.owner.lost)
    assert (FIRST, said) in harness.owner.reports
    assert len(harness.owner.published) == 1
    await ended(harness)


@pytest.mark.parametrize(("code", "cause"), [(0, "exit code 0"), (70, "exit code 70"), (-9, "signal 9"), (-11, "signal 11")])
async def test_a_lost_worker_is_told_once_with_its_cause(harness: FleetHarness, code: int, cause: str) -> None:
    worker = await harness.spawned(FIRST)
    [process] = harness.fleet
    worker.report(control.HandoffLost(SessionId(1), "its last words"))
    worker.die(code)
    await until(process.ended.is_set)
    assert harness.owner.lost == [(process, cause)]
    assert harness.owner.reports[-1] == (FIRST, control.HandoffLost(SessionId(1), "its last words"))
    assert process.is_lost
    assert not process.is_ready
    assert harness.fleet.get(FIRST) is None
    assert harness.fleet.choose(set()) is None


async def test_a_lost_worker_takes_nothing_and_hears_nothing(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    [process] = harness.fleet
    worker.die()
    ours, peer = socket.socketpair()
    with ours, peer:
        # Its end of the pair is closed before we have noticed anything.
        assert not process.hand_over(one(1), [ours.fileno()])
        await until(process.ended.is_set)
        assert not process.hand_over(one(1), [ours.fileno()])
    process.command(DRAIN)
    assert process.queued_command_bytes == 0


async def test_a_worker_that_closes_its_stream_and_does_not_end_is_killed(harness: FleetHarness) -> None:
    worker = await harness.spawned(FIRST)
    [process] = harness.fleet
    worker.code = None
    worker.close()
    await until(process.ended.is_set)
    assert worker.kills == 1
    assert harness.owner.lost == [(process, "signal 9")]


# -- the process ------------------------------------------------------------------------------------------------------------


# Ends as a worker does by a fault of the interpreter, and shows by its exit code whether a signal has reached it.
FAILING_WORKER = """
import os, signal, sys
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())
sys.stderr.write("Traceback:\\n  a fault\\n")
sys.exit(3 if {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} <= blocked else 4)
"""


async def test_a_process_leaves_signals_to_us_from_its_first_moment_and_what_it_writes_is_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    harness = FleetHarness(start_process)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{FAILING_WORKER}'\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())

    with structlog.testing.capture_logs() as logged:
        await harness.fleet.spawn(FIRST)
        await until(lambda: harness.owner.lost and logged)
    [line] = logged
    assert (line["event"], line["worker"]) == ("a worker wrote to stderr", FIRST)
    assert line["text"] == "Traceback:\\n  a fault"
    assert [cause for _, cause in harness.owner.lost] == ["exit code 3"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before


async def test_a_worker_of_other_code_does_not_join_and_the_cause_says_what_to_do() -> None:
    def start(descriptor: int) -> subprocess.Popen[bytes]:
        return spawn("rlpx.workers", descriptor, LEFT_TO_THE_ENGINE, "another fingerprint", has_output=False)

    harness = FleetHarness(start)
    text = (
        r"^worker 0 ended before it was ready: the code on disk has other messages than this engine, which must be started"
    )
    with pytest.raises(JoinError, match=text):
        await harness.fleet.join(1)
    [(lost, _)] = harness.owner.lost
    assert not lost.was_ready
