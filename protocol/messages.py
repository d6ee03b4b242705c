"""Which message a code on the wire is, for one set of shared capabilities: a table instead of a ladder."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from protocol import eth, snap
from protocol.capabilities import Shared
from protocol.errors import NotSharedError
from protocol.eth import MessageType, Role
from protocol.p2p import Capability

# Peers choose from few sets, but a hostile one must not fill memory with tables.
TABLES_KEPT: Final = 256
# In front of the topic of a message that we send.
TAP: Final = "tap."

_KNOWN: Final = {eth.NAME: eth.MESSAGES, snap.NAME: snap.MESSAGES}


class MessageKind(msgspec.Struct, frozen=True):
    """One message of one shared capability. `code` is on the wire, `id` within the capability.

    `topic` is where it is published when a peer sends it, `tap` when we do. `limit_bytes` bounds the inflated payload.
    `answer` is the id of the response to a request.
    """

    capability: Capability
    id: int
    code: int
    name: str
    topic: str
    tap: str
    role: Role
    limit_bytes: int
    answer: int | None = None

    def empty_answer(self, request_id: int, payload: bytes) -> bytes:
        """The payload that answers this request with nothing. Raises `RlpError`."""
        if self.capability.name == eth.NAME:
            return eth.empty_answer(self.capability.version, request_id, self.id, payload)
        return snap.empty_answer(request_id, self.id, payload)


class MessageTable:
    """All messages of a set of shared capabilities, by code. Codes without an entry are nobody's."""

    __slots__ = ("by_code", "capabilities", "eth", "has_ranges", "shared")

    def __init__(self, shared: tuple[Shared, ...]) -> None:
        self.shared = shared
        self.capabilities = {item.capability.name: item for item in shared}
        # An entry for every byte: none is beyond the end.
        self.by_code: list[MessageKind | None] = [None] * 256
        self.eth = self.capabilities.get(eth.NAME)
        self.has_ranges = self.eth is not None and self.eth.capability.version >= eth.RANGE_VERSION
        for item in shared:
            for kind in _kinds(item):
                self.by_code[kind.code] = kind

    def is_of_others(self, code: int) -> bool:
        """Whether a code belongs to a sub-protocol of the user's: neither eth, nor snap, which waits for eth."""
        kind = self.by_code[code]
        return kind is not None and kind.capability.name not in _KNOWN

    def find(self, name: str, message_id: int) -> MessageKind:
        """The entry of a capability's message by its id. Raises `NotSharedError`."""
        shared = self.capabilities.get(name)
        if shared is None or not 0 <= message_id < shared.messages:
            raise NotSharedError(f"{name} message 0x{message_id:02x} is not shared with this peer")
        kind = self.by_code[shared.offset + message_id]
        if kind is None:
            raise NotSharedError(f"{shared.capability} has no message 0x{message_id:02x}")
        return kind


@lru_cache(maxsize=TABLES_KEPT)
def message_table(shared: tuple[Shared, ...]) -> MessageTable:
    """The table of a shared set: sessions with the same set have the same one."""
    return MessageTable(shared)


def topics() -> list[str]:
    """Every topic of eth and snap messages."""
    return [f"{name}.{row.name}" for name, rows in _KNOWN.items() for row in rows]


def message_id(name: str, message: str) -> int | None:
    """The id of a message that a user names, `Transactions` or a number like `2` or `0x02`; `None` if unknown."""
    for row in _KNOWN.get(name, ()):
        if row.name.lower() == message.lower():
            return row.id
    try:
        return int(message, 0)
    except ValueError:
        return None


def _kinds(shared: Shared) -> list[MessageKind]:
    capability = shared.capability
    rows = _KNOWN.get(capability.name)
    if rows is None:
        return [_kind(shared, MessageType(index, str(index))) for index in range(shared.messages)]
    return [_kind(shared, row) for row in rows if row.since <= capability.version <= row.until]


def _kind(shared: Shared, row: MessageType) -> MessageKind:
    name = shared.capability.name
    return MessageKind(
        capability=shared.capability,
        id=row.id,
        code=shared.offset + row.id,
        name=row.name,
        topic=f"{name}.{row.name}",
        tap=f"{TAP}{name}.{row.name}",
        role=row.role,
        limit_bytes=shared.limit_bytes,
        answer=row.id + 1 if row.role is Role.REQUEST else None,
    )
