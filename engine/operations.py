"""What each command does: it asks the engine's ledger and its workers, and answers in the schemas of `commands.py`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, Final

import msgspec

from engine import commands
from engine.admission import Address, parse_address
from engine.calls import Answer
from engine.commands import reason_of
from engine.counter import Phase, counts
from engine.dialer import EnodeError, parse_enode
from engine.fleet import WorkerProcess
from engine.protocols import parse_sub_protocol
from engine.rpc import CommandError
from engine.sessions import SessionView
from protocol import control, eth
from protocol.control import CallId, SessionId, Traffic, WorkerId
from protocol.events import EndedBy, Stage
from protocol.native import NATIVE
from protocol.p2p import Capability

if TYPE_CHECKING:
    from engine.engine import Engine

# A request of a peer has at most 20 s (`protocol.requests`); its worker then says so.
REQUEST_SECONDS: Final = 25.0
# A broadcast of the most bytes that are allowed takes a few seconds.
BROADCAST_SECONDS: Final = 30.0


class Operations:
    """The commands, on a running engine. Each raises `CommandError` where it cannot be done."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._calls = engine.calls

    async def status(self, _parameters: commands.NoParameters) -> commands.StatusResult:
        """Version, identity, chain, workers, counts and budgets."""
        chain = self._engine.identity.chain
        head = self._engine.head
        now = time_ns() // 1_000_000_000
        local = eth.LocalChain(chain.network_id, chain.genesis, self._engine.forks, head)
        fork_id = self._engine.forks.at(*local.fork_head(now))
        queues = self._engine.settings.queues
        return commands.StatusResult(
            version=self._engine.identity.version,
            compiled=NATIVE is not None,
            pid=os.getpid(),
            enode=self._engine.enode,
            uptime_ms=int((monotonic() - self._engine.started_at) * 1000),
            chain={
                "name": chain.name,
                "network_id": chain.network_id,
                "genesis": "0x" + chain.genesis.hex(),
                "fork_hash": "0x" + fork_id.hash.hex(),
                "fork_next": fork_id.next,
            },
            head={"number": head.number, "hash": "0x" + head.hash.hex(), "earliest": head.earliest, "time": head.time},
            workers=[self._worker_status(worker) for worker in self._engine.fleet],
            counts=counts(self._engine.counter),
            budgets={
                "peer_write_bytes": queues.peer_write_bytes,
                "worker_command_bytes": queues.worker_command_bytes,
                "queue_batches": self._engine.settings.events.queue_batches,
            },
            run_dir=str(self._engine.run_dir.path),
            memory_bytes=self._engine.memory_bytes,
        )

    async def counts(self, _parameters: commands.NoParameters) -> dict[str, Any]:
        """Pending and active sessions by direction, and their limits."""
        return counts(self._engine.counter)

    async def sessions(self, parameters: commands.SessionsParameters) -> commands.SessionsResult:
        """The sessions that match every filter, the oldest first."""
        matching = [view for view in self._engine.views.values() if _matches(view, parameters)]
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
        view = self._engine.begin_dial(enode)
        session = view.session
        if not parameters.wait:
            return commands.DialResult(session)
        closed = await self._engine.outcome(session)
        if closed is None:
            (shown,) = await self._with_figures([view])
            return commands.DialResult(session, shown)
        name = "worker_lost" if closed.ended_by is EndedBy.WORKER_LOST else "refused"
        reason = f" ({closed.reason.label})" if closed.reason is not None else ""
        raise CommandError(name, f"session {session} ended at {closed.stage} by {closed.ended_by}{reason}: {closed.cause}")

    async def disconnect(self, parameters: commands.DisconnectParameters) -> commands.DoneResult:
        """End one session politely."""
        view = self._view(parameters.session)
        self._disconnect(view, parameters.reason)
        return commands.DoneResult(1)

    async def disconnect_all(self, parameters: commands.DisconnectAllParameters) -> commands.DoneResult:
        """End all sessions politely, those being dialled as well."""
        views = list(self._engine.views.values())
        for view in views:
            self._disconnect(view, parameters.reason)
        return commands.DoneResult(len(views))

    async def send(self, parameters: commands.SendParameters) -> commands.DoneResult:
        """Send one message to one peer, as it is: an RLP payload of a shared capability."""
        worker, session, message, payload = self._outgoing(parameters)
        await self._calls.ask(
            worker, lambda call: control.SendMessage(call, session, parameters.capability, message, payload)
        )
        return commands.DoneResult(1)

    async def broadcast(self, parameters: commands.BroadcastParameters) -> commands.BroadcastResult:
        """Send one message to every active session that matches: deflated once a worker, sealed for each."""
        message = commands.message_of(parameters)
        payload = commands.payload_of(parameters)
        targets: dict[WorkerId, list[SessionId]] = {}
        for view in self._engine.views.values():
            if view.stage is Stage.ACTIVE and _matches(view, parameters):
                targets.setdefault(view.worker, []).append(view.session)
        refused: dict[str, str] = {}
        total_bytes = len(payload) * sum(map(len, targets.values()))
        if total_bytes > self._engine.settings.queues.broadcast_bytes:
            limit = self._engine.settings.queues.broadcast_bytes
            raise CommandError("queue_full", f"{total_bytes} bytes for all sessions, {limit} are allowed in one broadcast")
        calls: dict[WorkerId, Coroutine[Any, Any, Answer]] = {}
        for index, sessions in targets.items():
            worker = self._engine.fleet.get(index)
            if worker is None or self._is_command_queue_full(worker, len(payload)):
                name = "worker_lost" if worker is None else "queue_full"
                refused.update((str(session), name) for session in sessions)
            else:
                calls[index] = self._calls.ask(
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
        answer = await self._calls.ask(
            worker,
            lambda call: control.AskPeer(call, session, parameters.capability, message, payload),
            parameters.timeout_s or REQUEST_SECONDS,
        )
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
        head = eth.Head(
            number=parameters.number,
            hash=block_hash,
            time=parameters.time,
            earliest=parameters.earliest,
            total_difficulty=parameters.total_difficulty,
        )
        self._engine.set_head(head)
        return await self._tell_all(lambda call: control.SetHead(call, head))

    async def subprotocols(self, _parameters: commands.NoParameters) -> commands.SubProtocolsResult:
        """What every new Hello offers, and what a peer must share."""
        protocols = self._engine.protocols
        return commands.SubProtocolsResult(
            [commands.NamedSubProtocol(str(item.capability), item.messages, item.limit_bytes) for item in protocols.offered],
            list(protocols.required),
        )

    async def subprotocols_add(self, parameters: commands.AddSubProtocolParameters) -> commands.ConfirmedResult:
        """Offer a sub-protocol in new handshakes; says which workers have confirmed."""
        try:
            sub_protocol = parse_sub_protocol(parameters.protocol)
            self._engine.protocols.add(sub_protocol, is_required=parameters.required)
        except ValueError as error:
            raise CommandError("invalid_params", f"protocol: {error}") from error
        return await self._tell_protocols()

    async def subprotocols_remove(self, parameters: commands.RemoveSubProtocolParameters) -> commands.ConfirmedResult:
        """Offer a sub-protocol no more; says which workers have confirmed."""
        name, _, version = parameters.protocol.partition("/")
        if not self._engine.protocols.remove(Capability(name, int(version))):
            raise CommandError("invalid_params", f"protocol: {parameters.protocol} is none of your own")
        return await self._tell_protocols()

    async def log_level(self, parameters: commands.LogLevelParameters) -> commands.LogLevelResult:
        """Write lines of this level and above from now on."""
        before = self._engine.settings.log.level
        self._engine.set_log_level(parameters.level)
        return commands.LogLevelResult(parameters.level, before)

    async def peers(self, _parameters: commands.NoParameters) -> commands.PeersResult:
        """Static and trusted peers, and bans."""
        now = monotonic()
        return commands.PeersResult(
            [commands.NamedPeer(*row) for row in self._engine.peers.listed(now=now)],
            [commands.Ban(who, round(seconds, 3)) for who, seconds in self._engine.peers.bans(now=now)],
        )

    async def peers_add(self, parameters: commands.AddPeerParameters) -> commands.PeersResult:
        """Name a peer: a static one is dialled at once and kept connected, a trusted one passes the limits."""
        try:
            enode = parse_enode(parameters.enode)
        except EnodeError as error:
            raise CommandError("invalid_params", f"enode: {error}") from error
        self._engine.peers.add(enode, is_static=parameters.static, is_trusted=parameters.trusted)
        return await self.peers(commands.NoParameters())

    async def peers_remove(self, parameters: commands.RemovePeerParameters) -> commands.PeersResult:
        """Forget that a peer is static or trusted; its session goes on."""
        if not self._engine.peers.remove(bytes.fromhex(parameters.peer)):
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
                self._engine.peers.ban(who, parameters.seconds, now=monotonic())
        if not parameters.seconds:
            return commands.DoneResult(0)
        ended = [
            view
            for view in self._engine.views.values()
            if (peer is not None and view.peer == peer) or (address is not None and _address(view.remote) == address)
        ]
        for view in ended:
            self._disconnect(view, "disconnect_requested")
        return commands.DoneResult(len(ended))

    async def set_limits(self, parameters: commands.SetLimitsParameters) -> dict[str, Any]:
        """Change limits while running; gives counts and limits."""
        wanted = {name: value for name, value in msgspec.structs.asdict(parameters).items() if value is not None}
        self._engine.counter.limits = msgspec.structs.replace(self._engine.counter.limits, **wanted)
        self._engine.heed_listener()
        return counts(self._engine.counter)

    async def history(self, parameters: commands.HistoryParameters) -> list[dict[str, Any]]:
        """The last ended sessions and attempts, the latest first."""
        return [entry for entry, _ in zip(reversed(self._engine.history), range(parameters.limit), strict=False)]

    async def shutdown(self, _parameters: commands.NoParameters) -> commands.StoppingResult:
        """Say goodbye to every peer and end, as on SIGTERM."""
        asyncio.get_running_loop().call_soon(self._engine.stop)
        return commands.StoppingResult(stopping=True)

    # -- inside -----------------------------------------------------------------------------------------------------------

    async def _tell_all(self, make: Callable[[CallId], control.Command]) -> commands.ConfirmedResult:
        """Tell every worker the same; which have confirmed it. One that is starting learns it when it is ready."""
        workers = [worker for worker in self._engine.fleet if worker.is_ready]
        replies = await asyncio.gather(*(self._calls.ask(worker, make) for worker in workers), return_exceptions=True)
        confirmed = [
            int(worker.index) for worker, reply in zip(workers, replies, strict=True) if not isinstance(reply, BaseException)
        ]
        missing = [int(worker.index) for worker in self._engine.fleet if worker.index not in confirmed]
        return commands.ConfirmedResult(confirmed, missing)

    async def _tell_protocols(self) -> commands.ConfirmedResult:
        protocols = self._engine.protocols
        offered, required = protocols.offered, protocols.required
        return await self._tell_all(lambda call: control.SetProtocols(call, offered, required))

    def _disconnect(self, view: SessionView, reason: str) -> None:
        worker = self._engine.fleet.get(view.worker)
        if worker is not None:
            worker.command(control.DisconnectSession(view.session, reason_of(reason), "disconnected by command"))

    def _is_command_queue_full(self, worker: WorkerProcess, more_bytes: int) -> bool:
        return worker.queued_command_bytes + more_bytes > self._engine.settings.queues.worker_command_bytes

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
        view = self._engine.views.get(SessionId(number))
        if view is None:
            raise CommandError("no_such_session", f"there is no session {number}")
        return view

    def _worker_of(self, view: SessionView) -> WorkerProcess:
        worker = self._engine.fleet.get(view.worker)
        if worker is None:
            raise CommandError("worker_lost", f"worker {view.worker} of session {view.session} has ended")
        return worker

    async def _with_figures(self, views: list[SessionView]) -> list[dict[str, Any]]:
        """Session objects with the running figures of their workers; of a worker that does not answer, zeros."""
        asked: dict[WorkerId, list[SessionId]] = {}
        for view in views:
            asked.setdefault(view.worker, []).append(view.session)
        calls: list[Coroutine[Any, Any, Answer]] = []
        for index, ids in asked.items():
            worker = self._engine.fleet.get(index)
            if worker is not None:
                calls.append(self._calls.ask(worker, lambda call, ids=tuple(ids): control.AskSessions(call, ids)))  # type: ignore[misc]
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
        entries = [self._engine.counter.get(session) for session in self._engine.counter.of_worker(worker.index)]
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
