"""The table of messages by code on the wire, for one set of shared capabilities."""

from __future__ import annotations

from array import array
from functools import lru_cache
from typing import Final

import msgspec

from rlpx.protocol.errors import NotSharedError
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.empty import empty_answer
from rlpx.protocol.eth.table import MessageRole, MessageType
from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES, max_deflated_bytes
from rlpx.protocol.rlpx.capabilities import Capability, Shared

# Tables to remember. Peers share few different sets with us; the bound is against hostile ones.
TABLES_KEPT: Final = 256
# The prefix of the topic of a message that we send.
TAP: Final = "tap."

# The parts of `MessageTable.counters`, each with an entry per code: messages and bytes in, messages and bytes out.
CODES: Final = 256
BYTES_IN: Final = CODES
OUT: Final = 2 * CODES
BYTES_OUT: Final = 3 * CODES

_KNOWN: Final = {eth.NAME: eth.MESSAGES, snap.NAME: snap.MESSAGES}


class MessageKind(msgspec.Struct, frozen=True):
    """One message of one shared capability. `code` is its number on the wire, `id` its number within the capability.

    It is published under `topic` when a peer sends it, and under `tap` when we do. `limit_bytes` bounds the inflated
    payload, `frame_limit_bytes` the content of its frame: the code and the deflated payload. `answer` is the id of the
    response to a request. `form` names the layout of the payload: capability, version and message.
    """

    capability: Capability
    id: int
    code: int
    name: str
    topic: str
    tap: str
    role: MessageRole
    limit_bytes: int
    frame_limit_bytes: int
    form: str
    answer: int | None = None

    def empty_answer(self, request_id: int, payload: bytes) -> bytes:
        """Return the payload of an empty answer to this request. Raises `RlpError`."""
        return empty_answer(self.capability, request_id, self.id, payload)


class MessageTable:
    """All messages of a set of shared capabilities, by code. A code without an entry belongs to no message.

    `counters` count the messages of all sessions that use the table, and the bytes of their frames' contents: code and
    deflated payload.
    """

    __slots__ = ("__weakref__", "by_code", "capabilities", "counters", "eth", "frame_limit_bytes", "has_ranges", "shared")

    def __init__(self, shared: tuple[Shared, ...]) -> None:
        self.shared = shared
        self.capabilities = {item.capability.name: item for item in shared}
        # One entry per byte value, so indexing never fails.
        self.by_code: list[MessageKind | None] = [None] * CODES
        self.counters = array("Q", bytes(4 * CODES * array("Q").itemsize))
        self.eth = self.capabilities.get(eth.NAME)
        self.has_ranges = self.eth is not None and self.eth.capability.version >= eth.RANGE_VERSION
        for item in shared:
            for kind in _kinds(item):
                self.by_code[kind.code] = kind
        # The longest frame content of any message that may come.
        self.frame_limit_bytes = max((kind.frame_limit_bytes for kind in self.by_code if kind is not None), default=0)

    def count_in(self, code: int, messages: int, total_bytes: int) -> None:
        """Count messages of one code that peers have sent."""
        counters = self.counters
        counters[code] += messages
        counters[BYTES_IN + code] += total_bytes

    def count_out(self, code: int, messages: int, total_bytes: int) -> None:
        """Count messages of one code that have been sealed for peers."""
        counters = self.counters
        counters[OUT + code] += messages
        counters[BYTES_OUT + code] += total_bytes

    def is_of_others(self, code: int) -> bool:
        """Whether a code belongs to a user's sub-protocol, and so neither to eth nor to snap, which waits for eth."""
        kind = self.by_code[code]
        return kind is not None and kind.capability.name not in _KNOWN

    def find(self, name: str, message_id: int) -> MessageKind:
        """Return the entry of a capability's message by its id. Raises `NotSharedError`."""
        shared = self.capabilities.get(name)
        if shared is None or not 0 <= message_id < shared.messages:
            raise NotSharedError(f"{name} message 0x{message_id:02x} is not shared with this peer")
        kind = self.by_code[shared.offset + message_id]
        if kind is None:
            raise NotSharedError(f"{shared.capability} has no message 0x{message_id:02x}")
        return kind


@lru_cache(maxsize=TABLES_KEPT)
def message_table(shared: tuple[Shared, ...]) -> MessageTable:
    """Return the table for a shared set. Sessions with the same set share the object."""
    return MessageTable(shared)


def topics() -> list[str]:
    """Return all topics of eth and snap messages."""
    return [f"{name}.{row.name}" for name, rows in _KNOWN.items() for row in rows]


def message_id(name: str, message: str) -> int | None:
    """Return the id of a message that a user names, as `Transactions` or by number, `2` or `0x02`; None if unknown."""
    for row in _KNOWN.get(name, ()):
        if row.name.lower() == message.lower():
            return row.id
    try:
        return int(message, 0)
    except ValueError:
        return None


def message_names(name: str) -> list[str]:
    """Return the names of a capability's messages, each once; empty for a user's sub-protocol."""
    return list(dict.fromkeys(row.name for row in _KNOWN.get(name, ())))


def request_names(name: str) -> list[str]:
    """Return the names of a capability's requests, each once."""
    return list(dict.fromkeys(row.name for row in _KNOWN.get(name, ()) if row.role is MessageRole.REQUEST))


def _kinds(shared: Shared) -> list[MessageKind]:
    capability = shared.capability
    rows = _KNOWN.get(capability.name)
    if rows is None:
        whole = shared.limit_bytes
        return [_kind(shared, MessageType(index, str(index), max_bytes=whole)) for index in range(shared.messages)]
    return [_kind(shared, row) for row in rows if row.is_in(capability.version)]


def _kind(shared: Shared, row: MessageType) -> MessageKind:
    name = shared.capability.name
    limit_bytes = min(row.max_bytes, shared.limit_bytes)
    return MessageKind(
        capability=shared.capability,
        id=row.id,
        code=shared.offset + row.id,
        name=row.name,
        topic=f"{name}.{row.name}",
        tap=f"{TAP}{name}.{row.name}",
        role=row.role,
        limit_bytes=limit_bytes,
        frame_limit_bytes=min(1 + max_deflated_bytes(limit_bytes), MAX_FRAME_BYTES),
        form=f"{shared.capability}.{row.name}",
        answer=row.id + 1 if row.role is MessageRole.REQUEST else None,
    )
