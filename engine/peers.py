"""Peers that the user has named: static ones are kept connected, trusted ones pass the limits, banned ones stay out.

It knows ids, addresses and times; it dials nobody itself. Times are on a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import random
from typing import Final

import msgspec

from engine.admission import Address
from engine.dialer import Enode
from protocol.errors import Severity

# After an end a peer is left alone for so long, reth's low backoff; geth waits 35 s.
REDIAL_SECONDS: Final = 30.0
# Each bad end in a row doubles that: who restarts is soon back, who is gone or of no use is asked ever more seldom, up to
# what reth's backoff is for an end so bad.
MOST_REDIAL_SECONDS: Final = {
    Severity.LOW: REDIAL_SECONDS,
    Severity.MEDIUM: 3 * 60.0,
    Severity.HIGH: 15 * 60.0,
    # Another network, nothing in common, or we are no good to it: a ban, in reth.
    Severity.FATAL: 12 * 3600.0,
}
# Beyond these the wait is the longest in any case.
_MOST_DOUBLINGS: Final = 16
# How much longer than that a wait may be, by chance.
SPREAD: Final = 0.2
# A dial ends by itself sooner; a session that lasts is dialled again by its end.
DIALLED_SECONDS: Final = 30.0


class StaticPeer(msgspec.Struct):
    """A peer to keep connected: its address, when it may be dialled next, and why not before.

    `bad_ends` counts those worse than low since it was last established.
    """

    enode: Enode
    next_try_at: float = 0.0
    bad_ends: int = 0
    last_end: str | None = None


class PeerBook:
    """See the module."""

    def __init__(
        self, static: Iterable[Enode] = (), trusted: Iterable[bytes] = (), draw: Callable[[], float] = random
    ) -> None:
        # From 0 up to 1.
        self._draw = draw
        self._static = {enode.id: StaticPeer(enode) for enode in static}
        self._trusted = set(trusted)
        self._bans: dict[bytes | Address, float] = {}

    # -- static and trusted -------------------------------------------------------------------------------------------------

    def add(self, enode: Enode, *, is_static: bool, is_trusted: bool) -> None:
        """Name a peer; what it was named for before stays."""
        if is_static:
            self._static[enode.id] = StaticPeer(enode)
        if is_trusted:
            self._trusted.add(enode.id)

    def remove(self, peer: bytes) -> bool:
        """Forget that a peer was static or trusted; `False` where it was neither."""
        was_static = self._static.pop(peer, None) is not None
        was_trusted = peer in self._trusted
        self._trusted.discard(peer)
        return was_static or was_trusted

    def is_trusted(self, peer: bytes) -> bool:
        """Whether the limits do not apply to this peer."""
        return peer in self._trusted

    @property
    def has_trusted(self) -> bool:
        """Whether anybody is trusted: then an accept over the limit may be somebody who passes it."""
        return bool(self._trusted)

    def due(self, *, now: float) -> list[Enode]:
        """The static peers that may be dialled now; each is due again only after the redial time."""
        due = [
            peer for peer in self._static.values() if peer.next_try_at <= now and not self.is_banned(peer.enode.id, now=now)
        ]
        for peer in due:
            peer.next_try_at = now + DIALLED_SECONDS
        return [peer.enode for peer in due]

    def established(self, peer: bytes) -> None:
        """A session of this peer is active: what was before is forgiven."""
        static = self._static.get(peer)
        if static is not None:
            static.bad_ends, static.last_end = 0, None

    def ended(self, peer: bytes, severity: Severity, cause: str, *, now: float) -> float | None:
        """A session of this peer, or an attempt, has ended: in how many seconds it is tried again.

        `None` where it is not static. One that is trusted as well is never left alone for long.
        """
        static = self._static.get(peer)
        if static is None:
            return None
        if peer in self._trusted:
            severity = Severity.LOW
        wait = min(REDIAL_SECONDS * 2.0**static.bad_ends, MOST_REDIAL_SECONDS[severity])
        if severity is not Severity.LOW:
            static.bad_ends = min(static.bad_ends + 1, _MOST_DOUBLINGS)
        # Two nodes that name each other must not meet at the same moment again and again: each refuses the other's dial.
        wait *= 1 + SPREAD * self._draw()
        static.next_try_at, static.last_end = now + wait, cause
        return wait

    def listed(self, *, now: float) -> list[tuple[str, bool, bool, float | None, str | None]]:
        """Each named peer: its enode or id, whether static, whether trusted, in how many seconds it may be dialled, and
        how its last session or attempt ended.
        """
        rows: list[tuple[str, bool, bool, float | None, str | None]] = [
            (str(peer.enode), True, peer.enode.id in self._trusted, max(0.0, peer.next_try_at - now), peer.last_end)
            for peer in self._static.values()
        ]
        return rows + [(peer.hex(), False, True, None, None) for peer in sorted(self._trusted - self._static.keys())]

    # -- bans ---------------------------------------------------------------------------------------------------------------

    def ban(self, who: bytes | Address, seconds: float, *, now: float) -> None:
        """Keep a peer or an address out for so long; zero seconds lets it in again."""
        if seconds > 0:
            self._bans[who] = now + seconds
        else:
            self._bans.pop(who, None)

    def is_banned(self, who: bytes | Address, *, now: float) -> bool:
        """Whether a peer or an address is kept out; a ban that has ended is forgotten."""
        until = self._bans.get(who)
        if until is None:
            return False
        if until <= now:
            del self._bans[who]
            return False
        return True

    def bans(self, *, now: float) -> list[tuple[str, float]]:
        """Who is kept out, and for how many seconds more."""
        return [
            (str(who) if isinstance(who, Address) else who.hex(), until - now)
            for who, until in self._bans.items()
            if until > now
        ]
