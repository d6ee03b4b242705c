"""Answers of a node that has nothing that a request asks for, in the form of the request's message and version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rlpx.protocol import rlp
from rlpx.protocol.errors import RlpError
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.rlpx.capabilities import Capability

# No client requests more access lists at once, or answers with more (geth's and reth's serving limit).
MAX_ANSWERED_ITEMS: Final = 1024
# AccountRange and StorageRanges carry a proof beside their list.
_WITH_PROOF: Final = frozenset({snap.GET_ACCOUNT_RANGE_ID, snap.GET_STORAGE_RANGES_ID})
# The number of items to read for the hashes of GetBlockAccessLists, and for the mask of GetCells.
_HASHES_ITEMS: Final = 2
_MASK_ITEMS: Final = 3


def empty_answer(capability: Capability, request_id: int, message_id: int, payload: bytes) -> bytes:
    """Return the payload of an empty answer to a request of eth or snap. `payload` is the whole request.

    Raises `RlpError` if the part of the request that the answer repeats is malformed.
    """
    fields = _FIELDS[capability.name](capability.version, message_id, payload)
    return rlp.join((rlp.encode(request_id), *fields))


def _eth_fields(version: int, message_id: int, payload: bytes) -> tuple[bytes, ...]:
    if message_id == eth.GET_RECEIPTS_ID and version >= eth.PARTIAL_RECEIPTS_VERSION:
        # [request-id, last-block-incomplete, [receipts, ...]] (EIP-7975)
        return rlp.EMPTY_STRING, rlp.EMPTY_LIST
    if message_id == eth.GET_BLOCK_ACCESS_LISTS_ID:
        return (_unavailable(payload),)
    if message_id == eth.GET_CELLS_ID:
        # [request-id, [hashes], mask] is answered by [request-id, [hashes], [cells], mask] (EIP-8070)
        _, start, end = rlp.spans(payload, _MASK_ITEMS)[-1]
        mask = rlp.as_bytes(payload[start:end], eth.CELL_MASK_BYTES)
        return rlp.EMPTY_LIST, rlp.EMPTY_LIST, rlp.encode(mask)
    return (rlp.EMPTY_LIST,)


def _snap_fields(_version: int, message_id: int, payload: bytes) -> tuple[bytes, ...]:
    """`snap.md` allows an empty answer to every request."""
    if message_id == snap.GET_BLOCK_ACCESS_LISTS_ID:
        return (_unavailable(payload),)
    if message_id in _WITH_PROOF:
        return rlp.EMPTY_LIST, rlp.EMPTY_LIST
    return (rlp.EMPTY_LIST,)


def _unavailable(payload: bytes) -> bytes:
    """Return the list that answers GetBlockAccessLists: for each hash an empty string, "not available" (EIP-8159)."""
    is_list, start, end = rlp.spans(payload, _HASHES_ITEMS)[-1]
    if not is_list:
        raise RlpError("a string where a list belongs")
    # The length of the list gives the number of hashes; the elements are not checked here.
    count = min((end - start) // eth.ENCODED_HASH_BYTES, MAX_ANSWERED_ITEMS)
    return rlp.join((rlp.EMPTY_STRING * count,))


_FIELDS: Final[dict[str, Callable[[int, int, bytes], tuple[bytes, ...]]]] = {
    eth.NAME: _eth_fields,
    snap.NAME: _snap_fields,
}
