"""Commands about sessions: carried out once, and harmless if the session has ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import orjson

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import (
    DisconnectSession,
    GetStats,
    MakeRoom,
    SessionAuthenticated,
    SessionClosed,
    SessionStalled,
    Verdict,
)
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy, Stage
from tests.workers.hosted import (
    ONE,
    PATIENCE_SECONDS,
    QUITTING,
    TWO,
    hosted,
)


async def test_a_refusal_in_the_verdict_is_told_to_the_peer(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.accepted(ONE)
        ended = asyncio.ensure_future(peer.until_closed())
        await engine.until(control.SessionAuthenticated)
        engine.command(Verdict(ONE, DisconnectReason.ALREADY_CONNECTED, "it has session 7 already"))
        closed = await engine.until(SessionClosed)
        assert (closed.ended_by, closed.reason) == (EndedBy.US, DisconnectReason.ALREADY_CONNECTED)
        assert closed.cause == "it has session 7 already"
        assert (await ended).reason is DisconnectReason.ALREADY_CONNECTED


async def test_a_silent_peer_makes_room_at_once_and_one_that_has_sent_its_auth_is_told_why(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        silent = await engine.accepted(ONE)
        await engine.until(SessionStalled)
        engine.command(MakeRoom(ONE, "others need it"))
        closed = await engine.until(SessionClosed, ONE)
        assert (closed.ended_by, closed.reason, closed.cause) == (EndedBy.US, None, "others need it")
        async with asyncio.timeout(PATIENCE_SECONDS):
            with suppress(ConnectionError):
                assert await silent.reader.read(1) == b""
        peer = await engine.accepted(TWO)
        authenticated = asyncio.ensure_future(peer.until_closed())
        await engine.until(SessionAuthenticated, TWO)
        engine.command(MakeRoom(TWO, "others need it"))
        assert (await engine.until(SessionClosed, TWO)).reason is DisconnectReason.TOO_MANY_PEERS
        assert (await authenticated).reason is DisconnectReason.TOO_MANY_PEERS


async def test_an_active_session_makes_no_room(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        engine.command(MakeRoom(ONE, "others need it"))
        engine.command(MakeRoom(TWO, "there is no such session"))
        await peer.ping()


async def test_stats_are_those_of_the_sessions_that_are_there(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        call = engine.call()
        engine.command(GetStats(call, (ONE, TWO)))
        stats = await engine.until(control.Stats)
        assert (stats.call, set(stats.sessions)) == (call, {ONE})
        stage, counted, span = stats.sessions[ONE]
        assert stage is Stage.ACTIVE
        assert counted.messages_in == 2
        assert span == (7, 1000, "0x" + "11" * 32)


async def test_a_command_for_a_session_that_has_ended_does_nothing(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        engine.command(Verdict(TWO))
        engine.command(Verdict(TWO, QUITTING, "late"))
        engine.command(DisconnectSession(TWO, QUITTING, "late"))
        await engine.established(ONE)


async def test_a_snapshot_has_its_place_among_the_batches(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"session.")
        await engine.established(ONE)
        call = engine.call()
        engine.command(control.TakeSnapshot(call))
        snapshot = await engine.until(control.Snapshot)
        assert snapshot.call == call
        [shown] = map(orjson.loads, snapshot.sessions)
        assert (shown["session"], shown["phase"], shown["shared"]) == (ONE, "active", ["eth/72", "snap/2"])
        # Everything that it shows was published before it.
        assert {published.topic for published in engine.published} >= {"session.opened", "session.established"}


async def test_a_probe_is_answered_when_the_peer_has(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        # A probe of a session that has ended does nothing.
        engine.command(control.Probe(TWO))
        engine.command(control.Probe(ONE))
        # The peer has sent something a moment ago.
        assert await engine.until(control.SessionAlive) == control.SessionAlive(ONE)
        await asyncio.sleep(1.1)
        engine.command(control.Probe(ONE))
        await peer.hear()
        peer.send("eth", 2, b"\xc0")
        assert await engine.until(control.SessionAlive) == control.SessionAlive(ONE)
        peer.leave(DisconnectReason.CLIENT_QUITTING)
        assert (await engine.until(SessionClosed, ONE)).reason is DisconnectReason.CLIENT_QUITTING
