"""The process: it adopts handed-over sockets, dials, drives the sessions, reports lifecycle, and publishes traffic."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import resource
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, time, time_ns
from typing import Any, Final

import msgspec
import zmq

from protocol import control, crypto, rlp
from protocol.capabilities import SubProtocol
from protocol.control import CallId, Configure, Handoff, Handoffs, SessionId, Traffic
from protocol.errors import DisconnectReason, PeerError, RlpError, Severity, UsageError
from protocol.eth import LocalChain, LocalRange, Status
from protocol.eth import Role as MessageRole
from protocol.events import (
    Answered,
    Authenticated,
    Closed,
    Conduct,
    EndedBy,
    Established,
    Event,
    MessageReceived,
    Misconduct,
    RequestFailed,
    Stage,
)
from protocol.forkid import Forks
from protocol.messages import MessageKind
from protocol.outgoing import Multicast
from protocol.p2p import Hello
from protocol.requests import RequestId
from protocol.send_queue import KERNEL_BYTES
from protocol.session import LocalNode, Role, Session, Setup, Timeouts
from workers.connection import Connection
from workers.outbox import Outbox
from workers.responder import OFFERED_MAX_BYTES, Responders
from workers.wheel import BUCKET_SECONDS, Wheel

# Sockets adopted in one turn of the loop, so that a burst of accepts does not starve the sessions.
HANDOFF_BUDGET: Final = 32
# Reports that leave in one write, as each write wakes the engine process. At so many they do not wait for the end of the
# turn, so that the engine judges while this worker goes on.
REPORTS_AT_ONCE: Final = 16
PULSE_SECONDS: Final = 1.0
# Answers to one peer that it has not read: at this many its next requests wait (reth's number).
MOST_QUEUED_RESPONSES: Final = 4
# Of one broadcast, what is sealed in one turn of the loop: some ten milliseconds' work.
BROADCAST_SLICE_BYTES: Final = 2 * 1024 * 1024
# Whatever the length of a message, its frame and its write take as long as so many bytes more.
BROADCAST_PEER_BYTES: Final = 4 * 1024
# At the end: how long goodbyes of a drained worker may take in all. Each has its own deadline besides.
DRAIN_GRACE_SECONDS: Final = 0.5
PAGE_BYTES: Final = resource.getpagesize()


class Worker:
    """All state of one worker process. `stopped` is set when there is nothing left to do."""

    def __init__(self, handoffs: socket.socket, configure: Configure, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handoffs = handoffs
        self._config = configure.session
        self.goodbye_seconds = configure.session.goodbye_seconds
        self.write_seconds = configure.session.write_seconds
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._outbox = Outbox(configure.worker, configure.outbox, self._context, loop.call_later)
        self._range = LocalRange(configure.head if configure.is_head_known else None)
        # A replacement takes over the endpoint of the one that was lost.
        self._responders = Responders(configure.responder.endpoint, configure.responder.seconds, self._context, self)
        self._is_looking = False
        self._most_open = configure.responder.most_open
        self._said = configure.node
        self._node = _local_node(configure, self._outbox, self._range)
        self._offer(configure.protocols, configure.required)
        chain = configure.chain
        self._chain = LocalChain(chain.network_id, chain.genesis, Forks(chain), configure.head, chain.proof_of_stake)
        self._inbound = Timeouts(
            handshake=self._config.handshake_seconds,
            pending=self._config.pending_inbound_seconds,
            ping_interval=self._config.ping_interval_seconds,
            ping=self._config.ping_seconds,
        )
        self._wheel = Wheel(now=monotonic())
        self._connections: dict[SessionId, Connection] = {}
        self._goodbyes: dict[Connection, None] = {}
        self._dials: dict[SessionId, asyncio.Task[None]] = {}
        # Who waits for the answers of peers.
        self._askers: dict[tuple[SessionId, RequestId], CallId] = {}
        self._asked: dict[CallId, tuple[SessionId, RequestId]] = {}
        # Under way, and those behind it.
        self._broadcasts: deque[control.Broadcast] = deque()
        # Tasks that the loop alone would forget.
        self._tasks: set[asyncio.Task[None]] = set()
        self._engine: asyncio.Transport | None = None
        # Reports of this turn of the loop, encoded.
        self._reports: list[bytes] = []
        self._loop_lag_seconds = 0.0
        # Kept open: where the table of descriptors is full, it could not be opened.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._turn_timer: asyncio.TimerHandle | None = None
        self.turn_due = math.inf
        self._pulse_due = 0.0
        self._is_draining = False
        self.stopped = asyncio.Event()
        self.has_failed = False

    # -- life -------------------------------------------------------------------------------------------------------------

    def start(self, engine: asyncio.Transport) -> None:
        """Begin to take handoffs; `engine` is the stream that reports go up."""
        self._engine = engine
        self._loop.add_reader(self._outbox.fileno(), self._outbox.read_subscriptions)
        self._loop.add_reader(self._responders.fileno(), self._read_responders)
        self._loop.add_reader(self._handoffs.fileno(), self._on_handoffs)
        self._outbox.read_subscriptions()
        self._read_responders()
        now = monotonic()
        self._pulse_due = now + PULSE_SECONDS
        self._await_turn(now)
        self.report(control.Ready(os.getpid()))

    def engine_lost(self) -> None:
        """The engine is gone: nobody can judge, count or command any more. End at once; the kernel closes the sockets."""
        self.stopped.set()

    def close(self) -> None:
        """Let go of everything; the last reports and traffic events leave."""
        self._send_reports()
        # What is read until the connections are gone finds no turn due.
        self.turn_due = math.inf
        self._loop.remove_reader(self._handoffs.fileno())
        self._loop.remove_reader(self._outbox.fileno())
        self._loop.remove_reader(self._responders.fileno())
        self._responders.close()
        self._outbox.close()
        self._context.term()
        os.close(self._statm)
        if self._turn_timer is not None:
            self._turn_timer.cancel()

    def on_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of ours in a callback. In a connection's it costs that connection, which the transport has closed by
        now; anywhere else the state of the worker is unknown, so that it ends and is replaced.
        """
        self.report(control.LogLine("error", f"{context['message']}: {context.get('exception')!r}"))
        loop.default_exception_handler(context)
        if "protocol" not in context:
            self.has_failed = True
            self.stopped.set()

    def report(self, report: control.Report) -> None:
        """Tell the engine, with all else of this turn of the loop.

        Lifecycle is bounded by the engine's own ledger, so nothing is ever dropped here.
        """
        if not self._reports:
            self._loop.call_soon(self._send_reports)
        self._reports.append(control.encode(report))
        if len(self._reports) >= REPORTS_AT_ONCE:
            self._send_reports()

    def _send_reports(self) -> None:
        if self._reports and self._engine is not None and not self._engine.is_closing():
            self._engine.writelines(self._reports)
        self._reports.clear()

    def command(self, command: control.Command) -> None:
        """Carry out one command."""
        self._COMMANDS[type(command)](self, command)

    # -- handoffs and dials -----------------------------------------------------------------------------------------------

    def _on_handoffs(self) -> None:
        taken = 0
        while taken < HANDOFF_BUDGET:
            try:
                data, fds, _, _ = socket.recv_fds(self._handoffs, control.RECORD_MAX_BYTES, control.HANDOFFS_AT_ONCE)
            except BlockingIOError:
                return
            if not data:
                self.engine_lost()
                return
            record = control.decode_record(data)
            handoffs = record.sockets if isinstance(record, Handoffs) else ()
            taken += len(handoffs)
            for handoff, descriptor in zip(handoffs, fds, strict=False):
                task = self._loop.create_task(self._adopt(handoff, socket.socket(fileno=descriptor)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            for handoff in handoffs[len(fds) :]:
                # The table of descriptors was full: the kernel has closed the sockets, their places must not leak.
                self.report(control.HandoffLost(handoff.session, "the worker is out of file descriptors"))

    async def _adopt(self, handoff: Handoff, sock: socket.socket) -> None:
        setup = Setup(Role.RESPONDER, self._node, self._chain, int(time()), self._inbound, refusal=handoff.refusal)
        connection = self._connection(handoff.session, setup)
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError as error:
            sock.close()
            self._discard(connection)
            self.report(control.HandoffLost(handoff.session, f"the socket could not be adopted: {error}"))

    def _dial(self, command: control.Dial) -> None:
        task = self._loop.create_task(self._connect(command))
        self._dials[command.session] = task
        task.add_done_callback(lambda done: self._on_dialled(command.session, done))

    def _on_dialled(self, session: SessionId, task: asyncio.Task[None]) -> None:
        del self._dials[session]
        if task.cancelled():
            # Told here, not in the coroutine: one that is cancelled before its first step never runs.
            self._dial_failed(session, "the dial was called off", by=EndedBy.US)
        self._heed_drained()

    async def _connect(self, command: control.Dial) -> None:
        started = monotonic()
        family = socket.AF_INET6 if ":" in command.host else socket.AF_INET
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
            async with asyncio.timeout(self._config.connect_seconds):
                await self._loop.sock_connect(sock, (command.host, command.port))
            connection = self._initiator(command, monotonic() - started)
            await self._loop.create_connection(lambda: connection, sock=sock)
        except TimeoutError:
            words = f"no TCP connection within {self._config.connect_seconds:g} s"
            self._dial_failed(command.session, words, severity=Severity.MEDIUM)
        except PeerError as error:
            self._dial_failed(command.session, f"the enode has no valid key: {error}")
        except OSError as error:
            words = os.strerror(error.errno) if error.errno else str(error)
            severity = Severity.HIGH if error.errno == errno.ECONNREFUSED else Severity.MEDIUM
            self._dial_failed(command.session, f"no TCP connection: {words}", severity=severity)
        else:
            sock = None  # the transport's now
            self.report(control.SessionConnected(command.session, connection.local, connection.remote))
        finally:
            if sock is not None:
                sock.close()

    def _initiator(self, command: control.Dial, spent_seconds: float) -> Connection:
        """The dialling side's session. The total of a dial includes the TCP connect: what that took is off the rest."""
        left = self._config.pending_outbound_seconds - spent_seconds
        timeouts = Timeouts(
            handshake=min(self._inbound.handshake, left),
            pending=left,
            ping_interval=self._inbound.ping_interval,
            ping=self._inbound.ping,
        )
        setup = Setup(Role.INITIATOR, self._node, self._chain, int(time()), timeouts, peer=command.peer)
        return self._connection(command.session, setup)

    def _dial_failed(
        self, session: SessionId, cause: str, by: EndedBy = EndedBy.NETWORK, severity: Severity = Severity.LOW
    ) -> None:
        connection = self._connections.get(session)
        if connection is not None and connection.is_made:
            connection.drive(connection.session.connection_lost(cause, by=by))
            connection.abort()
            return
        if connection is not None:
            self._discard(connection)
        self.report(control.SessionClosed(session, by, None, cause, Stage.CONNECT, Traffic(), severity))

    def _discard(self, connection: Connection) -> None:
        """Forget a connection that never came to be: nothing of it is told, and its deadline is nobody's."""
        self._connections.pop(connection.id, None)
        connection.session.connection_lost("never connected")
        connection.deadline = math.inf

    def _connection(self, session_id: SessionId, setup: Setup) -> Connection:
        connection = Connection(session_id, Session(setup, now=monotonic()), self)
        self._connections[session_id] = connection
        self._wheel.enter(connection)
        return connection

    # -- what sessions tell -----------------------------------------------------------------------------------------------

    def on_events(self, connection: Connection, events: list[Event]) -> None:
        """Pass on what a session told."""
        stamp = ""
        for index, event in enumerate(events):
            end: list[Event] | None
            if type(event) is MessageReceived:
                stamp = stamp or _stamp(connection)
                self._publish(event, stamp)
                if event.kind.answer is None:
                    continue
                end = self._on_request(connection, event)
            else:
                end = self._LIFECYCLE[type(event)](self, connection, event)
            if end:
                # What one of them was made us end the session: of those behind it, answers still have their askers.
                answers = [later for later in events[index + 1 :] if isinstance(later, Answered | RequestFailed)]
                self.on_events(connection, [*answers, *end])
                return

    def _publish(self, message: MessageReceived, stamp: str) -> None:
        """Pass a message on to whoever reads its topic."""
        kind = message.kind
        if self._outbox.interest[kind.topic]:
            payload, request_id = message.payload, message.request_id
            end = "}" if request_id is None else f',"request_id":{request_id}}}'
            event = f'{stamp}{len(payload)},"wire_size":{message.wire_bytes},"version":{kind.capability.version}{end}'
            self._outbox.add(kind.topic, event, payload)

    def _on_request(self, connection: Connection, request: MessageReceived) -> list[Event]:
        """Have it answered; gives the end where it was malformed."""
        if len(request.payload) > OFFERED_MAX_BYTES:
            # No responder gets it, and it is too large to wait for anything.
            return self._answer_with_nothing(connection, request)
        if not self._has_room(connection):
            connection.park(request)
            return []
        return self._serve(connection, request)

    def _tap(self, connection: Connection, kind: MessageKind, payload: bytes) -> None:
        """Publish a message of ours to whoever asked for those."""
        if self._outbox.interest[kind.tap]:
            end = "}"
            if kind.role is not MessageRole.ANNOUNCEMENT:
                with suppress(RlpError):  # sent raw, and not what it should be
                    end = f',"request_id":{rlp.first_uint(payload)}}}'
            event = f'{_stamp(connection)}{len(payload)},"version":{kind.capability.version}{end}'
            self._outbox.add(kind.tap, event, payload)

    def _has_room(self, connection: Connection) -> bool:
        """Whether one more request of a peer may be served: few of them wait for answers, few answers for the peer."""
        session = connection.session
        return (
            connection.waiting_requests < self._most_open
            and session.queued_responses < MOST_QUEUED_RESPONSES
            and session.queued_bytes <= self._config.queue_bytes
        )

    def _serve(self, connection: Connection, request: MessageReceived) -> list[Event]:
        """Give a request to a responder, or answer it with nothing; gives the end where it is malformed."""
        if not self._responders.ask(connection.id, connection.peer_hex, request, now=monotonic()):
            return self._answer_with_nothing(connection, request)
        connection.waiting_requests += 1
        self._look_for_answers()
        return []

    def _look_for_answers(self) -> None:
        """ZeroMQ tells of an answer on an edge, which sending swallows: look with the next turn of the loop."""
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_soon(self._read_responders)

    def _read_responders(self) -> None:
        self._is_looking = False
        if self._responders.read():
            self._look_for_answers()

    def _answer_with_nothing(self, connection: Connection, request: MessageReceived) -> list[Event]:
        """The valid empty answer of the request's version and id; gives the end where the request is malformed."""
        try:
            payload = request.kind.empty_answer(request.request_id or 0, request.payload)
        except RlpError as error:
            cause = f"a malformed {request.kind.name}: {error}"
            return connection.session.disconnect(DisconnectReason.PROTOCOL_BREACH, cause, severity=Severity.MEDIUM)
        self._answer(connection, request, payload)
        return []

    def _answer(self, connection: Connection, request: MessageReceived, payload: bytes) -> None:
        kind = connection.session.answer(request, payload)
        if kind is not None:
            self._tap(connection, kind, payload)

    def on_answer(self, session: SessionId, request: MessageReceived, payload: bytes) -> None:
        """A responder's answer goes to the peer that asked."""
        connection = self._connections.get(session)
        if connection is not None:
            self._answer(connection, request, payload)
            self._on_served(connection, [])

    def on_no_answer(self, session: SessionId, request: MessageReceived) -> None:
        """No responder answers: the peer gets what a node sends that has nothing."""
        connection = self._connections.get(session)
        if connection is not None:
            self._on_served(connection, self._answer_with_nothing(connection, request))

    def _on_served(self, connection: Connection, events: list[Event]) -> None:
        """One request less waits: those that are parked have their turn."""
        connection.waiting_requests -= 1
        connection.drive(events)
        self._serve_parked(connection)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back with the next turn of the loop."""
        self._loop.call_soon(callback)

    def on_room(self, connection: Connection) -> None:
        """Responses have left: parked requests have their turn, with the next one of the loop."""
        self._loop.call_soon(self._serve_parked, connection)

    def _serve_parked(self, connection: Connection) -> None:
        connection.is_served_soon = False
        events: list[Event] = []
        while connection.parked and not connection.session.is_closed and self._has_room(connection):
            events += self._serve(connection, connection.unpark())
        if events or connection.session.has_outgoing:
            connection.drive(events)

    def _on_authenticated(self, connection: Connection, event: Authenticated) -> None:
        connection.peer_hex = event.peer.hex()
        self.report(control.SessionAuthenticated(connection.id, event.peer))

    def _on_established(self, connection: Connection, event: Established) -> None:
        hello = event.hello
        self.report(
            control.SessionEstablished(
                session=connection.id,
                client=hello.client,
                capabilities=tuple(map(str, hello.capabilities)),
                shared=tuple(str(item.capability) for item in event.shared),
                listen_port=hello.listen_port,
                local=connection.local,
                chain=_remote_chain(event.status),
                traffic=connection.traffic(),
            )
        )

    def _on_closed(self, connection: Connection, event: Closed) -> None:
        self._connections.pop(connection.id, None)
        self.report(
            control.SessionClosed(
                session=connection.id,
                ended_by=event.ended_by,
                reason=event.reason,
                cause=event.cause,
                stage=event.stage,
                traffic=connection.traffic(),
                severity=event.severity,
            )
        )

    def _on_answered(self, connection: Connection, event: Answered) -> None:
        self.report(control.Answer(self._asker(connection, event.request), event.kind.name, event.payload))

    def _on_request_failed(self, connection: Connection, event: RequestFailed) -> None:
        self.report(control.Reply(self._asker(connection, event.request), event.name, event.words))

    def _asker(self, connection: Connection, request: RequestId) -> CallId:
        """Who waits for this answer; from now on nobody does."""
        call = self._askers.pop((connection.id, request))
        del self._asked[call]
        return call

    def _on_misconduct(self, connection: Connection, event: Misconduct) -> list[Event]:
        connection.misconduct += 1
        count = connection.misconduct
        self.report(control.SessionMisconduct(connection.id, event.conduct, event.words, count))
        is_breach = event.conduct is Conduct.BREACH and self._config.ends_on_breach
        if is_breach or count >= self._config.max_bad_messages:
            cause = event.words if is_breach else f"{count} bad messages, the last: {event.words}"
            return connection.session.disconnect(DisconnectReason.PROTOCOL_BREACH, cause, severity=Severity.MEDIUM)
        return []

    _LIFECYCLE: Final[dict[type, Callable[[Worker, Connection, Any], list[Event] | None]]] = {
        Answered: _on_answered,
        RequestFailed: _on_request_failed,
        Misconduct: _on_misconduct,
        Authenticated: _on_authenticated,
        Established: _on_established,
        Closed: _on_closed,
    }

    def on_deadline_moved(self, connection: Connection) -> None:
        """Heed a deadline that may be nearer."""
        self._wheel.enter(connection)

    def on_goodbye(self, connection: Connection) -> None:
        """Keep the socket of an ended session for its goodbye; beyond the limit the oldest one has had its time."""
        self._goodbyes[connection] = None
        if len(self._goodbyes) > self._config.max_goodbyes:
            oldest = next(iter(self._goodbyes))
            del self._goodbyes[oldest]
            oldest.abort()

    def on_gone(self, connection: Connection) -> None:
        """The socket is closed."""
        self._goodbyes.pop(connection, None)
        self._heed_drained()

    def _heed_drained(self) -> None:
        if self._is_draining and not self._connections and not self._goodbyes and not self._dials:
            self.stopped.set()

    # -- commands ---------------------------------------------------------------------------------------------------------

    def _judge(self, command: control.Judge) -> None:
        connection = self._connections.get(command.session)
        if connection is None:
            return
        session = connection.session
        if command.refusal is None:
            connection.drive(session.admit(now=monotonic()))
        else:
            connection.drive(session.disconnect(command.refusal, command.cause))

    def _disconnect(self, command: control.DisconnectSession) -> None:
        connection = self._connections.get(command.session)
        if connection is not None:
            connection.drive(connection.session.disconnect(command.reason, command.cause))
        elif command.session in self._dials:
            self._dials[command.session].cancel()

    def _send(self, command: control.SendMessage) -> None:
        connection = self._connections.get(command.session)
        if connection is None:
            self.report(control.Reply(command.call, "no_such_session", f"session {command.session} has ended"))
            return
        try:
            kind = connection.session.send(command.capability, command.message, command.payload)
        except UsageError as error:
            self.report(control.Reply(command.call, error.name, str(error)))
        else:
            self._tap(connection, kind, command.payload)
            connection.write()
            self.report(control.Reply(command.call))

    def _broadcast(self, command: control.Broadcast) -> None:
        self._broadcasts.append(command)
        if len(self._broadcasts) == 1:
            task = self._loop.create_task(self._broadcast_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _broadcast_all(self) -> None:
        """One after the other: of two broadcasts every session gets the first one first."""
        while self._broadcasts:
            await self._broadcast_in_slices(self._broadcasts[0])
            self._broadcasts.popleft()

    async def _broadcast_in_slices(self, command: control.Broadcast) -> None:
        """Send to some of them in one turn of the loop, so that the other sessions get theirs."""
        message = Multicast(command.capability, command.message, command.payload)
        refused: dict[int, str] = {}
        step = max(1, BROADCAST_SLICE_BYTES // (len(message.body) + BROADCAST_PEER_BYTES))
        for start in range(0, len(command.sessions), step):
            if start:
                await asyncio.sleep(0)
            refused |= self._send_to_all(command.sessions[start : start + step], message, command.payload)
        self.report(control.Sent(command.call, len(command.sessions) - len(refused), refused))

    def _send_to_all(self, sessions: Sequence[SessionId], message: Multicast, payload: bytes) -> dict[int, str]:
        """Send one message to each; gives those that cannot have it, and why.

        First all is sealed, then all is written: by turns, sealing and the kernel's writing would drive each other from
        the caches, which took a third longer.
        """
        refused: dict[int, str] = {}
        sealed: list[tuple[Connection, bytes]] = []
        for session_id in sessions:
            connection = self._connections.get(session_id)
            if connection is None:
                refused[session_id] = "no_such_session"
                continue
            try:
                kind = connection.session.send_multicast(message)
            except UsageError as error:
                refused[session_id] = error.name
            else:
                self._tap(connection, kind, payload)
                sealed.append((connection, connection.seal()))
        for connection, data in sealed:
            connection.write_sealed(data)
        return refused

    def _ask_peer(self, command: control.AskPeer) -> None:
        connection = self._connections.get(command.session)
        if connection is None:
            self.report(control.Reply(command.call, "no_such_session", f"session {command.session} has ended"))
            return
        try:
            request = connection.session.request(command.capability, command.message, command.payload, now=monotonic())
        except UsageError as error:
            self.report(control.Reply(command.call, error.name, str(error)))
        else:
            if connection.session.shared is not None:
                kind = connection.session.shared.find(command.capability, command.message)
                self._tap(connection, kind, rlp.with_first(command.payload, request))
            self._askers[connection.id, request] = command.call
            self._asked[command.call] = connection.id, request
            connection.drive([])

    def _forget(self, command: control.Forget) -> None:
        """The asker of a request has gone."""
        session, request = self._asked.pop(command.call, (None, None))
        if session is not None and request is not None:
            del self._askers[session, request]
            self._connections[session].session.cancel(request)

    def _ask_sessions(self, command: control.AskSessions) -> None:
        figures: dict[int, tuple[Stage, Traffic, tuple[int, int, str] | None]] = {}
        for session_id in command.sessions:
            connection = self._connections.get(session_id)
            if connection is not None:
                span = connection.session.remote_range
                shown = None if span is None else (span[0], span[1], "0x" + span[2].hex())
                figures[session_id] = (connection.session.stage, connection.traffic(), shown)
        self.report(control.Figures(command.call, figures))

    def _set_head(self, command: control.SetHead) -> None:
        self._chain = msgspec.structs.replace(self._chain, head=command.head)
        self._range.head = command.head
        self.report(control.Reply(command.call))

    def _set_protocols(self, command: control.SetProtocols) -> None:
        self._offer(command.protocols, command.required)
        self.report(control.Reply(command.call))

    def _offer(self, protocols: tuple[SubProtocol, ...], required: tuple[str, ...]) -> None:
        """New handshakes say so in our Hello."""
        capabilities = tuple(item.capability for item in protocols)
        hello = Hello(self._said.client, capabilities, self._said.listen_port, self._node.key.id)
        self._node = msgspec.structs.replace(
            self._node, hello=hello.encode(), protocols=protocols, required=frozenset(required)
        )

    def _drain(self, command: control.Drain) -> None:
        self._is_draining = True
        for task in list(self._dials.values()):
            task.cancel()
        for connection in list(self._connections.values()):
            connection.drive(connection.session.disconnect(command.reason, command.cause, by=EndedBy.ENGINE))
        self._loop.call_later(self.goodbye_seconds + DRAIN_GRACE_SECONDS, self.stopped.set)
        self._heed_drained()

    _COMMANDS: Final[dict[type, Callable[[Worker, Any], None]]] = {
        control.Judge: _judge,
        control.Dial: _dial,
        control.DisconnectSession: _disconnect,
        control.SendMessage: _send,
        control.Broadcast: _broadcast,
        control.AskPeer: _ask_peer,
        control.Forget: _forget,
        control.AskSessions: _ask_sessions,
        control.SetHead: _set_head,
        control.SetProtocols: _set_protocols,
        control.Drain: _drain,
    }

    # -- time -------------------------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Do what is due by time. `turn_due` says when that is.

        Not by its timer alone: with over 1024 readable sockets libuv reads on and on, and looks at no timer meanwhile.
        """
        if self._turn_timer is not None:
            self._turn_timer.cancel()
        self._loop_lag_seconds = max(self._loop_lag_seconds, now - self.turn_due)
        self._await_turn(now)
        self._send_reports()
        self._wheel.turn(now)
        # ZeroMQ tells of new subscriptions on an edge that a send may have swallowed: look anyway.
        self._outbox.read_subscriptions()
        self._read_responders()
        self._responders.expire(now=now)
        if now >= self._pulse_due:
            self._pulse_due = now + PULSE_SECONDS
            self._on_pulse()

    def _await_turn(self, now: float) -> None:
        self.turn_due = now + BUCKET_SECONDS
        self._turn_timer = self._loop.call_later(BUCKET_SECONDS, lambda: self.turn(monotonic()))

    def _on_pulse(self) -> None:
        self.report(
            control.Pulse(
                goodbyes=len(self._goodbyes),
                loop_lag_ms=round(self._loop_lag_seconds * 1000, 3),
                memory_bytes=int(os.pread(self._statm, 128, 0).split()[1]) * PAGE_BYTES,
                dropped_events=self._outbox.dropped_events,
                unanswered=self._responders.unanswered,
            )
        )
        self._loop_lag_seconds = 0.0


def _local_node(configure: Configure, outbox: Outbox, local_range: LocalRange) -> LocalNode:
    return LocalNode(
        key=crypto.PrivateKey(configure.node.key),
        hello=b"",
        protocols=(),
        interest=outbox.interest,
        entropy=os.urandom,
        range=local_range,
        queue_bytes=configure.session.queue_bytes,
    )


def _stamp(connection: Connection) -> str:
    """How the JSON of every message of an active session begins, up to its size; that its peer is known goes with active."""
    return f'{{"time_us":{time_ns() // 1000},"session":{connection.id},"peer":"{connection.peer_hex}","size":'


def _remote_chain(status: Status) -> control.RemoteChain:
    return control.RemoteChain(
        network_id=status.network_id,
        genesis="0x" + status.genesis.hex(),
        fork_hash="0x" + status.fork_id.hash.hex(),
        fork_next=status.fork_id.next,
        head="0x" + status.head.hex(),
        total_difficulty=None if status.total_difficulty is None else str(status.total_difficulty),
        earliest=status.earliest,
        latest=status.latest,
    )
