"""Our messages before they are sealed: their rank, and their form on the wire.

The form depends only on the capabilities that a session shares, so that sessions with the same table of messages can send
the same object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rlpx.protocol.errors import UsageError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.kinds import MessageKind, MessageTable
from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES
from rlpx.protocol.rlpx.p2p import deflate
from rlpx.protocol.session.send_queue import Announced, QueuedMessage, Rank

# The rank of a message that a user sends.
RANKS: Final = {
    MessageRole.RESPONSE: Rank.RESPONSE,
    MessageRole.REQUEST: Rank.REQUEST,
    MessageRole.ANNOUNCEMENT: Rank.BROADCAST,
}


def queued_message(rank: Rank, kind: MessageKind, payload: bytes, body: bytes | None = None) -> QueuedMessage:
    """Make a capability's message. `body` is the payload if already deflated. Raises `UsageError` if it exceeds a frame."""
    if body is None:
        body = deflate(payload)
    if len(body) >= MAX_FRAME_BYTES:
        raise UsageError(f"a message of {len(body)} bytes is over the {MAX_FRAME_BYTES} of a frame")
    announced = None
    if rank is Rank.BROADCAST and kind.id == eth.NEW_POOLED_TRANSACTION_HASHES_ID and kind.capability.name == eth.NAME:
        announced = Announced(kind.capability.version, payload)
    return QueuedMessage.of(kind.code, body, announced)


class Multicast:
    """One message for many sessions, made once for each of their tables. `body` is its deflated payload.

    `check`, if given, may refuse it for a table by raising `UsageError`.
    """

    __slots__ = ("_capability", "_check", "_made", "_message_id", "_payload", "body")

    def __init__(
        self, capability: str, message_id: int, payload: bytes, check: Callable[[MessageKind, bytes], None] | None = None
    ) -> None:
        self._capability = capability
        self._message_id = message_id
        self._payload = payload
        self._check = check
        self._made: dict[MessageTable, tuple[MessageKind, Rank, QueuedMessage] | UsageError] = {}
        self.body = deflate(payload)

    def of(self, table: MessageTable) -> tuple[MessageKind, Rank, QueuedMessage]:
        """Return the message for sessions with this table. Raises `NotSharedError`, `UsageError`."""
        made = self._made.get(table)
        if made is None:
            try:
                made = self._make(table)
            except UsageError as error:
                # Kept as well, so that the next session does not try again.
                made = error
            self._made[table] = made
        if isinstance(made, UsageError):
            raise made
        return made

    def _make(self, table: MessageTable) -> tuple[MessageKind, Rank, QueuedMessage]:
        kind = table.find(self._capability, self._message_id)
        if self._check is not None:
            self._check(kind, self._payload)
        rank = RANKS[kind.role]
        return kind, rank, queued_message(rank, kind, self._payload, self.body)
