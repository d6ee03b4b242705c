"""The messages for one peer that wait to be sealed, by rank and bounded in bytes. A message that does not fit is refused;
none is ever dropped.

Frames are sealed as they leave, so that an urgent message can overtake one that has waited longer.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Final

import msgspec

from rlpx.protocol.errors import QueueFullError
from rlpx.protocol.eth.announcements import merge
from rlpx.protocol.rlpx.p2p import deflate

# The memory that a waiting message takes besides its bytes.
OVERHEAD_BYTES: Final = 100
# The most announcements to merge into one: the smallest that clients send have about ten hashes each.
_MERGED_AT_ONCE: Final = 256


class Rank(IntEnum):
    """The order in which messages leave. Control is the base protocol, Status, and our block range."""

    CONTROL = 0
    RESPONSE = 1
    REQUEST = 2
    BROADCAST = 3


class Announced(msgspec.Struct, frozen=True, gc=False):
    """An announcement that may be merged with others: the version of eth and the inflated payload."""

    version: int
    payload: bytes


class QueuedMessage(msgspec.Struct, frozen=True, gc=False):
    """One message: the content of its frame, and the approximate memory that it takes while it waits."""

    content: bytes
    cost_bytes: int
    announced: Announced | None

    @classmethod
    def of(cls, code: int, body: bytes, announced: Announced | None = None) -> QueuedMessage:
        """Make the message from its code on the wire and its body, deflated if the peer expects that."""
        cost_bytes = OVERHEAD_BYTES + len(body) + (len(announced.payload) if announced is not None else 0)
        return cls(bytes([code]) + body, cost_bytes, announced)


class SendQueue:
    """See the module. `bytes` is the size of all waiting messages."""

    __slots__ = ("_limit_bytes", "_ranks", "bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # A rank exists only while a message of it waits: most sessions have none.
        self._ranks: dict[Rank, deque[QueuedMessage]] = {}
        self.bytes = 0

    def put(self, rank: Rank, message: QueuedMessage) -> None:
        """Enqueue a message. An empty queue takes one of any size. Raises `QueueFullError`."""
        if self.bytes and self.bytes + message.cost_bytes > self._limit_bytes:
            raise QueueFullError(f"{self.bytes} bytes wait for this peer already")
        self.put_unbounded(rank, message)

    def put_unbounded(self, rank: Rank, message: QueuedMessage) -> None:
        """Enqueue regardless of the limit; callers bound these messages themselves."""
        waiting = self._ranks.get(rank)
        if waiting is None:
            waiting = self._ranks[rank] = deque()
        waiting.append(message)
        self.bytes += message.cost_bytes

    def waiting(self, rank: Rank) -> int:
        """The number of waiting messages of a rank."""
        return len(self._ranks.get(rank, ()))

    def take(self) -> QueuedMessage:
        """Remove and return the oldest message of the most urgent rank. Consecutive announcements are merged into one."""
        rank = min(self._ranks)
        waiting = self._ranks[rank]
        message = waiting.popleft()
        self.bytes -= message.cost_bytes
        if waiting and message.announced is not None:
            message = self._merged(message.announced, message, waiting)
        if not waiting:
            del self._ranks[rank]
        return message

    def clear(self) -> None:
        """Drop all but control messages: the session has ended, and only these are still worth sending."""
        control = self._ranks.get(Rank.CONTROL)
        self._ranks = {} if control is None else {Rank.CONTROL: control}
        self.bytes = 0 if control is None else sum(message.cost_bytes for message in control)

    def _merged(self, announced: Announced, message: QueuedMessage, waiting: deque[QueuedMessage]) -> QueuedMessage:
        payloads = [announced.payload]
        for later in waiting:
            if later.announced is None or len(payloads) == _MERGED_AT_ONCE:
                break
            payloads.append(later.announced.payload)
        payload, taken = merge(announced.version, payloads)
        if taken == 1:
            return message
        for _ in range(taken - 1):
            self.bytes -= waiting.popleft().cost_bytes
        return QueuedMessage.of(message.content[0], deflate(payload))
