"""The requests of one peer that have no answer yet, and how many of them may wait."""

from __future__ import annotations

from collections import deque
from typing import Final

from rlpx.protocol.session.events import MessageReceived

# Parked requests of one peer, and their bytes. Beyond either we stop reading from its socket, so its pings wait too.
MAX_PARKED_REQUESTS: Final = 64
MAX_PARKED_BYTES: Final = 256 * 1024


class PeerRequests:
    """Two kinds: `open` requests are with a responder, parked ones wait behind them and have been shown to nobody."""

    __slots__ = ("_parked", "_parked_bytes", "is_turn_due", "open", "open_bytes")

    def __init__(self) -> None:
        self.open = 0
        self.open_bytes = 0
        self._parked: deque[MessageReceived] = deque()
        self._parked_bytes = 0
        # Whether the parked requests are looked at in the next loop iteration.
        self.is_turn_due = False

    @property
    def held_bytes(self) -> int:
        """The bytes of all of them."""
        return self.open_bytes + self._parked_bytes

    @property
    def has_parked(self) -> bool:
        """Whether any are parked."""
        return bool(self._parked)

    @property
    def has_too_many_parked(self) -> bool:
        """Whether so many are parked that nothing more should be read from the peer."""
        return len(self._parked) > MAX_PARKED_REQUESTS or self._parked_bytes > MAX_PARKED_BYTES

    def park(self, request: MessageReceived) -> None:
        """Let a request wait behind those that came before it."""
        self._parked.append(request)
        self._parked_bytes += len(request.payload)

    def unpark(self) -> MessageReceived:
        """Take out the request that has waited longest."""
        request = self._parked.popleft()
        self._parked_bytes -= len(request.payload)
        return request

    def drop_parked(self) -> None:
        """Forget the parked requests: the session has ended, and nobody awaits their answers."""
        self._parked.clear()
        self._parked_bytes = 0

    def take(self, request: MessageReceived) -> None:
        """A responder has this request now."""
        self.open += 1
        self.open_bytes += len(request.payload)

    def release(self, request: MessageReceived) -> None:
        """No responder has this request any more."""
        self.open -= 1
        self.open_bytes -= len(request.payload)
