"""The ledger of every session over all workers, and the limits that it keeps exactly.

A session is entered when it is accepted or dialled (`admit`). An accepted one takes a pending place when its auth arrives
(`take_place`). Every session reserves an active place with its verdict (`grant`), takes it when it is established
(`establish`), and leaves once (`release`). Counts are lookups; a second release is harmless. Times are on a monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import ItemsView
from enum import StrEnum
from typing import Final

import msgspec

from rlpx.engine.ledger.laggards import Laggards
from rlpx.engine.settings.settings import LimitSettings
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.results import CountsResult, DirectionCounts, InboundCount, LimitCounts
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction

# A pending peer that has made no progress for this long may have to make room for a peer that has just sent its auth. An
# honest peer needs one round trip.
PATIENCE_SECONDS: Final = 1.0


class Phase(StrEnum):
    """How far a session is: before the auth, before the eth Status, or after it.

    A goodbye is none of these: a worker only tells a refused peer why. A leaving session has been told to make room.
    """

    UNAUTHENTICATED = "unauthenticated"
    PENDING = "pending"
    ACTIVE = "active"
    GOODBYE = "goodbye"
    LEAVING = "leaving"


class Entry(msgspec.Struct):
    """One session in the ledger. `is_granted`: an active place is reserved for it. `peer` is the proved 64-byte id."""

    session: SessionId
    worker: WorkerId
    direction: Direction
    phase: Phase = Phase.PENDING
    is_granted: bool = False
    peer: bytes | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why a session is refused: the `reason` is for the peer, the `cause` for our users."""

    reason: DisconnectReason
    cause: str


class Leased(msgspec.Struct, frozen=True):
    """The active places of one direction that a fleet of hosts has leased to this one, and those that nobody has leased."""

    here: int = 0
    elsewhere: int = 0


# The fleet may still give us a place.
NO_LEASE: Final = Refusal(DisconnectReason.TOO_MANY_PEERS, "no place in the fleet came free in time")


class SessionCounter:
    """See the module. `limits` may be replaced at any time: sessions over a lowered limit stay.

    If the host is part of a fleet, `leased` has its places by direction, and the limits of active sessions do not apply.
    """

    def __init__(self, limits: LimitSettings, own_id: bytes) -> None:
        self.limits = limits
        self.leased: dict[Direction, Leased] | None = None
        # How often a session was turned away since the fleet has no place, so that the hosts with unused ones hear of it.
        self.turned_away: Counter[Direction] = Counter()
        self._own_id = own_id
        self._entries: dict[SessionId, Entry] = {}
        # The sessions of each peer; it has two if they cross (see `grant`).
        self._by_peer: dict[bytes, tuple[SessionId, ...]] = {}
        # Entries by phase and direction, granted entries by direction, and entries of each worker by phase. All three are
        # sums over the ledger, kept beside it because every accept asks for them.
        self._totals: Counter[tuple[Phase, Direction]] = Counter()
        self._reserved: Counter[Direction] = Counter()
        # Those among the granted entries that pass the limits.
        self._unlimited: dict[Direction, set[SessionId]] = {way: set() for way in Direction}
        self._of_worker: Counter[tuple[WorkerId, Phase]] = Counter()
        # The sessions that may have to make room: accepts that are slow to send an auth, and pending sessions.
        self._laggards = {phase: Laggards() for phase in (Phase.UNAUTHENTICATED, Phase.GOODBYE, Phase.PENDING)}
        # Accepts whose auth arrived while there was no pending place, the oldest first. Those with a proved id go first.
        self._waiting_proved: dict[SessionId, None] = {}
        self._waiting: dict[SessionId, None] = {}

    # -- a session's life -------------------------------------------------------------------------------------------------

    def room(self, direction: Direction, *, passes_limits: bool = False) -> Refusal | None:
        """Why no other session may begin, or nothing. One that may pass the limits needs only a place to begin in."""
        if direction is Direction.INBOUND:
            maximum, what = self.limits.max_unauthenticated, "accepted connections are unauthenticated"
            is_full = not self.has_accept_room
        else:
            maximum, what = self.limits.max_pending_outbound, "outbound sessions are pending"
            is_full = not self.has_dial_room
        if is_full:
            return Refusal(DisconnectReason.TOO_MANY_PEERS, f"{maximum} {what}")
        return None if passes_limits else self.active_room(direction)

    def active_room(self, direction: Direction) -> Refusal | None:
        """Why no other session may become active, or nothing; this reserves nothing."""
        if self.leased is not None:
            return self._fleet_room(self.leased[direction], direction)
        limits = self.limits
        maximum = limits.max_active_inbound if direction is Direction.INBOUND else limits.max_active_outbound
        if self._reserved[direction] >= maximum:
            return Refusal(DisconnectReason.TOO_MANY_PEERS, f"{maximum} {direction} sessions are active")
        return None

    def _fleet_room(self, leased: Leased, direction: Direction) -> Refusal | None:
        if self.limited(direction) >= leased.here + leased.elsewhere:
            self.turned_away[direction] += 1
            return Refusal(DisconnectReason.TOO_MANY_PEERS, f"all {direction} places of the fleet are taken")
        return None

    @property
    def has_accept_room(self) -> bool:
        """Whether one more connection may be accepted without another session making room."""
        return self._totals[Phase.UNAUTHENTICATED, Direction.INBOUND] < self.limits.max_unauthenticated

    @property
    def has_dial_room(self) -> bool:
        """Whether one more dial may begin."""
        return self._totals[Phase.PENDING, Direction.OUTBOUND] < self.limits.max_pending_outbound

    def goodbye_room(self) -> bool:
        """Whether one more refused peer may be told why."""
        return self._totals[Phase.GOODBYE, Direction.INBOUND] < self.limits.max_polite_refusals

    def admit(
        self, session: SessionId, worker: WorkerId, direction: Direction, *, passes_limits: bool = False
    ) -> Refusal | None:
        """Enter a new session, a dial as pending and an accept as unauthenticated, or return why it is refused."""
        refusal = self.room(direction, passes_limits=passes_limits)
        if refusal is None:
            phase = Phase.UNAUTHENTICATED if direction is Direction.INBOUND else Phase.PENDING
            self._enter(Entry(session, worker, direction, phase))
        return refusal

    def admit_goodbye(self, session: SessionId, worker: WorkerId) -> None:
        """Enter a refused peer whose worker tells it why. Ask `goodbye_room` first."""
        self._enter(Entry(session, worker, Direction.INBOUND, Phase.GOODBYE))

    def move(self, session: SessionId, worker: WorkerId) -> None:
        """Record that another worker has the session now."""
        entry = self._entries[session]
        self._count(entry, -1)
        entry.worker = worker
        self._count(entry, 1)

    def stall(self, session: SessionId, *, has_spoken: bool, now: float) -> None:
        """Record that an accepted peer is slow to send its auth: from now on it may have to make room."""
        entry = self._entries.get(session)
        is_waiting = session in self._waiting or session in self._waiting_proved
        if entry is not None and not is_waiting and entry.phase in (Phase.UNAUTHENTICATED, Phase.GOODBYE):
            self._laggards[entry.phase].enter(session, has_spoken=has_spoken, since=now)

    def take_place(self, session: SessionId, *, now: float, is_proved: bool = False) -> bool:
        """Give a pending place to an accepted peer that has sent its auth, or has proved its id.

        Returns whether it has one now. If not, it waits for one.
        """
        entry = self._entries.get(session)
        if entry is None or entry.phase is not Phase.UNAUTHENTICATED:
            return entry is not None and entry.phase is Phase.PENDING
        self._laggards[Phase.UNAUTHENTICATED].leave(session)
        if is_proved:
            self._waiting.pop(session, None)
            self._waiting_proved.setdefault(session)
        elif session not in self._waiting_proved:
            self._waiting.setdefault(session)
        is_full = self._totals[Phase.PENDING, entry.direction] >= self.limits.max_pending_inbound
        if is_full or self.waiting != session:
            return False
        self._stop_waiting(session)
        self._move_to(entry, Phase.PENDING)
        self._laggards[Phase.PENDING].enter(session, has_spoken=False, since=now)
        return True

    @property
    def waiting(self) -> SessionId | None:
        """The session that gets the next pending place."""
        return next(iter(self._waiting_proved), None) or next(iter(self._waiting), None)

    def laggard(self, phase: Phase, *, now: float) -> SessionId | None:
        """The accepted session in this phase that makes room first, or nothing if all of them make progress."""
        return self._laggards[phase].first(now - PATIENCE_SECONDS if phase is Phase.PENDING else now)

    def evict(self, session: SessionId) -> tuple[Phase, WorkerId]:
        """Take a session's place away, because it has to make room. It keeps a reserved active place until its end.

        Returns the phase it was in, and its worker.
        """
        entry = self._entries[session]
        phase = entry.phase
        self._laggards[phase].leave(session)
        self._move_to(entry, Phase.LEAVING)
        return phase, entry.worker

    def grant(self, session: SessionId, peer: bytes, *, now: float, passes_limits: bool = False) -> Refusal | None:
        """Reserve an active place for a session whose peer is proved, or return why it is refused.

        The first session of a peer wins, whatever its direction. Two nodes that dial each other at the same time have two
        sessions that cross, and each node may see a different one first. Then the node with the lower id applies the rule
        above, and the node with the higher id lets both go on and keeps the one that becomes active. A peer that is refused
        because of a crossing session should be told only when that session is active (see `crosses`): a peer without such a
        rule may have decided for the other one.
        """
        entry = self._entries.get(session)
        if entry is None or entry.phase is not Phase.PENDING or entry.is_granted:
            return None
        if peer == self._own_id:
            return Refusal(DisconnectReason.CONNECTED_TO_SELF, "the peer is this very node")
        others = self._by_peer.get(peer, ())
        if others and not (peer < self._own_id and len(others) == 1 and self.crosses(session, others[0])):
            return Refusal(DisconnectReason.ALREADY_CONNECTED, f"the peer has session {others[0]} already")
        refusal = None if passes_limits else self._place(entry.direction)
        if refusal is None:
            entry.peer, entry.is_granted = peer, True
            if passes_limits:
                self._unlimited[entry.direction].add(session)
            self._by_peer[peer] = (*others, session)
            self._reserved[entry.direction] += 1
            if entry.direction is Direction.INBOUND:
                self._laggards[Phase.PENDING].enter(session, has_spoken=True, since=now)
        return refusal

    def _place(self, direction: Direction) -> Refusal | None:
        """Why no active place can be reserved at this moment, or nothing."""
        if self.leased is None:
            return self.active_room(direction)
        return None if self.limited(direction) < self.leased[direction].here else NO_LEASE

    def crosses(self, session: SessionId, other: SessionId) -> bool:
        """Whether each side dialled one of these two sessions of a peer, and neither is active yet."""
        entries = self._entries[session], self._entries[other]
        is_pending = all(entry.phase is Phase.PENDING for entry in entries)
        return is_pending and entries[0].direction is not entries[1].direction

    def establish(self, session: SessionId) -> bool:
        """A granted session is active now; `False` if there is no such session."""
        entry = self._entries.get(session)
        if entry is None or not entry.is_granted:
            return False
        self._laggards[Phase.PENDING].leave(session)
        self._move_to(entry, Phase.ACTIVE)
        return True

    def rival_of(self, session: SessionId) -> SessionId | None:
        """The other session of the same peer, if there is one: the two cross."""
        entry = self._entries.get(session)
        others = self._by_peer.get(entry.peer, ()) if entry is not None and entry.peer is not None else ()
        return next((other for other in others if other != session), None)

    def release(self, session: SessionId) -> Entry | None:
        """Forget a session and give its places back; a second release is harmless."""
        entry = self._entries.pop(session, None)
        if entry is None:
            return None
        self._count(entry, -1)
        self._stop_waiting(session)
        if entry.phase in self._laggards:
            self._laggards[entry.phase].leave(session)
        if entry.is_granted and entry.peer is not None:
            self._reserved[entry.direction] -= 1
            self._unlimited[entry.direction].discard(session)
            left = tuple(other for other in self._by_peer.pop(entry.peer) if other != session)
            if left:
                self._by_peer[entry.peer] = left
        return entry

    # -- lookups ------------------------------------------------------------------------------------------------------------

    def of_worker(self, worker: WorkerId) -> list[SessionId]:
        """The sessions of one worker, the oldest first."""
        return [entry.session for entry in self._entries.values() if entry.worker == worker]

    def get(self, session: SessionId) -> Entry | None:
        """A session's entry."""
        return self._entries.get(session)

    def session_of(self, peer: bytes) -> SessionId | None:
        """The session that a peer has, or that holds its active place."""
        sessions = self._by_peer.get(peer)
        return None if sessions is None else sessions[0]

    def totals(self) -> ItemsView[tuple[Phase, Direction], int]:
        """The sessions in each phase and direction."""
        return self._totals.items()

    def limited(self, direction: Direction) -> int:
        """Active places that are reserved or taken, without those of sessions that pass the limits."""
        return self._reserved[direction] - len(self._unlimited[direction])

    def count(self, phase: Phase, direction: Direction) -> int:
        """Sessions in a phase and direction."""
        return self._totals[phase, direction]

    def count_of(self, worker: WorkerId, phase: Phase) -> int:
        """Sessions of a worker in a phase."""
        return self._of_worker[worker, phase]

    def total_of(self, worker: WorkerId) -> int:
        """All sessions of a worker, in any phase."""
        return sum(self._of_worker[worker, phase] for phase in Phase)

    def load(self, worker: WorkerId) -> tuple[int, int]:
        """How busy a worker is: the number of its pending sessions, and of all its sessions."""
        phases = (Phase.UNAUTHENTICATED, Phase.PENDING, Phase.GOODBYE)
        pending = sum(self._of_worker[worker, phase] for phase in phases)
        return pending, pending + self._of_worker[worker, Phase.ACTIVE]

    def __len__(self) -> int:
        return len(self._entries)

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _enter(self, entry: Entry) -> None:
        self._entries[entry.session] = entry
        self._count(entry, 1)

    def _stop_waiting(self, session: SessionId) -> None:
        self._waiting.pop(session, None)
        self._waiting_proved.pop(session, None)

    def _move_to(self, entry: Entry, phase: Phase) -> None:
        self._count(entry, -1)
        entry.phase = phase
        self._count(entry, 1)

    def _count(self, entry: Entry, change: int) -> None:
        self._totals[entry.phase, entry.direction] += change
        self._of_worker[entry.worker, entry.phase] += change


def counts(counter: SessionCounter) -> CountsResult:
    """The answer to `counts`: accepts before their auth, pending and active sessions by direction, and the limits."""
    limits = counter.limits
    return CountsResult(
        unauthenticated=InboundCount(counter.count(Phase.UNAUTHENTICATED, Direction.INBOUND)),
        pending=_by_direction(counter, Phase.PENDING),
        active=_by_direction(counter, Phase.ACTIVE),
        limits=LimitCounts(
            max_unauthenticated=limits.max_unauthenticated,
            max_pending_inbound=limits.max_pending_inbound,
            max_pending_outbound=limits.max_pending_outbound,
            max_active_inbound=limits.max_active_inbound,
            max_active_outbound=limits.max_active_outbound,
        ),
    )


def _by_direction(counter: SessionCounter, phase: Phase) -> DirectionCounts:
    return DirectionCounts(counter.count(phase, Direction.INBOUND), counter.count(phase, Direction.OUTBOUND))
