"""Peers that the user has named: static peers are kept connected, trusted peers pass the limits.

It knows ids, addresses and times, and dials nobody itself. Times are on a monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from random import random
from typing import Final

import msgspec

from rlpx.protocol.bus.results import NamedPeer
from rlpx.protocol.errors import Severity
from rlpx.protocol.rlpx.enode import Enode

# Wait this long before redialling (reth's low backoff; geth waits 35 s).
REDIAL_SECONDS: Final = 30.0
# Each bad end in a row doubles that: a peer that is restarting is retried soon, one that is gone or useless less and less
# often, up to reth's backoff for an end of this severity.
MAX_REDIAL_SECONDS: Final = {
    Severity.LOW: REDIAL_SECONDS,
    Severity.MEDIUM: 3 * 60.0,
    Severity.HIGH: 15 * 60.0,
    # The peer is on another network, shares nothing with us, or has no use for us: reth bans such a peer.
    Severity.FATAL: 12 * 3600.0,
}
# After this many doublings the wait is at its maximum in any case.
_MAX_DOUBLINGS: Final = 16
# Jitter: a wait may be longer by up to this fraction.
SPREAD: Final = 0.2
# Wait this long before looking again at a peer that we refused to dial, unless the rules that refused it change earlier.
REFUSED_SECONDS: Final = 1.0
# Addresses kept of one peer; the oldest are forgotten.
MAX_ENDPOINTS: Final = 8


class StaticPeer(msgspec.Struct):
    """A peer to keep connected: its addresses, when it may be dialled next, and how its last session or attempt ended.

    `bad_ends` counts the ends worse than low since its last establishment. Fatal ends count until one of its sessions ends
    otherwise: a peer that tells us in each session that we are useless has not improved by being established. `why_not`
    says why we do not dial it although it is due; that is not asked again before `refused_until`.
    """

    enode: Enode
    next_try_at: float = 0.0
    bad_ends: int = 0
    is_established: bool = False
    is_unforgiven: bool = False
    last_end: str | None = None
    why_not: str | None = None
    refused_until: float = 0.0


def _joined(enode: Enode, known: Enode) -> Enode:
    """All addresses of two enodes of one peer, those of the first enode first."""
    return Enode(enode.id, tuple(dict.fromkeys((*enode.endpoints, *known.endpoints)))[:MAX_ENDPOINTS])


class PeerBook:
    """See the module."""

    def __init__(
        self, static: Iterable[Enode] = (), trusted: Iterable[bytes] = (), draw: Callable[[], float] = random
    ) -> None:
        # Returns a random number from 0 to 1.
        self._draw = draw
        self._static: dict[bytes, StaticPeer] = {}
        for enode in static:
            known = self._static.get(enode.id)
            self._static[enode.id] = StaticPeer(enode if known is None else _joined(known.enode, enode))
        # The reason why no static peer at all is dialled now.
        self.waits_for: str | None = None
        self._trusted = set(trusted)

    def add(self, enode: Enode, *, is_static: bool, is_trusted: bool) -> bool:
        """Name a peer. Its earlier roles remain, and so do its other addresses, after the new ones.

        Returns whether it is a static peer for which one of these addresses is new.
        """
        is_moved = False
        if is_static:
            known = self._static.get(enode.id)
            is_moved = known is not None and not set(enode.endpoints) <= set(known.enode.endpoints)
            self._static[enode.id] = StaticPeer(enode if known is None else _joined(enode, known.enode))
        if is_trusted:
            self._trusted.add(enode.id)
        return is_moved

    def remove(self, peer: bytes) -> bool:
        """Forget that a peer was static or trusted; `False` if it was neither."""
        was_static = self._static.pop(peer, None) is not None
        was_trusted = peer in self._trusted
        self._trusted.discard(peer)
        return was_static or was_trusted

    def is_trusted(self, peer: bytes) -> bool:
        """Whether the limits do not apply to this peer."""
        return peer in self._trusted

    def is_static(self, peer: bytes) -> bool:
        """Whether this peer is to be kept connected."""
        return peer in self._static

    @property
    def has_trusted(self) -> bool:
        """Whether any peer is trusted: then an accept over the limit may be a peer that passes it."""
        return bool(self._trusted)

    def due(self, *, now: float) -> list[Enode]:
        """The static peers that may be dialled now, including connected ones. They stay due until they are `dialled`."""
        return [peer.enode for peer in self._static.values() if peer.next_try_at <= now and peer.refused_until <= now]

    def dialled(self, peer: bytes) -> None:
        """A dial of this peer has begun. It is due again after that dial, or the session it leads to, has ended."""
        static = self._static.get(peer)
        if static is not None:
            static.next_try_at, static.why_not = math.inf, None

    def refused(self, peer: bytes, cause: str, *, now: float) -> bool:
        """Record that we do not dial this static peer although it is due. Returns whether the cause is new."""
        static = self._static.get(peer)
        if static is None:
            return False
        is_new = static.why_not != cause
        static.why_not, static.refused_until = cause, now + REFUSED_SECONDS
        return is_new

    def reconsider(self) -> None:
        """The rules by which peers were refused may have changed: look at all of them again."""
        for static in self._static.values():
            static.refused_until = 0.0

    def established(self, peer: bytes) -> None:
        """A session of this peer is active: its earlier ends are forgiven, unless they were fatal."""
        static = self._static.get(peer)
        if static is not None:
            static.last_end, static.why_not, static.is_established = None, None, True
            if not static.is_unforgiven:
                static.bad_ends = 0

    def ended(self, peer: bytes, severity: Severity, cause: str, *, now: float) -> float | None:
        """A session of this peer, or an attempt, has ended. Returns the delay in seconds before the next attempt.

        Returns `None` if the peer is not static. A static peer that is trusted as well never waits for long.
        """
        static = self._static.get(peer)
        if static is None:
            return None
        if peer in self._trusted:
            severity = Severity.LOW
        if severity is Severity.FATAL:
            static.is_unforgiven = True
        elif static.is_established and static.is_unforgiven:
            static.is_unforgiven, static.bad_ends = False, 0
        static.is_established = False
        wait = min(REDIAL_SECONDS * 2.0**static.bad_ends, MAX_REDIAL_SECONDS[severity])
        # Each of its addresses gets its turn.
        first, *others = static.enode.endpoints
        static.enode = Enode(static.enode.id, (*others, first))
        if severity is not Severity.LOW:
            static.bad_ends = min(static.bad_ends + 1, _MAX_DOUBLINGS)
        # Two nodes that have named each other must not dial at the same moment again and again: each would refuse the other.
        wait *= 1 + SPREAD * self._draw()
        static.next_try_at, static.last_end = now + wait, cause
        return wait

    def states(self, *, now: float) -> tuple[dict[str, int], float | None]:
        """How many static peers are busy (connected or being dialled), wait, are due, or are due and refused; then the time
        in seconds until the next of those that wait is due.
        """
        states = dict.fromkeys(("busy", "waiting", "due", "refused"), 0)
        next_at = math.inf
        for peer in self._static.values():
            if peer.next_try_at == math.inf:
                states["busy"] += 1
            elif peer.next_try_at > now:
                states["waiting"] += 1
                next_at = min(next_at, peer.next_try_at)
            else:
                states["due" if peer.why_not is None else "refused"] += 1
        return states, None if next_at == math.inf else next_at - now

    def listed(self, *, now: float) -> list[NamedPeer]:
        """Each named peer, static ones first."""
        static = [
            NamedPeer(
                peer=str(peer.enode),
                static=True,
                trusted=peer.enode.id in self._trusted,
                # A peer that is connected or being dialled has no next attempt.
                next_try_s=None if peer.next_try_at == math.inf else max(0.0, peer.next_try_at - now),
                last_end=peer.last_end,
                why_not=peer.why_not or (self.waits_for if peer.next_try_at <= now else None),
                endpoints=[str(endpoint) for endpoint in peer.enode.endpoints],
            )
            for peer in self._static.values()
        ]
        others = sorted(self._trusted - self._static.keys())
        return static + [NamedPeer(peer.hex(), static=False, trusted=True) for peer in others]
