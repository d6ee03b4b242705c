"""Bounds on the work that a peer causes outside capabilities: answering its pings, opening meaningless messages."""

from __future__ import annotations

import math
from typing import Final

from rlpx.protocol.errors import MessageError, PingFloodError

# geth answers every ping, and its test suite sends ten in a second; reth ends a session at the sixth. We are in between: a
# burst is answered at once, then one ping a second (CVE-2023-40591 shows what happens without any bound).
PING_BURST: Final = 16
PING_REFILL_SECONDS: Final = 1.0
# Unsolicited pongs, and codes that the base protocol does not use: no client is known to send either. The number is that of
# the pings that may wait for their pongs.
MAX_IGNORED: Final = 256
# `due` is the sum of two times, which rounding may make smaller than the true time by up to this much.
CLOCK_SLACK_SECONDS: Final = 1e-6
# Pings that may wait for their pongs: a peer this far ahead of the answers does not ping to find out whether we are alive.
MAX_UNSENT_PONGS: Final = 256


class IgnoredBucket:
    """Limits meaningless messages, because opening one costs us more than sending it costs the peer."""

    __slots__ = ("_filled_at", "_tokens")

    def __init__(self, *, now: float) -> None:
        self._tokens = float(MAX_IGNORED)
        self._filled_at = now

    def take(self, *, now: float) -> None:
        """Count one. Raises `MessageError` if there are too many, beyond one a second."""
        self._tokens = min(MAX_IGNORED, self._tokens + (now - self._filled_at) / PING_REFILL_SECONDS)
        self._filled_at = now
        if self._tokens < 1:
            raise MessageError(f"over {MAX_IGNORED} messages that mean nothing, and more than one a second")
        self._tokens -= 1


class PingBucket:
    """Paces the answers to a peer's pings: a burst is answered at once, then one ping a second. Other pongs wait.

    `due` is when the next waiting pong may be sent; infinite if there is none.
    """

    __slots__ = ("_filled_at", "_tokens", "_unsent", "due")

    def __init__(self, *, now: float) -> None:
        self._tokens = PING_BURST
        # When the next token began to accrue, if the bucket is not full.
        self._filled_at = now
        self._unsent = 0
        self.due = math.inf

    def take(self, *, now: float) -> bool:
        """Count one ping; returns whether its pong may be sent now. Raises `PingFloodError` if too many pongs wait."""
        self._refill(now)
        if self._tokens and not self._unsent:
            self._tokens -= 1
            return True
        if self._unsent == MAX_UNSENT_PONGS:
            raise PingFloodError(f"{MAX_UNSENT_PONGS} pings more than the {PING_BURST} at once and one a second")
        self._unsent += 1
        self.due = self._filled_at + PING_REFILL_SECONDS
        return False

    def release(self, *, now: float) -> int:
        """Return the number of waiting pongs to send now. Call this when `due` is reached."""
        self._refill(now)
        released = min(self._tokens, self._unsent)
        self._tokens -= released
        self._unsent -= released
        self.due = self._filled_at + PING_REFILL_SECONDS if self._unsent else math.inf
        return released

    def _refill(self, now: float) -> None:
        grown = int((now - self._filled_at) / PING_REFILL_SECONDS + CLOCK_SLACK_SECONDS)
        self._tokens = min(PING_BURST, self._tokens + grown)
        self._filled_at = now if self._tokens == PING_BURST else self._filled_at + grown * PING_REFILL_SECONDS
