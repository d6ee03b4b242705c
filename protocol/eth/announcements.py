"""Merges the announcements of transactions that wait for one peer, so that a slow peer gets fewer frames.

It works on the encoded lists and decodes no more than necessary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rlpx.protocol import rlp
from rlpx.protocol.errors import RlpError
from rlpx.protocol.eth import eth

# The most hashes in one announcement (`eth.md`, NewPooledTransactionHashes: the soft limit).
MAX_HASHES: Final = 4096
# The size of a hash with its RLP prefix.
_HASH_ITEM_BYTES: Final = 33


def merge(version: int, payloads: Sequence[bytes]) -> tuple[bytes, int]:
    """Merge as many of the first `payloads` as fit into one announcement; returns it and their number.

    Order, types and sizes stay with their hashes. A hash is named once, at its first place: reth lowers the reputation of
    a peer that names one twice. A mask of cells (eth/72, EIP-8070) applies to a whole message, so messages with different
    masks are not merged. A malformed payload is left as it is.
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
    columns = _once([b"".join(column) for column in zip(*parts, strict=True)])
    if version < eth.TYPED_ANNOUNCEMENT_VERSION:
        return rlp.join(columns), len(parts)
    types, sizes, hashes_items = columns
    items = [rlp.encode(types), rlp.join([sizes]), rlp.join([hashes_items])]
    if mask is not None:
        items.append(rlp.encode(mask))
    return rlp.join(items), len(parts)


def _once(columns: list[bytes]) -> list[bytes]:
    """Return the columns without the entries whose hash, in the last column, occurred before."""
    hashes = columns[-1]
    named = [hashes[at : at + _HASH_ITEM_BYTES] for at in range(0, len(hashes), _HASH_ITEM_BYTES)]
    first = {name: index for index, name in reversed(list(enumerate(named)))}
    if len(first) == len(named):
        return columns
    kept = sorted(first.values())
    once = [b"".join(named[index] for index in kept)]
    if len(columns) > 1:
        types, sizes = columns[0], _items(columns[1])
        once = [bytes(types[index] for index in kept), b"".join(sizes[index] for index in kept), *once]
    return once


def _items(data: bytes) -> list[bytes]:
    """Split a sequence of encoded strings. Raises `RlpError`."""
    items: list[bytes] = []
    start = 0
    while start < len(data):
        is_list, _, end = rlp.bounds(data, start, len(data))
        if is_list:
            raise RlpError("a list where a string belongs")
        items.append(data[start:end])
        start = end
    return items


def _columns(version: int, payload: bytes) -> tuple[list[bytes], bytes | None, int]:
    """Return the payloads of an announcement's lists, its mask of cells if it has one, and the number of its hashes."""
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
        # Types and mask are strings, sizes and hashes are lists; every hash has a type and a size, and nothing follows.
        is_list = [span[0] for span in spans] == [False, True, True, False][: len(spans)]
        is_list = is_list and len(columns[0]) * _HASH_ITEM_BYTES == len(hashes) and spans[-1][2] == list_end
        is_list = is_list and len(_items(columns[1])) == len(columns[0])
    if not is_list or len(hashes) % _HASH_ITEM_BYTES:
        raise RlpError("not an announcement")
    return columns, mask, len(hashes) // _HASH_ITEM_BYTES
