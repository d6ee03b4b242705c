"""The process as a whole: its pulse, its budget, and its end."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import Dial, DisconnectSession, SessionClosed, SetHead
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth.status import Head
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage
from rlpx.protocol.session.events import Authenticated
from rlpx.workers.budget import Budget
from rlpx.workers.reporter import REPORTS_AT_ONCE
from tests.pair import DIALER, HEAD, SessionSpec, encoded
from tests.workers.hosted import (
    BLOCK_HEADERS,
    DRAIN,
    GOODBYE_SECONDS,
    ONE,
    PATIENCE_SECONDS,
    QUITTING,
    TWO,
    closed_once,
    full_port,
    hosted,
)


async def test_a_drained_worker_says_goodbye_to_every_peer_reports_each_once_and_ends(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peers = [await engine.established(ONE), await engine.established(TWO, SessionSpec(seed=5))]
        engine.command(DRAIN)
        for peer in peers:
            assert (await peer.until_closed()).reason is QUITTING
        reports = await engine.rest()
        for session in (ONE, TWO):
            closed = closed_once(reports, session)
            assert (closed.ended_by, closed.reason, closed.cause) == (EndedBy.ENGINE, QUITTING, DRAIN.cause)
        assert len(reports) == 2


async def test_a_drained_worker_says_goodbye_to_a_peer_without_a_verdict_too(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.accepted(ONE)
        ended = asyncio.ensure_future(peer.until_closed())
        await engine.until(control.SessionAuthenticated)
        engine.command(DRAIN)
        assert (await ended).reason is QUITTING
        closed = closed_once(await engine.rest(), ONE)
        assert (closed.ended_by, closed.reason) == (EndedBy.ENGINE, QUITTING)


async def test_a_drained_worker_with_nothing_to_do_ends_at_once(tmp_path: Path) -> None:
    async with hosted(tmp_path, goodbye_s=60) as engine:
        engine.command(DRAIN)
        assert await engine.rest() == []


async def test_a_drained_worker_with_a_dial_only_calls_it_off_and_ends_at_once(tmp_path: Path) -> None:
    async with hosted(tmp_path, goodbye_s=60) as engine:
        with full_port() as address:
            engine.command(Dial(ONE, DIALER.key.id, (address,)))
            await engine.asked(SetHead(engine.call(), Head(1, b"\x22" * 32)))
            engine.command(DRAIN)
            assert closed_once(await engine.rest(), ONE).stage is Stage.CONNECT


async def test_a_peer_that_never_reads_its_goodbye_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        engine.command(DRAIN)
        loop = asyncio.get_running_loop()
        started = loop.time()
        closed_once(await engine.rest(), ONE)
        assert loop.time() - started < GOODBYE_SECONDS + 2.0


async def test_a_peer_that_goes_on_talking_after_its_goodbye_does_not_hold_up_its_end(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        engine.command(DisconnectSession(ONE, QUITTING, "by command"))
        await engine.until(SessionClosed)
        # From now on only the bare stream is used: its session must not answer, and nothing is read.
        async with asyncio.timeout(GOODBYE_SECONDS * 5):
            while not peer.writer.transport.is_closing():
                peer.writer.write(b"blah")
                await asyncio.sleep(GOODBYE_SECONDS / 10)


async def test_a_worker_whose_last_reports_wait_for_a_busy_engine_ends_without_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than a turn and the pulse, which must not find the sockets closed.
    monkeypatch.setattr("rlpx.workers.__main__.LAST_REPORTS_SECONDS", 0.3)
    monkeypatch.setattr("rlpx.workers.worker.PULSE_SECONDS", 0.05)
    async with hosted(tmp_path) as engine:
        # The replies are not read: they fill the stream, and the worker must wait for it at the end.
        for _ in range(40_000):
            engine.command(SetHead(engine.call(), Head(1, b"\x22" * 32)))
        engine.command(DRAIN)
        await engine.writer.drain()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await engine.worker == 0


async def test_all_that_it_has_to_say_is_said_in_its_order_before_it_ends(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        calls = [engine.call() for _ in range(2 * REPORTS_AT_ONCE + 1)]
        for call in calls:
            engine.command(SetHead(call, HEAD))
        await engine.until_that(lambda report: report == control.Reply(calls[0]))
        fault = {"message": "broken", "exception": RuntimeError("ours"), "protocol": "of one connection"}
        asyncio.get_running_loop().call_exception_handler(fault)
        engine.command(DRAIN)
        told = await engine.rest()
        assert told == [*map(control.Reply, calls[1:]), control.LogLine("error", "broken", "RuntimeError: ours\n")]


async def test_without_its_engine_a_worker_ends_at_once(tmp_path: Path) -> None:
    async with hosted(tmp_path, goodbye_s=60) as engine:
        await engine.established(ONE)
        engine.writer.close()
        async with asyncio.timeout(60):
            await engine.worker


@pytest.mark.parametrize("is_saying_goodbye", [True, False])
async def test_at_its_end_a_worker_closes_the_sockets_that_it_does_not_read_too(
    tmp_path: Path, *, is_saying_goodbye: bool
) -> None:
    async with hosted(tmp_path, goodbye_s=60) as engine:
        # It waits for its verdict, and is not read meanwhile.
        peer = await engine.accepted(ONE)
        hello = asyncio.ensure_future(peer.until(Authenticated))
        await engine.until(control.SessionAuthenticated, ONE)
        await hello
        if is_saying_goodbye:
            engine.command(DisconnectSession(ONE, QUITTING, ""))
            await engine.until(SessionClosed, ONE)
        engine.writer.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await engine.worker == 0
            with suppress(ConnectionResetError):
                while await peer.reader.read(1 << 16):
                    pass


async def test_the_end_of_the_pair_of_handoffs_is_the_end_as_well(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        engine.handoffs.shutdown(socket.SHUT_RDWR)
        assert await engine.rest() == []


async def test_every_second_it_says_how_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.workers.worker.PULSE_SECONDS", 0.01)
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        engine.command(DisconnectSession(ONE, DisconnectReason.TOO_MANY_PEERS, "enough"))
        pulse = await engine.until_that(lambda report: isinstance(report, control.Pulse) and report.goodbyes == 1)
        assert (pulse.dropped_events, pulse.unanswered) == (0, 0)
        assert pulse.memory_bytes > 1 << 20
        assert 0 <= pulse.loop_lag_ms < 60_000
        peer.close()


async def test_whoever_holds_the_most_goes_when_the_budget_is_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No setting allows so little.
    monkeypatch.setattr("rlpx.workers.worker.Budget", lambda _: Budget(300_000))
    async with hosted(tmp_path) as engine:
        small, large = await engine.established(ONE), await engine.established(TWO)
        for peer, size in ((large, 170_000), (small, 140_000)):
            peer.session.send("eth", BLOCK_HEADERS, encoded([7, os.urandom(size)]))
            # All but its end.
            peer.writer.write(peer.session.data_to_send()[:-20])
        closed = await engine.until(SessionClosed, TWO)
        assert closed.reason is DisconnectReason.TOO_MANY_PEERS
        assert "bytes in progress, the most of all when a worker's 300000 were used" in closed.cause
        assert (await large.until_closed()).reason is DisconnectReason.TOO_MANY_PEERS


async def test_a_pulse_that_is_asked_for_has_all_that_was_counted_until_now(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        assert peer.session.shared is not None
        call = engine.call()
        engine.command(control.SendPulse(call))
        assert await engine.until(control.Reply) == control.Reply(call)
        pulse = [report for report in engine.reports if isinstance(report, control.Pulse)][-1]
        counters = pulse.counters
        stages = {(counted.direction, counted.stage): sum(counted.passed.counts) for counted in counters.stages}
        assert stages == dict.fromkeys(
            [(Direction.INBOUND, stage) for stage in (Stage.AUTH, Stage.HELLO, Stage.STATUS, Stage.VERDICT)], 1
        )
        assert [(item.direction, sum(item.established.counts)) for item in counters.handshakes] == [(Direction.INBOUND, 1)]
        assert counters.bytes_in > 0
        assert counters.bytes_out > 0
        assert {item.message for item in counters.messages} == {"Hello", "Status"}
        assert pulse.cpu_seconds > 0
        assert 0 < pulse.descriptors < pulse.descriptor_limit


async def test_a_worker_that_ends_reports_its_counters_a_last_time(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        engine.command(DRAIN)
        pulses = [report for report in await engine.all_rest() if isinstance(report, control.Pulse)]
        assert pulses[-1].goodbyes == 0
        assert "Disconnect" in {item.message for item in pulses[-1].counters.messages}
