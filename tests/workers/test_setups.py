"""New sessions start from the head, protocols and timeouts that hold at that moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import (
    DisconnectSession,
    GetStats,
    SessionAuthenticated,
    SessionClosed,
    SessionEstablished,
    SessionId,
    SetHead,
    Verdict,
)
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.status import Head
from rlpx.protocol.lifecycle import EndedBy
from rlpx.protocol.session.events import Established, MessageReceived
from tests.pair import PROTOCOLS, SessionSpec, encoded
from tests.workers.hosted import (
    ONE,
    QUITTING,
    hosted,
)


async def test_a_polite_refusal_is_told_before_hello(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.accepted(ONE, refusal=DisconnectReason.TOO_MANY_PEERS)
        ended = await peer.until_closed()
        assert (ended.ended_by, ended.reason) == (EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS)
        closed = await engine.until(SessionClosed)
        assert (closed.session, closed.reason) == (ONE, DisconnectReason.TOO_MANY_PEERS)


async def test_each_peer_has_the_highest_version_that_it_shares(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        for number, names in enumerate((("eth/66",), ("eth/67", "eth/69"), ("eth/70", "snap/1")), start=1):
            offer = tuple(item for item in PROTOCOLS if str(item.capability) in names)
            peer = await engine.accepted(SessionId(number), SessionSpec(seed=number, protocols=offer))
            established = asyncio.ensure_future(peer.until(Established))
            await engine.until(control.SessionAuthenticated)
            engine.command(Verdict(SessionId(number)))
            report = await engine.until(SessionEstablished)
            assert (report.capabilities, report.shared) == (names, names[-1:] if number == 2 else names)
            await established


async def test_each_peer_has_the_highest_version_that_it_speaks_itself(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        for version in eth.VERSIONS:
            offered = tuple(eth.sub_protocol(lower) for lower in (66, 67, 68, 69) if lower < version)
            recipe = SessionSpec(seed=version, protocols=(*offered, eth.sub_protocol(version)))
            peer = await engine.accepted(SessionId(version), recipe)
            established = asyncio.ensure_future(peer.until(Established))
            await engine.until(SessionAuthenticated, version)
            engine.command(Verdict(SessionId(version)))
            report = await engine.until(SessionEstablished, version)
            assert report.shared == (f"eth/{version}",)
            assert [str(item.capability) for item in (await established).shared] == [f"eth/{version}"]


async def test_a_new_head_is_announced_in_new_handshakes(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        assert (await engine.asked(SetHead(engine.call(), Head(2000, b"\x22" * 32, earliest=9)))).error is None
        peer = await engine.established(ONE)
        status = peer.session.status
        assert status is not None
        assert (status.earliest, status.latest, status.head) == (9, 2000, b"\x22" * 32)


async def test_a_new_head_is_announced_to_the_sessions_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlpx.protocol.session.session.RANGE_INTERVAL_SECONDS", 0.2)
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        engine.command(SetHead(engine.call(), Head(2000, b"\x22" * 32, earliest=9)))
        update = await peer.until(MessageReceived)
        assert (update.kind.topic, update.payload) == ("eth.BlockRangeUpdate", encoded([9, 2000, b"\x22" * 32]))


async def test_a_quiet_peer_is_pinged_after_the_interval(tmp_path: Path) -> None:
    async with hosted(tmp_path, ping_interval_s=0.1, ping_s=60) as engine:
        peer = await engine.established(ONE)
        ended = asyncio.ensure_future(peer.until_closed())
        rtt = None
        while rtt is None:
            engine.command(GetStats(engine.call(), (ONE,)))
            rtt = (await engine.until(control.Stats)).sessions[ONE][1].rtt_ms
        engine.command(DisconnectSession(ONE, QUITTING, "by command"))
        await ended
