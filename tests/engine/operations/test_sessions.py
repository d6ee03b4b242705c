"""Dials, goodbyes, lists and snapshots of sessions, as users ask for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from rlpx.engine.settings.settings import AccessSettings, LimitSettings
from rlpx.protocol.bus import control
from rlpx.protocol.bus.commands import (
    BanParameters,
    DialParameters,
    DisconnectAllParameters,
    DisconnectParameters,
    HistoryParameters,
    SessionParameters,
    SessionsParameters,
)
from rlpx.protocol.bus.control import (
    Dial,
    DisconnectSession,
    SessionAuthenticated,
    SessionClosed,
    SessionConnected,
    SessionId,
    SessionStats,
    Verdict,
    WorkerId,
)
from rlpx.protocol.bus.events import Event
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy, Stage
from tests.engine.fake_worker import until
from tests.engine.harness import (
    ENODE,
    KEY,
    NOTHING,
    OTHER,
    PEER,
    SETTINGS,
    EngineHarness,
    MakeEngine,
    closed,
    dialled,
    established,
    refusal,
    sent,
)


async def test_a_dial_is_booked_told_to_a_worker_and_answered_at_once(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        result = await harness.commands.sessions.dial(DialParameters(enode=ENODE))
        dial = await harness.worker.is_told(Dial)
        assert (dial.session, dial.peer, dial.addresses) == (result.session, PEER, (("127.0.0.1", 30303),))
        assert dial.enode == ENODE
        assert await harness.counted() == {"pending outbound": 1}
        harness.worker.report(SessionConnected(SessionId(result.session), "127.0.0.1:1", "127.0.0.1:30303"))
        assert (await harness.event("session.opened"))["peer"] == PEER.hex()
        shown = await harness.commands.sessions.session(SessionParameters(session=result.session))
        assert (shown.enode, shown.stage) == (ENODE, "ack")


async def test_a_dial_that_waits_is_answered_with_the_session(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        asked = asyncio.ensure_future(harness.commands.sessions.dial(DialParameters(enode=ENODE, wait=True)))
        session = (await harness.worker.is_told(Dial)).session
        harness.worker.report(
            SessionConnected(session, "127.0.0.1:1", "127.0.0.1:30303"), SessionAuthenticated(session, PEER)
        )
        await harness.worker.is_told(Verdict)
        harness.worker.report(established(session))
        result = await asked
        assert result.established is not None
        assert (result.session, result.established.phase) == (session, "active")


async def test_a_dial_that_fails_is_an_event_and_the_answer_of_who_waits(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        asked = asyncio.ensure_future(harness.commands.sessions.dial(DialParameters(enode=ENODE, wait=True)))
        session = (await harness.worker.is_told(Dial)).session
        cause = "no TCP connection: Connection refused"
        harness.worker.report(SessionClosed(session, EndedBy.NETWORK, None, cause, Stage.CONNECT, SessionStats()))
        assert await refusal(asked) == ("refused", f"session {session} ended at connect by network: {cause}")
        failed = await harness.event("dial.failed")
        assert (failed["enode"], failed["cause"]) == (ENODE, cause)
        # There never was a connection, so none was closed.
        assert "session.closed" not in {item.topic for item in harness.events}
        assert await harness.counted() == {}
        await dialled(harness)


async def test_a_peer_is_not_dialled_twice_nor_where_it_has_a_session(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        first = await dialled(harness)
        again = harness.commands.sessions.dial(DialParameters(enode=ENODE))
        assert await refusal(again) == ("refused", f"the peer has session {first} already")
        inbound = await harness.active(OTHER)
        other = harness.commands.sessions.dial(DialParameters(enode=f"enode://{OTHER.hex()}@127.0.0.1:1"))
        assert await refusal(other) == ("refused", f"the peer has session {inbound} already")


async def test_of_a_dial_and_an_accept_of_one_peer_the_first_that_is_proved_wins(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        outbound = await dialled(harness)
        inbound = await harness.active(PEER)
        harness.worker.report(SessionConnected(outbound, "a", "b"), SessionAuthenticated(outbound, PEER))
        assert await harness.worker.is_told(control.Probe) == control.Probe(inbound)
        harness.worker.report(control.SessionAlive(inbound))
        assert (await harness.worker.is_told(Verdict)).refusal is DisconnectReason.ALREADY_CONNECTED


@pytest.mark.parametrize(
    ("enode", "name"),
    [
        (f"enode://{KEY.id.hex()}@127.0.0.1:1", "refused"),
        (f"enode://{PEER.hex()}@10.0.0.1:1", "refused"),
        ("nonsense", "invalid_params"),
        (f"enode://{PEER.hex()}@[::1", "invalid_params"),
    ],
)
async def test_a_dial_that_may_not_be_is_refused_and_books_nothing(make_engine: MakeEngine, enode: str, name: str) -> None:
    async with make_engine(access=AccessSettings(deny_cidrs=("10.0.0.0/8",))) as harness:
        assert (await refusal(harness.commands.sessions.dial(DialParameters(enode=enode))))[0] == name
        assert await harness.counted() == {}


async def test_the_limit_of_dials_in_progress_is_exact(make_engine: MakeEngine) -> None:
    async with make_engine(limits=LimitSettings(max_pending_outbound=1)) as harness:
        await dialled(harness)
        more = harness.commands.sessions.dial(DialParameters(enode=f"enode://{OTHER.hex()}@127.0.0.1:1"))
        assert await refusal(more) == ("refused", "1 outbound sessions are pending")


async def test_a_disconnect_goes_to_the_worker_of_the_session(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        done = await harness.commands.sessions.disconnect(DisconnectParameters(session=session, reason="useless_peer"))
        assert done.sessions == 1
        told = await harness.worker.is_told(DisconnectSession)
        assert (told.session, told.reason) == (session, DisconnectReason.USELESS_PEER)
        assert (await harness.commands.sessions.disconnect_all(DisconnectAllParameters())).sessions == 1
        assert (await harness.worker.is_told(DisconnectSession)).reason is DisconnectReason.DISCONNECT_REQUESTED


async def test_a_session_that_is_not_there_is_an_answer(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        for asked in (
            harness.commands.sessions.session(SessionParameters(session=99)),
            harness.commands.sessions.disconnect(DisconnectParameters(session=99)),
            harness.commands.sending.send(*sent(99)),
        ):
            assert await refusal(asked) == ("no_such_session", "there is no session 99")


async def test_sessions_are_those_that_match_every_filter(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        pending = await harness.accepted()
        active = await harness.active()
        outbound = await dialled(harness, f"enode://{OTHER.hex()}@127.0.0.1:1")

        async def matching(**filters: Any) -> list[int]:
            result = await harness.commands.sessions.sessions(SessionsParameters(**filters))
            return [item.session for item in result.sessions]

        assert await matching() == [pending, active, outbound]
        assert await matching(direction="outbound") == [outbound]
        assert await matching(phase="active") == [active]
        assert await matching(phase="pending", direction="inbound") == [pending]
        assert await matching(worker=1) == []
        assert await matching(peer=PEER.hex()[:6]) == [active]
        assert await matching(client="geth") == [active]
        assert await matching(shared="eth/69") == [active]
        assert await matching(shared="eth") == []
        limited = await harness.commands.sessions.sessions(SessionsParameters(limit=2))
        assert (len(limited.sessions), limited.total) == (2, 3)


async def test_the_history_has_the_last_ends_the_latest_first(make_engine: MakeEngine) -> None:
    async with make_engine(control=msgspec.structs.replace(SETTINGS.control, history=3)) as harness:
        for _ in range(4):
            session = await harness.accepted()
            harness.worker.report(closed(session, Stage.AUTH))
            await harness.event("session.closed")
        history = await harness.commands.sessions.history(HistoryParameters())
        assert [item.session for item in history] == [4, 3, 2]
        assert [item.session for item in await harness.commands.sessions.history(HistoryParameters(limit=1))] == [4]


async def snapshot_of(harness: EngineHarness, *sessions: int) -> control.TakeSnapshot:
    """Answer the worker's next snapshot command with these sessions; returns the command."""
    command = await harness.worker.is_told(control.TakeSnapshot)
    shown = tuple(b'{"session":%d}' % session for session in sessions)
    harness.worker.report(control.Snapshot(command.call, shown))
    return command


async def test_a_snapshot_is_true_at_the_place_where_its_worker_took_it(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await harness.active()
        asked = asyncio.ensure_future(harness.commands.sessions.snapshot(NOTHING))
        await snapshot_of(harness, 1)
        # This event comes after the snapshot, although both may be read in the same turn.
        harness.worker.tell("session.opened", SessionId(2), Event(2))
        taken = await asked
        assert [msgspec.json.decode(item) for item in taken.sessions] == [{"session": 1}]
        positions = {(topic, worker): following for topic, worker, following in taken.next}
        assert (positions["session.opened", 0], positions["session.established", 0]) == (1, 1)
        assert taken.run == harness.engine.run


async def test_a_snapshot_of_a_worker_that_ends_meanwhile_is_taken_anew(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        asked = asyncio.ensure_future(harness.commands.sessions.snapshot(NOTHING))
        await harness.worker.is_told(control.TakeSnapshot)
        harness.worker.die(-9)
        await harness.event("session.closed")
        taken = await asked
        assert taken.sessions == []
        # The engine published the session's end before this snapshot, so the position counts it.
        positions = {(topic, worker): following for topic, worker, following in taken.next}
        assert positions["session.closed", None] == 1
        assert positions["session.opened", 0] == session


@asynccontextmanager
async def worker_lost_and_not_reaped(harness: EngineHarness, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The first worker has closed its sockets, but its process has not ended yet."""
    ended = threading.Event()

    def wait(_timeout: float | None = None) -> int:
        ended.wait(10)
        return -9

    worker = harness.workers[0]
    monkeypatch.setattr(worker, "wait", wait)
    worker.close()
    await until(lambda: harness.engine.fleet.get(WorkerId(0)) is None)
    try:
        yield
    finally:
        ended.set()
    await harness.event("worker.lost")


async def test_a_session_whose_worker_is_lost_cannot_be_disconnected_and_is_not_counted(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        async with worker_lost_and_not_reaped(harness, monkeypatch):
            name, words = await refusal(harness.commands.sessions.disconnect(DisconnectParameters(session=session)))
            assert (name, words) == ("worker_lost", f"worker 0 of session {session} has ended")
            assert (await harness.commands.sessions.disconnect_all(DisconnectAllParameters())).sessions == 0
            assert (await harness.commands.peers.ban(BanParameters(peer=PEER.hex()))).sessions == 0
            assert (await refusal(harness.commands.sending.send(*sent(session))))[0] == "worker_lost"
        assert (await harness.event("session.closed"))["ended_by"] == "worker_lost"


async def test_of_all_sessions_those_of_the_workers_that_live_are_counted_as_disconnected(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine(workers=2) as harness:
        for _ in range(4):
            harness.connect()
        await until(lambda: len(harness.engine.ledger.views) == 4)
        of_the_second = harness.engine.ledger.counter.of_worker(WorkerId(1))
        assert len(of_the_second) == 2
        async with worker_lost_and_not_reaped(harness, monkeypatch):
            assert (await harness.commands.sessions.disconnect_all(DisconnectAllParameters())).sessions == 2
            assert (await harness.commands.peers.ban(BanParameters(address="127.0.0.1"))).sessions == 2
