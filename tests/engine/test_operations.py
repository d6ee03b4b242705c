"""What commands do, on an engine between played workers: each ends in its answer or its typed error."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import orjson
import pytest

from engine import commands
from engine.commands import (
    AddPeerParameters,
    AnswerResult,
    BanParameters,
    BroadcastParameters,
    BroadcastResult,
    DialParameters,
    DisconnectAllParameters,
    DisconnectParameters,
    HistoryParameters,
    RemovePeerParameters,
    RequestParameters,
    SendParameters,
    SessionParameters,
    SessionsParameters,
    SetLimitsParameters,
    SetStatusParameters,
)
from engine.settings import AccessSettings, LimitSettings, PeerSettings, QueueSettings
from protocol import control
from protocol.control import (
    Answer,
    AskPeer,
    Broadcast,
    Dial,
    DisconnectSession,
    Forget,
    Judge,
    Reply,
    SendMessage,
    Sent,
    SessionAuthenticated,
    SessionClosed,
    SessionConnected,
    SessionId,
    SetHead,
    Traffic,
)
from protocol.crypto import PrivateKey
from protocol.errors import DisconnectReason
from protocol.events import EndedBy, Stage
from protocol.native import NATIVE
from tests.engine.played import until
from tests.engine.scene import (
    ENODE,
    HASH,
    KEY,
    NOTHING,
    OTHER,
    PEER,
    SETTINGS,
    Play,
    Scene,
    closed,
    dialled,
    established,
    is_closed,
    refusal,
    sent,
)

# -- dials ------------------------------------------------------------------------------------------------------------------


def test_a_dial_is_booked_told_to_a_worker_and_answered_at_once(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        result = await scene.engine.operations.dial(DialParameters(enode=ENODE))
        assert await scene.worker.is_told(Dial) == Dial(SessionId(result.session), PEER, "127.0.0.1", 30303)
        assert await scene.counted() == {"pending outbound": 1}
        scene.worker.report(SessionConnected(SessionId(result.session), "127.0.0.1:1", "127.0.0.1:30303"))
        assert (await scene.event("session.opened"))["peer"] == PEER.hex()
        shown = await scene.engine.operations.session(SessionParameters(session=result.session))
        assert (shown["enode"], shown["stage"]) == (ENODE, "ack")

    play(scenario)


def test_a_dial_that_waits_is_answered_with_the_session(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        asked = asyncio.ensure_future(scene.engine.operations.dial(DialParameters(enode=ENODE, wait=True)))
        session = (await scene.worker.is_told(Dial)).session
        scene.worker.report(SessionConnected(session, "127.0.0.1:1", "127.0.0.1:30303"), SessionAuthenticated(session, PEER))
        await scene.worker.is_told(Judge)
        scene.worker.report(established(session))
        result = await asked
        assert result.established is not None
        assert (result.session, result.established["phase"]) == (session, "active")

    play(scenario)


def test_a_dial_that_fails_is_an_event_and_the_answer_of_who_waits(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        asked = asyncio.ensure_future(scene.engine.operations.dial(DialParameters(enode=ENODE, wait=True)))
        session = (await scene.worker.is_told(Dial)).session
        cause = "no TCP connection: Connection refused"
        scene.worker.report(SessionClosed(session, EndedBy.NETWORK, None, cause, Stage.CONNECT, Traffic()))
        assert await refusal(asked) == ("refused", f"session {session} ended at connect by network: {cause}")
        failed = await scene.event("dial.failed")
        assert (failed["enode"], failed["cause"]) == (ENODE, cause)
        # It never was a connection, so that none was closed.
        assert "session.closed" not in {item.topic for item in scene.events}
        assert await scene.counted() == {}
        await dialled(scene)

    play(scenario)


def test_a_peer_is_not_dialled_twice_nor_where_it_has_a_session(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        first = await dialled(scene)
        again = scene.engine.operations.dial(DialParameters(enode=ENODE))
        assert await refusal(again) == ("refused", f"the peer has session {first} already")
        inbound = await scene.active(OTHER)
        other = scene.engine.operations.dial(DialParameters(enode=f"enode://{OTHER.hex()}@127.0.0.1:1"))
        assert await refusal(other) == ("refused", f"the peer has session {inbound} already")

    play(scenario)


def test_of_a_dial_and_an_accept_of_one_peer_the_first_that_is_proved_wins(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        outbound = await dialled(scene)
        await scene.active(PEER)
        scene.worker.report(SessionConnected(outbound, "a", "b"), SessionAuthenticated(outbound, PEER))
        assert (await scene.worker.is_told(Judge)).refusal is DisconnectReason.ALREADY_CONNECTED

    play(scenario)


@pytest.mark.parametrize(
    ("enode", "name"),
    [
        (f"enode://{KEY.id.hex()}@127.0.0.1:1", "refused"),
        (f"enode://{PEER.hex()}@10.0.0.1:1", "refused"),
        ("nonsense", "invalid_params"),
        (f"enode://{PEER.hex()}@[::1", "invalid_params"),
    ],
)
def test_a_dial_that_may_not_be_is_refused_and_books_nothing(play: Play, enode: str, name: str) -> None:
    async def scenario(scene: Scene) -> None:
        assert (await refusal(scene.engine.operations.dial(DialParameters(enode=enode))))[0] == name
        assert await scene.counted() == {}

    play(scenario, access=AccessSettings(deny_cidrs=("10.0.0.0/8",)))


def test_the_limit_of_dials_in_progress_is_exact(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await dialled(scene)
        more = scene.engine.operations.dial(DialParameters(enode=f"enode://{OTHER.hex()}@127.0.0.1:1"))
        assert await refusal(more) == ("refused", "1 outbound sessions are pending")

    play(scenario, limits=LimitSettings(max_pending_outbound=1))


# -- commands ---------------------------------------------------------------------------------------------------------------


def test_a_disconnect_goes_to_the_worker_of_the_session(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        done = await scene.engine.operations.disconnect(DisconnectParameters(session=session, reason="useless_peer"))
        assert done.sessions == 1
        told = await scene.worker.is_told(DisconnectSession)
        assert (told.session, told.reason) == (session, DisconnectReason.USELESS_PEER)
        assert (await scene.engine.operations.disconnect_all(DisconnectAllParameters())).sessions == 1
        assert (await scene.worker.is_told(DisconnectSession)).reason is DisconnectReason.DISCONNECT_REQUESTED

    play(scenario)


def test_a_session_that_is_not_there_is_an_answer(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        engine = scene.engine
        for asked in (
            engine.operations.session(SessionParameters(session=99)),
            engine.operations.disconnect(DisconnectParameters(session=99)),
            engine.operations.send(SendParameters(session=99, capability="eth", message=2, payload="0xc0")),
        ):
            assert await refusal(asked) == ("no_such_session", "there is no session 99")

    play(scenario)


@pytest.mark.parametrize("error", ["not_shared", "no_such_session", "queue_full"])
def test_what_a_worker_cannot_send_is_the_answer(play: Play, error: str) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        asked = asyncio.ensure_future(scene.engine.operations.send(sent(session, "0xc180")))
        told = await scene.worker.is_told(SendMessage)
        assert told == SendMessage(told.call, session, "eth", 2, b"\xc1\x80")
        scene.worker.report(Reply(told.call))
        assert (await asked).sessions == 1
        asked = asyncio.ensure_future(scene.engine.operations.send(sent(session)))
        told = await scene.worker.is_told(SendMessage)
        scene.worker.report(Reply(told.call, error, "why"))
        assert await refusal(asked) == (error, "why")

    play(scenario)


def test_a_request_is_answered_with_what_the_peer_said(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        parameters = RequestParameters(session=session, capability="eth", message="GetBlockHeaders", payload="0xc20180")
        asked = asyncio.ensure_future(scene.engine.operations.request(parameters))
        told = await scene.worker.is_told(AskPeer)
        assert told == AskPeer(told.call, session, "eth", 3, b"\xc2\x01\x80")
        scene.worker.report(Answer(told.call, "BlockHeaders", b"\xc2\x01\xc0"))
        assert await asked == AnswerResult("BlockHeaders", "0xc201c0")
        asked = asyncio.ensure_future(scene.engine.operations.request(parameters))
        scene.worker.report(Reply((await scene.worker.is_told(AskPeer)).call, "timed_out", "no answer within 20 s"))
        assert await refusal(asked) == ("timed_out", "no answer within 20 s")

    play(scenario)


def test_a_request_that_is_given_up_is_forgotten_by_the_worker(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        parameters = RequestParameters(
            session=session, capability="eth", message="GetBlockHeaders", payload="0xc0", timeout_s=0.05
        )
        name, words = await refusal(scene.engine.operations.request(parameters))
        assert (name, words) == ("timed_out", "no answer within 0.05 s, by way of worker 0")
        asked = await scene.worker.is_told(AskPeer)
        assert await scene.worker.is_told(Forget) == Forget(asked.call)

    play(scenario)


def test_a_broadcast_goes_to_the_active_sessions_that_match_in_one_message_a_worker(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        first, second = await scene.active(), await scene.active(OTHER)
        await scene.accepted()
        parameters = BroadcastParameters(capability="eth", message="Transactions", payload="0xc180")
        asked = asyncio.ensure_future(scene.engine.operations.broadcast(parameters))
        told = await scene.worker.is_told(Broadcast)
        assert told == Broadcast(told.call, (first, second), "eth", 2, b"\xc1\x80")
        scene.worker.report(Sent(told.call, 1, {int(second): "queue_full"}))
        assert await asked == BroadcastResult(1, {str(second): "queue_full"})
        nobody = msgspec.structs.replace(parameters, shared="eth/66")
        assert await scene.engine.operations.broadcast(nobody) == BroadcastResult(0, {})

    play(scenario)


def test_a_broadcast_to_a_worker_that_is_lost_says_so_of_each_session(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        parameters = BroadcastParameters(capability="eth", message="Transactions", payload="0xc180")
        asked = asyncio.ensure_future(scene.engine.operations.broadcast(parameters))
        await scene.worker.is_told(Broadcast)
        scene.worker.die(-9)
        assert await asked == BroadcastResult(0, {str(session): "worker_lost"})

    play(scenario)


def test_a_broadcast_that_would_not_fit_is_not_queued(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        parameters = BroadcastParameters(capability="eth", message="Transactions", payload="0x" + "00" * 1025)
        assert await scene.engine.operations.broadcast(parameters) == BroadcastResult(0, {str(session): "queue_full"})

    play(scenario, queues=QueueSettings(worker_command_bytes=1024))


def test_a_worker_that_does_not_answer_is_an_answer(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    # How long it waits is a default of the method.
    monkeypatch.setattr("engine.calls.Calls.ask.__defaults__", (0.05,))

    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        assert await refusal(scene.engine.operations.send(sent(session))) == (
            "timed_out",
            "no answer within 0.05 s, by way of worker 0",
        )
        # What comes too late is nobody's.
        told = await scene.worker.is_told(SendMessage)
        scene.worker.report(Reply(told.call))
        shown = await scene.engine.operations.sessions(SessionsParameters())
        assert [item["session"] for item in shown.sessions] == [session]

    play(scenario)


def test_commands_that_would_not_fit_are_not_queued(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        asked = scene.engine.operations.send(sent(session, "0x" + "00" * 1025))
        assert (await refusal(asked))[0] == "queue_full"
        assert scene.worker.heard == []

    play(scenario, queues=QueueSettings(worker_command_bytes=1024))


def test_a_new_head_is_confirmed_by_the_workers_that_have_it(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        parameters = SetStatusParameters(number=9, hash=HASH, earliest=3)
        asked = asyncio.ensure_future(scene.engine.operations.set_status(parameters))
        told = await scene.worker.is_told(SetHead)
        assert (told.head.number, told.head.hash, told.head.earliest) == (9, b"\xab" * 32, 3)
        scene.worker.report(Reply(told.call))
        assert await asked == commands.ConfirmedResult([0], [])
        asked = asyncio.ensure_future(scene.engine.operations.set_status(parameters))
        told = await scene.worker.is_told(SetHead)
        scene.worker.report(Reply(told.call, "invalid_params", "no"))
        assert await asked == commands.ConfirmedResult([], [0])

    play(scenario)


@pytest.mark.parametrize(
    ("parameters", "key"),
    [({"number": 1, "hash": HASH, "earliest": 2}, "earliest"), ({"number": 1, "hash": "0x" + "00" * 32}, "hash")],
)
def test_a_head_that_peers_would_refuse_is_refused(play: Play, parameters: dict[str, Any], key: str) -> None:
    async def scenario(scene: Scene) -> None:
        name, words = await refusal(scene.engine.operations.set_status(SetStatusParameters(**parameters)))
        assert (name, words.split(":")[0]) == ("invalid_params", key)

    play(scenario)


def test_sessions_are_those_that_match_every_filter(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        pending = await scene.accepted()
        active = await scene.active()
        outbound = await dialled(scene, f"enode://{OTHER.hex()}@127.0.0.1:1")

        async def matching(**filters: Any) -> list[int]:
            result = await scene.engine.operations.sessions(SessionsParameters(**filters))
            return [item["session"] for item in result.sessions]

        assert await matching() == [pending, active, outbound]
        assert await matching(direction="outbound") == [outbound]
        assert await matching(phase="active") == [active]
        assert await matching(phase="pending", direction="inbound") == [pending]
        assert await matching(worker=1) == []
        assert await matching(peer=PEER.hex()[:6]) == [active]
        assert await matching(client="geth") == [active]
        assert await matching(shared="eth/69") == [active]
        assert await matching(shared="eth") == []
        limited = await scene.engine.operations.sessions(SessionsParameters(limit=2))
        assert (len(limited.sessions), limited.total) == (2, 3)

    play(scenario)


def test_the_history_has_the_last_ends_the_latest_first(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        for _ in range(4):
            session = await scene.accepted()
            scene.worker.report(closed(session, Stage.AUTH))
            await scene.event("session.closed")
        history = await scene.engine.operations.history(HistoryParameters())
        assert [item["session"] for item in history] == [4, 3, 2]
        assert [item["session"] for item in await scene.engine.operations.history(HistoryParameters(limit=1))] == [4]

    play(scenario, control=msgspec.structs.replace(SETTINGS.control, history=3))


def test_status_shows_the_engine_at_a_glance(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.active()
        scene.worker.report(control.Pulse(2, 0.5, 4096, 7, 3))
        await until(lambda: any(worker.pulse for worker in scene.engine.fleet))
        status = await scene.engine.operations.status(NOTHING)
        assert (status.version, status.run_dir, status.pid) == ("9.9", str(scene.run_dir.path), os.getpid())
        assert status.enode == f"enode://{KEY.id.hex()}@127.0.0.1:{scene.address[1]}"
        assert status.compiled == (NATIVE is not None)
        assert status.chain["name"] == "dev"
        [worker] = status.workers
        assert (worker.active, worker.goodbyes, worker.loop_lag_ms, worker.dropped_events) == (1, 2, 0.5, 7)
        assert status.memory_bytes > 1 << 20
        assert orjson.loads(msgspec.json.encode(status))["uptime_ms"] >= 0

    play(scenario)


# -- named peers ------------------------------------------------------------------------------------------------------------


def test_a_static_peer_is_dialled_by_itself_and_tells_when_it_is_tried_again(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = (await scene.worker.is_told(Dial)).session
        cause = "no TCP connection: Connection refused"
        scene.worker.report(SessionClosed(session, EndedBy.NETWORK, None, cause, Stage.CONNECT, Traffic()))
        await until(lambda: scene.worker.heard or not scene.engine.views)
        [named] = (await scene.engine.operations.peers(NOTHING)).peers
        assert (named.peer, named.static, named.trusted) == (ENODE, True, False)
        assert named.next_try_s is not None
        assert 0 < named.next_try_s <= 36

    play(scenario, peers=PeerSettings(static=(ENODE,)))


def test_a_peer_can_be_named_and_forgotten(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        engine = scene.engine
        added = await engine.operations.peers_add(AddPeerParameters(enode=ENODE, static=False, trusted=True))
        assert [(item.static, item.trusted) for item in added.peers] == [(False, True)]
        assert (await engine.operations.peers_remove(RemovePeerParameters(peer=PEER.hex()))).peers == []
        assert (await refusal(engine.operations.peers_remove(RemovePeerParameters(peer=PEER.hex()))))[0] == "no_such_peer"
        assert (await refusal(engine.operations.peers_add(AddPeerParameters(enode="nonsense"))))[0] == "invalid_params"

    play(scenario)


def test_a_trusted_peer_passes_the_active_limit_and_others_do_not(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.active(OTHER)
        trusted, stranger = await scene.accepted(), await scene.accepted()
        third = PrivateKey(b"\x44" * 32).id
        scene.worker.report(SessionAuthenticated(stranger, third), SessionAuthenticated(trusted, PEER))
        assert (await scene.worker.is_told(Judge)).refusal is DisconnectReason.TOO_MANY_PEERS
        assert (await scene.worker.is_told(Judge)).refusal is None

    play(scenario, limits=LimitSettings(max_active_inbound=1), peers=PeerSettings(trusted=(ENODE,)))


def test_a_ban_ends_what_a_peer_has_and_keeps_it_out_both_ways(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        assert (await scene.engine.operations.ban(BanParameters(peer=PEER.hex()))).sessions == 1
        assert (await scene.worker.is_told(DisconnectSession)).session == session
        scene.worker.report(closed(session))
        await scene.event("session.closed")
        assert (await refusal(scene.engine.operations.dial(DialParameters(enode=ENODE))))[0] == "refused"
        again = await scene.accepted()
        scene.worker.report(SessionAuthenticated(again, PEER))
        assert (await scene.worker.is_told(Judge)).cause == "the peer is banned"
        assert (await scene.engine.operations.ban(BanParameters(peer=PEER.hex(), seconds=0))).sessions == 0
        await dialled(scene)

    play(scenario)


def test_a_banned_address_is_closed_at_the_door(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.engine.operations.ban(BanParameters(address="127.0.0.1"))
        sock = scene.connect()
        await until(lambda: is_closed(sock))
        assert (await scene.event("session.refused"))["cause"] == "the address is banned"

    play(scenario)


def test_a_session_that_a_ban_hits_twice_is_ended_once(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.active()
        assert (await scene.engine.operations.ban(BanParameters(peer=PEER.hex(), address="127.0.0.1"))).sessions == 1

    play(scenario)


@pytest.mark.parametrize("parameters", [{}, {"address": "nonsense"}, {"peer": PEER.hex(), "address": "nonsense"}])
def test_a_ban_of_nobody_bans_nobody(play: Play, parameters: dict[str, Any]) -> None:
    async def scenario(scene: Scene) -> None:
        assert (await refusal(scene.engine.operations.ban(BanParameters(**parameters))))[0] == "invalid_params"
        assert (await scene.engine.operations.peers(NOTHING)).bans == []

    play(scenario)


def test_a_ban_of_an_address_minds_no_session_without_one(play: Play) -> None:
    """The address of a dial is the kernel's, and that of a socket which is reset by now has none."""

    async def scenario(scene: Scene) -> None:
        session = await dialled(scene)
        scene.worker.report(SessionConnected(session, "", ""))
        await scene.event("session.opened")
        assert (await scene.engine.operations.ban(BanParameters(address="127.0.0.2"))).sessions == 0

    play(scenario)


def test_limits_change_while_it_runs(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        limits = (await scene.engine.operations.set_limits(SetLimitsParameters(max_pending_outbound=0)))["limits"]
        assert (limits["max_pending_outbound"], limits["max_pending_inbound"]) == (0, 200)
        asked = scene.engine.operations.dial(DialParameters(enode=ENODE))
        assert await refusal(asked) == ("refused", "0 outbound sessions are pending")

    play(scenario)
