"""The engine between played workers, real accepts and a subscriber: who is let in, and that every session ends once."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import sleep
from typing import Any, cast

import msgspec
import orjson
import pytest
import uvloop
import zmq

from engine.client import Event
from engine.commands import (
    DialParameters,
    HistoryParameters,
    SessionsParameters,
    SetStatusParameters,
)
from engine.engine import Engine, listen
from engine.operations import Operations
from engine.settings import AccessSettings, LimitSettings, ThrottleSettings
from protocol import control
from protocol.control import (
    Dial,
    Drain,
    Handoff,
    HandoffLost,
    Judge,
    Reply,
    SendMessage,
    SessionAuthenticated,
    SessionId,
    SessionMisconduct,
    SetHead,
)
from protocol.crypto import PrivateKey
from protocol.errors import DisconnectReason
from protocol.events import Conduct, Stage
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

# -- accepts ----------------------------------------------------------------------------------------------------------------


def test_an_accepted_peer_is_booked_handed_over_and_told_of(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        sock = scene.connect()
        handoff = await scene.worker.takes()
        remote = f"127.0.0.1:{sock.getsockname()[1]}"
        assert handoff == Handoff(SessionId(1))
        assert await scene.counted() == {"pending inbound": 1}
        opened = await scene.event("session.opened")
        assert {key: opened[key] for key in ("session", "peer", "direction", "remote", "worker")} == {
            "session": 1,
            "peer": None,
            "direction": "inbound",
            "remote": remote,
            "worker": 0,
        }
        # Only the worker holds it now.
        scene.worker.adopted.pop()[1].close()
        await until(lambda: is_closed(sock))

    play(scenario)


def test_a_session_goes_from_pending_to_active_to_its_one_end(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        assert await scene.counted() == {"active inbound": 1}
        scene.worker.report(closed(session))
        event = await scene.event("session.closed")
        assert event["session"] == session
        assert (event["peer"], event["stage"], event["ended_by"]) == (PEER.hex(), "active", "peer")
        assert (event["reason"], event["cause"]) == ("too_many_peers", "the peer said goodbye")
        assert (event["bytes_in"], event["bytes_out"], event["direction"], event["worker"]) == (1, 2, "inbound", 0)
        assert event["duration_ms"] >= 0
        assert await scene.counted() == {}
        # Said twice it counts once.
        scene.worker.report(closed(session))
        await scene.active(OTHER)
        assert await scene.counted() == {"active inbound": 1}
        assert len(await scene.engine.operations.history(HistoryParameters())) == 1

    play(scenario)


def test_a_second_session_of_a_peer_is_judged_a_duplicate(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        first = await scene.active()
        second = await scene.accepted()
        scene.worker.report(SessionAuthenticated(second, PEER))
        judge = await scene.worker.is_told(Judge)
        assert judge == Judge(second, DisconnectReason.ALREADY_CONNECTED, f"the peer has session {first} already")

    play(scenario)


def test_a_connection_to_ourselves_is_judged_so(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.accepted()
        scene.worker.report(SessionAuthenticated(session, KEY.id))
        assert (await scene.worker.is_told(Judge)).refusal is DisconnectReason.CONNECTED_TO_SELF

    play(scenario)


def test_over_the_active_limit_a_peer_is_told_so_and_counts_as_no_session(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.active()
        scene.connect()
        handoff = await scene.worker.takes()
        assert handoff.refusal is DisconnectReason.TOO_MANY_PEERS
        refused = await scene.event("session.refused")
        assert (refused["session"], refused["cause"]) == (handoff.session, "1 inbound sessions are active")
        assert await scene.counted() == {"active inbound": 1}
        # Both of its reports are nobody's business.
        scene.worker.report(SessionAuthenticated(handoff.session, OTHER), closed(handoff.session))
        scene.connect()
        assert (await scene.worker.takes()).refusal is DisconnectReason.TOO_MANY_PEERS

    play(scenario, limits=LimitSettings(max_active_inbound=1, max_polite_refusals=1))


def test_where_too_many_are_told_so_already_a_peer_is_just_closed(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.active()
        sock = scene.connect()
        await until(lambda: is_closed(sock))
        assert (await scene.event("session.refused"))["cause"] == "1 inbound sessions are active"

    play(scenario, limits=LimitSettings(max_active_inbound=1, max_polite_refusals=0))


def test_whoever_is_refused_takes_no_place_of_its_address(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        for _ in range(3):
            scene.connect()
            assert (await scene.worker.takes()).refusal is DisconnectReason.TOO_MANY_PEERS
            assert (await scene.event("session.refused"))["cause"] == "0 inbound sessions are active"

    throttle = ThrottleSettings(per_ip_live=1, per_ip_interval_s=0, exempt_cidrs=())
    play(scenario, limits=LimitSettings(max_active_inbound=0), throttle=throttle)


@pytest.mark.parametrize("is_worker_lost", [True, False])
def test_a_refused_peer_that_is_lost_on_its_way_frees_its_place(play: Play, *, is_worker_lost: bool) -> None:
    async def scenario(scene: Scene) -> None:
        scene.connect()
        handoff = await scene.worker.takes()
        if is_worker_lost:
            scene.worker.die(-9)
        else:
            # What it says next is an event; the end of a goodbye is none.
            scene.worker.report(HandoffLost(handoff.session, "no descriptors"), control.Ready(scene.worker.pid))
        await scene.event("worker.started")
        scene.connect()
        assert (await scene.worker.takes()).refusal is DisconnectReason.TOO_MANY_PEERS

    play(scenario, limits=LimitSettings(max_active_inbound=0, max_polite_refusals=1))


def test_nothing_becomes_active_without_a_verdict_whatever_its_worker_says(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        unproved, refused = await scene.accepted(), await scene.accepted()
        scene.worker.report(established(unproved), SessionAuthenticated(refused, KEY.id))
        assert (await scene.worker.is_told(Judge)).refusal is DisconnectReason.CONNECTED_TO_SELF
        scene.worker.report(established(refused))
        scene.worker.report(closed(refused, Stage.HELLO))
        assert (await scene.event("session.closed"))["session"] == refused
        assert await scene.counted() == {"pending inbound": 1}
        assert "session.established" not in {item.topic for item in scene.events}

    play(scenario)


def test_the_active_limit_is_exact_among_many_that_are_pending(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        sessions = [await scene.accepted() for _ in range(5)]
        peers = [PrivateKey(bytes([number]) * 32).id for number in range(1, 6)]
        scene.worker.report(*(SessionAuthenticated(*pair) for pair in zip(sessions, peers, strict=True)))
        verdicts = [(await scene.worker.is_told(Judge)).refusal for _ in sessions]
        assert verdicts == [None, None] + [DisconnectReason.TOO_MANY_PEERS] * 3

    play(scenario, limits=LimitSettings(max_active_inbound=2))


def test_at_the_pending_limit_what_comes_waits_in_the_kernel(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        first = await scene.accepted()
        waiting = scene.connect()
        await asyncio.sleep(0.02)
        assert await scene.counted() == {"pending inbound": 1}
        assert not is_closed(waiting)
        scene.worker.report(closed(first, Stage.AUTH))
        assert (await scene.worker.takes()).session == 2

    play(scenario, limits=LimitSettings(max_pending_inbound=1))


def test_an_address_that_comes_too_often_is_closed(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.accepted()
        sock = scene.connect()
        await until(lambda: is_closed(sock))
        assert "within the last" in (await scene.event("session.refused"))["cause"]
        assert await scene.counted() == {"pending inbound": 1}

    play(scenario, throttle=ThrottleSettings(exempt_cidrs=()))


def test_the_end_of_a_session_frees_what_its_address_had(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        first = await scene.accepted()
        scene.worker.report(closed(first, Stage.AUTH))
        await scene.event("session.closed")
        await scene.accepted()

    play(scenario, throttle=ThrottleSettings(per_ip_live=1, per_ip_interval_s=0, exempt_cidrs=()))


def test_a_denied_address_is_closed(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        sock = scene.connect()
        await until(lambda: is_closed(sock))
        assert (await scene.event("session.refused"))["cause"] == "the address is on the deny list"

    play(scenario, access=AccessSettings(deny_cidrs=("127.0.0.0/8",)))


def test_a_handoff_that_was_lost_is_ended_by_the_engine(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.accepted()
        scene.worker.report(HandoffLost(session, "the worker is out of file descriptors"))
        event = await scene.event("session.closed")
        assert (event["ended_by"], event["stage"], event["reason"]) == ("engine", "auth", None)
        assert event["cause"] == "the worker is out of file descriptors"
        assert await scene.counted() == {}

    play(scenario)


def test_where_no_worker_takes_a_connection_it_is_closed_and_its_place_is_free(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        count = 0
        while not any(item.topic == "session.refused" for item in scene.events):
            scene.connect()
            count += 1
            await asyncio.sleep(0)
            scene.events += [item for item in scene.subscriber.poll(0) if isinstance(item, Event)]
            assert count < 2000
        assert (await scene.event("session.refused"))["cause"] == "no worker takes connections"
        booked = (await scene.engine.operations.counts(NOTHING))["pending"]["inbound"]
        assert 10 < booked <= count
        for _ in range(booked):
            await scene.worker.takes()
        with pytest.raises(BlockingIOError):
            scene.worker.taken()

    play(scenario, limits=LimitSettings(max_pending_inbound=10_000))


def test_what_one_worker_does_not_take_is_handed_to_another_and_booked_there(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        full, other = scene.engine.fleet
        full.hand_over = lambda *_: False  # type: ignore[method-assign]  # its queue is full
        for _ in range(3):
            scene.connect()
        sessions = [(await scene.workers[other.index].takes()).session for _ in range(3)]
        assert {(await scene.event("session.opened"))["worker"] for _ in sessions} == {other.index}
        assert scene.engine.counter.of_worker(other.index) == sorted(sessions)
        assert scene.engine.counter.load(full.index) == (0, 0)
        assert scene.engine.counter.load(other.index) == (3, 3)

    play(scenario, workers=2)


@asynccontextmanager
async def without_a_worker(scene: Scene) -> AsyncIterator[None]:
    """The stream of the only worker has ended; meanwhile its process has not."""
    may_end = threading.Event()
    worker, wait = scene.worker, scene.worker.wait

    def held(timeout: float | None = None) -> int:
        may_end.wait(10)
        return wait(timeout)

    worker.wait = held  # type: ignore[method-assign]  # how it is asked for its code
    worker.die(70)
    await until(lambda: not scene.engine.fleet.is_open)
    yield
    may_end.set()
    await until(lambda: scene.engine.fleet.is_open)


def test_while_there_is_no_worker_peers_wait_in_the_kernels_queue(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        async with without_a_worker(scene):
            socks = []
            for _ in range(20):
                socks.append(scene.connect())
                await asyncio.sleep(0.002)
            # That nobody takes it is seen with the first one.
            assert (await scene.event("session.refused"))["cause"] == "no worker takes connections"
            assert sum(map(is_closed, socks)) == 1
        await until(lambda: len(scene.engine.views) == 19)

    play(scenario)


def test_a_peer_that_no_worker_could_take_is_not_held_to_its_interval(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        async with without_a_worker(scene):
            scene.connect()
            await scene.event("session.refused")
        scene.connect()
        await until(lambda: len(scene.engine.views) == 1)

    play(scenario, throttle=ThrottleSettings(exempt_cidrs=(), per_ip_interval_s=30.0))


def test_what_is_accepted_in_one_turn_is_told_in_the_order_in_which_it_came(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        for _ in range(9):
            scene.connect()
        opened = [(await scene.event("session.opened"))["session"] for _ in range(9)]
        listed = await scene.engine.operations.sessions(SessionsParameters())
        assert opened == [session["session"] for session in listed.sessions] == sorted(opened)
        assert {session["worker"] for session in listed.sessions} == {0, 1, 2}

    play(scenario, workers=3)


def test_what_a_peer_did_is_an_event_of_its_own(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        scene.worker.report(SessionMisconduct(session, Conduct.BAD_MESSAGE, "a response that nobody asked for", 2))
        told = await scene.event("peer.bad_message")
        assert (told["session"], told["peer"], told["count"]) == (session, PEER.hex(), 2)
        assert told["cause"] == "a response that nobody asked for"

    play(scenario)


def test_a_reload_changes_what_may_change_and_names_the_rest(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        changed = msgspec.structs.replace(SETTINGS, workers=5, limits=LimitSettings(max_pending_outbound=0))
        assert scene.engine.reload(changed) == ["workers"]
        assert (await scene.event("engine.reloaded"))["needs_restart"] == ["workers"]
        asked = scene.engine.operations.dial(DialParameters(enode=ENODE))
        assert await refusal(asked) == ("refused", "0 outbound sessions are pending")
        assert scene.engine.reload(SETTINGS) == []
        await dialled(scene)

    play(scenario)


# -- requests over the socket -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def user(scene: Scene) -> AsyncIterator[zmq.Socket[bytes]]:
    """A user of the engine's commands."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.REQ) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(scene.run_dir.endpoint("control"))
        yield sock
    context.term()


def ask(sock: zmq.Socket[bytes], method: str, **parameters: Any) -> None:
    """Send one request."""
    sock.send(orjson.dumps({"jsonrpc": "2.0", "id": 5, "method": method, "params": parameters}))


async def answer(sock: zmq.Socket[bytes]) -> dict[str, Any]:
    """Its reply."""
    await until(lambda: sock.poll(0))
    reply: dict[str, Any] = orjson.loads(sock.recv())
    return reply


def test_a_request_is_answered(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        async with user(scene) as sock:
            ask(sock, "counts")
            reply = await answer(sock)
            assert (reply["id"], reply["result"]["pending"]) == (5, {"inbound": 0, "outbound": 0})

    play(scenario)


def test_a_fault_of_ours_is_an_answer_and_the_engine_goes_on(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(Operations, "counts", broken)

    async def scenario(scene: Scene) -> None:
        async with user(scene) as sock:
            ask(sock, "counts")
            assert (await answer(sock))["error"]["code"] == -32603
            ask(sock, "history")
            assert (await answer(sock))["result"] == []

    play(scenario)


def test_a_request_that_waits_when_the_engine_ends_is_answered_too(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        async with user(scene) as sock:
            ask(sock, "dial", enode=ENODE, wait=True)
            await scene.worker.is_told(Dial)
            await scene.end()
            assert "error" in await answer(sock)
        # The fixture ends it once more.
        scene.engine = cast("Engine", Ended())

    play(scenario)


def test_a_shutdown_is_answered_before_it_happens(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        async with user(scene) as sock:
            ask(sock, "shutdown")
            assert (await answer(sock))["result"] == {"stopping": True}
            async with asyncio.timeout(5):
                await scene.engine.wait()

    play(scenario)


class Ended:
    """An engine that has been closed by the test itself."""

    async def close(self) -> None:
        """Nothing is left to do."""


# -- lost workers and the end -----------------------------------------------------------------------------------------------


def test_a_lost_worker_ends_each_of_its_sessions_once_answers_its_calls_and_is_replaced(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        active, pending = await scene.active(), await scene.accepted()
        waiting = asyncio.ensure_future(
            scene.engine.operations.dial(DialParameters(enode=f"enode://{OTHER.hex()}@127.0.0.1:1", wait=True))
        )
        await scene.worker.is_told(Dial)
        sending = asyncio.ensure_future(scene.engine.operations.send(sent(active)))
        await scene.worker.is_told(SendMessage)
        scene.worker.die(-9)
        assert (await refusal(sending))[0] == "worker_lost"
        assert (await refusal(waiting))[0] == "worker_lost"
        ends = {(event := await scene.event("session.closed"))["session"]: event["ended_by"] for _ in range(2)}
        assert ends == {active: "worker_lost", pending: "worker_lost"}
        assert (await scene.event("dial.failed"))["peer"] == OTHER.hex()
        lost = await scene.event("worker.lost")
        assert (lost["worker"], lost["cause"], lost["sessions"]) == (0, "signal 9", 3)
        assert await scene.counted() == {}
        await scene.event("worker.started")
        assert len(scene.workers) == 2
        await scene.active()

    play(scenario)


def test_a_worker_that_replaces_another_is_told_the_head(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        asked = asyncio.ensure_future(scene.engine.operations.set_status(SetStatusParameters(number=9, hash=HASH)))
        scene.worker.report(Reply((await scene.worker.is_told(SetHead)).call))
        await asked
        scene.worker.die()
        await scene.event("worker.started")
        configured = scene.worker.configure
        assert configured is not None
        assert (configured.head.number, configured.is_head_known) == (9, True)

    play(scenario)


def test_a_worker_that_says_nothing_for_long_is_killed_and_replaced(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        scene.worker.code = None
        monkeypatch.setattr("engine.engine.STUCK_SECONDS", 0.01)
        assert (await scene.event("worker.lost"))["cause"] == "signal 9"
        monkeypatch.setattr("engine.engine.STUCK_SECONDS", 10.0)
        assert (await scene.event("session.closed"))["session"] == session
        await scene.event("worker.started")

    play(scenario)


def test_an_engine_that_was_held_up_itself_does_not_blame_its_workers(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by a signal, a debugger or its host: what the workers said meanwhile has not been read yet."""
    monkeypatch.setattr("engine.engine.STUCK_SECONDS", 1.0)

    async def scenario(scene: Scene) -> None:
        worker = scene.worker
        held_up = asyncio.Event()

        def hold_up() -> None:
            worker.report(control.Pulse(0, 0.5, 4096, 0, 0))
            sleep(1.5)
            held_up.set()

        ours, theirs = socket.socketpair()
        with ours, theirs:
            # Within what the loop reads, so that its timers come before what it would read next.
            asyncio.get_running_loop().add_reader(ours.fileno(), hold_up)
            theirs.send(b"x")
            await held_up.wait()
            asyncio.get_running_loop().remove_reader(ours.fileno())
        await until(lambda: any(process.pulse for process in scene.engine.fleet))
        assert worker.kills == 0

    play(scenario, run=uvloop.run)


def test_without_a_worker_nothing_is_accepted_and_nothing_is_refused(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        scene.worker.die()
        await scene.event("worker.lost")
        sock = scene.connect()
        assert (await refusal(scene.engine.operations.dial(DialParameters(enode=ENODE))))[0] == "worker_lost"
        assert not is_closed(sock)
        await scene.event("worker.started")
        await scene.worker.takes()

    play(scenario)


def test_at_the_end_every_session_that_is_left_is_ended_by_the_engine_once(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session, reported = await scene.active(), await scene.accepted()
        closing = asyncio.ensure_future(scene.engine.close())
        drain = await scene.worker.is_told(Drain)
        assert drain.reason is DisconnectReason.CLIENT_QUITTING
        assert (await refusal(scene.engine.operations.dial(DialParameters(enode=ENODE))))[0] == "refused"
        scene.worker.report(closed(reported, Stage.AUTH))
        scene.worker.die()
        async with asyncio.timeout(10):
            await closing
        first, second = await scene.event("session.closed"), await scene.event("session.closed")
        assert (first["session"], first["ended_by"]) == (reported, "peer")
        assert second["session"] == session
        await scene.event("engine.stopped")
        assert "session.closed" not in {item.topic for item in scene.events}
        scene.engine = cast("Engine", Ended())

    play(scenario)


def test_a_fault_in_a_callback_ends_the_engine(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        scene.engine.on_fault(asyncio.get_running_loop(), {"message": "broken", "exception": RuntimeError("ours")})
        assert scene.engine.has_failed
        async with asyncio.timeout(5):
            await scene.engine.wait()

    play(scenario)


def test_an_empty_listen_takes_no_connections() -> None:
    assert listen("") is None
