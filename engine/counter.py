"""The ledger of every session over all workers, and the limits that it keeps exactly.

A session is entered when it is accepted or dialled (`admit`), reserves its active place with the verdict (`grant`),
takes it when established, and leaves once (`release`). What is counted is a lookup; a second release is harmless.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Final

import msgspec

from engine.settings import LimitSettings
from protocol.control import SessionId, WorkerId
from protocol.errors import DisconnectReason


class Direction(StrEnum):
    """Who opened the connection."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Phase(StrEnum):
    """Before or after the eth Status. A goodbye is neither: it only tells a refused peer why."""

    PENDING = "pending"
    ACTIVE = "active"
    GOODBYE = "goodbye"


class Entry(msgspec.Struct):
    """One session in the ledger. `is_granted`: an active place is reserved for it. `peer` is the proven 64-byte id."""

    session: SessionId
    worker: WorkerId
    direction: Direction
    phase: Phase = Phase.PENDING
    is_granted: bool = False
    peer: bytes | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why a session may not be: the reason for the peer, the cause for us."""

    reason: DisconnectReason
    cause: str


class SessionCounter:
    """See the module. `limits` may be replaced while it runs: sessions over a lowered limit stay."""

    def __init__(self, limits: LimitSettings, own_id: bytes) -> None:
        self.limits = limits
        self._own_id = own_id
        self._entries: dict[SessionId, Entry] = {}
        self._by_peer: dict[bytes, SessionId] = {}
        # Entries by phase and direction, granted ones by direction, and those of each worker: all of them sums over
        # the ledger, kept beside it because they are asked for every accept.
        self._totals: Counter[tuple[Phase, Direction]] = Counter()
        self._reserved: Counter[Direction] = Counter()
        self._of_worker: Counter[tuple[WorkerId, Phase]] = Counter()

    # -- a session's life -------------------------------------------------------------------------------------------------

    def room(self, direction: Direction, *, passes_limits: bool = False) -> Refusal | None:
        """Whether another session may begin, or why not. One that may pass the limits needs a pending place only."""
        maximum, _ = self._maxima(direction)
        if self._totals[Phase.PENDING, direction] >= maximum:
            return Refusal(DisconnectReason.TOO_MANY_PEERS, f"{maximum} {direction} sessions are pending")
        return None if passes_limits else self._active_room(direction)

    def goodbye_room(self) -> bool:
        """Whether one more refused peer may be told why."""
        return self._totals[Phase.GOODBYE, Direction.INBOUND] < self.limits.max_polite_refusals

    def admit(
        self, session: SessionId, worker: WorkerId, direction: Direction, *, passes_limits: bool = False
    ) -> Refusal | None:
        """Enter a new session as pending, or say why it may not be."""
        refusal = self.room(direction, passes_limits=passes_limits)
        if refusal is None:
            self._enter(Entry(session, worker, direction))
        return refusal

    def admit_goodbye(self, session: SessionId, worker: WorkerId) -> None:
        """Enter a refused peer that is told why; `goodbye_room` says whether to."""
        self._enter(Entry(session, worker, Direction.INBOUND, Phase.GOODBYE))

    def move(self, session: SessionId, worker: WorkerId) -> None:
        """Another worker has the session."""
        entry = self._entries[session]
        self._count(entry, -1)
        entry.worker = worker
        self._count(entry, 1)

    def grant(self, session: SessionId, peer: bytes, *, passes_limits: bool = False) -> Refusal | None:
        """Reserve the active place of a session whose peer is proved, or say why there is none. The first session of a
        peer wins, whatever its direction.
        """
        entry = self._entries.get(session)
        if entry is None or entry.phase is not Phase.PENDING or entry.is_granted:
            return None
        if peer == self._own_id:
            return Refusal(DisconnectReason.CONNECTED_TO_SELF, "the peer is this very node")
        if peer in self._by_peer:
            return Refusal(DisconnectReason.ALREADY_CONNECTED, f"the peer has session {self._by_peer[peer]} already")
        refusal = None if passes_limits else self._active_room(entry.direction)
        if refusal is None:
            entry.peer, entry.is_granted = peer, True
            self._by_peer[peer] = session
            self._reserved[entry.direction] += 1
        return refusal

    def establish(self, session: SessionId) -> bool:
        """A granted session is active now; `False` where there is no such session."""
        entry = self._entries.get(session)
        if entry is None or not entry.is_granted:
            return False
        self._count(entry, -1)
        entry.phase = Phase.ACTIVE
        self._count(entry, 1)
        return True

    def release(self, session: SessionId) -> Entry | None:
        """Forget a session and give its places back; a second release is harmless."""
        entry = self._entries.pop(session, None)
        if entry is None:
            return None
        self._count(entry, -1)
        if entry.is_granted and entry.peer is not None:
            self._reserved[entry.direction] -= 1
            del self._by_peer[entry.peer]
        return entry

    # -- lookups ------------------------------------------------------------------------------------------------------------

    def of_worker(self, worker: WorkerId) -> list[SessionId]:
        """The sessions of one worker, the oldest first."""
        return [entry.session for entry in self._entries.values() if entry.worker == worker]

    def get(self, session: SessionId) -> Entry | None:
        """A session's entry."""
        return self._entries.get(session)

    def session_of(self, peer: bytes) -> SessionId | None:
        """The session that a peer has or is about to have."""
        return self._by_peer.get(peer)

    def count(self, phase: Phase, direction: Direction) -> int:
        """Sessions in a phase and direction."""
        return self._totals[phase, direction]

    def load(self, worker: WorkerId) -> tuple[int, int]:
        """What a worker has to do: its pending sessions, and all of them."""
        pending = self._of_worker[worker, Phase.PENDING] + self._of_worker[worker, Phase.GOODBYE]
        return pending, pending + self._of_worker[worker, Phase.ACTIVE]

    def __len__(self) -> int:
        return len(self._entries)

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _maxima(self, direction: Direction) -> tuple[int, int]:
        limits = self.limits
        if direction is Direction.INBOUND:
            return limits.max_pending_inbound, limits.max_active_inbound
        return limits.max_pending_outbound, limits.max_active_outbound

    def _active_room(self, direction: Direction) -> Refusal | None:
        _, maximum = self._maxima(direction)
        if self._reserved[direction] >= maximum:
            return Refusal(DisconnectReason.TOO_MANY_PEERS, f"{maximum} {direction} sessions are active")
        return None

    def _enter(self, entry: Entry) -> None:
        self._entries[entry.session] = entry
        self._count(entry, 1)

    def _count(self, entry: Entry, change: int) -> None:
        self._totals[entry.phase, entry.direction] += change
        self._of_worker[entry.worker, entry.phase] += change


_ORDER: Final = (Direction.INBOUND, Direction.OUTBOUND)


def counts(counter: SessionCounter) -> dict[str, dict[str, int] | dict[str, dict[str, int]]]:
    """The answer to `counts`: pending and active by direction, and the four limits."""
    limits = counter.limits
    shown: dict[str, dict[str, int]] = {
        phase: {direction: counter.count(phase, direction) for direction in _ORDER}
        for phase in (Phase.PENDING, Phase.ACTIVE)
    }
    return {
        **shown,
        "limits": {
            "max_pending_inbound": limits.max_pending_inbound,
            "max_pending_outbound": limits.max_pending_outbound,
            "max_active_inbound": limits.max_active_inbound,
            "max_active_outbound": limits.max_active_outbound,
        },
    }
