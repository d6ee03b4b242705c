"""Long announcements and many transactions, in parts as long as clients send them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from rlpx.engine.client.forms import AnnouncedHashes, Announcement, Sendable
from rlpx.protocol.eth.announcements import MAX_HASHES
from rlpx.protocol.eth.messages import Transactions

# The size at which a Transactions message is full; a longer transaction is one by itself. `eth.md` names no limit, reth
# sends up to 128 KiB, and geth ends a message at 100 KiB.
MAX_TRANSACTIONS_BYTES: Final = 128 * 1024

# The fields of announcements that have an entry for each transaction.
_COLUMNS: Final = ("hashes", "types", "sizes", "sizes_without_sidecars")


def in_parts(message: Sendable) -> list[Sendable]:
    """The messages to send for a message, in order: one, unless it announces or has more than belongs into one.

    An announcement whose columns have different lengths stays as it is, to be refused as it is.
    """
    if isinstance(message, Transactions):
        return [Transactions(part) for part in _packs(message.transactions)] or [message]
    if isinstance(message, AnnouncedHashes | Announcement):
        columns = {name: getattr(message, name) for name in _COLUMNS if hasattr(message, name)}
        if len({len(column) for column in columns.values()}) == 1:
            starts = range(0, len(message.hashes), MAX_HASHES)
            parts = ({name: column[at : at + MAX_HASHES] for name, column in columns.items()} for at in starts)
            return [msgspec.structs.replace(message, **part) for part in parts] or [message]
    return [message]


def _packs(transactions: tuple[bytes, ...]) -> Iterator[tuple[bytes, ...]]:
    """Transactions in order, in packs that are as large as allowed."""
    start = size = 0
    for index, transaction in enumerate(transactions):
        if index > start and size + len(transaction) > MAX_TRANSACTIONS_BYTES:
            yield transactions[start:index]
            start, size = index, 0
        size += len(transaction)
    if start < len(transactions):
        yield transactions[start:]
