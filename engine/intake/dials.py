"""Dials: which peers we connect to, when, and why not. Dials are booked in the ledger; workers carry them out.

A static peer stays due until it is dialled. As many are dialled as there are places; the others follow when places come
free.
"""

from __future__ import annotations

import asyncio
from time import monotonic, time_ns
from typing import Final, Protocol

import msgspec
import structlog

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.hub.announcer import Announcer
from rlpx.engine.hub.tally import Refused
from rlpx.engine.intake.resolver import LOOKUP_SECONDS, Resolver
from rlpx.engine.ledger.addresses import parse_address
from rlpx.engine.ledger.ledger import Ledger
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionClosed, SessionId, SessionStats, WorkerId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.events import DIAL_FAILED, DialFailed
from rlpx.protocol.bus.sessions import SessionView, ended_session
from rlpx.protocol.errors import DisconnectReason, ErrorName
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage
from rlpx.protocol.rlpx.enode import Endpoint, Enode, EnodeError, check_address

# The number of tried addresses among those that a peer's names resolve to. All are tried at once, each with a descriptor.
MAX_ADDRESSES: Final = 8
# Stands for the number of a session that was never begun; users see null.
_NO_SESSION: Final = SessionId(0)
# In these stages the peer has proved nothing: a dial that hangs here is called off if its peer has moved.
_UNPROVED: Final = frozenset({Stage.CONNECT, Stage.ACK})

log = structlog.get_logger()


class NotDialledError(CommandError):
    """We do not dial a peer. `why` is its kind, for counters."""

    def __init__(self, why: Refused, message: str, name: ErrorName = ErrorName.REFUSED) -> None:
        super().__init__(name, message)
        self.why = why


class DialOwner(Protocol):
    """Whoever ends the session of a dial that no worker knows of yet."""

    def end(self, session: SessionId, by: EndedBy, cause: str) -> None:
        """The dial is over before it reached a worker."""


class Dials:
    """See the module. Set `owner` before the first dial."""

    owner: DialOwner

    def __init__(self, ledger: Ledger, fleet: Fleet, announcer: Announcer) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._announcer = announcer
        self._loop = asyncio.get_running_loop()
        self._is_stopped = False
        self._resolver = Resolver(self._loop)
        # The dial that is under way, by peer.
        self._under_way: dict[bytes, SessionId] = {}
        # The dials whose host names are being resolved; no worker knows of them yet.
        self._resolving: dict[SessionId, asyncio.Task[None]] = {}
        # The dials that were called off because their peer has moved; their ends say nothing about the peer.
        self._called_off: set[SessionId] = set()
        self._outcomes: dict[SessionId, asyncio.Future[SessionClosed | None]] = {}
        self._is_due = False

    # -- one dial -----------------------------------------------------------------------------------------------------------

    def begin(self, enode: Enode) -> SessionView:
        """Book a dial and give it to a worker. Raises `NotDialledError` if the peer must not be dialled, which it counts."""
        try:
            return self._begin(enode)
        except NotDialledError as error:
            self._announcer.tally.not_dialled[error.why.value] += 1
            raise

    def _begin(self, enode: Enode) -> SessionView:
        endpoints = self._allowed(enode)
        session = self._ledger.new_session()
        worker = self._worker(session, enode.id)
        view = SessionView(
            session, worker.index, Direction.OUTBOUND, "", time_ns() // 1000, monotonic(), enode.id, str(enode)
        )
        view.remote, view.stage, view.is_connected = str(endpoints[0]), Stage.CONNECT, False
        self._ledger.views[session] = view
        self._under_way[enode.id] = session
        self._ledger.peers.dialled(enode.id)
        if any(endpoint.is_name for endpoint in endpoints):
            task = self._loop.create_task(self._resolve(view, endpoints), name=f"resolve the names of session {session}")
            self._resolving[session] = task
            task.add_done_callback(lambda _: self._resolving.pop(session, None))
        else:
            self._send(view, worker, [(endpoint.host, endpoint.port) for endpoint in endpoints])
        self._announcer.opened(session, Direction.OUTBOUND, view.remote, worker.index)
        return view

    async def outcome(self, session: SessionId) -> SessionClosed | None:
        """Await the outcome of a dial that has just begun; `None` if its session is established."""
        outcome: asyncio.Future[SessionClosed | None] = self._loop.create_future()
        self._outcomes[session] = outcome
        return await outcome

    def settle(self, view: SessionView, closed: SessionClosed | None) -> bool:
        """A session, perhaps of a dial, is established or has `closed`. Returns whether that says something of the peer."""
        if closed is None:
            self._announcer.established(view)
        if view.direction is Direction.OUTBOUND and view.peer is not None:
            if self._under_way.get(view.peer) == view.session:
                del self._under_way[view.peer]
            outcome = self._outcomes.pop(view.session, None)
            if outcome is not None and not outcome.done():
                outcome.set_result(closed)
            self.dial_due_soon()
        is_called_off = view.session in self._called_off
        if closed is not None:
            self._called_off.discard(view.session)
        return not is_called_off

    def call_off(self, session: SessionId, cause: str) -> bool:
        """End a dial that no worker knows of yet; `False` if it is none."""
        task = self._resolving.get(session)
        if task is None:
            return False
        task.cancel()
        self.owner.end(session, EndedBy.US, cause)
        return True

    def move_from(self, leaving: WorkerId) -> None:
        """A worker leaves: the dials that it does not know of yet go to others."""
        for session in list(self._resolving):
            view = self._ledger.views.get(session)
            heir = self._fleet.choose({leaving})
            if view is not None and view.worker == leaving and heir is not None:
                self._ledger.counter.move(session, heir.index)
                view.worker = heir.index

    def stop(self) -> None:
        """Start no more dials."""
        self._is_stopped = True

    def _allowed(self, enode: Enode) -> list[Endpoint]:
        """The endpoints that may be dialled, host names included. Raises `NotDialledError` if there are none."""
        if enode.id == self._ledger.own_id:
            raise NotDialledError(Refused.SELF, "that enode is this very node")
        if self._ledger.bans.has_peer(enode.id, now=monotonic()):
            raise NotDialledError(Refused.BANNED, "the peer or its address is banned")
        causes = [None if endpoint.is_name else self._refuse(endpoint.host) for endpoint in enode.endpoints]
        endpoints = [endpoint for endpoint, cause in zip(enode.endpoints, causes, strict=True) if cause is None]
        if not endpoints:
            raise NotDialledError(Refused.ADDRESS, causes[0] or "")
        return endpoints

    def _refuse(self, host: str) -> str | None:
        """Why a numeric address may not be dialled, or nothing."""
        try:
            check_address(host)
        except EnodeError as error:
            return str(error)
        address = parse_address(host)
        if self._ledger.bans.has_address(address, now=monotonic()):
            return "the peer or its address is banned"
        return self._ledger.admission.refuse_address(address)

    def _worker(self, session: SessionId, peer: bytes) -> WorkerProcess:
        """Choose a worker for a dial and book it. Raises `NotDialledError`."""
        existing = self._session_of(peer)
        if existing is not None:
            raise NotDialledError(Refused.ALREADY_CONNECTED, f"the peer has session {existing} already")
        if self._is_stopped:
            raise NotDialledError(Refused.STOPPING, "the engine is shutting down")
        worker = self._fleet.choose(set())
        if worker is None:
            raise NotDialledError(Refused.NO_WORKER, "no worker is ready", ErrorName.WORKER_LOST)
        is_trusted = self._ledger.peers.is_trusted(peer)
        refusal = self._ledger.counter.admit(session, worker.index, Direction.OUTBOUND, passes_limits=is_trusted)
        if refusal is not None:
            raise NotDialledError(Refused.LIMITS, refusal.cause)
        return worker

    def _session_of(self, peer: bytes) -> SessionId | None:
        """The session that a peer has, or the dial of it that is under way."""
        session = self._ledger.counter.session_of(peer)
        return self._under_way.get(peer) if session is None else session

    def _send(self, view: SessionView, worker: WorkerProcess, addresses: list[tuple[str, int]]) -> None:
        enode = view.enode or ""
        worker.command(control.Dial(view.session, view.peer or b"", tuple(addresses), enode, view.opened_us))

    async def _resolve(self, view: SessionView, endpoints: list[Endpoint]) -> None:
        """Resolve a dial's host names and give it to its worker, without the addresses that must not be dialled."""
        addresses: list[tuple[str, int]] = []
        failed, refused = "", ""
        for endpoint in endpoints:
            try:
                hosts = await self._resolver.addresses(endpoint.host) if endpoint.is_name else [endpoint.host]
            except TimeoutError:
                failed = f"{endpoint.host} was not resolved within {LOOKUP_SECONDS:g} s"
            except OSError as error:
                failed = f"{endpoint.host} does not resolve: {error.strerror or error}"
            else:
                for host in hosts:
                    cause = self._refuse(host)
                    if cause is None:
                        addresses.append((host, endpoint.port))
                    else:
                        refused = cause
        if view.session not in self._ledger.views:
            return  # its worker has been lost meanwhile
        worker = self._fleet.get(view.worker)
        if worker is None or self._is_stopped:
            self.owner.end(view.session, EndedBy.ENGINE, "the engine is shutting down")
        elif not addresses:
            self.owner.end(view.session, EndedBy.US if refused else EndedBy.NETWORK, refused or failed)
        else:
            self._send(view, worker, addresses[:MAX_ADDRESSES])

    # -- static peers -------------------------------------------------------------------------------------------------------

    def name_peer(self, enode: Enode, *, is_static: bool, is_trusted: bool) -> None:
        """Name a peer. If a static peer has moved, the dial of its old address is called off."""
        is_moved = self._ledger.peers.add(enode, is_static=is_static, is_trusted=is_trusted)
        view = self._ledger.views.get(self._under_way.get(enode.id, _NO_SESSION))
        if is_moved and view is not None and view.stage in _UNPROVED:
            del self._under_way[enode.id]
            self._called_off.add(view.session)
            cause = "the peer has another address now"
            if not self.call_off(view.session, cause):
                reason = DisconnectReason.DISCONNECT_REQUESTED
                self._fleet.tell(view.worker, control.DisconnectSession(view.session, reason, cause))
        self.dial_due_soon()

    def reconsider(self) -> None:
        """Limits, lists or bans have changed: look again at the peers that we have refused to dial."""
        self._ledger.peers.reconsider()
        self.dial_due_soon()

    def dial_due_soon(self) -> None:
        """Dial the static peers that are due, in the next iteration of the loop."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._dial_due)

    def _dial_due(self) -> None:
        self._is_due = False
        counter, peers, now = self._ledger.counter, self._ledger.peers, monotonic()
        peers.waits_for = None
        if self._is_stopped:
            return
        for enode in peers.due(now=now):
            if self._session_of(enode.id) is not None:
                continue
            membership = self._ledger.membership
            if membership is not None and not membership.may_dial(enode.id):
                continue
            if not counter.has_dial_room:
                peers.waits_for = f"all {counter.limits.max_pending_outbound} places for dials are taken"
                return
            try:
                self._begin(enode)
            except NotDialledError as error:
                # It is looked at again and again, and counted once.
                if peers.refused(enode.id, str(error), now=now):
                    self._announcer.tally.not_dialled[error.why.value] += 1
                    self._publish_refused(enode, str(error))

    def _publish_refused(self, enode: Enode, cause: str) -> None:
        """Publish that we have decided not to dial a static peer; callers do so once for each cause."""
        log.debug("a static peer was not dialled", enode=str(enode), cause=cause)
        now_us = time_ns() // 1000
        view = SessionView(_NO_SESSION, WorkerId(0), Direction.OUTBOUND, str(enode.endpoints[0]), now_us, 0.0, enode.id)
        closed = SessionClosed(_NO_SESSION, EndedBy.US, None, cause, Stage.CONNECT, SessionStats())
        ended = msgspec.structs.replace(ended_session(None, view.closed(closed, now_us)), session=None, worker=None)
        self._ledger.history.append(ended)
        failed = DialFailed(
            time_us=now_us,
            session=None,
            peer=view.peer_hex,
            enode=str(enode),
            reason=None,
            cause=cause,
            why_not=cause,
            next_try_us=None,
        )
        self._announcer.publish(DIAL_FAILED, failed)
