"""Announcements of transactions that wait for one peer, made one: fewer frames for whoever reads slowly.

It works on the encoded lists, and takes them apart no further than it must.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocol import eth, rlp
from protocol.errors import RlpError

# What one announcement may have (`eth.md`, NewPooledTransactionHashes: the soft limit).
MAX_HASHES: Final = 4096
# A hash with its RLP prefix.
_HASH_ITEM_BYTES: Final = 33


def merge(version: int, payloads: Sequence[bytes]) -> tuple[bytes, int]:
    """One announcement with the hashes of the first of `payloads`, as many as fit, and how many of these it took.

    Order, types and sizes stay with their hashes. Masks of cells (eth/72, EIP-8070) speak of a whole message: where they
    differ, nothing is merged. A payload that is malformed is left as it is.
    """
    parts: list[list[bytes]] = []
    mask: bytes | None = None
    count = 0
    for payload in payloads:
        try:
            columns, its_mask, hashes = _columns(version, payload)
        except RlpError:
            break
        if parts and (its_mask != mask or count + hashes > MAX_HASHES):
            break
        mask = its_mask
        count += hashes
        parts.append(columns)
    if len(parts) <= 1:
        return payloads[0], 1
    columns = [b"".join(column) for column in zip(*parts, strict=True)]
    if version < eth.TYPED_ANNOUNCEMENT_VERSION:
        return rlp.join(columns), len(parts)
    types, sizes, hashes_items = columns
    items = [rlp.encode(types), rlp.join([sizes]), rlp.join([hashes_items])]
    if mask is not None:
        items.append(rlp.encode(mask))
    return rlp.join(items), len(parts)


def _columns(version: int, payload: bytes) -> tuple[list[bytes], bytes | None, int]:
    """The payloads of an announcement's lists, its mask of cells if it has one, and the number of its hashes."""
    if version < eth.TYPED_ANNOUNCEMENT_VERSION:
        is_list, start, end = rlp.bounds(payload, 0, len(payload))
        hashes = payload[start:end]
        columns, mask = [hashes], None
    else:
        has_mask = version >= eth.CELLS_VERSION
        _, _, list_end = rlp.bounds(payload, 0, len(payload))
        spans = rlp.spans(payload, 4 if has_mask else 3)
        columns = [payload[start:end] for _, start, end in spans[:3]]
        mask = payload[spans[3][1] : spans[3][2]] if has_mask else None
        hashes = columns[2]
        # Types and mask are strings, sizes and hashes lists; every hash has its type, and nothing follows.
        is_list = [span[0] for span in spans] == [False, True, True, False][: len(spans)]
        is_list = is_list and len(columns[0]) * _HASH_ITEM_BYTES == len(hashes) and spans[-1][2] == list_end
    if not is_list or len(hashes) % _HASH_ITEM_BYTES:
        raise RlpError("not an announcement")
    return columns, mask, len(hashes) // _HASH_ITEM_BYTES
