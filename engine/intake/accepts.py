"""Accepted connections: each is refused, or booked in the ledger and handed to a worker at the end of the loop iteration.

A refusal books nothing, and a place that could not be used is given back.
"""

from __future__ import annotations

import os
from time import monotonic, time_ns
from typing import Final

import msgspec

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.hub.announcer import Announcer
from rlpx.engine.hub.tally import Refused
from rlpx.engine.intake.listener import Acceptor, Listener
from rlpx.engine.intake.room import Room
from rlpx.engine.ledger.addresses import Address, parse_address
from rlpx.engine.ledger.counter import Phase, Refusal
from rlpx.engine.ledger.ledger import Ledger
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.records import HANDOFFS_AT_ONCE, Handoff, Handoffs
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.rlpx.host_port import format_host_port


class Closed(msgspec.Struct, frozen=True):
    """Why an accepted connection is closed at once."""

    cause: str
    why: Refused


NO_WORKER: Final = Closed("no worker takes connections", Refused.NO_WORKER)


class Accepted(msgspec.Struct, frozen=True):
    """A connection that is booked for a worker. If `refusal` is set, the worker only tells the peer why."""

    session: SessionId
    descriptor: int
    remote: str
    refusal: Refusal | None
    opened_us: int
    opened_at: float


class Accepts(Acceptor):
    """See the module. It also says when the listener accepts: while there is room, and a worker that takes sessions."""

    def __init__(self, ledger: Ledger, fleet: Fleet, room: Room, announcer: Announcer) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._room = room
        self._announcer = announcer
        self._listener: Listener | None = None
        # Connections accepted in this loop iteration, by destination worker.
        self._booked: dict[WorkerId, list[Accepted]] = {}

    # -- the listener -------------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Accept from this listener, from the next `update_listener` on."""
        self._listener = listener

    def update_listener(self) -> None:
        """Accept while there is room for one more and a worker to pass it to; else leave peers in the kernel's queue."""
        if self._listener is None:
            return
        if self._can_accept and self._fleet.is_open:
            self._listener.resume()
        else:
            self._listener.pause()

    def resume(self) -> None:
        """Places may have come free: accept again if the listener is paused and now there is room."""
        if self._listener is not None and self._listener.is_paused:
            self.update_listener()

    def stop(self) -> None:
        """Accept no more connections."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    @property
    def _can_accept(self) -> bool:
        """Whether there is room before the auth, or a session there that makes room."""
        counter = self._ledger.counter
        return counter.has_accept_room or counter.laggard(Phase.UNAUTHENTICATED, now=monotonic()) is not None

    # -- accepted connections -----------------------------------------------------------------------------------------------

    def on_accept(self, descriptor: int, host: str, port: int) -> None:
        """Book an accepted socket for a worker, or refuse it."""
        session = self._ledger.new_session()
        remote = format_host_port(host, port)
        self._announcer.tally.accepted += 1
        worker = self._fleet.choose(set())
        refusal, closed = (None, NO_WORKER) if worker is None else self._book(session, worker, parse_address(host))
        if closed is not None or worker is None:
            os.close(descriptor)
            self._refuse(session, remote, closed or NO_WORKER)
            if worker is None:
                self.update_listener()
            return
        booked = Accepted(session, descriptor, remote, refusal, time_ns() // 1000, monotonic())
        self._booked.setdefault(worker.index, []).append(booked)
        if not self._can_accept:
            self.update_listener()

    def on_accepted(self) -> None:
        """Hand over the connections accepted in this loop iteration; then announce them, in the order in which they came."""
        booked, self._booked = self._booked, {}
        handed: list[tuple[Accepted, WorkerId | None]] = []
        for chosen, accepted in booked.items():
            for start in range(0, len(accepted), HANDOFFS_AT_ONCE):
                some = accepted[start : start + HANDOFFS_AT_ONCE]
                worker = self._hand_over(chosen, some)
                handed += [(item, worker) for item in some]
        handed.sort(key=lambda pair: pair[0].session)
        for item, worker in handed:
            if worker is None:
                self._refuse(item.session, item.remote, NO_WORKER)
            elif item.refusal is not None:
                self._ledger.admission.release(item.session)
                self._announcer.refused(item.session, item.remote, item.refusal.cause, Refused.LIMITS)
            else:
                self._ledger.views[item.session] = SessionView(
                    item.session, worker, Direction.INBOUND, item.remote, item.opened_us, item.opened_at
                )
        if any(worker is None for _, worker in handed):
            self.update_listener()
        if self._announcer.logs_sessions:
            for item, worker in handed:
                if worker is not None and item.refusal is None:
                    self._announcer.opened(item.session, Direction.INBOUND, item.remote, worker)

    def _book(self, session: SessionId, worker: WorkerProcess, address: Address) -> tuple[Refusal | None, Closed | None]:
        """Book an accepted connection; returns the refusal for its worker to send, and why we close it at once, if either.

        Bans, lists and limits are asked first: nobody makes room for a connection that is refused in any case.
        """
        ledger, now = self._ledger, monotonic()
        cause = ledger.refuse_address(address)
        if cause is not None:
            return None, Closed(cause, Refused.ADDRESS)
        refusal = self._refuse_by_limits()
        if refusal is None:
            self._room.make_at(address, now=now)
        cause = ledger.admission.book(session, address, now=now)
        if cause is not None:
            return None, Closed(cause, Refused.THROTTLE)
        if refusal is not None:
            if not ledger.counter.goodbye_room() and not self._room.make(Phase.GOODBYE):
                return None, Closed(refusal.cause, Refused.LIMITS)
            ledger.counter.admit_goodbye(session, worker.index)
            return refusal, None
        if not ledger.counter.has_accept_room:
            self._room.make(Phase.UNAUTHENTICATED)
        # The limit of active sessions was asked above.
        refusal = ledger.counter.admit(session, worker.index, Direction.INBOUND, passes_limits=True)
        return None, None if refusal is None else Closed(refusal.cause, Refused.LIMITS)

    def _refuse_by_limits(self) -> Refusal | None:
        """Why no more connections may be accepted, or nothing; this books nothing."""
        counter = self._ledger.counter
        # If any peer is trusted, the limits are applied at the verdict, when it is known who this is.
        passes_limits = self._ledger.peers.has_trusted
        if self._can_accept:
            return None if passes_limits else counter.active_room(Direction.INBOUND)
        return counter.room(Direction.INBOUND, passes_limits=passes_limits)

    def _hand_over(self, chosen: WorkerId, accepted: list[Accepted]) -> WorkerId | None:
        """Pass sockets to their worker, or else to another, and close our copies; returns the worker that took them."""
        descriptors = [item.descriptor for item in accepted]
        handoffs = Handoffs(
            tuple(
                Handoff(item.session, item.refusal.reason if item.refusal else None, item.remote, item.opened_us)
                for item in accepted
            )
        )
        tried: set[WorkerId] = set()
        worker = self._fleet.get(chosen)
        while worker is not None and not worker.hand_over(handoffs, descriptors):
            tried.add(worker.index)
            worker = self._fleet.choose(tried)
        for descriptor in descriptors:
            os.close(descriptor)
        if worker is None:
            return None
        if worker.index != chosen:
            for item in accepted:
                self._ledger.counter.move(item.session, worker.index)
        return worker.index

    def _refuse(self, session: SessionId, remote: str, closed: Closed) -> None:
        """Unbook a connection that is closed at once, and do not hold its attempt against its address."""
        self._ledger.cancel(session)
        self._announcer.refused(session, remote, closed.cause, closed.why)
