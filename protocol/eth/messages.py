"""The messages of eth/66 to eth/72 as Structs: `decode` reads a peer's payload, `encode` writes one of ours.

The message layer of a payload is decoded, with all counts, widths and lengths checked. Transactions, block access lists and
cells stay encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from rlpx.protocol.errors import ForkIdError, MessageError, UsageError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.chain import (
    HEADER,
    MAX_BLOCK_TRANSACTIONS,
    MAX_LOGS,
    TRANSACTION,
    Block,
    BlockBody,
    BloomReceipt,
    Header,
    Receipt,
    bloom_receipt,
)
from rlpx.protocol.eth.dialect import Dialect, Form
from rlpx.protocol.eth.schema import (
    UINT64,
    ByteString,
    Flag,
    Hash,
    Shape,
    Source,
    Uint64,
    Uint256,
    bare,
    byte_string,
    hash_list,
    hash_or,
    list_of,
    optional_byte_string,
    raw_access_list,
    record,
    uint,
)
from rlpx.protocol.eth.status import Status, check_range, read_status
from rlpx.protocol.eth.table import MAX_MESSAGE_BYTES

# `eth.md` recommends at most 4096 hashes in an announcement; reth exceeds that when it merges announcements.
MAX_ANNOUNCED_HASHES: Final = 4 * 4096
# No client looks up more than 2048 items of one request or answers more than 1024 (geth); `eth.md` recommends 256 or 64.
MAX_ASKED_HASHES: Final = 4096
# An answer holds no more items than one request can ask for.
MAX_ANSWERED_ITEMS: Final = MAX_ASKED_HASHES
# geth refuses a Transactions message that has more.
MAX_TRANSACTIONS: Final = 5000
# EIP-7594.
CELL_BYTES: Final = 2048
# 10 MiB of cells, each with three bytes around it.
MAX_CELLS: Final = MAX_MESSAGE_BYTES // (CELL_BYTES + 3)
# The size of a transaction is a u32 in geth.
SIZE_BYTES: Final = 4

# List elements of one message, on all levels. This bounds the objects built from 10 MiB of the smallest elements. The
# largest answer of geth (2 MiB of bodies) has under 40,000: 21,000 transactions of 100 bytes, and 1024 times 16 withdrawals.
MAX_ELEMENTS: Final = 1 << 17
# Receipts are smaller: 2 MiB hold 262,144 of 8 bytes each, for transfers, and one block may have more logs than that.
MAX_RECEIPT_ELEMENTS: Final = MAX_LOGS

Asked = Annotated[tuple[bytes, ...], hash_list(MAX_ASKED_HASHES)]
Mask = Annotated[bytes, byte_string(eth.CELL_MASK_BYTES)]


class BlockHash(msgspec.Struct, frozen=True):
    """One announced block."""

    hash: Hash
    number: Uint64


class NewBlockHashes(msgspec.Struct, frozen=True):
    """Announces new blocks. Blocks are no longer gossiped since the Merge."""

    blocks: Annotated[tuple[BlockHash, ...], list_of(record(BlockHash), MAX_ASKED_HASHES)]


class Transactions(msgspec.Struct, frozen=True):
    """Transactions in full, each encoded as on the wire."""

    transactions: Annotated[tuple[bytes, ...], list_of(TRANSACTION, MAX_TRANSACTIONS)]


class HeadersQuery(msgspec.Struct, frozen=True):
    """The first block, by number or hash, the number of headers, how many blocks to skip between them, and the direction."""

    start: Annotated[int | bytes, hash_or(UINT64)]
    limit: Uint64
    skip: Uint64 = 0
    reverse: Flag = False


class GetBlockHeaders(msgspec.Struct, frozen=True):
    """Asks for headers."""

    request_id: Uint64
    query: Annotated[HeadersQuery, record(HeadersQuery)]


class BlockHeaders(msgspec.Struct, frozen=True):
    """The requested headers; empty if the first one is unknown."""

    request_id: Uint64
    headers: Annotated[tuple[Header, ...], list_of(HEADER, MAX_ANSWERED_ITEMS)] = ()


class GetBlockBodies(msgspec.Struct, frozen=True):
    """Asks for blocks without their headers, by block hash."""

    request_id: Uint64
    hashes: Asked


class BlockBodies(msgspec.Struct, frozen=True):
    """The requested bodies; unavailable ones are left out."""

    request_id: Uint64
    bodies: Annotated[tuple[BlockBody, ...], list_of(record(BlockBody), MAX_ANSWERED_ITEMS)] = ()


class NewBlock(msgspec.Struct, frozen=True):
    """A full block with the total difficulty up to it. Blocks are no longer gossiped since the Merge."""

    block: Annotated[Block, record(Block)]
    total_difficulty: Uint256


class NewPooledTransactionHashes66(msgspec.Struct, frozen=True):
    """Announces transactions by their hashes alone, until eth/67."""

    hashes: Annotated[tuple[bytes, ...], hash_list(MAX_ANNOUNCED_HASHES)]


class NewPooledTransactionHashes68(msgspec.Struct, frozen=True):
    """Announces transactions with the type (a byte of `types`) and size of each, from eth/68 on (EIP-5793)."""

    types: ByteString
    sizes: Annotated[tuple[int, ...], list_of(uint(SIZE_BYTES), MAX_ANNOUNCED_HASHES)]
    hashes: Annotated[tuple[bytes, ...], hash_list(MAX_ANNOUNCED_HASHES)]


class NewPooledTransactionHashes72(msgspec.Struct, frozen=True):
    """Announces transactions, with a mask of the cells that the sender has of all their blobs, from eth/72 on (EIP-8070).

    Bit i of the mask is bit i % 8 of byte i // 8. None stands for the empty string, which reth sends and geth refuses. For
    a message without blobs, both accept a mask of zeros.
    """

    types: ByteString
    sizes: Annotated[tuple[int, ...], list_of(uint(SIZE_BYTES), MAX_ANNOUNCED_HASHES)]
    hashes: Annotated[tuple[bytes, ...], hash_list(MAX_ANNOUNCED_HASHES)]
    mask: Annotated[bytes | None, optional_byte_string(eth.CELL_MASK_BYTES)] = bytes(eth.CELL_MASK_BYTES)


class GetPooledTransactions(msgspec.Struct, frozen=True):
    """Asks for transactions that were announced."""

    request_id: Uint64
    hashes: Asked


class PooledTransactions(msgspec.Struct, frozen=True):
    """The requested transactions in order, encoded as on the wire; unavailable ones are left out."""

    request_id: Uint64
    transactions: Annotated[tuple[bytes, ...], list_of(TRANSACTION, MAX_TRANSACTIONS)] = ()


class GetNodeData(msgspec.Struct, frozen=True):
    """Asks for nodes of the state trie or for code, by hash; removed in eth/67."""

    request_id: Uint64
    hashes: Asked


class NodeData(msgspec.Struct, frozen=True):
    """The requested nodes; unavailable ones are left out. Removed in eth/67."""

    request_id: Uint64
    nodes: Annotated[tuple[bytes, ...], list_of(byte_string(), MAX_ANSWERED_ITEMS)] = ()


class GetReceipts(msgspec.Struct, frozen=True):
    """Asks for the receipts of blocks, by block hash."""

    request_id: Uint64
    hashes: Asked


class GetReceipts70(msgspec.Struct, frozen=True):
    """Asks for receipts, in the first block from an index on (EIP-7975)."""

    request_id: Uint64
    first_index: Uint64
    hashes: Asked


class Receipts(msgspec.Struct, frozen=True):
    """Receipts by block, with blooms, until eth/68."""

    request_id: Uint64
    blocks: Annotated[
        tuple[tuple[BloomReceipt, ...], ...],
        list_of(list_of(bloom_receipt(), MAX_BLOCK_TRANSACTIONS), MAX_ANSWERED_ITEMS),
    ] = ()


_RECEIPTS: Final = list_of(list_of(record(Receipt), MAX_BLOCK_TRANSACTIONS), MAX_ANSWERED_ITEMS)


class Receipts69(msgspec.Struct, frozen=True):
    """Receipts by block, without blooms, from eth/69 on (EIP-7642)."""

    request_id: Uint64
    blocks: Annotated[tuple[tuple[Receipt, ...], ...], _RECEIPTS] = ()


class Receipts70(msgspec.Struct, frozen=True):
    """Receipts by block, those of the last block possibly cut off, from eth/70 on (EIP-7975)."""

    request_id: Uint64
    last_block_incomplete: Flag = False
    blocks: Annotated[tuple[tuple[Receipt, ...], ...], _RECEIPTS] = ()


class BlockRangeUpdate(msgspec.Struct, frozen=True):
    """The range of blocks that a peer has now (EIP-7642)."""

    earliest: Uint64
    latest: Uint64
    latest_hash: Hash


class GetBlockAccessLists(msgspec.Struct, frozen=True):
    """Asks for block access lists, by block hash (EIP-8159)."""

    request_id: Uint64
    hashes: Asked


class BlockAccessLists(msgspec.Struct, frozen=True):
    """A block access list for each requested hash, encoded as on the wire; `b""` if it is not available."""

    request_id: Uint64
    access_lists: Annotated[tuple[bytes, ...], list_of(raw_access_list(), MAX_ANSWERED_ITEMS)] = ()


class GetCells(msgspec.Struct, frozen=True):
    """Asks for cells of all blobs of transactions: those whose bit is set in the mask (EIP-8070)."""

    request_id: Uint64
    hashes: Asked
    mask: Mask


class Cells(msgspec.Struct, frozen=True):
    """The cells of each transaction, by ascending index, and within an index in the order of the blobs."""

    request_id: Uint64
    hashes: Asked
    cells: Annotated[tuple[tuple[bytes, ...], ...], list_of(list_of(byte_string(CELL_BYTES), MAX_CELLS), MAX_ANSWERED_ITEMS)]
    mask: Mask


EthMessage: TypeAlias = (
    Status
    | NewBlockHashes
    | Transactions
    | GetBlockHeaders
    | BlockHeaders
    | GetBlockBodies
    | BlockBodies
    | NewBlock
    | NewPooledTransactionHashes66
    | NewPooledTransactionHashes68
    | NewPooledTransactionHashes72
    | GetPooledTransactions
    | PooledTransactions
    | GetNodeData
    | NodeData
    | GetReceipts
    | GetReceipts70
    | Receipts
    | Receipts69
    | Receipts70
    | BlockRangeUpdate
    | GetBlockAccessLists
    | BlockAccessLists
    | GetCells
    | Cells
)


def _check_announcement(message: NewPooledTransactionHashes68 | NewPooledTransactionHashes72) -> None:
    if not len(message.types) == len(message.sizes) == len(message.hashes):
        counts = f"{len(message.types)} types, {len(message.sizes)} sizes and {len(message.hashes)} hashes"
        raise MessageError(f"an announcement of {counts}")


def _check_range(message: BlockRangeUpdate) -> None:
    check_range(message.earliest, message.latest, message.latest_hash)


def _check_cells(message: Cells) -> None:
    if len(message.hashes) != len(message.cells):
        raise MessageError(f"the cells of {len(message.cells)} transactions for {len(message.hashes)} hashes")


def _status(version: int) -> Form:
    """Return the form of a version's Status: with the total difficulty before eth/69, with the block range from then on."""

    def read(source: Source, _start: int, stop: int) -> tuple[Status, int]:
        try:
            return read_status(source.data, version), stop
        except ForkIdError as error:
            raise MessageError(str(error)) from error

    def write(status: Status) -> bytes:
        has_range = status.earliest is not None and status.latest is not None
        if has_range != (version >= eth.RANGE_VERSION):
            raise UsageError(f"a Status that is not of eth/{version}'s form")
        return status.encode()

    return Form(Status, Shape(read, write), MAX_ELEMENTS)


def _form(
    struct: type,
    check: Callable[[Any], None] | None = None,
    *,
    max_elements: int = MAX_ELEMENTS,
    is_bare: bool = False,
) -> Form:
    return Form(struct, bare(struct) if is_bare else record(struct), max_elements, check)


# The forms of each message, by the first version of each.
_FORMS: Final[dict[str, dict[int, Form]]] = {
    "Status": {version: _status(version) for version in eth.VERSIONS},
    "NewBlockHashes": {66: _form(NewBlockHashes, is_bare=True)},
    "Transactions": {66: _form(Transactions, is_bare=True)},
    "GetBlockHeaders": {66: _form(GetBlockHeaders)},
    "BlockHeaders": {66: _form(BlockHeaders)},
    "GetBlockBodies": {66: _form(GetBlockBodies)},
    "BlockBodies": {66: _form(BlockBodies)},
    "NewBlock": {66: _form(NewBlock)},
    "NewPooledTransactionHashes": {
        66: _form(NewPooledTransactionHashes66, is_bare=True),
        eth.TYPED_ANNOUNCEMENT_VERSION: _form(NewPooledTransactionHashes68, _check_announcement),
        eth.CELLS_VERSION: _form(NewPooledTransactionHashes72, _check_announcement),
    },
    "GetPooledTransactions": {66: _form(GetPooledTransactions)},
    "PooledTransactions": {66: _form(PooledTransactions)},
    "GetNodeData": {66: _form(GetNodeData)},
    "NodeData": {66: _form(NodeData)},
    "GetReceipts": {66: _form(GetReceipts), eth.PARTIAL_RECEIPTS_VERSION: _form(GetReceipts70)},
    "Receipts": {
        66: _form(Receipts, max_elements=MAX_RECEIPT_ELEMENTS),
        69: _form(Receipts69, max_elements=MAX_RECEIPT_ELEMENTS),
        eth.PARTIAL_RECEIPTS_VERSION: _form(Receipts70, max_elements=MAX_RECEIPT_ELEMENTS),
    },
    "BlockRangeUpdate": {eth.RANGE_VERSION: _form(BlockRangeUpdate, _check_range)},
    "GetBlockAccessLists": {71: _form(GetBlockAccessLists)},
    "BlockAccessLists": {71: _form(BlockAccessLists)},
    "GetCells": {eth.CELLS_VERSION: _form(GetCells)},
    "Cells": {eth.CELLS_VERSION: _form(Cells, _check_cells)},
}

ETH: Final[Dialect[EthMessage]] = Dialect(eth.NAME, (eth.VERSIONS, eth.MESSAGES), _FORMS, is_exact=False)
# For each version, the Struct of each message id. An id that is missing does not exist in that version.
MESSAGES: Final = ETH.messages
decode, encode, id_of = ETH.decode, ETH.encode, ETH.id_of
