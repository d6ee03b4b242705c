"""The engine from its start to its end: every session ends once, and settings change meanwhile."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import structlog.testing

from rlpx.engine.settings.settings import LimitSettings, LogSettings
from rlpx.protocol.bus import control
from rlpx.protocol.bus.commands import (
    DialParameters,
    HistoryParameters,
)
from rlpx.protocol.bus.control import Drain
from rlpx.protocol.bus.values import Level
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy, Stage
from tests.engine.harness import (
    ENODE,
    OTHER,
    PEER,
    SETTINGS,
    MakeEngine,
    closed,
    dialled,
    refusal,
)


async def test_a_session_goes_from_pending_to_active_to_its_one_end(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        assert await harness.counted() == {"active inbound": 1}
        harness.worker.report(closed(session))
        event = await harness.event("session.closed")
        assert event["session"] == session
        assert (event["peer"], event["stage"], event["ended_by"]) == (PEER.hex(), "active", "peer")
        assert (event["reason"], event["cause"]) == ("too_many_peers", "the peer said goodbye")
        assert (event["bytes_in"], event["bytes_out"], event["direction"], event["worker"]) == (1, 2, "inbound", 0)
        assert event["duration_ms"] >= 0
        assert await harness.counted() == {}
        # A repeated report counts once.
        harness.worker.report(closed(session))
        await harness.active(OTHER)
        assert await harness.counted() == {"active inbound": 1}
        assert len(await harness.commands.sessions.history(HistoryParameters())) == 1


async def test_a_reload_changes_what_may_change_and_names_the_rest(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        changed = msgspec.structs.replace(SETTINGS, workers=5, limits=LimitSettings(max_pending_outbound=0))
        assert harness.engine.reload(changed) == ["workers"]
        assert (await harness.event("engine.reloaded"))["needs_restart"] == ["workers"]
        asked = harness.commands.sessions.dial(DialParameters(enode=ENODE))
        assert await refusal(asked) == ("refused", "0 outbound sessions are pending")
        assert harness.engine.reload(SETTINGS) == []
        await dialled(harness)


async def test_an_engine_is_healthy_while_every_worker_is_up_and_not_stuck(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine() as harness:

        def is_healthy() -> bool:
            return harness.engine.is_healthy

        await harness.active()
        assert is_healthy()
        assert harness.engine.summary == "1 active and 0 pending sessions, 1 of 1 workers"
        harness.worker.die()
        await harness.event("worker.lost")
        assert not is_healthy()
        assert harness.engine.summary == "0 active and 0 pending sessions, 0 of 1 workers"
        await harness.event("worker.started")
        assert is_healthy()
        monkeypatch.setattr("rlpx.engine.fleet.fleet.STUCK_SECONDS", 0.0)
        assert not is_healthy()
        monkeypatch.setattr("rlpx.engine.fleet.fleet.STUCK_SECONDS", 10.0)


async def test_at_the_end_every_session_that_is_left_is_ended_by_the_engine_once(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session, reported = await harness.active(), await harness.accepted()
        closing = asyncio.ensure_future(harness.engine.close())
        drain = await harness.worker.is_told(Drain)
        assert drain.reason is DisconnectReason.CLIENT_QUITTING
        assert (await refusal(harness.commands.sessions.dial(DialParameters(enode=ENODE))))[0] == "refused"
        harness.worker.report(closed(reported, Stage.AUTH))
        harness.worker.die()
        async with asyncio.timeout(60):
            await closing
        first, second = await harness.event("session.closed"), await harness.event("session.closed")
        assert (first["session"], first["ended_by"]) == (reported, "peer")
        assert (second["session"], second["ended_by"]) == (session, "engine")
        stopped = await harness.event("worker.stopped")
        assert (stopped["worker"], stopped["sessions"]) == (0, 1)
        await harness.event("engine.stopped")
        assert not {"session.closed", "worker.lost"} & {item.topic for item in harness.events}
        harness.has_ended = True


async def test_a_fault_in_a_callback_ends_the_engine(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        harness.engine.on_fault(asyncio.get_running_loop(), {"message": "broken", "exception": RuntimeError("ours")})
        assert harness.engine.has_failed
        async with asyncio.timeout(60):
            await harness.engine.wait()


@pytest.mark.parametrize(("level", "events"), [("debug", ["a session was opened", "a session has ended"]), ("info", [])])
async def test_at_debug_every_session_is_in_the_log(make_engine: MakeEngine, level: Level, events: list[str]) -> None:
    async with make_engine(log=LogSettings(level=level)) as harness:
        with structlog.testing.capture_logs() as logged:
            harness.connect()
            handoff = await harness.worker.takes()
            ended = control.SessionClosed(
                handoff.session, EndedBy.NETWORK, None, "it left", Stage.AUTH, control.SessionStats()
            )
            harness.worker.report(ended)
            await harness.event("session.closed")
        assert [line["event"] for line in logged if line.get("session") == handoff.session] == events
