"""The places that an accept books: none if it is refused, and none that stays booked if we cannot serve it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time_ns
from typing import Any

import pytest

from rlpx.engine.client.batch_reader import Event
from rlpx.engine.engine import listen
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.settings.settings import AccessSettings, LimitSettings, ThrottleSettings
from rlpx.protocol.bus import control
from rlpx.protocol.bus.commands import (
    BanParameters,
    DialParameters,
    SessionsParameters,
    SetLimitsParameters,
)
from rlpx.protocol.bus.control import HandoffLost, SessionAuthenticated, SessionStalled
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Stage
from tests.engine.fake_worker import until
from tests.engine.harness import (
    ENODE,
    NOTHING,
    OTHER,
    EngineHarness,
    MakeEngine,
    closed,
    is_closed,
    refusal,
)

ONE_IN_30_S = ThrottleSettings(per_ip_interval_s=30, exempt_cidrs=())


async def refused_because(harness: EngineHarness) -> str:
    """A peer connects and is closed at once, for this cause."""
    sock = harness.connect()
    await until(lambda: is_closed(sock))
    cause: str = (await harness.event("session.refused"))["cause"]
    return cause


async def test_one_address_connects_once_in_the_interval(make_engine: MakeEngine) -> None:
    async with make_engine(throttle=ONE_IN_30_S) as harness:
        await harness.accepted()
        assert await refused_because(harness) == "the address connected within the last 30 s"


async def test_a_hand_over_that_fails_is_not_held_against_the_address(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine(throttle=ONE_IN_30_S) as harness:
        with monkeypatch.context() as patch:
            patch.setattr(WorkerProcess, "hand_over", lambda *_: False)
            assert await refused_because(harness) == "no worker takes connections"
        assert await harness.counted() == {}
        await harness.accepted()


async def test_a_socket_that_its_worker_could_not_take_is_not_held_against_the_address(make_engine: MakeEngine) -> None:
    async with make_engine(throttle=ONE_IN_30_S) as harness:
        session = await harness.accepted()
        harness.worker.report(HandoffLost(session, "no descriptors"))
        await harness.event("session.closed")
        await harness.accepted()


async def test_a_worker_that_is_lost_is_not_held_against_the_addresses_of_its_peers(make_engine: MakeEngine) -> None:
    async with make_engine(throttle=ONE_IN_30_S) as harness:
        await harness.accepted()
        harness.worker.die(-9)
        await harness.event("worker.started")
        await harness.accepted()


async def test_who_is_closed_because_of_our_limits_may_come_as_soon_as_they_are_raised(make_engine: MakeEngine) -> None:
    limits = LimitSettings(max_active_inbound=0, max_polite_refusals=0)
    async with make_engine(limits=limits, throttle=ONE_IN_30_S) as harness:
        assert await refused_because(harness) == "0 inbound sessions are active"
        await harness.commands.running.set_limits(SetLimitsParameters(max_active_inbound=1))
        await harness.accepted()


async def test_who_is_told_that_we_are_full_has_had_its_turn(make_engine: MakeEngine) -> None:
    """The peer has cost a handshake, so its interval begins, as in geth."""
    limits = LimitSettings(max_active_inbound=0, max_polite_refusals=8)
    async with make_engine(limits=limits, throttle=ONE_IN_30_S) as harness:
        harness.connect()
        assert (await harness.worker.takes()).refusal is not None
        await harness.event("session.refused")
        assert await refused_because(harness) == "the address connected within the last 30 s"


async def test_who_was_banned_may_come_as_soon_as_the_ban_is_lifted(make_engine: MakeEngine) -> None:
    async with make_engine(throttle=ONE_IN_30_S) as harness:
        await harness.commands.peers.ban(BanParameters(address="127.0.0.1"))
        assert await refused_because(harness) == "the address is banned"
        await harness.commands.peers.ban(BanParameters(address="127.0.0.1", seconds=0))
        await harness.accepted()


@pytest.mark.parametrize(
    ("limits", "throttle"),
    [
        ({"max_unauthenticated": 1}, {}),
        ({}, {"per_ip_live": 1, "exempt_cidrs": ()}),
    ],
)
async def test_nobody_makes_room_for_a_connection_that_the_limits_refuse(
    make_engine: MakeEngine, limits: dict[str, Any], throttle: dict[str, Any]
) -> None:
    settings = {
        "limits": LimitSettings(max_polite_refusals=0, **limits),
        "throttle": ThrottleSettings(per_ip_interval_s=0, **throttle),
    }
    async with make_engine(**settings) as harness:
        silent = await harness.accepted()
        harness.worker.report(SessionStalled(silent, has_spoken=False))
        await asyncio.sleep(0.02)
        await harness.commands.running.set_limits(SetLimitsParameters(max_active_inbound=0))
        await refused_because(harness)
        assert harness.worker.heard == []
        assert await harness.counted() == {"unauthenticated inbound": 1}


async def test_an_accepted_peer_is_booked_handed_over_and_told_of(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        sock = harness.connect()
        handoff = await harness.worker.takes()
        remote = f"127.0.0.1:{sock.getsockname()[1]}"
        assert (handoff.session, handoff.refusal, handoff.remote) == (1, None, remote)
        assert abs(handoff.opened_us - time_ns() // 1000) < 60_000_000
        assert await harness.counted() == {"unauthenticated inbound": 1}
        opened = await harness.event("session.opened")
        assert {key: opened[key] for key in ("session", "peer", "direction", "remote", "worker")} == {
            "session": 1,
            "peer": None,
            "direction": "inbound",
            "remote": remote,
            "worker": 0,
        }
        # Only the worker holds it now.
        harness.worker.adopted.pop()[1].close()
        await until(lambda: is_closed(sock))


async def test_over_the_active_limit_a_peer_is_told_so_and_counts_as_no_session(make_engine: MakeEngine) -> None:
    async with make_engine(limits=LimitSettings(max_active_inbound=1, max_polite_refusals=1)) as harness:
        await harness.active()
        harness.connect()
        handoff = await harness.worker.takes()
        assert handoff.refusal is DisconnectReason.TOO_MANY_PEERS
        refused = await harness.event("session.refused")
        assert (refused["session"], refused["cause"]) == (handoff.session, "1 inbound sessions are active")
        assert await harness.counted() == {"active inbound": 1}
        # Neither of its reports has any effect.
        harness.worker.report(SessionAuthenticated(handoff.session, OTHER), closed(handoff.session))
        harness.connect()
        assert (await harness.worker.takes()).refusal is DisconnectReason.TOO_MANY_PEERS


async def test_where_too_many_are_told_so_already_a_peer_is_just_closed(make_engine: MakeEngine) -> None:
    async with make_engine(limits=LimitSettings(max_active_inbound=1, max_polite_refusals=0)) as harness:
        await harness.active()
        sock = harness.connect()
        await until(lambda: is_closed(sock))
        assert (await harness.event("session.refused"))["cause"] == "1 inbound sessions are active"


async def test_whoever_is_refused_takes_no_place_of_its_address(make_engine: MakeEngine) -> None:
    throttle = ThrottleSettings(per_ip_live=1, per_ip_interval_s=0, exempt_cidrs=())
    async with make_engine(limits=LimitSettings(max_active_inbound=0), throttle=throttle) as harness:
        for _ in range(3):
            harness.connect()
            assert (await harness.worker.takes()).refusal is DisconnectReason.TOO_MANY_PEERS
            assert (await harness.event("session.refused"))["cause"] == "0 inbound sessions are active"


@pytest.mark.parametrize("is_worker_lost", [True, False])
async def test_a_refused_peer_that_is_lost_on_its_way_frees_its_place(
    make_engine: MakeEngine, *, is_worker_lost: bool
) -> None:
    async with make_engine(limits=LimitSettings(max_active_inbound=0, max_polite_refusals=1)) as harness:
        harness.connect()
        handoff = await harness.worker.takes()
        if is_worker_lost:
            harness.worker.die(-9)
        else:
            # Its next report causes an event; the end of a goodbye causes none.
            harness.worker.report(HandoffLost(handoff.session, "no descriptors"), control.Ready(harness.worker.pid))
        await harness.event("worker.started")
        harness.connect()
        assert (await harness.worker.takes()).refusal is DisconnectReason.TOO_MANY_PEERS


async def test_an_address_that_comes_too_often_is_closed(make_engine: MakeEngine) -> None:
    async with make_engine(throttle=ThrottleSettings(exempt_cidrs=())) as harness:
        await harness.accepted()
        sock = harness.connect()
        await until(lambda: is_closed(sock))
        assert "within the last" in (await harness.event("session.refused"))["cause"]
        assert await harness.counted() == {"unauthenticated inbound": 1}


async def test_the_end_of_a_session_frees_what_its_address_had(make_engine: MakeEngine) -> None:
    async with make_engine(throttle=ThrottleSettings(per_ip_live=1, per_ip_interval_s=0, exempt_cidrs=())) as harness:
        first = await harness.accepted()
        harness.worker.report(closed(first, Stage.AUTH))
        await harness.event("session.closed")
        await harness.accepted()


async def test_a_denied_address_is_closed(make_engine: MakeEngine) -> None:
    async with make_engine(access=AccessSettings(deny_cidrs=("127.0.0.0/8",))) as harness:
        sock = harness.connect()
        await until(lambda: is_closed(sock))
        assert (await harness.event("session.refused"))["cause"] == "the address is on the deny list"


async def test_where_no_worker_takes_a_connection_it_is_closed_and_its_place_is_free(make_engine: MakeEngine) -> None:
    async with make_engine(limits=LimitSettings(max_unauthenticated=10_000)) as harness:
        harness.worker.publishes_lives = False
        count = 0
        while not any(item.topic == "session.refused" for item in harness.events):
            harness.connect()
            count += 1
            await asyncio.sleep(0)
            harness.events += [item for item in harness.subscriber.poll(0) if isinstance(item, Event)]
            assert count < 2000
        assert (await harness.event("session.refused"))["cause"] == "no worker takes connections"
        booked = (await harness.commands.running.counts(NOTHING)).unauthenticated.inbound
        assert 10 < booked <= count
        for _ in range(booked):
            await harness.worker.takes()
        with pytest.raises(BlockingIOError):
            harness.worker.taken()


async def test_what_one_worker_does_not_take_is_handed_to_another_and_booked_there(make_engine: MakeEngine) -> None:
    async with make_engine(workers=2) as harness:
        full, other = harness.engine.fleet
        full.hand_over = lambda *_: False  # type: ignore[method-assign]  # its queue is full
        for _ in range(3):
            harness.connect()
        sessions = [(await harness.workers[other.index].takes()).session for _ in range(3)]
        assert {(await harness.event("session.opened"))["worker"] for _ in sessions} == {other.index}
        assert harness.engine.ledger.counter.of_worker(other.index) == sorted(sessions)
        assert harness.engine.ledger.counter.load(full.index) == (0, 0)
        assert harness.engine.ledger.counter.load(other.index) == (3, 3)


@asynccontextmanager
async def without_a_worker(harness: EngineHarness) -> AsyncIterator[None]:
    """The stream of the only worker has ended, but its process has not."""
    may_end = threading.Event()
    worker, wait = harness.worker, harness.worker.wait

    def held(timeout: float | None = None) -> int:
        may_end.wait(10)
        return wait(timeout)

    worker.wait = held  # type: ignore[method-assign]  # how it is asked for its code
    worker.die(70)
    await until(lambda: not harness.engine.fleet.is_open)
    yield
    may_end.set()
    await until(lambda: harness.engine.fleet.is_open)


async def test_while_there_is_no_worker_peers_wait_in_the_kernels_queue(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        async with without_a_worker(harness):
            socks = []
            for _ in range(20):
                socks.append(harness.connect())
                await asyncio.sleep(0.002)
            # The first connection shows that no worker takes connections.
            assert (await harness.event("session.refused"))["cause"] == "no worker takes connections"
            assert sum(map(is_closed, socks)) == 1
        await until(lambda: len(harness.engine.ledger.views) == 19)


async def test_a_peer_that_no_worker_could_take_is_not_held_to_its_interval(make_engine: MakeEngine) -> None:
    async with make_engine(throttle=ThrottleSettings(exempt_cidrs=(), per_ip_interval_s=30.0)) as harness:
        async with without_a_worker(harness):
            harness.connect()
            await harness.event("session.refused")
        harness.connect()
        await until(lambda: len(harness.engine.ledger.views) == 1)


async def test_what_is_accepted_in_one_turn_is_told_in_the_order_in_which_it_came(make_engine: MakeEngine) -> None:
    async with make_engine(workers=3) as harness:
        for _ in range(9):
            harness.connect()
        await until(lambda: len(harness.engine.ledger.views) == 9)
        listed = await harness.commands.sessions.sessions(SessionsParameters())
        numbers = [session.session for session in listed.sessions]
        assert numbers == sorted(numbers)
        assert {session.worker for session in listed.sessions} == {0, 1, 2}


async def test_without_a_worker_nothing_is_accepted_and_nothing_is_refused(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        harness.worker.die()
        await harness.event("worker.lost")
        sock = harness.connect()
        assert (await refusal(harness.commands.sessions.dial(DialParameters(enode=ENODE))))[0] == "worker_lost"
        assert not is_closed(sock)
        await harness.event("worker.started")
        await harness.worker.takes()


def test_an_empty_listen_takes_no_connections() -> None:
    assert listen("") is None
