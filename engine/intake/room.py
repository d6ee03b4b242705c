"""Makes room for newcomers if a stage of the handshake is full: it ends the session that has said least for longest."""

from __future__ import annotations

from time import monotonic

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.ledger.addresses import Address
from rlpx.engine.ledger.counter import Phase
from rlpx.engine.ledger.ledger import Ledger
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionId


class Room:
    """See the module. The ledger chooses who leaves; the session's worker ends it."""

    def __init__(self, ledger: Ledger, fleet: Fleet) -> None:
        self._ledger = ledger
        self._fleet = fleet

    def make(self, phase: Phase) -> bool:
        """End one session in this phase to free its place; `False` if all of them are going on as they should."""
        session = self._ledger.counter.laggard(phase, now=monotonic())
        if session is None:
            return False
        self._evict(session)
        return True

    def make_at(self, address: Address, *, now: float) -> None:
        """End the sessions that keep this address out because it, or a network it is in, has its full share."""
        while (laggard := self._ledger.admission.laggard(address, now=now)) is not None:
            self._evict(laggard)

    def take_place(self, session: SessionId, *, is_proved: bool = False) -> bool:
        """Give a session whose auth has come a pending place, if need be another session's; returns whether it has one."""
        counter, now = self._ledger.counter, monotonic()
        if counter.take_place(session, now=now, is_proved=is_proved):
            return True
        is_next = counter.waiting == session
        return is_next and self.make(Phase.PENDING) and counter.take_place(session, now=now)

    def _evict(self, session: SessionId) -> None:
        phase, worker = self._ledger.counter.evict(session)
        self._ledger.admission.release(session)
        what = "went no further" if phase is Phase.PENDING else "sent no auth"
        self._fleet.tell(worker, control.MakeRoom(session, f"it {what}, and others needed its place"))
