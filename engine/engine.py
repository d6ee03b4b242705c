"""The engine: it owns the ledger and decides; listener, fleet and hub carry out.

Everything here runs on one loop and never blocks. A session begins in `on_accept` or `begin_dial` and ends in `_finish`,
once.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections import deque
from collections.abc import Callable
from time import monotonic, time_ns
from typing import Any, Final

import msgspec
import structlog

from engine import commands, logs, rpc
from engine.admission import Admission, parse_address
from engine.calls import Answer, Calls
from engine.config import RunDir, host_port
from engine.counter import Direction, Phase, Refusal, SessionCounter
from engine.dialer import Enode, parse_enode
from engine.fleet import Fleet, WorkerProcess
from engine.hub import Envelope, Hub
from engine.identity import Identity
from engine.listener import Listener, ListeningSocket
from engine.operations import Operations
from engine.peers import PeerBook
from engine.protocols import Protocols
from engine.rpc import CommandError
from engine.sessions import SessionView
from engine.settings import Level, Settings
from engine.worker_config import node_config, outbox_config, responder_config, session_config
from protocol import control, eth
from protocol.control import CallId, Configure, SessionId, Traffic, WorkerId
from protocol.errors import DisconnectReason, printable
from protocol.events import EndedBy, Stage
from protocol.forkid import Forks

# Workers load their libraries in about half a second each, two at a time on a small machine.
START_SECONDS: Final = 30.0
# Workers tell how they are once a second; one that is silent for so long hangs, and its sessions with it.
STUCK_SECONDS: Final = 10.0
# A timer this late says that it was the engine that hung.
LATE_SECONDS: Final = 0.4
NO_WORKER: Final = "no worker takes connections"
# Beyond the goodbyes' own deadline, for workers to report and end.
STOP_GRACE_SECONDS: Final = 3.0
_PAGE_BYTES: Final = resource.getpagesize()

log = structlog.get_logger()


class Accepted(msgspec.Struct, frozen=True):
    """A connection that is booked for a worker and about to be handed over. `refusal`: it is only told why not."""

    session: SessionId
    descriptor: int
    remote: str
    refusal: Refusal | None


class Engine:
    """See the module. `start`, then `wait`; `stop` from a signal or a command ends it."""

    def __init__(self, settings: Settings, identity: Identity, run_dir: RunDir) -> None:
        self._loop = asyncio.get_running_loop()
        self.settings = settings
        self.identity = identity
        self.run_dir = run_dir
        self.head = eth.Head(0, identity.chain.genesis)
        # Until a user tells one, the head is a stand-in that Status needs and updates must not announce.
        self._is_head_known = False
        self.forks = Forks(identity.chain)
        self.started_at = monotonic()
        self.counter = SessionCounter(settings.limits, identity.key.id)
        self._admission = Admission(settings.throttle, settings.access)
        self.peers = PeerBook(
            [parse_enode(enode) for enode in settings.peers.static],
            [parse_enode(enode).id for enode in settings.peers.trusted],
        )
        self._second_timer: asyncio.TimerHandle | None = None
        self.views: dict[SessionId, SessionView] = {}
        self._dialing: dict[bytes, SessionId] = {}
        self._outcomes: dict[SessionId, asyncio.Future[control.SessionClosed | None]] = {}
        self.history: deque[dict[str, Any]] = deque(maxlen=settings.control.history)
        self.calls = Calls()
        self.protocols = Protocols(settings.protocols)
        self._next_session = 0
        self._requests: set[asyncio.Task[bytes]] = set()
        self._hub = Hub(run_dir, (settings.control, settings.events), self._loop, self._on_request)
        self.fleet = Fleet(self, self._configure, self.counter.load)
        self._listener: Listener | None = None
        # Of this turn of the loop, by the worker that is to have them.
        self._accepted: dict[WorkerId, list[Accepted]] = {}
        self._listen_host, self._listen_port = "127.0.0.1", 0
        self.operations = Operations(self)
        self._registry = commands.registry(self.operations, identity.version)
        self._stopping = asyncio.Event()
        # Kept open: where the table of descriptors is full, it could not be opened.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self.has_failed = False

    # -- life -------------------------------------------------------------------------------------------------------------

    async def start(self, listening: ListeningSocket | None) -> None:
        """Bind the hub, start the workers, then accept. Raises `OSError` and `zmq.ZMQError`."""
        if listening is not None:
            host, self._listen_port = listening.getsockname()[:2]
            # A node cannot know by itself how others see it: of a wildcard we name the loopback.
            self._listen_host = host if host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104 - compared, not bound
            self._listener = Listener(listening, self._loop, self)
        self._hub.start()
        for index in range(self.settings.workers):
            await self.fleet.spawn(WorkerId(index))
        async with asyncio.timeout(START_SECONDS):
            while not all(worker.is_ready for worker in self.fleet):
                if any(worker.is_lost for worker in self.fleet):
                    raise RuntimeError("a worker ended while it was starting")
                await asyncio.sleep(0.01)
        self.heed_listener()
        self._on_second(self._loop.time())

    @property
    def enode(self) -> str:
        """Our own enode URL."""
        return str(Enode(self.identity.key.id, self._listen_host, self._listen_port))

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
        await self.fleet.retire(drain, self.settings.timeouts.goodbye_s + STOP_GRACE_SECONDS)
        for view in list(self.views.values()):
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
        self.fleet.is_retiring = True
        for worker in self.fleet:
            worker.kill()

    @property
    def memory_bytes(self) -> int:
        """Resident memory of this process."""
        return int(os.pread(self._statm, 128, 0).split()[1]) * _PAGE_BYTES

    def set_log_level(self, level: Level) -> None:
        """Write log lines of this level and above."""
        self.settings = msgspec.structs.replace(self.settings, log=msgspec.structs.replace(self.settings.log, level=level))
        logs.configure(self.settings.log)

    def set_head(self, head: eth.Head) -> None:
        """Announce another head; workers that start from now on are told."""
        self.head, self._is_head_known = head, True

    def reload(self, settings: Settings) -> list[str]:
        """Use what can change while running: limits, throttle, access, log. Gives the keys that need a restart."""
        live = {"limits", "throttle", "access", "log"}
        kept = {name: getattr(self.settings, name) for name in Settings.__struct_fields__ if name not in live}
        self.counter.limits = settings.limits
        self._admission.configure(settings.throttle, settings.access)
        changed = [name for name, value in kept.items() if getattr(settings, name) != value]
        self.settings = msgspec.structs.replace(settings, **kept)
        self.heed_listener()
        self._publish("engine.reloaded", {"needs_restart": changed})
        return changed

    # -- accepts ----------------------------------------------------------------------------------------------------------

    def on_accept(self, descriptor: int, host: str, port: int) -> None:
        """Book an accepted socket for a worker, or refuse it."""
        session = self._new_session()
        remote = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        worker = self.fleet.choose(set())
        # Our own trouble is not held against the address.
        cause = NO_WORKER if worker is None else self._refuse_address(session, host)
        refusal: Refusal | None = None
        if cause is None and worker is not None:
            # Where anybody is trusted, who this is decides; that is known with the verdict.
            passes_limits = self.peers.has_trusted
            refusal = self.counter.admit(session, worker.index, Direction.INBOUND, passes_limits=passes_limits)
            if refusal is not None and self.counter.goodbye_room():
                self.counter.admit_goodbye(session, worker.index)
            elif refusal is not None:
                cause = refusal.cause
        if cause is not None or worker is None:
            os.close(descriptor)
            self._refuse(session, remote, cause or NO_WORKER)
            if worker is None:
                self.heed_listener()
            return
        self._accepted.setdefault(worker.index, []).append(Accepted(session, descriptor, remote, refusal))
        if not self._has_room:
            self.heed_listener()

    def on_accepted(self) -> None:
        """Hand over what was accepted in this turn of the loop; then tell of it, in the order in which it came."""
        booked, self._accepted = self._accepted, {}
        handed: list[tuple[Accepted, WorkerId | None]] = []
        for chosen, accepted in booked.items():
            for start in range(0, len(accepted), control.HANDOFFS_AT_ONCE):
                some = accepted[start : start + control.HANDOFFS_AT_ONCE]
                worker = self._hand_over(chosen, some)
                handed += [(item, worker) for item in some]
        handed.sort(key=lambda pair: pair[0].session)
        for item, worker in handed:
            if worker is None:
                self.counter.release(item.session)
                self._refuse(item.session, item.remote, NO_WORKER)
            elif item.refusal is not None:
                self._refuse(item.session, item.remote, item.refusal.cause)
            else:
                view = SessionView(item.session, worker, Direction.INBOUND, item.remote, _now_us())
                self.views[item.session] = view
                self._publish_opened(view)
        if any(worker is None for _, worker in handed):
            self.heed_listener()

    def _hand_over(self, chosen: WorkerId, accepted: list[Accepted]) -> WorkerId | None:
        """Pass sockets to the worker they are booked for, else to another: to which. Our copies are closed in any case."""
        descriptors = [item.descriptor for item in accepted]
        handoffs = control.Handoffs(
            tuple(control.Handoff(item.session, item.refusal.reason if item.refusal else None) for item in accepted)
        )
        tried: set[WorkerId] = set()
        worker = self.fleet.get(chosen)
        while worker is not None and not worker.hand_over(handoffs, descriptors):
            tried.add(worker.index)
            worker = self.fleet.choose(tried)
        for descriptor in descriptors:
            os.close(descriptor)
        if worker is None:
            return None
        if worker.index != chosen:
            for item in accepted:
                self.counter.move(item.session, worker.index)
        return worker.index

    def _refuse_address(self, session: SessionId, host: str) -> str | None:
        """Why a connection from there is refused, or nothing: then its address has one session more."""
        address, now = parse_address(host), monotonic()
        cause = self._admission.admit(session, address, now=now)
        return "the address is banned" if self.peers.is_banned(address, now=now) else cause

    def _refuse(self, session: SessionId, remote: str, cause: str) -> None:
        self._admission.release(session)
        if self._hub.wants("session.refused"):
            self._publish("session.refused", {"session": session, "peer": None, "remote": remote, "cause": cause})

    def heed_listener(self) -> None:
        """Accept while there is room among the pending and a worker to pass to; else the kernel's backlog is the queue."""
        if self._listener is None or self._stopping.is_set():
            return
        if self._has_room and self.fleet.is_open:
            self._listener.resume()
        else:
            self._listener.pause()

    @property
    def _has_room(self) -> bool:
        return self.counter.count(Phase.PENDING, Direction.INBOUND) < self.counter.limits.max_pending_inbound

    def _heed_room(self) -> None:
        """A pending place may be free again."""
        if self._listener is not None and self._listener.is_paused:
            self.heed_listener()

    # -- reports ----------------------------------------------------------------------------------------------------------

    def on_report(self, worker: WorkerProcess, report: control.Report) -> None:
        """What a worker says."""
        self._REPORTS[type(report)](self, worker, report)

    def on_worker_lost(self, worker: WorkerProcess, cause: str) -> None:
        """Close each of its sessions for it, answer its calls, and replace it."""
        is_expected = self.fleet.is_retiring
        if not is_expected:
            log.error("a worker is lost", worker=worker.index, pid=worker.pid, cause=cause)
        lost = self.counter.of_worker(worker.index)
        for session in lost:
            view = self.views.get(session)
            if view is None:
                self.counter.release(session)
            else:
                self._end(view, EndedBy.WORKER_LOST, f"worker {worker.index} ended: {cause}")
        self.calls.on_worker_lost(worker.index)
        self._publish("worker.lost", {"worker": worker.index, "pid": worker.pid, "cause": cause, "sessions": len(lost)})
        self.fleet.respawn(worker)
        self.heed_listener()

    def _on_ready(self, worker: WorkerProcess, report: control.Ready) -> None:
        # What has changed while it was starting.
        if self._is_head_known:
            worker.command(control.SetHead(CallId(0), self.head))
        if self.protocols.has_changed:
            worker.command(control.SetProtocols(CallId(0), self.protocols.offered, self.protocols.required))
        self._publish("worker.started", {"worker": worker.index, "pid": report.pid})
        self.heed_listener()

    def _on_pulse(self, _worker: WorkerProcess, _report: control.Pulse) -> None:
        """Kept by the worker's process object; `status` shows it."""

    def _on_handoff_lost(self, _worker: WorkerProcess, report: control.HandoffLost) -> None:
        view = self.views.get(report.session)
        if view is None:
            self.counter.release(report.session)
        else:
            self._end(view, EndedBy.ENGINE, report.cause)

    def _on_connected(self, _worker: WorkerProcess, report: control.SessionConnected) -> None:
        view = self.views.get(report.session)
        if view is not None:
            view.local, view.remote, view.stage, view.is_connected = report.local, report.remote, Stage.ACK, True
            self._publish_opened(view)

    def _on_authenticated(self, worker: WorkerProcess, report: control.SessionAuthenticated) -> None:
        view = self.views.get(report.session)
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
        if self.peers.is_banned(peer, now=monotonic()):
            return Refusal(DisconnectReason.DISCONNECT_REQUESTED, "the peer is banned")
        return self.counter.grant(session, peer, passes_limits=self.peers.is_trusted(peer))

    def _on_established(self, _worker: WorkerProcess, report: control.SessionEstablished) -> None:
        view = self.views.get(report.session)
        if view is None or not self.counter.establish(report.session):
            return
        view.establish(report, _now_us())
        if view.peer is not None:
            self.peers.established(view.peer)
        self._settle_dial(view, None)
        if self._hub.wants("session.established"):
            self._publish("session.established", view.shown(report.traffic))
        self._heed_room()

    def _on_closed(self, _worker: WorkerProcess, report: control.SessionClosed) -> None:
        view = self.views.get(report.session)
        if view is not None:
            self._finish(view, report)
        else:
            self.counter.release(report.session)

    def _on_answer(self, _worker: WorkerProcess, report: Answer) -> None:
        self.calls.on_answer(report)

    def _on_misconduct(self, _worker: WorkerProcess, report: control.SessionMisconduct) -> None:
        view = self.views.get(report.session)
        topic = f"peer.{report.conduct}"
        if view is not None and self._hub.wants(topic):
            told = {"session": report.session, "peer": view.peer_hex, "cause": report.words, "count": report.count}
            self._publish(topic, told)

    def _on_log(self, worker: WorkerProcess, report: control.LogLine) -> None:
        write = getattr(log, report.level)
        write(printable(report.message), worker=worker.index)

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
        del self.views[session]
        self.counter.release(session)
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
        self.history.append({"time_us": now_us, "client": view.client, **event})
        if view.is_connected:
            self._publish("session.closed", event)
        wait = None
        # Of an accept that was refused, of a duplicate say, a static peer's own session knows better.
        if view.peer is not None and self.counter.session_of(view.peer) is None:
            wait = self.peers.ended(view.peer, closed.severity, closed.cause, now=monotonic())
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
        self._heed_room()

    def _settle_dial(self, view: SessionView, closed: control.SessionClosed | None) -> None:
        if view.direction is Direction.OUTBOUND and view.peer is not None:
            if self._dialing.get(view.peer) == view.session:
                del self._dialing[view.peer]
            outcome = self._outcomes.pop(view.session, None)
            if outcome is not None and not outcome.done():
                outcome.set_result(closed)

    # -- dials ------------------------------------------------------------------------------------------------------------

    def begin_dial(self, enode: Enode) -> SessionView:
        """Book a dial and give it to a worker. Raises `CommandError` where the peer should not be dialled."""
        session = self._new_session()
        worker = self._dial_worker(session, enode)
        view = SessionView(session, worker.index, Direction.OUTBOUND, "", _now_us(), enode.id, str(enode))
        view.remote = str(enode).rpartition("@")[2]
        view.stage, view.is_connected = Stage.CONNECT, False
        self.views[session] = view
        self._dialing[enode.id] = session
        worker.command(control.Dial(session, enode.id, enode.host, enode.port))
        return view

    async def outcome(self, session: SessionId) -> control.SessionClosed | None:
        """Await the end of a dial that has just begun: `None` where the session is established."""
        outcome: asyncio.Future[control.SessionClosed | None] = self._loop.create_future()
        self._outcomes[session] = outcome
        return await outcome

    def _dial_worker(self, session: SessionId, enode: Enode) -> WorkerProcess:
        """Book a dial and choose its worker. Raises `CommandError`."""
        if enode.id == self.identity.key.id:
            raise CommandError("refused", "that enode is this very node")
        address, now = parse_address(enode.host), monotonic()
        cause = self._admission.refuse_address(address)
        if self.peers.is_banned(enode.id, now=now) or self.peers.is_banned(address, now=now):
            cause = "the peer or its address is banned"
        if cause is not None:
            raise CommandError("refused", cause)
        existing = self.counter.session_of(enode.id)
        if existing is None:
            existing = self._dialing.get(enode.id)
        if existing is not None:
            raise CommandError("refused", f"the peer has session {existing} already")
        if self._stopping.is_set():
            raise CommandError("refused", "the engine is shutting down")
        worker = self.fleet.choose(set())
        if worker is None:
            raise CommandError("worker_lost", "no worker is ready")
        is_trusted = self.peers.is_trusted(enode.id)
        refusal = self.counter.admit(session, worker.index, Direction.OUTBOUND, passes_limits=is_trusted)
        if refusal is not None:
            raise CommandError("refused", refusal.cause)
        return worker

    def _on_second(self, due: float) -> None:
        """Dial the static peers that are due, end workers that are stuck, and look again in a second."""
        now = self._loop.time()
        for worker in self.fleet:
            # Where we were held up ourselves, what the workers have said is still to be read.
            if worker.is_ready and now - worker.heard_at > STUCK_SECONDS and now - due < LATE_SECONDS:
                log.error("a worker is stuck and will be replaced", worker=worker.index, pid=worker.pid)
                worker.kill()
        for enode in self.peers.due(now=monotonic()):
            try:
                self.begin_dial(enode)
            except CommandError as error:
                log.debug("a static peer was not dialled", enode=str(enode), cause=str(error))
        if not self._stopping.is_set():
            self._second_timer = self._loop.call_later(1.0, self._on_second, now + 1.0)

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
        return Configure(
            worker=worker,
            node=node_config(self.settings, self.identity, self._listen_port),
            protocols=self.protocols.offered,
            required=self.protocols.required,
            chain=self.identity.chain,
            head=self.head,
            is_head_known=self._is_head_known,
            session=session_config(self.settings),
            outbox=outbox_config(self.settings, self._hub.traffic_endpoint),
            responder=responder_config(self.settings, self.run_dir, worker),
        )

    def _new_session(self) -> SessionId:
        self._next_session += 1
        return SessionId(self._next_session)

    def _publish(self, topic: str, event: dict[str, Any]) -> None:
        if self._hub.wants(topic):
            self._hub.publish(topic, {"time_us": _now_us(), **event})

    def _publish_opened(self, view: SessionView) -> None:
        if self._hub.wants("session.opened"):
            opened: dict[str, Any] = {
                "time_us": _now_us(),
                "session": view.session,
                "peer": view.peer_hex,
                "direction": view.direction,
                "remote": view.remote,
                "worker": view.worker,
            }
            self._hub.publish("session.opened", opened)


def _now_us() -> int:
    return time_ns() // 1000


def listen(address: str) -> ListeningSocket | None:
    """The listening socket of the `listen` setting, or none where it is empty. Raises `OSError`."""
    return Listener.bind(*host_port(address)) if address else None
