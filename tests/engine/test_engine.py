"""The engine between played workers, real accepts and a subscriber: who is let in, and that every session ends once."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import sleep
from typing import Any, TypeVar, cast

import msgspec
import orjson
import pytest
import structlog.testing
import uvloop
import zmq

from engine import commands
from engine.client import Event, Gap, Subscriber
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
    NoParameters,
    RemovePeerParameters,
    RequestParameters,
    SendParameters,
    SessionParameters,
    SessionsParameters,
    SetLimitsParameters,
    SetStatusParameters,
)
from engine.config import RunDir, load_chain
from engine.engine import Engine, Identity, listen
from engine.rpc import CommandError
from engine.settings import AccessSettings, LimitSettings, PeerSettings, QueueSettings, Settings, ThrottleSettings
from protocol import control
from protocol.control import (
    Answer,
    AskPeer,
    AskSessions,
    Broadcast,
    Dial,
    DisconnectSession,
    Drain,
    Figures,
    Handoff,
    HandoffLost,
    Judge,
    RemoteChain,
    Reply,
    SendMessage,
    Sent,
    SessionAuthenticated,
    SessionClosed,
    SessionConnected,
    SessionEstablished,
    SessionId,
    SessionMisconduct,
    SetHead,
    Traffic,
)
from protocol.crypto import PrivateKey
from protocol.errors import DisconnectReason
from protocol.events import Conduct, EndedBy, Stage
from tests.engine.played import PlayedWorker, until

KEY = PrivateKey(b"\x11" * 32)
PEER, OTHER = PrivateKey(b"\x22" * 32).id, PrivateKey(b"\x33" * 32).id
ENODE = f"enode://{PEER.hex()}@127.0.0.1:30303"
CHAIN = RemoteChain(1, "0xaa", "0xbb", 0, "0xcc", earliest=0, latest=9)
HASH = "0x" + "ab" * 32
NOTHING = NoParameters()
C = TypeVar("C")
SETTINGS = Settings(workers=1, listen="127.0.0.1:0", chain="dev")


class Worker(PlayedWorker):
    """A played worker that is ready by itself, and of which a test asks what it was told."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.handoffs.setblocking(False)
        self.heard: list[control.Command] = []
        self.adopted: list[tuple[Handoff, socket.socket]] = []

    def has_begun(self) -> bool:
        """Whether it has its configuration; if so, it is ready."""
        if self.stream is None:
            with suppress(BlockingIOError):
                self.begin()
                self.its_stream.setblocking(False)
                self.report(control.Ready(self.pid))
        return self.stream is not None

    async def takes(self) -> Handoff:
        """The next handoff."""
        taken: list[tuple[Handoff, socket.socket]] = []

        def try_it() -> bool:
            with suppress(BlockingIOError):
                taken.append(self.taken())
            return bool(taken)

        await until(try_it)
        self.adopted += taken
        return taken[0][0]

    def listens(self) -> None:
        """Take the commands that have come. Figures are given at once: there are none."""
        with suppress(BlockingIOError):
            for command in self.decoder.feed(self.its_stream.recv(1 << 16)):
                if isinstance(command, AskSessions):
                    self.report(Figures(command.call, {}))
                else:
                    self.heard.append(command)

    async def is_told(self, kind: type[C]) -> C:
        """The next command, which has to be of this kind."""
        await until(lambda: self.heard)
        command = self.heard.pop(0)
        assert isinstance(command, kind)
        return command

    def close(self) -> None:
        """Close all its sockets."""
        super().close()
        for _, sock in self.adopted:
            sock.close()


class Scene:
    """A running engine, its played workers, the peers that connect to it, and all events since the beginning."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.run_dir = RunDir(folder)
        self.engine = Engine(settings, Identity(KEY, load_chain("dev"), "9.9"), self.run_dir)
        self.workers: list[Worker] = []
        self.peers: list[socket.socket] = []
        self.subscriber: Subscriber
        self.events: list[Event] = []
        self.address = ("", 0)
        self._tending: asyncio.Task[None] | None = None

    async def begin(self, settings: Settings) -> None:
        """Start it with workers that are ready, and hear its events from the first one."""
        listening = listen(settings.listen)
        if listening is not None:
            self.address = listening.getsockname()
        self._tending = asyncio.get_running_loop().create_task(self._tend())
        await self.engine.start(listening)
        self.subscriber = Subscriber.of(self.run_dir.path, [""])
        await until(lambda: self.engine._hub.wants("session.opened"))  # noqa: SLF001 - nothing is published before

    def start_process(self, descriptor: int) -> subprocess.Popen[bytes]:
        """In place of the real one."""
        self.workers.append(Worker(descriptor))
        return cast("subprocess.Popen[bytes]", self.workers[-1])

    async def end(self) -> None:
        """End everything."""
        # A worker ends at its drain; these have nothing to say goodbye to.
        closing = asyncio.ensure_future(self.engine.close())
        await asyncio.sleep(0)
        for worker in self.workers:
            worker.die()
        async with asyncio.timeout(10):
            await closing
        if self._tending is not None:
            self._tending.cancel()

    def clear(self) -> None:
        """Let go of what is the test's own."""
        for peer in self.peers:
            peer.close()
        for worker in self.workers:
            worker.close()
        self.subscriber.close()

    async def _tend(self) -> None:
        while True:
            for worker in self.workers:
                with suppress(OSError):
                    if worker.has_begun():
                        worker.listens()
            await asyncio.sleep(0.001)

    @property
    def worker(self) -> Worker:
        """The worker, or the one that replaced it."""
        return self.workers[-1]

    # -- peers --------------------------------------------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        """A peer connects."""
        sock = socket.create_connection(self.address)
        sock.setblocking(False)
        self.peers.append(sock)
        return sock

    async def accepted(self) -> SessionId:
        """A peer connects and is handed to the worker."""
        self.connect()
        handoff = await self.worker.takes()
        assert handoff.refusal is None
        return handoff.session

    async def active(self, peer: bytes = PEER) -> SessionId:
        """A peer connects, and its session becomes active."""
        session = await self.accepted()
        self.worker.report(SessionAuthenticated(session, peer))
        judge = await self.worker.is_told(Judge)
        assert judge == Judge(session)
        self.worker.report(established(session))
        await self.event("session.established")
        return session

    # -- what it says -------------------------------------------------------------------------------------------------------

    async def event(self, topic: str) -> dict[str, Any]:
        """The next event of a topic; those of others before it are left where they are."""
        found: list[Event] = []

        def try_it() -> bool:
            for item in self.subscriber.poll(0):
                assert not isinstance(item, Gap)
                self.events.append(item)
            found.extend([item for item in self.events if item.topic == topic][:1])
            return bool(found)

        await until(try_it)
        self.events.remove(found[0])
        return found[0].fields

    async def counted(self) -> dict[str, Any]:
        """Pending and active by direction, in one line."""
        counts = await self.engine.counts(NOTHING)
        return {
            f"{phase} {way}": counts[phase][way]
            for phase in ("pending", "active")
            for way in ("inbound", "outbound")
            if counts[phase][way]
        }


@asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> AsyncIterator[Scene]:
    """An engine with these settings."""
    settings = msgspec.structs.replace(SETTINGS, **changes)
    scene = Scene(folder, settings)
    monkeypatch.setattr("engine.fleet._start_process", scene.start_process)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    await scene.begin(settings)
    try:
        yield scene
        await scene.end()
        await asyncio.sleep(0)
    finally:
        scene.clear()
    assert faults == []


Scenario = Callable[[Scene], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a scenario with an engine of these settings."""

    def run_it(scenario: Scenario, *, run: Callable[..., None] = asyncio.run, **changes: Any) -> None:
        async def scene() -> None:
            async with running(tmp_path, monkeypatch, **changes) as made:
                await scenario(made)

        with structlog.testing.capture_logs():
            run(scene())

    return run_it


Play = Callable[..., None]


def established(session: SessionId) -> SessionEstablished:
    """The report of a session that is active."""
    return SessionEstablished(session, "geth/1", ("eth/69",), ("eth/69",), 30303, "127.0.0.1:30303", CHAIN, Traffic())


def closed(session: SessionId, stage: Stage = Stage.ACTIVE) -> SessionClosed:
    """The report of a session that the peer ended."""
    return SessionClosed(
        session, EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS, "the peer said goodbye", stage, Traffic(1, 2)
    )


async def refusal(asked: Awaitable[object]) -> tuple[str, str]:
    """Name and words of a command that is refused."""
    with pytest.raises(CommandError) as caught:
        await asked
    return caught.value.name, str(caught.value)


def is_closed(sock: socket.socket) -> bool:
    """Whether the other side has closed a connection."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


# -- accepts ----------------------------------------------------------------------------------------------------------------


def test_an_accepted_peer_is_booked_handed_over_and_told_of(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        sock = scene.connect()
        handoff = await scene.worker.takes()
        remote = f"127.0.0.1:{sock.getsockname()[1]}"
        assert handoff == Handoff(SessionId(1), remote)
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
        assert len(await scene.engine.history(HistoryParameters())) == 1

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
        booked = (await scene.engine.counts(NOTHING))["pending"]["inbound"]
        assert 10 < booked <= count
        for _ in range(booked):
            await scene.worker.takes()
        with pytest.raises(BlockingIOError):
            scene.worker.taken()

    play(scenario, limits=LimitSettings(max_pending_inbound=10_000))


# -- dials ------------------------------------------------------------------------------------------------------------------


async def dialled(scene: Scene, enode: str = ENODE) -> SessionId:
    """A dial that the worker has been told of."""
    result = await scene.engine.dial(DialParameters(enode=enode))
    dial = await scene.worker.is_told(Dial)
    assert dial.session == result.session
    return SessionId(result.session)


def test_a_dial_is_booked_told_to_a_worker_and_answered_at_once(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        result = await scene.engine.dial(DialParameters(enode=ENODE))
        assert await scene.worker.is_told(Dial) == Dial(SessionId(result.session), PEER, "127.0.0.1", 30303)
        assert await scene.counted() == {"pending outbound": 1}
        scene.worker.report(SessionConnected(SessionId(result.session), "127.0.0.1:1", "127.0.0.1:30303"))
        assert (await scene.event("session.opened"))["peer"] == PEER.hex()
        shown = await scene.engine.session(SessionParameters(session=result.session))
        assert (shown["enode"], shown["stage"]) == (ENODE, "ack")

    play(scenario)


def test_a_dial_that_waits_is_answered_with_the_session(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        asked = asyncio.ensure_future(scene.engine.dial(DialParameters(enode=ENODE, wait=True)))
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
        asked = asyncio.ensure_future(scene.engine.dial(DialParameters(enode=ENODE, wait=True)))
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
        again = scene.engine.dial(DialParameters(enode=ENODE))
        assert await refusal(again) == ("refused", f"the peer has session {first} already")
        inbound = await scene.active(OTHER)
        other = scene.engine.dial(DialParameters(enode=f"enode://{OTHER.hex()}@127.0.0.1:1"))
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
        assert (await refusal(scene.engine.dial(DialParameters(enode=enode))))[0] == name
        assert await scene.counted() == {}

    play(scenario, access=AccessSettings(deny_cidrs=("10.0.0.0/8",)))


def test_the_limit_of_dials_in_progress_is_exact(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await dialled(scene)
        more = scene.engine.dial(DialParameters(enode=f"enode://{OTHER.hex()}@127.0.0.1:1"))
        assert await refusal(more) == ("refused", "1 outbound sessions are pending")

    play(scenario, limits=LimitSettings(max_pending_outbound=1))


# -- commands ---------------------------------------------------------------------------------------------------------------


def test_a_disconnect_goes_to_the_worker_of_the_session(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        done = await scene.engine.disconnect(DisconnectParameters(session=session, reason="useless_peer"))
        assert done.sessions == 1
        told = await scene.worker.is_told(DisconnectSession)
        assert (told.session, told.reason) == (session, DisconnectReason.USELESS_PEER)
        assert (await scene.engine.disconnect_all(DisconnectAllParameters())).sessions == 1
        assert (await scene.worker.is_told(DisconnectSession)).reason is DisconnectReason.DISCONNECT_REQUESTED

    play(scenario)


def test_a_session_that_is_not_there_is_an_answer(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        engine = scene.engine
        for asked in (
            engine.session(SessionParameters(session=99)),
            engine.disconnect(DisconnectParameters(session=99)),
            engine.send(SendParameters(session=99, capability="eth", message=2, payload="0xc0")),
        ):
            assert await refusal(asked) == ("no_such_session", "there is no session 99")

    play(scenario)


def sent(session: int, payload: str = "0xc0") -> SendParameters:
    """A message for a session."""
    return SendParameters(session=session, capability="eth", message="Transactions", payload=payload)


@pytest.mark.parametrize("error", ["not_shared", "no_such_session", "queue_full"])
def test_what_a_worker_cannot_send_is_the_answer(play: Play, error: str) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        asked = asyncio.ensure_future(scene.engine.send(sent(session, "0xc180")))
        told = await scene.worker.is_told(SendMessage)
        assert told == SendMessage(told.call, session, "eth", 2, b"\xc1\x80")
        scene.worker.report(Reply(told.call))
        assert (await asked).sessions == 1
        asked = asyncio.ensure_future(scene.engine.send(sent(session)))
        told = await scene.worker.is_told(SendMessage)
        scene.worker.report(Reply(told.call, error, "why"))
        assert await refusal(asked) == (error, "why")

    play(scenario)


def test_a_request_is_answered_with_what_the_peer_said(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        parameters = RequestParameters(session=session, capability="eth", message="GetBlockHeaders", payload="0xc20180")
        asked = asyncio.ensure_future(scene.engine.request(parameters))
        told = await scene.worker.is_told(AskPeer)
        assert told == AskPeer(told.call, session, "eth", 3, b"\xc2\x01\x80")
        scene.worker.report(Answer(told.call, "BlockHeaders", b"\xc2\x01\xc0"))
        assert await asked == AnswerResult("BlockHeaders", "0xc201c0")
        asked = asyncio.ensure_future(scene.engine.request(parameters))
        scene.worker.report(Reply((await scene.worker.is_told(AskPeer)).call, "timed_out", "no answer within 20 s"))
        assert await refusal(asked) == ("timed_out", "no answer within 20 s")

    play(scenario)


def test_a_broadcast_goes_to_the_active_sessions_that_match_in_one_message_a_worker(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        first, second = await scene.active(), await scene.active(OTHER)
        await scene.accepted()
        parameters = BroadcastParameters(capability="eth", message="Transactions", payload="0xc180")
        asked = asyncio.ensure_future(scene.engine.broadcast(parameters))
        told = await scene.worker.is_told(Broadcast)
        assert told == Broadcast(told.call, (first, second), "eth", 2, b"\xc1\x80")
        scene.worker.report(Sent(told.call, 1, {int(second): "queue_full"}))
        assert await asked == BroadcastResult(1, {str(second): "queue_full"})
        nobody = msgspec.structs.replace(parameters, shared="eth/66")
        assert await scene.engine.broadcast(nobody) == BroadcastResult(0, {})

    play(scenario)


def test_a_broadcast_to_a_worker_that_is_lost_says_so_of_each_session(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        parameters = BroadcastParameters(capability="eth", message="Transactions", payload="0xc180")
        asked = asyncio.ensure_future(scene.engine.broadcast(parameters))
        await scene.worker.is_told(Broadcast)
        scene.worker.die(-9)
        assert await asked == BroadcastResult(0, {str(session): "worker_lost"})

    play(scenario)


def test_a_broadcast_that_would_not_fit_is_not_queued(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        parameters = BroadcastParameters(capability="eth", message="Transactions", payload="0x" + "00" * 1025)
        assert await scene.engine.broadcast(parameters) == BroadcastResult(0, {str(session): "queue_full"})

    play(scenario, queues=QueueSettings(worker_command_bytes=1024))


def test_what_a_peer_did_is_an_event_of_its_own(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        scene.worker.report(SessionMisconduct(session, Conduct.BAD_MESSAGE, "a response that nobody asked for", 2))
        told = await scene.event("peer.bad_message")
        assert (told["session"], told["peer"], told["count"]) == (session, PEER.hex(), 2)
        assert told["cause"] == "a response that nobody asked for"

    play(scenario)


def test_a_worker_that_does_not_answer_is_an_answer(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    # How long it waits is a default of the method.
    monkeypatch.setattr("engine.engine.Engine._call.__defaults__", (0.05,))

    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        assert await refusal(scene.engine.send(sent(session))) == ("timed_out", "worker 0 did not answer within 0.05 s")
        # What comes too late is nobody's.
        told = await scene.worker.is_told(SendMessage)
        scene.worker.report(Reply(told.call))
        shown = await scene.engine.sessions(SessionsParameters())
        assert [item["session"] for item in shown.sessions] == [session]

    play(scenario)


def test_commands_that_would_not_fit_are_not_queued(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = await scene.active()
        asked = scene.engine.send(sent(session, "0x" + "00" * 1025))
        assert (await refusal(asked))[0] == "queue_full"
        assert scene.worker.heard == []

    play(scenario, queues=QueueSettings(worker_command_bytes=1024))


def test_a_new_head_is_confirmed_by_the_workers_that_have_it(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        parameters = SetStatusParameters(number=9, hash=HASH, earliest=3)
        asked = asyncio.ensure_future(scene.engine.set_status(parameters))
        told = await scene.worker.is_told(SetHead)
        assert (told.head.number, told.head.hash, told.head.earliest) == (9, b"\xab" * 32, 3)
        scene.worker.report(Reply(told.call))
        assert await asked == commands.ConfirmedResult([0], [])
        asked = asyncio.ensure_future(scene.engine.set_status(parameters))
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
        name, words = await refusal(scene.engine.set_status(SetStatusParameters(**parameters)))
        assert (name, words.split(":")[0]) == ("invalid_params", key)

    play(scenario)


def test_sessions_are_those_that_match_every_filter(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        pending = await scene.accepted()
        active = await scene.active()
        outbound = await dialled(scene, f"enode://{OTHER.hex()}@127.0.0.1:1")

        async def matching(**filters: Any) -> list[int]:
            result = await scene.engine.sessions(SessionsParameters(**filters))
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
        limited = await scene.engine.sessions(SessionsParameters(limit=2))
        assert (len(limited.sessions), limited.total) == (2, 3)

    play(scenario)


def test_the_history_has_the_last_ends_the_latest_first(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        for _ in range(4):
            session = await scene.accepted()
            scene.worker.report(closed(session, Stage.AUTH))
            await scene.event("session.closed")
        history = await scene.engine.history(HistoryParameters())
        assert [item["session"] for item in history] == [4, 3, 2]
        assert [item["session"] for item in await scene.engine.history(HistoryParameters(limit=1))] == [4]

    play(scenario, control=msgspec.structs.replace(SETTINGS.control, history=3))


def test_status_shows_the_engine_at_a_glance(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.active()
        scene.worker.report(control.Pulse(0, 1, 2, 0.5, 4096, 7, 3))
        await until(lambda: any(worker.pulse for worker in scene.engine._fleet))  # noqa: SLF001 - nothing else tells
        status = await scene.engine.status(NOTHING)
        assert (status.version, status.run_dir) == ("9.9", str(scene.run_dir.path))
        assert status.enode == f"enode://{KEY.id.hex()}@127.0.0.1:{scene.address[1]}"
        assert status.chain["name"] == "dev"
        [worker] = status.workers
        assert (worker.active, worker.goodbyes, worker.loop_lag_ms, worker.dropped_events) == (1, 2, 0.5, 7)
        assert status.memory_bytes > 1 << 20
        assert orjson.loads(msgspec.json.encode(status))["uptime_ms"] >= 0

    play(scenario)


def test_a_reload_changes_what_may_change_and_names_the_rest(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        changed = msgspec.structs.replace(SETTINGS, workers=5, limits=LimitSettings(max_pending_outbound=0))
        assert scene.engine.reload(changed) == ["workers"]
        assert (await scene.event("engine.reloaded"))["needs_restart"] == ["workers"]
        asked = scene.engine.dial(DialParameters(enode=ENODE))
        assert await refusal(asked) == ("refused", "0 outbound sessions are pending")
        assert scene.engine.reload(SETTINGS) == []
        await dialled(scene)

    play(scenario)


# -- named peers ------------------------------------------------------------------------------------------------------------


def test_a_static_peer_is_dialled_by_itself_and_tells_when_it_is_tried_again(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        session = (await scene.worker.is_told(Dial)).session
        cause = "no TCP connection: Connection refused"
        scene.worker.report(SessionClosed(session, EndedBy.NETWORK, None, cause, Stage.CONNECT, Traffic()))
        await until(lambda: scene.worker.heard or not scene.engine._views)  # noqa: SLF001 - it began before anybody listened
        [named] = (await scene.engine.peers(NOTHING)).peers
        assert (named.peer, named.static, named.trusted) == (ENODE, True, False)
        assert named.next_try_s is not None
        assert 0 < named.next_try_s <= 30

    play(scenario, peers=PeerSettings(static=(ENODE,)))


def test_a_peer_can_be_named_and_forgotten(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        engine = scene.engine
        added = await engine.peers_add(AddPeerParameters(enode=ENODE, static=False, trusted=True))
        assert [(item.static, item.trusted) for item in added.peers] == [(False, True)]
        assert (await engine.peers_remove(RemovePeerParameters(peer=PEER.hex()))).peers == []
        assert (await refusal(engine.peers_remove(RemovePeerParameters(peer=PEER.hex()))))[0] == "no_such_peer"
        assert (await refusal(engine.peers_add(AddPeerParameters(enode="nonsense"))))[0] == "invalid_params"

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
        assert (await scene.engine.ban(BanParameters(peer=PEER.hex()))).sessions == 1
        assert (await scene.worker.is_told(DisconnectSession)).session == session
        scene.worker.report(closed(session))
        await scene.event("session.closed")
        assert (await refusal(scene.engine.dial(DialParameters(enode=ENODE))))[0] == "refused"
        again = await scene.accepted()
        scene.worker.report(SessionAuthenticated(again, PEER))
        assert (await scene.worker.is_told(Judge)).cause == "the peer is banned"
        assert (await scene.engine.ban(BanParameters(peer=PEER.hex(), seconds=0))).sessions == 0
        await dialled(scene)

    play(scenario)


def test_a_banned_address_is_closed_at_the_door(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.engine.ban(BanParameters(address="127.0.0.1"))
        sock = scene.connect()
        await until(lambda: is_closed(sock))
        assert (await scene.event("session.refused"))["cause"] == "the address is banned"

    play(scenario)


def test_a_session_that_a_ban_hits_twice_is_ended_once(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.active()
        assert (await scene.engine.ban(BanParameters(peer=PEER.hex(), address="127.0.0.1"))).sessions == 1

    play(scenario)


@pytest.mark.parametrize("parameters", [{}, {"address": "nonsense"}, {"peer": PEER.hex(), "address": "nonsense"}])
def test_a_ban_of_nobody_bans_nobody(play: Play, parameters: dict[str, Any]) -> None:
    async def scenario(scene: Scene) -> None:
        assert (await refusal(scene.engine.ban(BanParameters(**parameters))))[0] == "invalid_params"
        assert (await scene.engine.peers(NOTHING)).bans == []

    play(scenario)


def test_a_ban_of_an_address_minds_no_session_without_one(play: Play) -> None:
    """The address of a dial is the kernel's, and that of a socket which is reset by now has none."""

    async def scenario(scene: Scene) -> None:
        session = await dialled(scene)
        scene.worker.report(SessionConnected(session, "", ""))
        await scene.event("session.opened")
        assert (await scene.engine.ban(BanParameters(address="127.0.0.2"))).sessions == 0

    play(scenario)


def test_limits_change_while_it_runs(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        limits = (await scene.engine.set_limits(SetLimitsParameters(max_pending_outbound=0)))["limits"]
        assert (limits["max_pending_outbound"], limits["max_pending_inbound"]) == (0, 200)
        asked = scene.engine.dial(DialParameters(enode=ENODE))
        assert await refusal(asked) == ("refused", "0 outbound sessions are pending")

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

    monkeypatch.setattr(Engine, "counts", broken)

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
            scene.engine.dial(DialParameters(enode=f"enode://{OTHER.hex()}@127.0.0.1:1", wait=True))
        )
        await scene.worker.is_told(Dial)
        sending = asyncio.ensure_future(scene.engine.send(sent(active)))
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
        asked = asyncio.ensure_future(scene.engine.set_status(SetStatusParameters(number=9, hash=HASH)))
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
            worker.report(control.Pulse(0, 0, 0, 0.5, 4096, 0, 0))
            sleep(1.5)
            held_up.set()

        ours, theirs = socket.socketpair()
        with ours, theirs:
            # Within what the loop reads, so that its timers come before what it would read next.
            asyncio.get_running_loop().add_reader(ours.fileno(), hold_up)
            theirs.send(b"x")
            await held_up.wait()
            asyncio.get_running_loop().remove_reader(ours.fileno())
        await until(lambda: any(process.pulse for process in scene.engine._fleet))  # noqa: SLF001 - nothing else tells
        assert worker.kills == 0

    play(scenario, run=uvloop.run)


def test_without_a_worker_nothing_is_accepted_and_nothing_is_refused(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        scene.worker.die()
        await scene.event("worker.lost")
        sock = scene.connect()
        assert (await refusal(scene.engine.dial(DialParameters(enode=ENODE))))[0] == "worker_lost"
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
        assert (await refusal(scene.engine.dial(DialParameters(enode=ENODE))))[0] == "refused"
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
