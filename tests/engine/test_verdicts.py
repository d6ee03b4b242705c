"""Verdicts: duplicates, crossings, limits, and peers that connect again."""

from __future__ import annotations

from rlpx.engine.settings.settings import LimitSettings
from rlpx.protocol.bus.control import Probe, SessionAlive, SessionAuthenticated, SessionKeyed, Verdict
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.engine.fake_worker import until
from tests.engine.harness import (
    KEY,
    OTHER,
    PEER,
    MakeEngine,
    closed,
    established,
)


async def test_a_second_session_of_a_peer_is_judged_a_duplicate(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        first = await harness.active()
        second = await harness.pending()
        harness.worker.report(SessionAuthenticated(second, PEER))
        # The first session is probed to learn whether its peer is there.
        assert await harness.worker.is_told(Probe) == Probe(first)
        harness.worker.report(SessionAlive(first))
        verdict = await harness.worker.is_told(Verdict)
        assert verdict == Verdict(second, DisconnectReason.ALREADY_CONNECTED, f"the peer has session {first} already")
        # A second report, as after a pong, changes nothing.
        harness.worker.report(SessionAlive(first), SessionAlive(second))
        third = await harness.pending()
        harness.worker.report(SessionAuthenticated(third, PEER))
        assert await harness.worker.is_told(Probe) == Probe(first)


async def test_a_peer_that_connects_anew_is_let_in_when_its_old_session_is_found_dead(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        first = await harness.active()
        second, third = await harness.pending(), await harness.pending()
        harness.worker.report(SessionAuthenticated(second, PEER))
        assert await harness.worker.is_told(Probe) == Probe(first)
        # Only one session waits.
        harness.worker.report(SessionAuthenticated(third, PEER))
        assert (await harness.worker.is_told(Verdict)).refusal is DisconnectReason.ALREADY_CONNECTED
        harness.worker.report(closed(first))
        assert await harness.worker.is_told(Verdict) == Verdict(second)


async def test_one_that_waited_and_left_is_judged_no_more(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        first = await harness.active()
        second = await harness.pending()
        harness.worker.report(SessionAuthenticated(second, PEER))
        await harness.worker.is_told(Probe)
        harness.worker.report(closed(second), closed(first))
        await harness.active()
        assert await harness.counted() == {"active inbound": 1}


async def test_a_duplicate_of_a_session_that_is_not_active_is_refused_at_once(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        first, second = await harness.pending(), await harness.pending()
        harness.worker.report(SessionAuthenticated(first, PEER))
        assert await harness.worker.is_told(Verdict) == Verdict(first)
        harness.worker.report(SessionAuthenticated(second, PEER))
        assert (await harness.worker.is_told(Verdict)).refusal is DisconnectReason.ALREADY_CONNECTED


async def test_a_connection_to_ourselves_is_judged_so(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.accepted()
        harness.worker.report(SessionAuthenticated(session, KEY.id))
        assert (await harness.worker.is_told(Verdict)).refusal is DisconnectReason.CONNECTED_TO_SELF


async def test_nothing_becomes_active_without_a_verdict_whatever_its_worker_says(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        unproved, refused = await harness.accepted(), await harness.accepted()
        harness.worker.report(established(unproved), SessionAuthenticated(refused, KEY.id))
        assert (await harness.worker.is_told(Verdict)).refusal is DisconnectReason.CONNECTED_TO_SELF
        harness.worker.report(established(refused))
        harness.worker.report(closed(refused, Stage.HELLO))
        assert (await harness.event("session.closed"))["session"] == refused
        assert await harness.counted() == {"unauthenticated inbound": 1}


async def test_the_active_limit_is_exact_among_many_that_are_pending(make_engine: MakeEngine) -> None:
    async with make_engine(limits=LimitSettings(max_active_inbound=2)) as harness:
        sessions = [await harness.pending() for _ in range(5)]
        peers = [PrivateKey(bytes([number]) * 32).id for number in range(1, 6)]
        harness.worker.report(*(SessionAuthenticated(*pair) for pair in zip(sessions, peers, strict=True)))
        verdicts = [(await harness.worker.is_told(Verdict)).refusal for _ in sessions]
        assert verdicts == [None, None] + [DisconnectReason.TOO_MANY_PEERS] * 3


async def test_a_connection_takes_no_pending_place_before_its_auth(make_engine: MakeEngine) -> None:
    async with make_engine(limits=LimitSettings(max_pending_inbound=1)) as harness:
        silent = [await harness.accepted() for _ in range(3)]
        session = await harness.active()
        assert await harness.counted() == {"unauthenticated inbound": 3, "active inbound": 1}
        harness.worker.report(SessionKeyed(silent[0]))
        await until(lambda: harness.engine.ledger.views[silent[0]].stage is Stage.HELLO)
        assert await harness.counted() == {"unauthenticated inbound": 2, "pending inbound": 1, "active inbound": 1}
        assert session not in silent


async def test_whose_auth_finds_no_place_gets_its_verdict_with_the_next_one_that_is_free(make_engine: MakeEngine) -> None:
    async with make_engine(limits=LimitSettings(max_pending_inbound=1)) as harness:
        first, second = await harness.pending(), await harness.pending()
        harness.worker.report(SessionAuthenticated(second, OTHER))
        await harness.event("session.authenticated")
        assert harness.worker.heard == []
        assert await harness.counted() == {"unauthenticated inbound": 1, "pending inbound": 1}
        harness.worker.report(closed(first, Stage.HELLO))
        assert await harness.worker.is_told(Verdict) == Verdict(second)
        harness.worker.report(established(second))
        await harness.event("session.established")
        assert await harness.counted() == {"active inbound": 1}
