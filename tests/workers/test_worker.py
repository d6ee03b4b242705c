"""A worker between the engine and its peers: each handoff and each dial ends in exactly one report of its end."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, cast

import msgspec
import orjson
import pytest
import uvloop
import zmq
import zmq.asyncio

from protocol import control, eth
from protocol.capabilities import SubProtocol
from protocol.control import (
    Answer,
    AskPeer,
    AskSessions,
    Broadcast,
    CallId,
    Dial,
    DisconnectSession,
    Drain,
    Forget,
    Handoff,
    HandoffLost,
    Handoffs,
    Judge,
    SendMessage,
    Sent,
    SessionAuthenticated,
    SessionClosed,
    SessionConnected,
    SessionEstablished,
    SessionId,
    SessionMisconduct,
    SetHead,
)
from protocol.errors import DisconnectReason, Severity
from protocol.eth import Head
from protocol.events import Conduct, EndedBy, Established, MessageReceived, Stage
from protocol.p2p import Capability, Hello
from protocol.send_queue import KERNEL_BYTES
from protocol.session import Session
from tests.pair import CHAIN, DEV, DIALER, HEAD, PROTOCOLS, Recipe, encoded, key
from tests.workers.hosted import (
    GOODBYE_SECONDS,
    PATIENCE_SECONDS,
    SESSIONS,
    Peer,
    PlayedEngine,
    configuration,
    hosted,
)
from workers import worker
from workers.connection import Connection
from workers.worker import REPORTS_AT_ONCE, Worker

ONE, TWO = SessionId(1), SessionId(2)
QUITTING = DisconnectReason.CLIENT_QUITTING
DRAIN = Drain(QUITTING, "the engine is shutting down")
TRANSACTIONS, GET_BLOCK_HEADERS, BLOCK_HEADERS = 2, 3, 4
# Many times what a batch waits for company.
PUBLISHED_MILLISECONDS = 100


@pytest.fixture(autouse=True)
def _no_freezing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's process freezes what it starts with; ours goes on after the test."""
    monkeypatch.setattr("gc.freeze", lambda: None)


def played(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario on the loop that workers run on."""
    uvloop.run(scenario)


def closed_once(reports: list[control.Report], session: int) -> SessionClosed:
    """The one end of a session."""
    [report] = [item for item in reports if isinstance(item, SessionClosed) and item.session == session]
    return report


# -- inbound ----------------------------------------------------------------------------------------------------------------


def test_a_handed_over_peer_is_reported_judged_established_and_ended_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.accepted(ONE)
            established = asyncio.ensure_future(peer.until(Established))
            authenticated = await engine.until(control.SessionAuthenticated)
            assert authenticated == control.SessionAuthenticated(ONE, DIALER.key.id)
            engine.command(Judge(ONE))
            report = await engine.until(SessionEstablished)
            await established
            assert (report.session, report.client, report.listen_port) == (ONE, "tests/1", 30303)
            assert report.shared == ("eth/72", "snap/2")
            assert "eth/66" in report.capabilities
            assert report.local.startswith("127.0.0.1:")
            assert (report.chain.network_id, report.chain.latest) == (3503995874084926, 1000)
            peer.leave(QUITTING)
            closed = await engine.until(SessionClosed)
            assert (closed.session, closed.ended_by, closed.reason, closed.stage) == (
                ONE,
                EndedBy.PEER,
                QUITTING,
                Stage.ACTIVE,
            )
            assert closed.traffic.messages_in == 3
            engine.command(DRAIN)
            assert await engine.rest() == []

    played(scenario())


def test_neither_side_is_established_before_the_verdict(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.accepted(ONE)
            established = asyncio.ensure_future(peer.until(Established))
            await engine.until(control.SessionAuthenticated)
            stage = Stage.AUTH
            # Hello and the peer's Status pass meanwhile.
            while stage is not Stage.VERDICT:
                engine.command(AskSessions(engine.call(), (ONE,)))
                stage = (await engine.until(control.Figures)).sessions[ONE][0]
            assert not established.done()
            engine.command(Judge(ONE))
            await engine.until(SessionEstablished)
            await established

    played(scenario())


def test_a_refusal_in_the_verdict_is_told_to_the_peer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.accepted(ONE)
            ended = asyncio.ensure_future(peer.until_closed())
            await engine.until(control.SessionAuthenticated)
            engine.command(Judge(ONE, DisconnectReason.ALREADY_CONNECTED, "it has session 7 already"))
            closed = await engine.until(SessionClosed)
            assert (closed.ended_by, closed.reason) == (EndedBy.US, DisconnectReason.ALREADY_CONNECTED)
            assert closed.cause == "it has session 7 already"
            assert (await ended).reason is DisconnectReason.ALREADY_CONNECTED

    played(scenario())


def test_a_polite_refusal_is_told_before_hello(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.accepted(ONE, refusal=DisconnectReason.TOO_MANY_PEERS)
            ended = await peer.until_closed()
            assert (ended.ended_by, ended.reason) == (EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS)
            closed = await engine.until(SessionClosed)
            assert (closed.session, closed.reason) == (ONE, DisconnectReason.TOO_MANY_PEERS)

    played(scenario())


def test_each_peer_has_the_highest_version_that_it_shares(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            for number, names in enumerate((("eth/66",), ("eth/67", "eth/69"), ("eth/70", "snap/1")), start=1):
                offer = tuple(item for item in PROTOCOLS if str(item.capability) in names)
                peer = await engine.accepted(SessionId(number), Recipe(seed=number, protocols=offer))
                established = asyncio.ensure_future(peer.until(Established))
                await engine.until(control.SessionAuthenticated)
                engine.command(Judge(SessionId(number)))
                report = await engine.until(SessionEstablished)
                assert (report.capabilities, report.shared) == (names, names[-1:] if number == 2 else names)
                await established

    played(scenario())


def test_a_handoff_without_its_socket_is_lost_and_said_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            engine.handoffs.send(control.encode_record(Handoffs((Handoff(ONE),))))
            lost = await engine.until(HandoffLost)
            assert lost == HandoffLost(ONE, "the worker is out of file descriptors")
            await engine.established(TWO)

    played(scenario())


@contextmanager
def room_for(descriptors: int) -> Iterator[None]:
    """The table of descriptors takes so many more."""
    # A new one is always the lowest that is free (open(2)).
    lowest = [os.dup(0) for _ in range(descriptors)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest[-1] + 1, hard))
    for descriptor in lowest:
        os.close(descriptor)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_of_handoffs_that_the_table_has_no_room_for_exactly_those_are_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            pairs = [socket.socketpair() for _ in range(5)]
            engine.hand_over_all([(Handoff(SessionId(number)), pair[0]) for number, pair in enumerate(pairs)])
            with room_for(2):
                lost = [await engine.until(HandoffLost) for _ in range(3)]
            assert lost == [HandoffLost(SessionId(number), "the worker is out of file descriptors") for number in (2, 3, 4)]
            for _, peer in pairs:
                peer.close()
            ends = {(await engine.until(SessionClosed)).session for _ in range(2)}
            assert ends == {0, 1}
            engine.command(DRAIN)
            assert await engine.rest() == []

    played(scenario())


def test_a_peer_that_is_gone_before_it_was_adopted_is_an_end_like_any_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            with socket.create_server(("127.0.0.1", 0)) as server:
                gone = socket.create_connection(server.getsockname())
                sock, _ = server.accept()
            # A reset instead of a proper end.
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.close()
            engine.hand_over(Handoff(ONE), sock)
            report = await engine.until_that(lambda report: isinstance(report, SessionClosed | HandoffLost))
            assert report.session == ONE
            engine.command(DRAIN)
            assert await engine.rest() == []

    played(scenario())


def test_many_handoffs_at_once_are_all_adopted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            for number in range(80):
                await engine.accepted(SessionId(number))
            everybody = tuple(map(SessionId, range(80)))
            engine.command(AskSessions(engine.call(), everybody))
            figures = await engine.until(control.Figures)
            while len(figures.sessions) < 80:
                engine.command(AskSessions(engine.call(), everybody))
                figures = await engine.until(control.Figures)

    played(scenario())


LIAR = Recipe(hello=Hello("tests/liar", tuple(protocol.capability for protocol in PROTOCOLS), 30303, key(77).id))
OTHER_NETWORK = Recipe(chain=msgspec.structs.replace(CHAIN, network_id=CHAIN.network_id + 1))


def test_a_peer_that_lies_about_its_id_is_known_by_the_one_it_proved_and_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.accepted(ONE, LIAR)
            told = asyncio.ensure_future(peer.until_closed())
            authenticated = await engine.until(SessionAuthenticated)
            assert authenticated.peer == LIAR.key.id
            engine.command(Judge(ONE))
            closed = await engine.until(SessionClosed)
            assert (closed.ended_by, closed.severity) == (EndedBy.US, Severity.FATAL)
            assert closed.reason is DisconnectReason.UNEXPECTED_IDENTITY
            assert (await told).reason is DisconnectReason.UNEXPECTED_IDENTITY
            engine.command(DRAIN)
            assert await engine.rest() == []

    played(scenario())


def test_a_peer_of_another_network_is_told_so_and_known_as_such(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.accepted(ONE, OTHER_NETWORK)
            told = asyncio.ensure_future(peer.until_closed())
            await engine.until(SessionAuthenticated)
            engine.command(Judge(ONE))
            # Whoever notices first says so: both see the other's Status.
            closed = await engine.until(SessionClosed)
            assert closed.reason is DisconnectReason.SUBPROTOCOL_ERROR
            assert (await told).reason is DisconnectReason.SUBPROTOCOL_ERROR
            engine.command(DRAIN)
            assert await engine.rest() == []

    played(scenario())


def test_each_peer_has_the_highest_version_that_it_speaks_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            for version in eth.VERSIONS:
                offered = tuple(eth.sub_protocol(lower) for lower in (66, 67, 68, 69) if lower < version)
                recipe = Recipe(seed=version, protocols=(*offered, eth.sub_protocol(version)))
                peer = await engine.accepted(SessionId(version), recipe)
                established = asyncio.ensure_future(peer.until(Established))
                await engine.until(SessionAuthenticated, version)
                engine.command(Judge(SessionId(version)))
                report = await engine.until(SessionEstablished, version)
                assert report.shared == (f"eth/{version}",)
                assert [str(item.capability) for item in (await established).shared] == [f"eth/{version}"]

    played(scenario())


def test_a_peer_without_a_shared_version_is_useless(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            old = SubProtocol(Capability("eth", 65), 17)
            peer = await engine.accepted(ONE, Recipe(protocols=(old,)))
            told = asyncio.ensure_future(peer.until_closed())
            closed = await engine.until(SessionClosed)
            assert (closed.reason, closed.stage) == (DisconnectReason.USELESS_PEER, Stage.HELLO)
            assert (await told).reason is DisconnectReason.USELESS_PEER

    played(scenario())


def test_a_peer_that_left_may_come_again_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            for session in (ONE, TWO):
                peer = await engine.established(session)
                peer.leave(QUITTING)
                closed = await engine.until(SessionClosed, session)
                assert (closed.ended_by, closed.reason) == (EndedBy.PEER, QUITTING)

    played(scenario())


# -- dials ------------------------------------------------------------------------------------------------------------------


@contextmanager
def listening(backlog: int = 5) -> Iterator[socket.socket]:
    """A port that somebody could listen on."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        server.setblocking(False)
        yield server


async def dialled(engine: PlayedEngine, server: socket.socket) -> Peer:
    """The peer that a dial of the worker reaches."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        sock, _ = await loop.sock_accept(server)
    peer = Peer(Session(DIALER.setup(), now=loop.time()), await asyncio.open_connection(sock=sock))
    engine.peers.append(peer)
    return peer


def test_a_dial_connects_authenticates_and_establishes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            with listening() as server:
                host, port = server.getsockname()
                engine.command(Dial(ONE, DIALER.key.id, host, port))
                peer = await dialled(engine, server)
                established = asyncio.ensure_future(peer.until(Established))
                connected = await engine.until(SessionConnected)
                assert (connected.session, connected.remote) == (ONE, f"{host}:{port}")
                assert (await engine.until(control.SessionAuthenticated)).peer == DIALER.key.id
                engine.command(Judge(ONE))
                assert (await engine.until(SessionEstablished)).session == ONE
                await established
                engine.command(DisconnectSession(ONE, DisconnectReason.USELESS_PEER, "by command"))
                closed = await engine.until(SessionClosed)
                assert (closed.ended_by, closed.reason, closed.cause) == (
                    EndedBy.US,
                    DisconnectReason.USELESS_PEER,
                    "by command",
                )
                assert (await peer.until_closed()).reason is DisconnectReason.USELESS_PEER

    played(scenario())


def test_a_dial_sends_without_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    class Remembered(socket.socket):
        def __init__(self, *arguments: int, **more: int) -> None:
            super().__init__(*arguments, **more)
            made.append(self)

    monkeypatch.setattr("workers.worker.socket.socket", Remembered)

    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            with listening() as server:
                made.clear()
                engine.command(Dial(ONE, DIALER.key.id, *server.getsockname()))
                await engine.until(SessionConnected)
                for option, value in ((socket.TCP_NODELAY, 1), (socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)):
                    assert [sock.getsockopt(socket.IPPROTO_TCP, option) for sock in made] == [value]

    played(scenario())


class SlowConnects(asyncio.SelectorEventLoop):
    """A loop on which a TCP connect takes nearly all of a dial's time, by the clock that sessions are given."""

    waited_seconds = 0.0

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await super().sock_connect(sock, address)
        self.waited_seconds = 19.8

    def now(self) -> float:
        """The clock of the sessions."""
        return monotonic() + self.waited_seconds


@pytest.mark.parametrize("answers", [True, False])
def test_what_the_connect_took_is_off_the_time_of_a_dial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, answers: bool
) -> None:
    async def scenario() -> None:
        loop = cast("SlowConnects", asyncio.get_running_loop())
        monkeypatch.setattr("workers.worker.monotonic", loop.now)
        monkeypatch.setattr("workers.connection.monotonic", loop.now)
        # Of 20 seconds 0.2 are left; anything else would give more than anybody waits here.
        limits = {"handshake_seconds": 60, "pending_inbound_seconds": 60, "pending_outbound_seconds": 20}
        async with hosted(tmp_path, **limits) as engine:
            with listening() as server:
                engine.command(Dial(ONE, DIALER.key.id, *server.getsockname()))
                if answers:
                    # As far as it comes: the verdict is what is missing in the end.
                    await (await dialled(engine, server)).until_closed()
                closed = await engine.until(SessionClosed)
                assert closed.cause == "no verdict came in time" or closed.cause.startswith("the peer took too long at ")

    with asyncio.Runner(loop_factory=SlowConnects) as runner:
        runner.run(scenario())


def test_a_dial_that_nobody_answers_ends_at_connect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            with listening() as server:
                host, port = server.getsockname()
            engine.command(Dial(ONE, DIALER.key.id, host, port))
            closed = await engine.until(SessionClosed)
            assert (closed.ended_by, closed.stage, closed.reason) == (EndedBy.NETWORK, Stage.CONNECT, None)
            assert closed.cause == f"no TCP connection: {os.strerror(errno.ECONNREFUSED)}"

    played(scenario())


def test_a_dial_of_a_key_that_is_none_ends_at_connect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            with listening() as server:
                engine.command(Dial(ONE, b"\xff" * 64, *server.getsockname()))
                closed = await engine.until(SessionClosed)
                assert closed.stage is Stage.CONNECT
                assert "no valid key" in closed.cause

    played(scenario())


def test_a_dial_that_reaches_another_peer_ends_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            with listening() as server:
                engine.command(Dial(ONE, key(77).id, *server.getsockname()))
                peer = await dialled(engine, server)
                await peer.until_closed()
                await engine.until(SessionConnected)
                closed = await engine.until(SessionClosed)
                assert (closed.session, closed.stage) == (ONE, Stage.ACK)
            engine.command(DRAIN)
            assert await engine.rest() == []

    played(scenario())


@contextmanager
def full_port() -> Iterator[tuple[str, int]]:
    """A port whose backlog is full: a connect to it gets no answer."""
    with listening(backlog=0) as server:
        waiting = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
            waiting.append(sock)
        try:
            yield server.getsockname()
        finally:
            for sock in waiting:
                sock.close()


def test_a_dial_without_an_answer_ends_by_its_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path, connect_seconds=0.05) as engine:
            with full_port() as address:
                engine.command(Dial(ONE, DIALER.key.id, *address))
                closed = await engine.until(SessionClosed)
            assert (closed.ended_by, closed.cause) == (EndedBy.NETWORK, "no TCP connection within 0.05 s")

    played(scenario())


def test_a_dial_can_be_called_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            with full_port() as address:
                engine.command(Dial(ONE, DIALER.key.id, *address))
                await asyncio.sleep(0)
                engine.command(DisconnectSession(ONE, QUITTING, "by command"))
                closed = await engine.until(SessionClosed)
            assert (closed.session, closed.ended_by, closed.stage) == (ONE, EndedBy.US, Stage.CONNECT)
            engine.command(DRAIN)
            assert await engine.rest() == []

    played(scenario())


# -- commands ---------------------------------------------------------------------------------------------------------------


def test_a_message_is_sent_as_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            reply = await engine.asked(SendMessage(engine.call(), ONE, "eth", TRANSACTIONS, b"\xc1\x80"))
            assert reply.error is None
            message = await peer.until(MessageReceived)
            assert (message.kind.topic, message.payload) == ("eth.Transactions", b"\xc1\x80")

    played(scenario())


@pytest.mark.parametrize(
    ("session", "capability", "message", "error"),
    [(TWO, "eth", 2, "no_such_session"), (ONE, "les", 2, "not_shared"), (ONE, "eth", 99, "not_shared")],
)
def test_what_cannot_be_sent_is_a_reply_with_its_name(
    tmp_path: Path, session: SessionId, capability: str, message: int, error: str
) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            await engine.established(ONE)
            call = engine.call()
            reply = await engine.asked(SendMessage(call, session, capability, message, b"\xc0"))
            assert (reply.call, reply.error) == (call, error)
            assert reply.message

    played(scenario())


def test_a_peer_that_does_not_read_fills_its_own_queue_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path, queue_bytes=1 << 16) as engine:
            await engine.established(ONE)
            noise = os.urandom(1 << 18)
            for _ in range(200):
                reply = await engine.asked(SendMessage(engine.call(), ONE, "eth", TRANSACTIONS, noise))
                if reply.error is not None:
                    break
            assert reply.error == "queue_full"
            other = await engine.established(TWO, Recipe(seed=5))
            await engine.asked(SendMessage(engine.call(), TWO, "eth", TRANSACTIONS, b"\xc0"))
            await other.until(MessageReceived)

    played(scenario())


def test_a_request_of_ours_is_answered_with_what_the_peer_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            call = engine.call()
            engine.command(AskPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
            request = await peer.until(MessageReceived)
            assert request.kind.topic == "eth.GetBlockHeaders"
            assert request.request_id is not None
            peer.send("eth", BLOCK_HEADERS, encoded([request.request_id, []]))
            answer = await engine.until(Answer)
            # The id is the asker's own again.
            assert answer == Answer(call, "BlockHeaders", encoded([77, []]))

    played(scenario())


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ((TWO, "eth", GET_BLOCK_HEADERS, b"\xc2\x01\x80"), "no_such_session"),
        ((ONE, "les", GET_BLOCK_HEADERS, b"\xc2\x01\x80"), "not_shared"),
        ((ONE, "eth", TRANSACTIONS, b"\xc2\x01\x80"), "invalid_params"),
        ((ONE, "eth", GET_BLOCK_HEADERS, b"\x01"), "invalid_params"),
        ((ONE, "eth", GET_BLOCK_HEADERS, b""), "invalid_params"),
    ],
)
def test_what_cannot_be_asked_is_a_reply_with_its_name(
    tmp_path: Path, asked: tuple[SessionId, str, int, bytes], error: str
) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            await engine.established(ONE)
            call = engine.call()
            reply = await engine.asked(AskPeer(call, *asked))
            assert (reply.call, reply.error) == (call, error)

    played(scenario())


def test_a_request_too_long_for_any_client_waits_for_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            peer.send("eth", GET_BLOCK_HEADERS, encoded([7, bytes(300_000)]))
            answer = await peer.until(MessageReceived)
            assert answer.payload == encoded([7, []])

    played(scenario())


def test_a_request_that_is_forgotten_is_answered_to_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            forgotten, other = engine.call(), engine.call()
            for call in (forgotten, other):
                engine.command(AskPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
            # A call that is not there is nobody's loss.
            for call in (forgotten, forgotten, CallId(99)):
                engine.command(Forget(call))
            await peer.until(MessageReceived)
            for request_id in (0, 1):
                peer.send("eth", BLOCK_HEADERS, encoded([request_id, []]))
            answer = await engine.until(Answer)
            assert answer.call == other

    played(scenario())


def test_while_requests_wait_for_their_turn_pings_do_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            context = zmq.Context()
            with context, context.socket(zmq.DEALER) as responder:
                responder.connect(f"ipc://{tmp_path}/worker-0.ipc")
                responder.send(b'{"register": ["eth.GetBlockHeaders"], "credit": 64}')
                for number in range(20):
                    peer.send("eth", GET_BLOCK_HEADERS, encoded([number, [1, 2, 0, 0]]))
                # Some may have had the empty answer before the responder was known; then four of them are with it, which
                # never answers, and the others wait behind them.
                await peer.ping()
                assert not peer.session.is_closed

    played(scenario())


def test_a_request_whose_session_ends_is_answered_with_an_error_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            calls = [engine.call() for _ in range(3)]
            for call in calls:
                engine.command(AskPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
            await peer.until(MessageReceived)
            peer.leave(QUITTING)
            replies = [await engine.until(control.Reply) for _ in calls]
            assert [reply.call for reply in replies] == calls
            assert {reply.error for reply in replies} == {"session_ended"}
            await engine.until(SessionClosed)
            engine.command(DRAIN)
            assert await engine.rest() == []

    played(scenario())


@pytest.mark.parametrize("ends", [True, False])
def test_a_peer_that_answers_nothing_is_told_of_and_ended_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    monkeypatch.setattr("protocol.requests.INITIAL_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr("protocol.requests.BREACH_SECONDS", 0.2)

    async def scenario() -> None:
        async with hosted(tmp_path, ends_on_breach=ends) as engine:
            peer = await engine.established(ONE)
            call = engine.call()
            reply = await engine.asked(AskPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
            assert (reply.call, reply.error) == (call, "timed_out")
            told = await engine.until(SessionMisconduct)
            assert (told.session, told.conduct, told.count) == (ONE, Conduct.BREACH, 1)
            if ends:
                closed = await engine.until(SessionClosed)
                assert (closed.ended_by, closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
                assert (await peer.until_closed()).reason is DisconnectReason.PROTOCOL_BREACH
            else:
                assert (await engine.asked(SendMessage(engine.call(), ONE, "eth", TRANSACTIONS, b"\xc0"))).error is None

    played(scenario())


def test_an_answer_behind_the_message_that_ended_its_session_still_reaches_its_asker(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            call = engine.call()
            engine.command(AskPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
            await peer.until(MessageReceived)
            # All in one segment: four mistakes, which are one too many, and then what was asked for.
            for request_id in (90, 91, 92, 93):
                peer.session.send("eth", BLOCK_HEADERS, encoded([request_id, []]))
            peer.send("eth", BLOCK_HEADERS, encoded([0, []]))
            assert (await engine.until(Answer)).call == call
            assert (await engine.until(SessionClosed)).reason is DisconnectReason.PROTOCOL_BREACH

    played(scenario())


def test_answers_that_nobody_asked_for_are_told_and_then_a_breach(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            for _ in range(4):
                peer.send("eth", BLOCK_HEADERS, encoded([77, []]))
            told = [await engine.until(SessionMisconduct) for _ in range(4)]
            assert [report.count for report in told] == [1, 2, 3, 4]
            assert {report.conduct for report in told} == {Conduct.BAD_MESSAGE}
            closed = await engine.until(SessionClosed)
            assert (closed.ended_by, closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
            assert closed.cause.startswith("4 bad messages, the last: ")
            assert (await peer.until_closed()).reason is DisconnectReason.PROTOCOL_BREACH

    played(scenario())


def test_a_broadcast_reaches_those_that_share_it_and_names_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            without_snap = tuple(item for item in PROTOCOLS if item.capability.name == "eth")
            other = await engine.established(TWO, Recipe(seed=5, protocols=without_snap))
            call = engine.call()
            engine.command(Broadcast(call, (ONE, TWO, SessionId(9)), "eth", TRANSACTIONS, b"\xc1\x80"))
            assert await engine.until(Sent) == Sent(call, 2, {9: "no_such_session"})
            for reached in (peer, other):
                assert (await reached.until(MessageReceived)).payload == b"\xc1\x80"
            engine.command(Broadcast(call, (ONE, TWO), "snap", 0, b"\xc1\x80"))
            assert await engine.until(Sent) == Sent(call, 1, {TWO: "not_shared"})

    played(scenario())


def test_a_broadcast_that_takes_many_turns_reaches_each_in_the_order_of_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "BROADCAST_SLICE_BYTES", 1)

    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            sessions = tuple(map(SessionId, range(1, 5)))
            peers = [await engine.established(session, Recipe(seed=10 + session)) for session in sessions]
            # Nobody waits for an answer in between.
            for payload in (b"\xc1\x01", b"\xc1\x02"):
                engine.command(Broadcast(engine.call(), sessions, "eth", TRANSACTIONS, payload))
            engine.command(Broadcast(engine.call(), (), "eth", TRANSACTIONS, b"\xc0"))
            assert [(await engine.until(Sent)).sent for _ in range(3)] == [4, 4, 0]
            for peer in peers:
                while len(heard := [event for event in peer.events if isinstance(event, MessageReceived)]) < 2:
                    await peer.hear()
                assert [event.payload for event in heard] == [b"\xc1\x01", b"\xc1\x02"]

    played(scenario())


def test_messages_are_published_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    asked = encoded([77, [1, 1, 0, 0]])
    batches: dict[str, tuple[dict[str, Any], bytes]] = {}

    async def read(reader: zmq.asyncio.Socket) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            topic, head, body = await reader.recv_multipart()
        batches[topic.decode()] = orjson.loads(head), body

    async def scenario() -> None:
        context = zmq.asyncio.Context()
        async with hosted(tmp_path) as engine:
            with context.socket(zmq.SUB) as reader:
                for prefix in ("", "tap."):
                    reader.setsockopt_string(zmq.SUBSCRIBE, prefix)
                reader.bind(f"ipc://{tmp_path}/traffic.ipc")
                peer = await engine.established(ONE)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    # What comes before the worker has the subscription is not published, and nothing tells when it has.
                    while not await reader.poll(PUBLISHED_MILLISECONDS):
                        peer.send("eth", GET_BLOCK_HEADERS, asked)
                peer.send("eth", GET_BLOCK_HEADERS, asked)
                peer.send("eth", TRANSACTIONS, b"\xc1\x05")
                while not {"eth.Transactions", "eth.GetBlockHeaders", "tap.eth.BlockHeaders"} <= batches.keys():
                    await read(reader)
        context.term()

    before_us = time_ns() // 1000
    played(scenario())
    shown: dict[str, dict[str, Any]] = {}
    for topic, (head, body) in batches.items():
        assert (head["v"], head["worker"]) == (1, 3)
        event = shown[topic] = head["events"][0]
        assert before_us <= event.pop("time_us") <= time_ns() // 1000
        assert (event.pop("session"), event.pop("peer")) == (ONE, DIALER.key.id.hex())
        assert sum(item["size"] for item in head["events"]) == len(body)
    assert shown["eth.Transactions"] == {"size": 2, "wire_size": 4, "version": 72}
    assert shown["eth.GetBlockHeaders"] == {"size": 7, "wire_size": 9, "version": 72, "request_id": 77}
    assert shown["tap.eth.BlockHeaders"] == {"size": 3, "version": 72, "request_id": 77}


def test_figures_are_of_the_sessions_that_are_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            await engine.established(ONE)
            call = engine.call()
            engine.command(AskSessions(call, (ONE, TWO)))
            figures = await engine.until(control.Figures)
            assert (figures.call, set(figures.sessions)) == (call, {ONE})
            stage, traffic, span = figures.sessions[ONE]
            assert stage is Stage.ACTIVE
            assert traffic.messages_in == 2
            assert span == (7, 1000, "0x" + "11" * 32)

    played(scenario())


def test_a_new_head_is_announced_in_new_handshakes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            assert (await engine.asked(SetHead(engine.call(), Head(2000, b"\x22" * 32, earliest=9)))).error is None
            peer = await engine.established(ONE)
            status = peer.session.status
            assert status is not None
            assert (status.earliest, status.latest, status.head) == (9, 2000, b"\x22" * 32)

    played(scenario())


def test_a_new_head_is_announced_to_the_sessions_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.eth.RANGE_INTERVAL_SECONDS", 0.2)

    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            engine.command(SetHead(engine.call(), Head(2000, b"\x22" * 32, earliest=9)))
            update = await peer.until(MessageReceived)
            assert (update.kind.topic, update.payload) == ("eth.BlockRangeUpdate", encoded([9, 2000, b"\x22" * 32]))

    played(scenario())


def test_a_quiet_peer_is_pinged_after_the_interval(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path, ping_interval_seconds=0.1, ping_seconds=60) as engine:
            peer = await engine.established(ONE)
            ended = asyncio.ensure_future(peer.until_closed())
            rtt = None
            while rtt is None:
                engine.command(AskSessions(engine.call(), (ONE,)))
                rtt = (await engine.until(control.Figures)).sessions[ONE][1].rtt_ms
            engine.command(DisconnectSession(ONE, QUITTING, "by command"))
            await ended

    played(scenario())


def test_a_command_for_a_session_that_has_ended_does_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            engine.command(Judge(TWO))
            engine.command(Judge(TWO, QUITTING, "late"))
            engine.command(DisconnectSession(TWO, QUITTING, "late"))
            await engine.established(ONE)

    played(scenario())


# -- traffic ----------------------------------------------------------------------------------------------------------------


@contextmanager
def subscribed(folder: Path, prefix: str) -> Iterator[zmq.Socket[bytes]]:
    """The engine's end of the traffic socket, subscribed to a prefix."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.SUB) as reader:
        reader.setsockopt(zmq.LINGER, 0)
        reader.setsockopt_string(zmq.SUBSCRIBE, prefix)
        reader.bind(f"ipc://{folder}/traffic.ipc")
        yield reader
    context.term()


async def batch(reader: zmq.Socket[bytes]) -> tuple[str, dict[str, Any], bytes]:
    """The next batch."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not reader.poll(0):  # noqa: ASYNC110 - ZeroMQ sets no event
            await asyncio.sleep(0.001)
    topic, head, body = reader.recv_multipart()
    return topic.decode(), orjson.loads(head), body


def test_what_somebody_reads_is_published_with_its_payload(tmp_path: Path) -> None:
    async def scenario() -> None:
        with subscribed(tmp_path, "eth.Transactions") as reader:
            async with hosted(tmp_path) as engine:
                peer = await engine.established(ONE)
                # The worker hears of the subscription within a turn of its wheel; what came before is nobody's.
                count = 0
                while not reader.poll(0):
                    count += 1
                    peer.send("eth", TRANSACTIONS, encoded([b"tx%d" % count]))
                    await asyncio.sleep(0.005)
                    assert count < 1000
                topic, head, body = await batch(reader)
                [event, *_] = head["events"]
                assert (topic, head["worker"], head["seq"], head["dropped"]) == ("eth.Transactions", 3, 1, 0)
                assert (event["session"], event["peer"], event["version"]) == (ONE, DIALER.key.id.hex(), 72)
                assert body[: event["size"]].startswith(b"\xc4\x83tx")
                assert "request_id" not in event

    played(scenario())


def test_a_request_is_answered_validly_and_published_with_its_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        with subscribed(tmp_path, "eth.GetBlockHeaders") as reader:
            async with hosted(tmp_path) as engine:
                peer = await engine.established(ONE)
                peer.send("eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]]))
                answer = await peer.until(MessageReceived)
                assert (answer.kind.id, answer.request_id, answer.payload) == (BLOCK_HEADERS, 77, encoded([77, []]))
                while not reader.poll(0):
                    peer.send("eth", GET_BLOCK_HEADERS, encoded([78, [1, 2, 0, 0]]))
                    await asyncio.sleep(0.005)
                _, head, _ = await batch(reader)
                assert head["events"][0]["request_id"] in {77, 78}

    played(scenario())


@pytest.mark.parametrize("proof_of_stake", [True, False])
def test_block_gossip_is_a_breach_where_the_chain_file_says_proof_of_stake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, proof_of_stake: bool
) -> None:
    monkeypatch.setattr("tests.workers.hosted.DEV", msgspec.structs.replace(DEV, proof_of_stake=proof_of_stake))

    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            peer.send("eth", 1, encoded([[b"\x22" * 32, 5]]))
            peer.leave(QUITTING)
            closed = await engine.until(SessionClosed)
            assert closed.reason is (DisconnectReason.PROTOCOL_BREACH if proof_of_stake else QUITTING)

    played(scenario())


def test_a_malformed_request_is_a_breach_and_the_last_that_is_heard_of_the_session(tmp_path: Path) -> None:
    get_block_access_lists = 18

    async def scenario() -> None:
        with subscribed(tmp_path, "eth.") as reader:
            async with hosted(tmp_path) as engine:
                peer = await engine.established(ONE)
                while not reader.poll(0):
                    peer.send("eth", TRANSACTIONS, encoded([b"before"]))
                    await asyncio.sleep(0.005)
                # Both in one segment: the second one comes after the end.
                peer.session.send("eth", get_block_access_lists, encoded([77]))
                peer.send("eth", TRANSACTIONS, encoded([b"after"]))
                closed = await engine.until(SessionClosed)
                assert (closed.ended_by, closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
                assert closed.cause.startswith("a malformed GetBlockAccessLists: ")
                await peer.until_closed()
                await asyncio.sleep(0.02)
                bodies = b""
                while reader.poll(0):
                    bodies += (await batch(reader))[2]
                assert b"before" in bodies
                assert b"after" not in bodies

    played(scenario())


# -- the end ----------------------------------------------------------------------------------------------------------------


def test_a_drained_worker_says_goodbye_to_every_peer_reports_each_once_and_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peers = [await engine.established(ONE), await engine.established(TWO, Recipe(seed=5))]
            engine.command(DRAIN)
            for peer in peers:
                assert (await peer.until_closed()).reason is QUITTING
            reports = await engine.rest()
            for session in (ONE, TWO):
                closed = closed_once(reports, session)
                assert (closed.ended_by, closed.reason, closed.cause) == (EndedBy.ENGINE, QUITTING, DRAIN.cause)
            assert len(reports) == 2

    played(scenario())


def test_a_drained_worker_says_goodbye_to_a_peer_without_a_verdict_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.accepted(ONE)
            ended = asyncio.ensure_future(peer.until_closed())
            await engine.until(control.SessionAuthenticated)
            engine.command(DRAIN)
            assert (await ended).reason is QUITTING
            closed = closed_once(await engine.rest(), ONE)
            assert (closed.ended_by, closed.reason) == (EndedBy.ENGINE, QUITTING)

    played(scenario())


def test_a_drained_worker_with_nothing_to_do_ends_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path, goodbye_seconds=60) as engine:
            engine.command(DRAIN)
            assert await engine.rest() == []

    played(scenario())


def test_a_drained_worker_with_a_dial_only_calls_it_off_and_ends_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path, goodbye_seconds=60) as engine:
            with full_port() as address:
                engine.command(Dial(ONE, DIALER.key.id, *address))
                await engine.asked(SetHead(engine.call(), Head(1, b"\x22" * 32)))
                engine.command(DRAIN)
                assert closed_once(await engine.rest(), ONE).stage is Stage.CONNECT

    played(scenario())


def test_a_peer_that_never_reads_its_goodbye_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            await engine.established(ONE)
            engine.command(DRAIN)
            loop = asyncio.get_running_loop()
            started = loop.time()
            closed_once(await engine.rest(), ONE)
            assert loop.time() - started < GOODBYE_SECONDS + 2.0

    played(scenario())


def test_a_peer_that_goes_on_talking_after_its_goodbye_does_not_hold_up_its_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            engine.command(DisconnectSession(ONE, QUITTING, "by command"))
            await engine.until(SessionClosed)
            # The bare stream from now on: its session must not answer, and nothing is read.
            async with asyncio.timeout(GOODBYE_SECONDS * 5):
                while not peer.writer.transport.is_closing():
                    peer.writer.write(b"blah")
                    await asyncio.sleep(GOODBYE_SECONDS / 10)

    played(scenario())


def test_a_worker_whose_last_reports_wait_for_a_busy_engine_ends_without_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than the wheel's turn and the pulse, which must not find the sockets closed.
    monkeypatch.setattr("workers.__main__.LAST_REPORTS_SECONDS", 0.3)
    monkeypatch.setattr("workers.worker.PULSE_SECONDS", 0.05)

    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            # Nobody reads the replies: they fill the stream, and the worker has to wait for it at the end.
            for _ in range(40_000):
                engine.command(SetHead(engine.call(), Head(1, b"\x22" * 32)))
            engine.command(DRAIN)
            await engine.writer.drain()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await engine.worker == 0

    played(scenario())


def test_all_that_it_has_to_say_is_said_in_its_order_before_it_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            calls = [engine.call() for _ in range(2 * REPORTS_AT_ONCE + 1)]
            for call in calls:
                engine.command(SetHead(call, HEAD))
            await engine.until_that(lambda report: report == control.Reply(calls[0]))
            fault = {"message": "broken", "exception": RuntimeError("ours"), "protocol": "of one connection"}
            asyncio.get_running_loop().call_exception_handler(fault)
            engine.command(DRAIN)
            told = await engine.rest()
            assert told == [*map(control.Reply, calls[1:]), control.LogLine("error", "broken: RuntimeError('ours')")]

    played(scenario())


def test_without_its_engine_a_worker_ends_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path, goodbye_seconds=60) as engine:
            await engine.established(ONE)
            engine.writer.close()
            async with asyncio.timeout(5):
                await engine.worker

    played(scenario())


def test_the_end_of_the_pair_of_handoffs_is_the_end_as_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            engine.handoffs.shutdown(socket.SHUT_RDWR)
            assert await engine.rest() == []

    played(scenario())


def test_every_second_it_says_how_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.worker.PULSE_SECONDS", 0.01)

    async def scenario() -> None:
        async with hosted(tmp_path) as engine:
            peer = await engine.established(ONE)
            engine.command(DisconnectSession(ONE, DisconnectReason.TOO_MANY_PEERS, "enough"))
            pulse = await engine.until_that(lambda report: isinstance(report, control.Pulse) and report.goodbyes == 1)
            assert (pulse.dropped_events, pulse.unanswered) == (0, 0)
            assert pulse.memory_bytes > 1 << 20
            assert 0 <= pulse.loop_lag_ms < 60_000
            peer.close()

    played(scenario())


# -- without peers ----------------------------------------------------------------------------------------------------------


class Doomed:
    """A connection at its goodbye: an abort is not seen before the next turn of the loop."""

    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        """Close the socket now."""
        self.is_aborted = True


def test_of_a_burst_of_goodbyes_no_more_are_kept_than_the_limit_says(tmp_path: Path) -> None:
    async def scenario() -> list[bool]:
        doomed = [Doomed() for _ in range(10)]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            limited = msgspec.structs.replace(SESSIONS, max_goodbyes=4)
            worker = Worker(theirs, configuration(tmp_path, limited), asyncio.get_running_loop())
            for one in doomed:
                worker.on_goodbye(cast("Connection", one))
            for one in doomed:
                worker.on_gone(cast("Connection", one))
            worker.close()
        return [one.is_aborted for one in doomed]

    assert uvloop.run(scenario()) == [True] * 6 + [False] * 4
