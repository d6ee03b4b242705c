"""The engine: it owns the ledger and decides; listener, fleet and hub carry out.

Everything here runs on one loop and never blocks. A session begins in `on_accept` or `dial` and ends in `_finish`, once.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic, time_ns
from typing import Any, Final

import msgspec
import structlog

from engine import commands, rpc
from engine.admission import Address, Admission, parse_address
from engine.commands import reason_of
from engine.config import RunDir, host_port
from engine.counter import Direction, Phase, Refusal, SessionCounter, counts
from engine.dialer import Enode, EnodeError, parse_enode
from engine.fleet import Fleet, WorkerProcess
from engine.hub import Envelope, Hub
from engine.listener import Listener
from engine.peers import PeerBook
from engine.rpc import CommandError
from engine.sessions import SessionView
from engine.settings import Settings
from protocol import control, eth, snap
from protocol.control import CallId, Configure, SessionId, Traffic, WorkerId
from protocol.crypto import PrivateKey
from protocol.errors import DisconnectReason, printable
from protocol.events import EndedBy, Stage
from protocol.forkid import Chain, Forks

# A request of a peer has at most 20 s (`protocol.requests`); its worker then says so.
REQUEST_SECONDS: Final = 25.0
# A broadcast of the most bytes that are allowed takes a few seconds.
BROADCAST_SECONDS: Final = 30.0
# A worker answers a call within milliseconds; one that takes this long is stuck.
CALL_SECONDS: Final = 5.0
# Workers load their libraries in about half a second each, two at a time on a small machine.
START_SECONDS: Final = 30.0
# Workers tell how they are once a second; one that is silent for so long hangs, and its sessions with it.
STUCK_SECONDS: Final = 10.0
# A timer this late says that it was the engine that hung.
LATE_SECONDS: Final = 0.4
# Beyond the goodbyes' own deadline, for workers to report and end.
STOP_GRACE_SECONDS: Final = 3.0
PAGE_BYTES: Final = resource.getpagesize()

log = structlog.get_logger()

_Reply = control.Reply | control.Figures | control.Answer | control.Sent


class Identity(msgspec.Struct, frozen=True):
    """Who we are: the node key, the chain, and the engine's version."""

    key: PrivateKey
    chain: Chain
    version: str

    def __repr__(self) -> str:
        return f"Identity({self.key!r}, {self.chain.name})"


class Engine:
    """See the module. `start`, then `wait`; `stop` from a signal or a command ends it."""

    def __init__(self, settings: Settings, identity: Identity, run_dir: RunDir) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._identity = identity
        self._run_dir = run_dir
        self._head = eth.Head(0, identity.chain.genesis)
        # Until a user tells one, the head is a stand-in that Status needs and updates must not announce.
        self._is_head_known = False
        self._forks = Forks(identity.chain)
        self._started_at = monotonic()
        self._counter = SessionCounter(settings.limits, identity.key.id)
        self._admission = Admission(settings.throttle, settings.access)
        self._peers = PeerBook(
            [parse_enode(enode) for enode in settings.peers.static],
            [parse_enode(enode).id for enode in settings.peers.trusted],
        )
        self._second_timer: asyncio.TimerHandle | None = None
        self._views: dict[SessionId, SessionView] = {}
        self._dialing: dict[bytes, SessionId] = {}
        self._outcomes: dict[SessionId, asyncio.Future[control.SessionClosed | None]] = {}
        self._history: deque[dict[str, Any]] = deque(maxlen=settings.control.history)
        self._calls: dict[CallId, tuple[WorkerId, asyncio.Future[_Reply]]] = {}
        self._next_session = 0
        self._next_call = 0
        self._requests: set[asyncio.Task[bytes]] = set()
        self._hub = Hub(run_dir, (settings.control, settings.events), self._loop, self._on_request)
        self._fleet = Fleet(self, self._configure, self._counter.load)
        self._listener: Listener | None = None
        self._listen_host, self._listen_port = "127.0.0.1", 0
        self._registry = commands.registry(self, identity.version)
        self._stopping = asyncio.Event()
        # Kept open: where the table of descriptors is full, it could not be opened.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self.has_failed = False

    # -- life -------------------------------------------------------------------------------------------------------------

    async def start(self, listening: socket.socket | None) -> None:
        """Bind the hub, start the workers, then accept. Raises `OSError` and `zmq.ZMQError`."""
        if listening is not None:
            host, self._listen_port = listening.getsockname()[:2]
            # A node cannot know by itself how others see it: of a wildcard we name the loopback.
            self._listen_host = host if host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104 - compared, not bound
            self._listener = Listener(listening, self._loop, self.on_accept)
        self._hub.start()
        for index in range(self._settings.workers):
            await self._fleet.spawn(WorkerId(index))
        async with asyncio.timeout(START_SECONDS):
            while not all(worker.is_ready for worker in self._fleet):
                if any(worker.is_lost for worker in self._fleet):
                    raise RuntimeError("a worker ended while it was starting")
                await asyncio.sleep(0.01)
        self._heed_listener()
        self._on_second(self._loop.time())

    @property
    def enode(self) -> str:
        """Our own enode URL."""
        return str(Enode(self._identity.key.id, self._listen_host, self._listen_port))

    async def wait(self) -> None:
        """Until somebody stops the engine."""
        await self._stopping.wait()

    def stop(self) -> None:
        """Begin to end."""
        self._stopping.set()

    async def close(self) -> None:
        """Say goodbye to every peer, end the workers, then let go of the sockets."""
        self._stopping.set()
        if self._listener is not None:
            self._listener.close()
        if self._second_timer is not None:
            self._second_timer.cancel()
        drain = control.Drain(DisconnectReason.CLIENT_QUITTING, "the engine is shutting down")
        await self._fleet.retire(drain, self._settings.timeouts.goodbye_s + STOP_GRACE_SECONDS)
        for view in list(self._views.values()):
            self._end(view, EndedBy.ENGINE, "the engine has ended")
        waiting = list(self._requests)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # Their last replies are sent by callbacks, which run with the next turn of the loop.
        await asyncio.sleep(0)
        self._hub.close()
        os.close(self._statm)

    def on_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of ours in a callback: the ledger may be wrong now, so that the engine logs it and ends."""
        log.error(context["message"], exc_info=context.get("exception"))
        self.has_failed = True
        self.stop()

    def kill(self) -> None:
        """End the workers without their goodbyes."""
        self._fleet.is_retiring = True
        for worker in self._fleet:
            worker.kill()

    def reload(self, settings: Settings) -> list[str]:
        """Use what can change while running: limits, throttle, access, log. Gives the keys that need a restart."""
        live = {"limits", "throttle", "access", "log"}
        kept = {name: getattr(self._settings, name) for name in Settings.__struct_fields__ if name not in live}
        self._counter.limits = settings.limits
        self._admission.configure(settings.throttle, settings.access)
        changed = [name for name, value in kept.items() if getattr(settings, name) != value]
        self._settings = msgspec.structs.replace(settings, **kept)
        self._heed_listener()
        self._publish("engine.reloaded", {"needs_restart": changed})
        return changed

    # -- accepts ----------------------------------------------------------------------------------------------------------

    def on_accept(self, sock: socket.socket, host: str, port: int) -> None:
        """Book an accepted socket and pass it to a worker, or refuse it. Our copy is closed in any case."""
        with sock:
            session = self._new_session()
            remote = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            address, now = parse_address(host), monotonic()
            cause = self._admission.admit(session, address, now=now)
            if self._peers.is_banned(address, now=now):
                cause = "the address is banned"
            if cause is not None:
                self._refuse(session, remote, cause)
                return
            # Where anybody is trusted, who this is decides; that is known with the verdict.
            passes_limits = self._peers.has_trusted
            refusal = self._counter.room(Direction.INBOUND, passes_limits=passes_limits)
            if refusal is not None and not self._counter.goodbye_room():
                self._refuse(session, remote, refusal.cause)
                return
            reason = refusal.reason if refusal is not None else None
            worker = self._hand_over(control.Handoff(session, remote, reason), sock)
        if worker is None:
            self._refuse(session, remote, "no worker takes connections")
        elif refusal is not None:
            self._counter.admit_goodbye(session, worker.index)
            self._refuse(session, remote, refusal.cause)
        else:
            self._counter.admit(session, worker.index, Direction.INBOUND, passes_limits=passes_limits)
            view = SessionView(session, worker.index, Direction.INBOUND, remote, _now_us())
            self._views[session] = view
            self._publish_opened(view)
        self._heed_listener()

    def _hand_over(self, handoff: control.Handoff, sock: socket.socket) -> WorkerProcess | None:
        tried: set[WorkerId] = set()
        while (worker := self._fleet.choose(tried)) is not None:
            if worker.hand_over(handoff, sock):
                return worker
            tried.add(worker.index)
        return None

    def _refuse(self, session: SessionId, remote: str, cause: str) -> None:
        self._admission.release(session)
        if self._hub.wants("session.refused"):
            self._publish("session.refused", {"session": session, "peer": None, "remote": remote, "cause": cause})

    def _heed_listener(self) -> None:
        """Accept while there is room among the pending and a worker to pass to; else the kernel's backlog is the queue."""
        if self._listener is None or self._stopping.is_set():
            return
        pending = self._counter.count(Phase.PENDING, Direction.INBOUND)
        if pending < self._counter.limits.max_pending_inbound and self._fleet.is_open:
            self._listener.resume()
        else:
            self._listener.pause()

    # -- reports ----------------------------------------------------------------------------------------------------------

    def on_report(self, worker: WorkerProcess, report: control.Report) -> None:
        """What a worker says."""
        self._REPORTS[type(report)](self, worker, report)

    def on_worker_lost(self, worker: WorkerProcess, cause: str) -> None:
        """Close each of its sessions for it, answer its calls, and replace it."""
        is_expected = self._fleet.is_retiring
        if not is_expected:
            log.error("a worker is lost", worker=worker.index, pid=worker.pid, cause=cause)
        lost = self._counter.of_worker(worker.index)
        for session in lost:
            view = self._views.get(session)
            if view is None:
                self._counter.release(session)
            else:
                self._end(view, EndedBy.WORKER_LOST, f"worker {worker.index} ended: {cause}")
        for call, (index, future) in list(self._calls.items()):
            if index == worker.index and not future.done():
                future.set_result(control.Reply(call, "worker_lost", f"worker {index} ended before it answered"))
        self._publish("worker.lost", {"worker": worker.index, "pid": worker.pid, "cause": cause, "sessions": len(lost)})
        self._fleet.respawn(worker)
        self._heed_listener()

    def _on_ready(self, worker: WorkerProcess, report: control.Ready) -> None:
        if self._is_head_known:
            # It may have been told while this one was starting.
            worker.command(control.SetHead(CallId(0), self._head))
        self._publish("worker.started", {"worker": worker.index, "pid": report.pid})
        self._heed_listener()

    def _on_pulse(self, _worker: WorkerProcess, _report: control.Pulse) -> None:
        """Kept by the worker's process object; `status` shows it."""

    def _on_handoff_lost(self, _worker: WorkerProcess, report: control.HandoffLost) -> None:
        view = self._views.get(report.session)
        if view is None:
            self._counter.release(report.session)
        else:
            self._end(view, EndedBy.ENGINE, report.cause)

    def _on_connected(self, _worker: WorkerProcess, report: control.SessionConnected) -> None:
        view = self._views.get(report.session)
        if view is not None:
            view.local, view.remote, view.stage, view.is_connected = report.local, report.remote, Stage.ACK, True
            self._publish_opened(view)

    def _on_authenticated(self, worker: WorkerProcess, report: control.SessionAuthenticated) -> None:
        view = self._views.get(report.session)
        if view is None:
            return  # a goodbye, or the session has ended
        refusal = self._judge(report.session, report.peer)
        view.peer, view.stage = report.peer, Stage.HELLO
        if refusal is None:
            worker.command(control.Judge(report.session))
        else:
            worker.command(control.Judge(report.session, refusal.reason, refusal.cause))
        if self._hub.wants("session.authenticated"):
            self._publish("session.authenticated", {"session": report.session, "peer": view.peer_hex})

    def _judge(self, session: SessionId, peer: bytes) -> Refusal | None:
        if self._peers.is_banned(peer, now=monotonic()):
            return Refusal(DisconnectReason.DISCONNECT_REQUESTED, "the peer is banned")
        return self._counter.grant(session, peer, passes_limits=self._peers.is_trusted(peer))

    def _on_established(self, _worker: WorkerProcess, report: control.SessionEstablished) -> None:
        view = self._views.get(report.session)
        if view is None or not self._counter.establish(report.session):
            return
        view.establish(report, _now_us())
        self._settle_dial(view, None)
        if self._hub.wants("session.established"):
            self._publish("session.established", view.shown(report.traffic))
        self._heed_listener()

    def _on_closed(self, _worker: WorkerProcess, report: control.SessionClosed) -> None:
        view = self._views.get(report.session)
        if view is not None:
            self._finish(view, report)
        else:
            self._counter.release(report.session)

    def _on_answer(self, _worker: WorkerProcess, report: _Reply) -> None:
        _, future = self._calls.get(report.call, (None, None))
        if future is not None and not future.done():
            future.set_result(report)

    def _on_misconduct(self, _worker: WorkerProcess, report: control.SessionMisconduct) -> None:
        view = self._views.get(report.session)
        topic = f"peer.{report.conduct}"
        if view is not None and self._hub.wants(topic):
            told = {"session": report.session, "peer": view.peer_hex, "cause": report.words, "count": report.count}
            self._publish(topic, told)

    def _on_log(self, worker: WorkerProcess, report: control.LogLine) -> None:
        write = getattr(log, report.level)
        write(printable(report.message), worker=worker.index, session=report.session)

    _REPORTS: Final[dict[type, Callable[[Engine, WorkerProcess, Any], None]]] = {
        control.Ready: _on_ready,
        control.Pulse: _on_pulse,
        control.HandoffLost: _on_handoff_lost,
        control.SessionConnected: _on_connected,
        control.SessionAuthenticated: _on_authenticated,
        control.SessionEstablished: _on_established,
        control.SessionClosed: _on_closed,
        control.Figures: _on_answer,
        control.Answer: _on_answer,
        control.Sent: _on_answer,
        control.SessionMisconduct: _on_misconduct,
        control.Reply: _on_answer,
        control.LogLine: _on_log,
    }

    # -- ends -------------------------------------------------------------------------------------------------------------

    def _end(self, view: SessionView, by: EndedBy, cause: str) -> None:
        """Close a session on behalf of a worker that cannot."""
        self._finish(view, control.SessionClosed(view.session, by, None, cause, view.stage, Traffic()))

    def _finish(self, view: SessionView, closed: control.SessionClosed) -> None:
        """The one end of every session: out of the ledger, told to users."""
        session = view.session
        del self._views[session]
        self._counter.release(session)
        self._admission.release(session)
        now_us = _now_us()
        event: dict[str, Any] = {
            "session": session,
            "peer": view.peer_hex,
            "direction": view.direction,
            "remote": view.remote,
            "worker": view.worker,
            "stage": closed.stage,
            "ended_by": closed.ended_by,
            "reason": closed.reason.label if closed.reason is not None else None,
            "cause": closed.cause,
            "duration_ms": (now_us - view.opened_us) // 1000,
            "bytes_in": closed.traffic.bytes_in,
            "bytes_out": closed.traffic.bytes_out,
            "messages_in": closed.traffic.messages_in,
            "messages_out": closed.traffic.messages_out,
        }
        self._history.append({"time_us": now_us, "client": view.client, **event})
        if view.is_connected:
            self._publish("session.closed", event)
        wait = self._peers.ended(view.peer, now=monotonic()) if view.peer is not None else None
        if view.direction is Direction.OUTBOUND and view.established_us is None:
            failed = {
                "session": session,
                "peer": view.peer_hex,
                "enode": view.enode,
                "cause": closed.cause,
                "next_try_us": None if wait is None else now_us + int(wait * 1_000_000),
            }
            self._publish("dial.failed", failed)
        self._settle_dial(view, closed)
        self._heed_listener()

    def _settle_dial(self, view: SessionView, closed: control.SessionClosed | None) -> None:
        if view.direction is Direction.OUTBOUND and view.peer is not None:
            if self._dialing.get(view.peer) == view.session:
                del self._dialing[view.peer]
            outcome = self._outcomes.pop(view.session, None)
            if outcome is not None and not outcome.done():
                outcome.set_result(closed)

    # -- commands ---------------------------------------------------------------------------------------------------------

    async def status(self, _parameters: commands.NoParameters) -> commands.StatusResult:
        """Version, identity, chain, workers, counts and budgets."""
        chain = self._identity.chain
        head = self._head
        now = time_ns() // 1_000_000_000
        local = eth.LocalChain(chain.network_id, chain.genesis, self._forks, head)
        fork_id = self._forks.at(*local.fork_head(now))
        queues = self._settings.queues
        return commands.StatusResult(
            version=self._identity.version,
            enode=self.enode,
            uptime_ms=int((monotonic() - self._started_at) * 1000),
            chain={
                "name": chain.name,
                "network_id": chain.network_id,
                "genesis": "0x" + chain.genesis.hex(),
                "fork_hash": "0x" + fork_id.hash.hex(),
                "fork_next": fork_id.next,
            },
            head={"number": head.number, "hash": "0x" + head.hash.hex(), "earliest": head.earliest, "time": head.time},
            workers=[self._worker_status(worker) for worker in self._fleet],
            counts=counts(self._counter),
            budgets={
                "peer_write_bytes": queues.peer_write_bytes,
                "worker_command_bytes": queues.worker_command_bytes,
                "queue_batches": self._settings.events.queue_batches,
            },
            run_dir=str(self._run_dir.path),
            memory_bytes=int(os.pread(self._statm, 128, 0).split()[1]) * PAGE_BYTES,
        )

    async def counts(self, _parameters: commands.NoParameters) -> dict[str, Any]:
        """Pending and active sessions by direction, and their limits."""
        return counts(self._counter)

    async def sessions(self, parameters: commands.SessionsParameters) -> commands.SessionsResult:
        """The sessions that match every filter, the oldest first."""
        matching = [view for view in self._views.values() if _matches(view, parameters)]
        shown = matching[: parameters.limit]
        return commands.SessionsResult(await self._with_figures(shown), len(matching))

    async def session(self, parameters: commands.SessionParameters) -> dict[str, Any]:
        """One session."""
        (shown,) = await self._with_figures([self._view(parameters.session)])
        return shown

    async def dial(self, parameters: commands.DialParameters) -> commands.DialResult:
        """Connect to a peer: its session's number at once, or with `wait` the outcome."""
        try:
            enode = parse_enode(parameters.enode)
        except EnodeError as error:
            raise CommandError("invalid_params", f"enode: {error}") from error
        view = self._begin_dial(enode)
        session = view.session
        outcome = self._outcomes[session] = self._loop.create_future()
        if not parameters.wait:
            return commands.DialResult(session)
        closed = await outcome
        if closed is None:
            (shown,) = await self._with_figures([view])
            return commands.DialResult(session, shown)
        name = "worker_lost" if closed.ended_by is EndedBy.WORKER_LOST else "refused"
        reason = f" ({closed.reason.label})" if closed.reason is not None else ""
        raise CommandError(name, f"session {session} ended at {closed.stage} by {closed.ended_by}{reason}: {closed.cause}")

    def _begin_dial(self, enode: Enode) -> SessionView:
        """Book a dial and give it to a worker. Raises `CommandError` where the peer should not be dialled."""
        session = self._new_session()
        worker = self._dial_worker(session, enode)
        view = SessionView(session, worker.index, Direction.OUTBOUND, "", _now_us(), enode.id, str(enode))
        view.remote = str(enode).rpartition("@")[2]
        view.stage, view.is_connected = Stage.CONNECT, False
        self._views[session] = view
        self._dialing[enode.id] = session
        worker.command(control.Dial(session, enode.id, enode.host, enode.port))
        return view

    def _on_second(self, due: float) -> None:
        """Dial the static peers that are due, end workers that are stuck, and look again in a second."""
        now = self._loop.time()
        for worker in self._fleet:
            # Where we were held up ourselves, what the workers have said is still to be read.
            if worker.is_ready and now - worker.heard_at > STUCK_SECONDS and now - due < LATE_SECONDS:
                log.error("a worker is stuck and will be replaced", worker=worker.index, pid=worker.pid)
                worker.kill()
        for enode in self._peers.due(now=monotonic()):
            try:
                self._begin_dial(enode)
            except CommandError as error:
                log.debug("a static peer was not dialled", enode=str(enode), cause=str(error))
        if not self._stopping.is_set():
            self._second_timer = self._loop.call_later(1.0, self._on_second, now + 1.0)

    async def disconnect(self, parameters: commands.DisconnectParameters) -> commands.DoneResult:
        """End one session politely."""
        view = self._view(parameters.session)
        self._disconnect(view, parameters.reason)
        return commands.DoneResult(1)

    async def disconnect_all(self, parameters: commands.DisconnectAllParameters) -> commands.DoneResult:
        """End all sessions politely, those being dialled as well."""
        views = list(self._views.values())
        for view in views:
            self._disconnect(view, parameters.reason)
        return commands.DoneResult(len(views))

    async def send(self, parameters: commands.SendParameters) -> commands.DoneResult:
        """Send one message to one peer, as it is: an RLP payload of a shared capability."""
        worker, session, message, payload = self._outgoing(parameters)
        reply = await self._call(
            worker, lambda call: control.SendMessage(call, session, parameters.capability, message, payload)
        )
        _raise_error(reply)
        return commands.DoneResult(1)

    async def broadcast(self, parameters: commands.BroadcastParameters) -> commands.BroadcastResult:
        """Send one message to every active session that matches: deflated once a worker, sealed for each."""
        message = commands.message_of(parameters)
        payload = commands.payload_of(parameters)
        targets: dict[WorkerId, list[SessionId]] = {}
        for view in self._views.values():
            if view.stage is Stage.ACTIVE and _matches(view, parameters):
                targets.setdefault(view.worker, []).append(view.session)
        refused: dict[str, str] = {}
        total_bytes = len(payload) * sum(map(len, targets.values()))
        if total_bytes > self._settings.queues.broadcast_bytes:
            limit = self._settings.queues.broadcast_bytes
            raise CommandError("queue_full", f"{total_bytes} bytes for all sessions, {limit} are allowed in one broadcast")
        calls: dict[WorkerId, Coroutine[Any, Any, _Reply]] = {}
        for index, sessions in targets.items():
            worker = self._fleet.get(index)
            if worker is None or self._is_command_queue_full(worker, len(payload)):
                name = "worker_lost" if worker is None else "queue_full"
                refused.update((str(session), name) for session in sessions)
            else:
                calls[index] = self._call(
                    worker, _broadcast(parameters.capability, message, payload, tuple(sessions)), BROADCAST_SECONDS
                )
        sent = 0
        for index, answer in zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True):
            if isinstance(answer, control.Sent):
                sent += answer.sent
                refused.update((str(session), name) for session, name in answer.refused.items())
            else:
                name = answer.name if isinstance(answer, CommandError) else "worker_lost"
                refused.update((str(session), name) for session in targets[index])
        return commands.BroadcastResult(sent, refused)

    async def request(self, parameters: commands.RequestParameters) -> commands.AnswerResult:
        """Send one request to one peer and await its answer, or the error by which it has none."""
        worker, session, message, payload = self._outgoing(parameters)
        answer = await self._call(
            worker,
            lambda call: control.AskPeer(call, session, parameters.capability, message, payload),
            REQUEST_SECONDS,
        )
        _raise_error(answer)
        if not isinstance(answer, control.Answer):
            raise TypeError(f"a worker answered a request with {type(answer).__name__}")
        return commands.AnswerResult(answer.message, "0x" + answer.payload.hex())

    async def set_status(self, parameters: commands.SetStatusParameters) -> commands.ConfirmedResult:
        """Announce another head in new handshakes; says which workers have confirmed."""
        if parameters.earliest > parameters.number:
            raise CommandError("invalid_params", f"earliest: {parameters.earliest} is above number {parameters.number}")
        block_hash = bytes.fromhex(parameters.hash.removeprefix("0x"))
        if not any(block_hash):
            raise CommandError("invalid_params", "hash: peers refuse a hash of zeros")
        self._head = eth.Head(
            number=parameters.number,
            hash=block_hash,
            time=parameters.time,
            earliest=parameters.earliest,
            total_difficulty=parameters.total_difficulty,
        )
        self._is_head_known = True
        workers = [worker for worker in self._fleet if worker.is_ready]
        replies = await asyncio.gather(
            *(self._call(worker, lambda call: control.SetHead(call, self._head)) for worker in workers),
            return_exceptions=True,
        )
        confirmed = [
            int(worker.index)
            for worker, reply in zip(workers, replies, strict=True)
            if isinstance(reply, control.Reply) and reply.error is None
        ]
        return commands.ConfirmedResult(confirmed, [int(w.index) for w in self._fleet if w.index not in confirmed])

    async def peers(self, _parameters: commands.NoParameters) -> commands.PeersResult:
        """Static and trusted peers, and bans."""
        now = monotonic()
        return commands.PeersResult(
            [commands.NamedPeer(*row) for row in self._peers.listed(now=now)],
            [commands.Ban(who, round(seconds, 3)) for who, seconds in self._peers.bans(now=now)],
        )

    async def peers_add(self, parameters: commands.AddPeerParameters) -> commands.PeersResult:
        """Name a peer: a static one is dialled at once and kept connected, a trusted one passes the limits."""
        try:
            enode = parse_enode(parameters.enode)
        except EnodeError as error:
            raise CommandError("invalid_params", f"enode: {error}") from error
        self._peers.add(enode, is_static=parameters.static, is_trusted=parameters.trusted)
        return await self.peers(commands.NoParameters())

    async def peers_remove(self, parameters: commands.RemovePeerParameters) -> commands.PeersResult:
        """Forget that a peer is static or trusted; its session goes on."""
        if not self._peers.remove(bytes.fromhex(parameters.peer)):
            raise CommandError("no_such_peer", "the peer is neither static nor trusted")
        return await self.peers(commands.NoParameters())

    async def ban(self, parameters: commands.BanParameters) -> commands.DoneResult:
        """Keep a peer or an address out for a while, and end what it has."""
        if parameters.peer is None and parameters.address is None:
            raise CommandError("invalid_params", "peer or address: one of them is needed")
        try:
            address = None if parameters.address is None else parse_address(parameters.address)
        except ValueError as error:
            raise CommandError("invalid_params", f"address: {error}") from error
        peer = None if parameters.peer is None else bytes.fromhex(parameters.peer)
        for who in (peer, address):
            if who is not None:
                self._peers.ban(who, parameters.seconds, now=monotonic())
        if not parameters.seconds:
            return commands.DoneResult(0)
        ended = [
            view
            for view in self._views.values()
            if (peer is not None and view.peer == peer) or (address is not None and _address(view.remote) == address)
        ]
        for view in ended:
            self._disconnect(view, "disconnect_requested")
        return commands.DoneResult(len(ended))

    async def set_limits(self, parameters: commands.SetLimitsParameters) -> dict[str, Any]:
        """Change limits while running; gives counts and limits."""
        wanted = {name: value for name, value in msgspec.structs.asdict(parameters).items() if value is not None}
        self._counter.limits = msgspec.structs.replace(self._counter.limits, **wanted)
        self._heed_listener()
        return counts(self._counter)

    async def history(self, parameters: commands.HistoryParameters) -> list[dict[str, Any]]:
        """The last ended sessions and attempts, the latest first."""
        return [entry for entry, _ in zip(reversed(self._history), range(parameters.limit), strict=False)]

    async def shutdown(self, _parameters: commands.NoParameters) -> commands.StoppingResult:
        """Say goodbye to every peer and end, as on SIGTERM."""
        self._loop.call_soon(self.stop)
        return commands.StoppingResult(stopping=True)

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _on_request(self, envelope: Envelope, body: bytes, attachments: list[bytes]) -> None:
        task = self._loop.create_task(self._registry.call(body, attachments))
        self._requests.add(task)
        task.add_done_callback(lambda done: self._on_request_done(envelope, done))

    def _on_request_done(self, envelope: Envelope, task: asyncio.Task[bytes]) -> None:
        self._requests.discard(task)
        if task.cancelled():
            self._hub.reply(envelope, rpc.failed(None, rpc.ERROR_CODES["refused"], "the engine is shutting down", "refused"))
            return
        error = task.exception()
        if error is not None:
            log.error("a command failed by a fault of ours", exc_info=error)
            self._hub.reply(
                envelope, rpc.failed(None, rpc.INTERNAL_ERROR, "a fault of the engine; its log says more", "internal")
            )
            return
        self._hub.reply(envelope, task.result())

    def _configure(self, worker: WorkerId) -> Configure:
        settings, identity = self._settings, self._identity
        timeouts, queues, events = settings.timeouts, settings.queues, settings.events
        protocols = [eth.sub_protocol(version) for version in sorted(set(settings.protocols.eth))]
        protocols += [snap.sub_protocol(version) for version in sorted(set(settings.protocols.snap))]
        extra = [text.split("/") for text in settings.protocols.extra]
        return Configure(
            worker=worker,
            node=control.NodeConfig(
                key=identity.key.secret,
                client=settings.protocols.client.replace("{version}", identity.version),
                listen_port=self._listen_port,
                protocols=(
                    *((item.capability.name, item.capability.version, item.messages) for item in protocols),
                    *((name, int(version), int(messages)) for name, version, messages in extra),
                ),
                required=settings.protocols.required,
            ),
            chain=identity.chain,
            head=self._head,
            is_head_known=self._is_head_known,
            session=control.SessionConfig(
                handshake_seconds=timeouts.handshake_s,
                pending_inbound_seconds=timeouts.pending_inbound_s,
                pending_outbound_seconds=timeouts.pending_outbound_s,
                connect_seconds=timeouts.connect_s,
                ping_interval_seconds=timeouts.ping_interval_s,
                ping_seconds=timeouts.ping_s,
                goodbye_seconds=timeouts.goodbye_s,
                max_goodbyes=queues.goodbyes,
                max_bad_messages=settings.conduct.max_bad_messages,
                ends_on_breach=settings.conduct.ends_on_breach,
                write_queue_bytes=queues.peer_write_bytes,
            ),
            outbox=control.OutboxConfig(
                endpoint=self._hub.traffic_endpoint,
                batch_seconds=events.batch_ms / 1000,
                batch_bytes=events.batch_bytes,
                queue_batches=events.queue_batches,
            ),
            responder=control.ResponderConfig(
                endpoint=self._run_dir.endpoint(f"worker-{worker}"),
                seconds=settings.responders.answer_s,
                most_open=settings.responders.most_open,
            ),
        )

    def _dial_worker(self, session: SessionId, enode: Enode) -> WorkerProcess:
        """Book a dial and choose its worker. Raises `CommandError`."""
        if enode.id == self._identity.key.id:
            raise CommandError("refused", "that enode is this very node")
        address, now = parse_address(enode.host), monotonic()
        cause = self._admission.refuse_address(address)
        if self._peers.is_banned(enode.id, now=now) or self._peers.is_banned(address, now=now):
            cause = "the peer or its address is banned"
        if cause is not None:
            raise CommandError("refused", cause)
        existing = self._counter.session_of(enode.id)
        if existing is None:
            existing = self._dialing.get(enode.id)
        if existing is not None:
            raise CommandError("refused", f"the peer has session {existing} already")
        if self._stopping.is_set():
            raise CommandError("refused", "the engine is shutting down")
        worker = self._fleet.choose(set())
        if worker is None:
            raise CommandError("worker_lost", "no worker is ready")
        is_trusted = self._peers.is_trusted(enode.id)
        refusal = self._counter.admit(session, worker.index, Direction.OUTBOUND, passes_limits=is_trusted)
        if refusal is not None:
            raise CommandError("refused", refusal.cause)
        return worker

    def _disconnect(self, view: SessionView, reason: str) -> None:
        worker = self._fleet.get(view.worker)
        if worker is not None:
            worker.command(control.DisconnectSession(view.session, reason_of(reason), "disconnected by command"))

    def _is_command_queue_full(self, worker: WorkerProcess, more_bytes: int) -> bool:
        return worker.queued_command_bytes + more_bytes > self._settings.queues.worker_command_bytes

    def _outgoing(self, parameters: commands.SendParameters) -> tuple[WorkerProcess, SessionId, int, bytes]:
        """Worker, session, message id and payload of one message to one peer. Raises `CommandError`."""
        view = self._view(parameters.session)
        message = commands.message_of(parameters)
        payload = commands.payload_of(parameters)
        worker = self._worker_of(view)
        if self._is_command_queue_full(worker, len(payload)):
            queued = worker.queued_command_bytes
            raise CommandError("queue_full", f"{queued} bytes of commands wait for worker {worker.index}")
        return worker, view.session, message, payload

    def _view(self, number: int) -> SessionView:
        view = self._views.get(SessionId(number))
        if view is None:
            raise CommandError("no_such_session", f"there is no session {number}")
        return view

    def _worker_of(self, view: SessionView) -> WorkerProcess:
        worker = self._fleet.get(view.worker)
        if worker is None:
            raise CommandError("worker_lost", f"worker {view.worker} of session {view.session} has ended")
        return worker

    async def _call(
        self, worker: WorkerProcess, make: Callable[[CallId], control.Command], seconds: float = CALL_SECONDS
    ) -> _Reply:
        """Ask a worker something and await its answer. Raises `CommandError` where none comes in time."""
        self._next_call += 1
        call = CallId(self._next_call)
        future: asyncio.Future[_Reply] = self._loop.create_future()
        self._calls[call] = worker.index, future
        worker.command(make(call))
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError as error:
            raise CommandError("timed_out", f"worker {worker.index} did not answer within {seconds:g} s") from error
        finally:
            del self._calls[call]

    async def _with_figures(self, views: list[SessionView]) -> list[dict[str, Any]]:
        """Session objects with the running figures of their workers; of a worker that does not answer, zeros."""
        asked: dict[WorkerId, list[SessionId]] = {}
        for view in views:
            asked.setdefault(view.worker, []).append(view.session)
        calls: list[Coroutine[Any, Any, _Reply]] = []
        for index, ids in asked.items():
            worker = self._fleet.get(index)
            if worker is not None:
                calls.append(self._call(worker, lambda call, ids=tuple(ids): control.AskSessions(call, ids)))  # type: ignore[misc]
        figures: dict[int, tuple[Stage, Traffic, tuple[int, int, str] | None]] = {}
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, control.Figures):
                figures.update(answer.sessions)
        shown = []
        for view in views:
            stage, traffic, span = figures.get(view.session, (view.stage, Traffic(), None))
            shown.append(view.shown(traffic, stage, span))
        return shown

    def _worker_status(self, worker: WorkerProcess) -> commands.WorkerStatus:
        entries = [self._counter.get(session) for session in self._counter.of_worker(worker.index)]
        pulse = worker.pulse
        return commands.WorkerStatus(
            worker=worker.index,
            pid=worker.pid,
            ready=worker.is_ready,
            pending=sum(1 for entry in entries if entry is not None and entry.phase is Phase.PENDING),
            active=sum(1 for entry in entries if entry is not None and entry.phase is Phase.ACTIVE),
            goodbyes=pulse.goodbyes if pulse else None,
            loop_lag_ms=pulse.loop_lag_ms if pulse else None,
            memory_bytes=pulse.memory_bytes if pulse else None,
            dropped_events=pulse.dropped_events if pulse else None,
            unanswered=pulse.unanswered if pulse else None,
        )

    def _new_session(self) -> SessionId:
        self._next_session += 1
        return SessionId(self._next_session)

    def _publish(self, topic: str, event: dict[str, Any]) -> None:
        if self._hub.wants(topic):
            self._hub.publish(topic, {"time_us": _now_us(), **event})

    def _publish_opened(self, view: SessionView) -> None:
        if self._hub.wants("session.opened"):
            opened = {
                "session": view.session,
                "peer": view.peer_hex,
                "direction": view.direction,
                "remote": view.remote,
                "worker": view.worker,
            }
            self._publish("session.opened", opened)


def _broadcast(
    capability: str, message: int, payload: bytes, sessions: tuple[SessionId, ...]
) -> Callable[[CallId], control.Command]:
    return lambda call: control.Broadcast(call, sessions, capability, message, payload)


def _matches(view: SessionView, wanted: commands.Filter) -> bool:
    phase = "active" if view.stage is Stage.ACTIVE else "pending"
    return (
        wanted.direction in (None, view.direction)
        and wanted.phase in (None, phase)
        and wanted.worker in (None, view.worker)
        and (wanted.peer is None or (view.peer_hex or "").startswith(wanted.peer))
        and (wanted.client is None or wanted.client in (view.client or ""))
        and (wanted.shared is None or wanted.shared in view.shared)
    )


def _address(remote: str) -> Address | None:
    """The IP address of `host:port`; none where a connection is not up yet."""
    host = remote.rpartition(":")[0].removeprefix("[").removesuffix("]")
    return parse_address(host) if host else None


def _raise_error(reply: _Reply) -> None:
    if isinstance(reply, control.Reply) and reply.error is not None:
        raise CommandError(reply.error, reply.message)


def _now_us() -> int:
    return time_ns() // 1000


def listen(address: str) -> socket.socket | None:
    """The listening socket of the `listen` setting, or none where it is empty. Raises `OSError`."""
    return Listener.bind(*host_port(address)) if address else None
