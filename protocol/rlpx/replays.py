"""Recently accepted auth packets. A replayed one is refused before it costs an answer.

An attacker can send a recorded auth again, which costs us computation and the attacker none. An auth is identified by the x
coordinate of its ECIES ephemeral key: the tag covers the rest of the packet with a key derived from that coordinate, which a
point and its negative share. Each process remembers its own auths, so a replay costs each of N workers one answer.
"""

from __future__ import annotations

from typing import Final

from rlpx.protocol.rlpx.handshake import SIZE_BYTES

# The least time for which an auth is remembered. A peer that connects again makes a new ephemeral key.
REMEMBERED_SECONDS: Final = 60.0
# Auths in each of two generations. Together these are about as many as a process can answer in a minute, at 0.8 ms each.
MAX_REMEMBERED: Final = 32_768
# The x coordinate starts after the size and the point's prefix. Half of it is enough to tell auths apart.
_X_START: Final = SIZE_BYTES + 1
_KEPT_BYTES: Final = 16


class SeenAuths:
    """The keys of accepted auths, in two generations of `REMEMBERED_SECONDS`: 4 MiB at most. Times are monotonic seconds."""

    __slots__ = ("_before", "_begun_at", "_new")

    def __init__(self) -> None:
        self._new: set[bytes] = set()
        self._before: set[bytes] = set()
        self._begun_at = 0.0

    def __len__(self) -> int:
        return len(self._new) + len(self._before)

    def has(self, packet: bytes, *, now: float) -> bool:
        """Whether an auth with the ephemeral key of this packet (size included) was accepted recently."""
        self._age(now)
        key = _key(packet)
        return key in self._new or key in self._before

    def remember(self, packet: bytes, *, now: float) -> None:
        """Remember an accepted auth. If there are too many, the older generation is dropped early."""
        self._age(now)
        if len(self._new) >= MAX_REMEMBERED:
            self._turn(now)
        self._new.add(_key(packet))

    def _age(self, now: float) -> None:
        if now - self._begun_at >= REMEMBERED_SECONDS:
            if now - self._begun_at >= 2 * REMEMBERED_SECONDS:
                self._new = set()
            self._turn(now)

    def _turn(self, now: float) -> None:
        self._before, self._new = self._new, set()
        self._begun_at = now


def _key(packet: bytes) -> bytes:
    return packet[_X_START : _X_START + _KEPT_BYTES]
