"""A message of ours as it waits to be sealed: how urgent it is, and its form on the wire.

The form depends on the capabilities that a session shares, and on nothing else of it: sessions with the same table of
messages can send the same one.
"""

from __future__ import annotations

from typing import Final

from protocol import eth
from protocol.errors import UsageError
from protocol.frames import MAX_FRAME_BYTES
from protocol.messages import MessageKind, MessageTable
from protocol.p2p import deflate
from protocol.send_queue import Announced, Outgoing, Rank

# How urgent what a user sends is.
RANKS: Final = {
    eth.Role.RESPONSE: Rank.RESPONSE,
    eth.Role.REQUEST: Rank.REQUEST,
    eth.Role.ANNOUNCEMENT: Rank.BROADCAST,
}


def outgoing(rank: Rank, kind: MessageKind, payload: bytes, body: bytes | None = None) -> Outgoing:
    """A capability's message; `body` is the payload deflated before. Raises `UsageError` where no frame can hold it."""
    if body is None:
        body = deflate(payload)
    if len(body) >= MAX_FRAME_BYTES:
        raise UsageError(f"a message of {len(body)} bytes is over the {MAX_FRAME_BYTES} of a frame")
    announced = None
    if rank is Rank.BROADCAST and kind.id == eth.NEW_POOLED_TRANSACTION_HASHES_ID and kind.capability.name == eth.NAME:
        announced = Announced(kind.capability.version, payload)
    return Outgoing.of(kind.code, body, announced)


class Multicast:
    """One message for many sessions, made once for each table of theirs. `body` is its payload deflated."""

    __slots__ = ("_capability", "_made", "_message_id", "_payload", "body")

    def __init__(self, capability: str, message_id: int, payload: bytes) -> None:
        self._capability = capability
        self._message_id = message_id
        self._payload = payload
        self._made: dict[MessageTable, tuple[MessageKind, Rank, Outgoing]] = {}
        self.body = deflate(payload)

    def of(self, table: MessageTable) -> tuple[MessageKind, Rank, Outgoing]:
        """What goes to the sessions of a table. Raises `NotSharedError`, `UsageError`."""
        made = self._made.get(table)
        if made is None:
            kind = table.find(self._capability, self._message_id)
            rank = RANKS[kind.role]
            made = self._made[table] = kind, rank, outgoing(rank, kind, self._payload, self.body)
        return made
