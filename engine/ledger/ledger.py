"""Who is here and who may come: the record of each session, its places, and what is known of addresses and peers.

It decides but does not act: sockets, workers and readers belong to its callers.
"""

from __future__ import annotations

from collections import deque
from time import monotonic

from rlpx.engine.ledger.addresses import Address
from rlpx.engine.ledger.admission import Admission
from rlpx.engine.ledger.bans import Bans
from rlpx.engine.ledger.counter import Refusal, SessionCounter
from rlpx.engine.ledger.membership import Membership
from rlpx.engine.ledger.peers import PeerBook
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.results import EndedSession
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.rlpx.enode import parse_enode


class Ledger:
    """See the module. `own_id` is the 64-byte id of this node."""

    def __init__(self, settings: Settings, own_id: bytes) -> None:
        self.own_id = own_id
        self.counter = SessionCounter(settings.limits, own_id)
        self.admission = Admission(settings.throttle, settings.access)
        self.peers = PeerBook(
            [parse_enode(enode) for enode in settings.peers.static],
            [parse_enode(enode).id for enode in settings.peers.trusted],
        )
        self.bans = Bans()
        # The fleet of hosts that this one is part of, if any.
        self.membership: Membership | None = None
        # Sessions as users see them; a refused peer that is only told why has a place but no view.
        self.views: dict[SessionId, SessionView] = {}
        # The last sessions and attempts that ended, the latest last.
        self.history: deque[EndedSession] = deque(maxlen=settings.control.history)
        self._last_session = 0

    def configure(self, settings: Settings) -> None:
        """Use other limits and lists from now on; sessions over a lowered limit stay."""
        self.counter.limits = settings.limits
        self.admission.configure(settings.throttle, settings.access)

    def new_session(self) -> SessionId:
        """A number that no session of this run has had."""
        self._last_session += 1
        return SessionId(self._last_session)

    def refuse_address(self, address: Address) -> str | None:
        """Why nobody at this address may be connected, or nothing; this books nothing."""
        if self.bans.has_address(address, now=monotonic()):
            return "the address is banned"
        return self.admission.refuse_address(address)

    def grant(self, session: SessionId, peer: bytes) -> Refusal | None:
        """Reserve an active place for a session whose peer has proved its id, or say why there is none."""
        now = monotonic()
        if self.bans.has_peer(peer, now=now):
            return Refusal(DisconnectReason.DISCONNECT_REQUESTED, "the peer is banned")
        return self.counter.grant(session, peer, now=now, passes_limits=self.peers.is_trusted(peer))

    def cancel(self, session: SessionId) -> None:
        """Release a session that we could not serve, and do not hold it against its address."""
        self.admission.cancel(session)
        self.release(session)

    def release(self, session: SessionId) -> None:
        """Forget a session and give its places back; a second release is harmless."""
        self.views.pop(session, None)
        self.counter.release(session)
        self.admission.release(session)
