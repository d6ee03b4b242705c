"""Messages that wait to be sealed for one peer: by rank, bounded in bytes. What does not fit is refused, never dropped.

Frames are sealed in the order in which they leave, so that what is urgent can pass what has waited longer.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Final

import msgspec

from protocol.announcements import merge
from protocol.errors import QueueFullError
from protocol.p2p import deflate

# What may wait for one peer unless the settings say otherwise.
QUEUE_BYTES: Final = 1024 * 1024
# What the kernel may hold of it beyond what is on its way. By itself it takes 4 MB for each peer that reads nothing, and
# behind those no rank passes another.
KERNEL_BYTES: Final = 128 * 1024
# Of a message that waits, beside its bytes.
OVERHEAD_BYTES: Final = 100
# Announcements that are looked at together: each of the smallest ones that clients send has some ten hashes.
_MERGED_AT_ONCE: Final = 256


class Rank(IntEnum):
    """Who goes first. Control: the base protocol, Status, our block range."""

    CONTROL = 0
    RESPONSE = 1
    REQUEST = 2
    BROADCAST = 3


class Announced(msgspec.Struct, frozen=True, gc=False):
    """What makes a message an announcement that others may be merged with: the version of eth, the inflated payload."""

    version: int
    payload: bytes


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message: the content of its frame, and about the memory that it takes while it waits."""

    content: bytes
    cost_bytes: int
    announced: Announced | None

    @classmethod
    def of(cls, code: int, body: bytes, announced: Announced | None = None) -> Outgoing:
        """The message of a code on the wire and a body, deflated where that is due."""
        cost_bytes = OVERHEAD_BYTES + len(body) + (len(announced.payload) if announced is not None else 0)
        return cls(bytes([code]) + body, cost_bytes, announced)


class SendQueue:
    """See the module. `bytes` is what waits, zero where nothing does."""

    __slots__ = ("_limit_bytes", "_ranks", "bytes")

    def __init__(self, limit_bytes: int = QUEUE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        # A rank is there while something of it waits: most sessions have nothing.
        self._ranks: dict[Rank, deque[Outgoing]] = {}
        self.bytes = 0

    def put(self, rank: Rank, message: Outgoing) -> None:
        """Let a message wait. Raises `QueueFullError`; on an empty queue one of any size may wait."""
        if self.bytes and self.bytes + message.cost_bytes > self._limit_bytes:
            raise QueueFullError(f"{self.bytes} bytes wait for this peer already")
        self.owe(rank, message)

    def owe(self, rank: Rank, message: Outgoing) -> None:
        """Let a message wait that is due whatever else waits: few are, by rules of their own."""
        waiting = self._ranks.get(rank)
        if waiting is None:
            waiting = self._ranks[rank] = deque()
        waiting.append(message)
        self.bytes += message.cost_bytes

    def waiting(self, rank: Rank) -> int:
        """How many messages of a rank wait."""
        return len(self._ranks.get(rank, ()))

    def take(self) -> Outgoing:
        """The next message: of the highest rank, and of it the oldest. Announcements in a row come as one."""
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
        """The session ends: only control messages are still worth sending."""
        control = self._ranks.get(Rank.CONTROL)
        self._ranks = {} if control is None else {Rank.CONTROL: control}
        self.bytes = 0 if control is None else sum(message.cost_bytes for message in control)

    def _merged(self, announced: Announced, message: Outgoing, waiting: deque[Outgoing]) -> Outgoing:
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
        return Outgoing.of(message.content[0], deflate(payload))
