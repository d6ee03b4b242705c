"""Verdicts: whether a peer that has proved its id may become active. Each session gets one, at once or a little later.

A verdict is late if there is no pending place yet, or if it is not yet known whether an older session of the peer lives on.
In a fleet of hosts it is also late until the fleet has given a place, and until no other host has the peer.
Limits are exact because a session becomes active only with the verdict in hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Final

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.hub.announcer import Announcer
from rlpx.engine.intake.room import Room
from rlpx.engine.ledger.counter import NO_LEASE, Refusal
from rlpx.engine.ledger.ledger import Ledger
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction, Stage

# A number that no session has.
_NO_SESSION = SessionId(0)
# A session waits this long for a place of the fleet. Hosts with unused ones give them back within a second.
LEASE_SECONDS: Final = 2.0


class Verdicts:
    """See the module."""

    def __init__(self, ledger: Ledger, fleet: Fleet, room: Room, announcer: Announcer) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._room = room
        self._announcer = announcer
        # By older session: the newer session of the same peer, which waits until it is known whether the older one lives.
        self._waiting: dict[SessionId, SessionId] = {}
        # The sessions that wait for a place in the fleet of hosts, with the end of their patience.
        self._short: dict[SessionId, float] = {}

    def on_keyed(self, view: SessionView) -> None:
        """An accepted peer has sent its whole auth: it takes a pending place, or waits for one."""
        view.stage = Stage.HELLO
        self._ledger.admission.go_on(view.session)
        self._room.take_place(view.session)

    def on_authenticated(self, view: SessionView, peer: bytes) -> None:
        """A session's peer has proved its 64-byte id."""
        view.peer, view.stage = peer, Stage.HELLO
        self._ledger.admission.go_on(view.session)
        if view.direction is Direction.OUTBOUND or self._room.take_place(view.session, is_proved=True):
            self._give(view, peer)

    def give_waiting(self) -> None:
        """Pending places may have come free: those that wait for one take it, and get their verdicts."""
        while (session := self._ledger.counter.waiting) is not None and self._room.take_place(session):
            view = self._ledger.views[session]
            if view.peer is not None:
                self._give(view, view.peer)

    def settle(self, older: SessionId) -> None:
        """An older session is known to live, or has ended: the session that waits for it gets its verdict."""
        view = self._ledger.views.get(self._waiting.pop(older, _NO_SESSION))
        if view is not None and view.peer is not None:
            self._give(view, view.peer, is_final=True)

    def end_rival(self, session: SessionId) -> None:
        """Of two sessions that cross, this one is active now: end the other one."""
        rival = self._ledger.counter.rival_of(session)
        entry = None if rival is None else self._ledger.counter.get(rival)
        if entry is not None:
            cause = f"it crossed session {session} of the same peer, which was established first"
            command = control.DisconnectSession(entry.session, DisconnectReason.ALREADY_CONNECTED, cause)
            self._fleet.tell(entry.worker, command)

    # -- the fleet of hosts -------------------------------------------------------------------------------------------------

    def short_of(self, direction: Direction) -> int:
        """How many sessions wait for a place in the fleet."""
        if not self._short:
            return 0
        views = (self._ledger.views.get(session) for session in self._short)
        return sum(view is not None and view.direction is direction for view in views)

    def on_places(self) -> None:
        """The fleet has given this host places, or taken some: those that wait for one try again, the oldest first."""
        waiting, self._short = self._short, {}
        for session, patience in waiting.items():
            view = self._ledger.views.get(session)
            if view is not None and view.peer is not None:
                self._give(view, view.peer, patience=patience)

    def refuse_short(self, *, now: float) -> None:
        """Refuse the sessions that have waited long enough for a place in the fleet."""
        for session in [session for session, patience in self._short.items() if patience <= now]:
            del self._short[session]
            self.on_refused(session, NO_LEASE)

    def on_admitted(self, sessions: Iterable[SessionId]) -> None:
        """No other host of the fleet has their peers. Each worker gets its verdicts in one write."""
        of_worker: dict[WorkerId, list[control.Command]] = {}
        for session in sessions:
            view = self._ledger.views.get(session)
            if view is not None:
                of_worker.setdefault(view.worker, []).append(control.Verdict(session))
        for index, verdicts in of_worker.items():
            worker = self._fleet.get(index)
            if worker is not None:
                worker.command_all(verdicts)

    def on_refused(self, session: SessionId, refusal: Refusal) -> None:
        """The fleet refuses a session."""
        view = self._ledger.views.get(session)
        if view is not None:
            self._fleet.tell(view.worker, control.Verdict(session, refusal.reason, refusal.cause))
            self._announcer.peer_refused(refusal.reason.label)

    def on_ended(self, session: SessionId) -> None:
        """A session has ended: whoever waits for that gets a verdict, and the fleet its place and its peer."""
        self.settle(session)
        if self._ledger.membership is not None:
            self._short.pop(session, None)
            self._ledger.membership.release(session)

    def _give(self, view: SessionView, peer: bytes, *, is_final: bool = False, patience: float | None = None) -> None:
        """Decide, and tell the session's worker. If the worker is gone, so is the session.

        `patience` is the time until which the session waits for a place in the fleet, if it does so already.
        """
        worker = self._fleet.get(view.worker)
        if worker is None:
            return
        refusal = self._ledger.grant(view.session, peer)
        if refusal is None and self._ledger.membership is not None:
            is_trusted = self._ledger.peers.is_trusted(peer)
            self._ledger.membership.claim(view.session, peer, view.direction, passes_limits=is_trusted)
        elif refusal is None:
            worker.command(control.Verdict(view.session))
        elif refusal is NO_LEASE and self._ledger.membership is not None:
            self._short[view.session] = monotonic() + LEASE_SECONDS if patience is None else patience
            self._ledger.membership.want_place()
        elif refusal.reason is DisconnectReason.ALREADY_CONNECTED and not is_final and self._waits(view.session, peer):
            return  # `settle` gives the verdict
        else:
            worker.command(control.Verdict(view.session, refusal.reason, refusal.cause))
            # Counted by reason, because the cause of a duplicate names the existing session.
            self._announcer.peer_refused(refusal.reason.label)

    def _waits(self, session: SessionId, peer: bytes) -> bool:
        """Whether a session has to wait until it is known whether the peer's older one lives on.

        If the two cross, the peer may have refused the older one. If the older one is active, its peer has to show that
        it is still there: a peer whose machine crashed connects again while we still hold its session, which would keep it
        out until a ping times out. One at a time waits for each session; others are refused at once.
        """
        older = self._ledger.counter.session_of(peer)
        if older is None or older in self._waiting:
            return False
        view = self._ledger.views.get(older)
        crosses = self._ledger.counter.crosses(session, older)
        is_active = view is not None and view.stage is Stage.ACTIVE
        if not crosses and (view is None or not is_active or not self._fleet.tell(view.worker, control.Probe(older))):
            return False
        self._waiting[older] = session
        return True
