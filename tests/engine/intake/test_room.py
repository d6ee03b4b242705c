"""The session that makes room if a stage of the handshake is full."""

from __future__ import annotations

import asyncio
import socket
from time import monotonic

import pytest

from rlpx.engine.ledger.addresses import parse_address
from rlpx.engine.settings.settings import LimitSettings, ThrottleSettings
from rlpx.protocol.bus import control
from rlpx.protocol.bus.commands import (
    BanParameters,
)
from rlpx.protocol.bus.control import MakeRoom, SessionAuthenticated, SessionKeyed, SessionStalled, Verdict
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Stage
from tests.engine.fake_worker import until
from tests.engine.harness import (
    OTHER,
    PEER,
    MakeEngine,
    closed,
    is_closed,
)


async def test_where_the_first_stage_is_full_of_peers_that_go_on_what_comes_waits_in_the_kernel(
    make_engine: MakeEngine,
) -> None:
    async with make_engine(limits=LimitSettings(max_unauthenticated=1)) as harness:
        first = await harness.accepted()
        waiting = harness.connect()
        await asyncio.sleep(0.02)
        assert await harness.counted() == {"unauthenticated inbound": 1}
        assert not is_closed(waiting)
        harness.worker.report(closed(first, Stage.AUTH))
        assert (await harness.worker.takes()).session == 2


async def test_where_the_first_stage_is_full_the_one_that_has_said_least_for_longest_makes_room(
    make_engine: MakeEngine,
) -> None:
    async with make_engine(limits=LimitSettings(max_unauthenticated=3)) as harness:
        slow, silent, fresh = [await harness.accepted() for _ in range(3)]
        harness.connect()
        await asyncio.sleep(0.02)
        harness.worker.report(SessionStalled(slow, has_spoken=True), SessionStalled(silent, has_spoken=False))
        newcomer = (await harness.worker.takes()).session
        assert await harness.worker.is_told(MakeRoom) == MakeRoom(silent, "it sent no auth, and others needed its place")
        assert await harness.counted() == {"unauthenticated inbound": 3}
        harness.worker.report(closed(silent, Stage.AUTH))
        assert (await harness.event("session.closed"))["session"] == silent
        harness.connect()
        assert (await harness.worker.is_told(MakeRoom)).session == slow
        await harness.worker.takes()
        assert {fresh, newcomer} < set(harness.engine.ledger.views)


async def test_a_pending_peer_that_goes_no_further_makes_room_for_one_whose_auth_has_come(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlpx.engine.ledger.counter.PATIENCE_SECONDS", 0.0)
    async with make_engine(limits=LimitSettings(max_pending_inbound=1)) as harness:
        first, second = await harness.pending(), await harness.accepted()
        harness.worker.report(SessionKeyed(second), SessionAuthenticated(second, OTHER))
        made_room = await harness.worker.is_told(MakeRoom)
        assert made_room == MakeRoom(first, "it went no further, and others needed its place")
        assert await harness.worker.is_told(Verdict) == Verdict(second)
        assert await harness.counted() == {"pending inbound": 1}
        # What it says too late changes nothing, and its end is the only one.
        harness.worker.report(SessionAuthenticated(first, PEER), closed(first, Stage.HELLO))
        assert (await harness.event("session.closed"))["session"] == first
        assert await harness.counted() == {"pending inbound": 1}


async def test_a_refused_peer_that_sends_no_auth_makes_room_for_the_next_one_that_is_told_so(
    make_engine: MakeEngine,
) -> None:
    async with make_engine(limits=LimitSettings(max_active_inbound=0, max_polite_refusals=1)) as harness:
        harness.connect()
        silent = await harness.worker.takes()
        harness.worker.report(SessionStalled(silent.session, has_spoken=False), control.Ready(harness.worker.pid))
        await harness.event("worker.started")
        harness.connect()
        assert (await harness.worker.takes()).refusal is DisconnectReason.TOO_MANY_PEERS
        assert (await harness.worker.is_told(MakeRoom)).session == silent.session


async def test_in_a_full_network_a_silent_peer_makes_room_for_its_neighbour(make_engine: MakeEngine) -> None:
    async with make_engine(throttle=ThrottleSettings(per_ip_interval_s=0, per_subnet_live=1, exempt_cidrs=())) as harness:
        silent = await harness.accepted()
        refused = harness.connect()
        await until(lambda: is_closed(refused))
        assert (await harness.event("session.refused"))["cause"] == "the subnet 127.0.0.0/24 has 1 sessions"
        harness.worker.report(SessionStalled(silent, has_spoken=False), control.Ready(harness.worker.pid))
        await harness.event("worker.started")
        session = await harness.accepted()
        assert (await harness.worker.is_told(MakeRoom)).session == silent
        # One that has sent its auth stays.
        harness.worker.report(
            SessionStalled(session, has_spoken=False), SessionKeyed(session), control.Ready(harness.worker.pid)
        )
        await harness.event("worker.started")
        await until(lambda: harness.engine.ledger.views[session].stage is Stage.HELLO)
        refused = harness.connect()
        await until(lambda: is_closed(refused))


async def test_a_site_of_ipv6_that_is_full_of_silence_keeps_none_of_its_own_out_and_nobody_else(
    make_engine: MakeEngine,
) -> None:
    async with make_engine(workers=1) as harness:

        def comes(host: str) -> None:
            ours, theirs = socket.socketpair()
            harness.peers.append(ours)
            harness.engine.accepts.on_accept(theirs.detach(), host, 30303)
            harness.engine.accepts.on_accepted()

        for number in range(128):
            comes(f"2001:db8:1:{number:x}00::1")
        sessions = sorted(harness.engine.ledger.views)
        assert len(sessions) == 128
        comes("2001:db8:1:ffff::1")
        assert (await harness.event("session.refused"))["cause"] == "the subnet 2001:db8:1::/48 has 128 sessions"
        harness.worker.report(*(SessionStalled(session, has_spoken=False) for session in sessions))
        await until(lambda: harness.engine.ledger.admission.laggard(parse_address("2001:db8:1:ffff::1"), now=monotonic()))
        comes("2001:db8:1:ffff::1")
        assert (await harness.worker.is_told(MakeRoom)).session == sessions[0]
        comes("2001:db8:2::1")
        assert len(harness.engine.ledger.views) == 130
        assert harness.worker.heard == []


async def test_nobody_makes_room_for_an_address_that_is_kept_out(make_engine: MakeEngine) -> None:
    async with make_engine(throttle=ThrottleSettings(per_ip_interval_s=0, per_subnet_live=1, exempt_cidrs=())) as harness:
        silent = await harness.accepted()
        harness.worker.report(SessionStalled(silent, has_spoken=False), control.Ready(harness.worker.pid))
        await harness.event("worker.started")
        await harness.commands.peers.ban(BanParameters(address="127.0.0.7", seconds=60))
        refused = socket.create_connection(harness.address, source_address=("127.0.0.7", 0))
        harness.peers.append(refused)
        assert (await harness.event("session.refused"))["cause"] == "the address is banned"
        assert harness.worker.heard == []
        assert await harness.counted() == {"unauthenticated inbound": 1}
