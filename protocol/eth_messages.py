"""The messages of eth/66 to eth/72 as Structs: `decode` reads a payload of a peer's, `encode` writes one of ours.

Legality is a table: which Struct a message id is, by version. Of a payload the message layer is read, with all counts,
widths and lengths; transactions, block access lists and cells stay as they are encoded. Whether the content is true (hashes,
signatures, what was asked) is the caller's to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias, cast

import msgspec

from protocol import eth
from protocol.errors import ForkIdError, MessageError, UsageError
from protocol.eth import Status
from protocol.eth_messages_chain import (
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
from protocol.eth_messages_shapes import (
    UINT64,
    Flag,
    Hash,
    Shape,
    Source,
    Text,
    Uint64,
    Word,
    bare,
    hash_list,
    hash_or,
    list_of,
    optional_text,
    raw_access_list,
    record,
    text,
    uint,
)

# `eth.md` asks for no more than 4096 hashes in an announcement; reth passes that when it merges announcements.
MAX_ANNOUNCED_HASHES: Final = 4 * 4096
# Nobody looks up more than 2048 items of one request, or answers more than 1024 (geth); `eth.md` asks for 256 or 64.
MAX_ASKED_HASHES: Final = 4096
# An answer holds no more than can be asked for.
MAX_ANSWERED_ITEMS: Final = MAX_ASKED_HASHES
# geth refuses a Transactions message of more.
MAX_TRANSACTIONS: Final = 5000
# EIP-7594.
CELL_BYTES: Final = 2048
# 10 MiB of cells, each with three bytes around it.
MAX_CELLS: Final = eth.MAX_MESSAGE_BYTES // (CELL_BYTES + 3)
# A size of a transaction is an u32 in geth.
SIZE_BYTES: Final = 4

# List elements of one message, on all levels: this bounds what is built of 10 MiB of the smallest. The bodies that geth
# answers at most (2 MiB) have under 40,000: 21,000 transactions of 100 bytes, 1024 times 16 withdrawals.
MAX_ELEMENTS: Final = 1 << 17
# Receipts are smaller: of 8 bytes for a transfer 2 MiB hold 262,144, and one block may have more logs than that.
MAX_RECEIPT_ELEMENTS: Final = MAX_LOGS

Asked = Annotated[tuple[bytes, ...], hash_list(MAX_ASKED_HASHES)]
Mask = Annotated[bytes, text(eth.CELL_MASK_BYTES)]


class BlockHash(msgspec.Struct, frozen=True):
    """A block that is announced."""

    hash: Hash
    number: Uint64


class NewBlockHashes(msgspec.Struct, frozen=True):
    """Blocks that have appeared: nobody gossips blocks since the Merge."""

    blocks: Annotated[tuple[BlockHash, ...], list_of(record(BlockHash), MAX_ASKED_HASHES)]


class Transactions(msgspec.Struct, frozen=True):
    """Transactions in full, each encoded as on the wire."""

    transactions: Annotated[tuple[bytes, ...], list_of(TRANSACTION, MAX_TRANSACTIONS)]


class HeadersQuery(msgspec.Struct, frozen=True):
    """From which block, given by number or hash, how many headers, every how many, and in which direction."""

    start: Annotated[int | bytes, hash_or(UINT64)]
    limit: Uint64
    skip: Uint64 = 0
    reverse: Flag = False


class GetBlockHeaders(msgspec.Struct, frozen=True):
    """Asks for headers."""

    request_id: Uint64
    query: Annotated[HeadersQuery, record(HeadersQuery)]


class BlockHeaders(msgspec.Struct, frozen=True):
    """The headers that were asked for; none if the first is not known."""

    request_id: Uint64
    headers: Annotated[tuple[Header, ...], list_of(HEADER, MAX_ANSWERED_ITEMS)] = ()


class GetBlockBodies(msgspec.Struct, frozen=True):
    """Asks for blocks without their headers, by block hash."""

    request_id: Uint64
    hashes: Asked


class BlockBodies(msgspec.Struct, frozen=True):
    """The bodies that were asked for, without those that are missing."""

    request_id: Uint64
    bodies: Annotated[tuple[BlockBody, ...], list_of(record(BlockBody), MAX_ANSWERED_ITEMS)] = ()


class NewBlock(msgspec.Struct, frozen=True):
    """A block in full, with the total difficulty up to it: nobody gossips blocks since the Merge."""

    block: Annotated[Block, record(Block)]
    total_difficulty: Word


class NewPooledTransactionHashes66(msgspec.Struct, frozen=True):
    """Announces transactions: until eth/67 by their hashes alone."""

    hashes: Annotated[tuple[bytes, ...], hash_list(MAX_ANNOUNCED_HASHES)]


class NewPooledTransactionHashes68(msgspec.Struct, frozen=True):
    """Announces transactions: from eth/68 with the type (a byte of `types`) and size of each (EIP-5793)."""

    types: Text
    sizes: Annotated[tuple[int, ...], list_of(uint(SIZE_BYTES), MAX_ANNOUNCED_HASHES)]
    hashes: Annotated[tuple[bytes, ...], hash_list(MAX_ANNOUNCED_HASHES)]


class NewPooledTransactionHashes72(msgspec.Struct, frozen=True):
    """Announces transactions: from eth/72 with the cells that the peer has of all blobs among them (EIP-8070).

    Bit i of the mask is bit i % 8 of byte i // 8. `None` is the empty string that reth sends; geth refuses it: zeros are the
    mask of a message without blobs that both take.
    """

    types: Text
    sizes: Annotated[tuple[int, ...], list_of(uint(SIZE_BYTES), MAX_ANNOUNCED_HASHES)]
    hashes: Annotated[tuple[bytes, ...], hash_list(MAX_ANNOUNCED_HASHES)]
    mask: Annotated[bytes | None, optional_text(eth.CELL_MASK_BYTES)] = bytes(eth.CELL_MASK_BYTES)


class GetPooledTransactions(msgspec.Struct, frozen=True):
    """Asks for transactions that were announced."""

    request_id: Uint64
    hashes: Asked


class PooledTransactions(msgspec.Struct, frozen=True):
    """Transactions that were asked for, in that order, with gaps; each encoded as on the wire."""

    request_id: Uint64
    transactions: Annotated[tuple[bytes, ...], list_of(TRANSACTION, MAX_TRANSACTIONS)] = ()


class GetNodeData(msgspec.Struct, frozen=True):
    """Asks for nodes of the state trie or for code, by hash; gone with eth/67."""

    request_id: Uint64
    hashes: Asked


class NodeData(msgspec.Struct, frozen=True):
    """The nodes that were asked for, with gaps; gone with eth/67."""

    request_id: Uint64
    nodes: Annotated[tuple[bytes, ...], list_of(text(), MAX_ANSWERED_ITEMS)] = ()


class GetReceipts(msgspec.Struct, frozen=True):
    """Asks for the receipts of blocks, by block hash."""

    request_id: Uint64
    hashes: Asked


class GetReceipts70(msgspec.Struct, frozen=True):
    """Asks for receipts, those of the first block from an index on (EIP-7975)."""

    request_id: Uint64
    first_index: Uint64
    hashes: Asked


class Receipts(msgspec.Struct, frozen=True):
    """Receipts by block, until eth/68 with blooms."""

    request_id: Uint64
    blocks: Annotated[
        tuple[tuple[BloomReceipt, ...], ...],
        list_of(list_of(bloom_receipt(), MAX_BLOCK_TRANSACTIONS), MAX_ANSWERED_ITEMS),
    ] = ()


_RECEIPTS: Final = list_of(list_of(record(Receipt), MAX_BLOCK_TRANSACTIONS), MAX_ANSWERED_ITEMS)


class Receipts69(msgspec.Struct, frozen=True):
    """Receipts by block, from eth/69 without blooms (EIP-7642)."""

    request_id: Uint64
    blocks: Annotated[tuple[tuple[Receipt, ...], ...], _RECEIPTS] = ()


class Receipts70(msgspec.Struct, frozen=True):
    """Receipts by block, from eth/70 the last block's perhaps cut off (EIP-7975)."""

    request_id: Uint64
    last_block_incomplete: Flag = False
    blocks: Annotated[tuple[tuple[Receipt, ...], ...], _RECEIPTS] = ()


class BlockRangeUpdate(msgspec.Struct, frozen=True):
    """The blocks that a peer has, as they change (EIP-7642)."""

    earliest: Uint64
    latest: Uint64
    latest_hash: Hash


class GetBlockAccessLists(msgspec.Struct, frozen=True):
    """Asks for block access lists, by block hash (EIP-8159)."""

    request_id: Uint64
    hashes: Asked


class BlockAccessLists(msgspec.Struct, frozen=True):
    """A block access list for each hash asked for, encoded as on the wire; `b""` where it is not available."""

    request_id: Uint64
    access_lists: Annotated[tuple[bytes, ...], list_of(raw_access_list(), MAX_ANSWERED_ITEMS)] = ()


class GetCells(msgspec.Struct, frozen=True):
    """Asks for cells of all blobs of transactions: those whose bit is set in the mask (EIP-8070)."""

    request_id: Uint64
    hashes: Asked
    mask: Mask


class Cells(msgspec.Struct, frozen=True):
    """The cells of each transaction: by ascending index, and for each index in the order of the blobs."""

    request_id: Uint64
    hashes: Asked
    cells: Annotated[tuple[tuple[bytes, ...], ...], list_of(list_of(text(CELL_BYTES), MAX_CELLS), MAX_ANSWERED_ITEMS)]
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

# The forms of each message, and from which version on each of them holds.
_FORMS: Final[dict[str, dict[int, type[EthMessage]]]] = {
    "Status": {66: Status},
    "NewBlockHashes": {66: NewBlockHashes},
    "Transactions": {66: Transactions},
    "GetBlockHeaders": {66: GetBlockHeaders},
    "BlockHeaders": {66: BlockHeaders},
    "GetBlockBodies": {66: GetBlockBodies},
    "BlockBodies": {66: BlockBodies},
    "NewBlock": {66: NewBlock},
    "NewPooledTransactionHashes": {
        66: NewPooledTransactionHashes66,
        68: NewPooledTransactionHashes68,
        72: NewPooledTransactionHashes72,
    },
    "GetPooledTransactions": {66: GetPooledTransactions},
    "PooledTransactions": {66: PooledTransactions},
    "GetNodeData": {66: GetNodeData},
    "NodeData": {66: NodeData},
    "GetReceipts": {66: GetReceipts, 70: GetReceipts70},
    "Receipts": {66: Receipts, 69: Receipts69, 70: Receipts70},
    "BlockRangeUpdate": {69: BlockRangeUpdate},
    "GetBlockAccessLists": {71: GetBlockAccessLists},
    "BlockAccessLists": {71: BlockAccessLists},
    "GetCells": {72: GetCells},
    "Cells": {72: Cells},
}


def _table(version: int) -> Mapping[int, type[EthMessage]]:
    forms = {row.id: _FORMS[row.name] for row in eth.MESSAGES if row.since <= version <= row.until}
    return MappingProxyType(
        {number: form[max(since for since in form if since <= version)] for number, form in forms.items()}
    )


# For each version: which Struct a message id is. An id that is not here is not the version's.
MESSAGES: Final[Mapping[int, Mapping[int, type[EthMessage]]]] = MappingProxyType(
    {version: _table(version) for version in eth.VERSIONS}
)

_BARE: Final = (NewBlockHashes, Transactions, NewPooledTransactionHashes66)
_SHAPES: Final[dict[type, Shape]] = {
    struct: bare(struct) if struct in _BARE else record(struct)
    for forms in _FORMS.values()
    for struct in forms.values()
    if struct is not Status
}
_BUDGETS: Final = dict.fromkeys((Receipts, Receipts69, Receipts70), MAX_RECEIPT_ELEMENTS)


def decode(version: int, message_id: int, payload: bytes) -> EthMessage:
    """The message in a payload; bytes after it are ignored. Raises `RlpError`, `MessageError`."""
    struct = _of_version(version).get(message_id)
    if struct is None:
        raise MessageError(f"eth/{version} has no message 0x{message_id:02x}")
    if len(payload) > eth.MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(payload)} bytes")
    if struct is Status:
        return _decode_status(version, payload)
    source = Source(payload, _BUDGETS.get(struct, MAX_ELEMENTS))
    message, _ = _SHAPES[struct].read(source, 0, len(payload))
    if struct in _CHECKS:
        _CHECKS[struct](message)
    return cast("EthMessage", message)


def encode(version: int, message: EthMessage) -> bytes:
    """The payload of a message. Raises `UsageError` where the version has it not, or not in this form."""
    id_of(version, message)
    if isinstance(message, Status):
        return _encode_status(version, message)
    struct = type(message)
    payload = _SHAPES[struct].write(message)
    if struct in _CHECKS:
        try:
            _CHECKS[struct](message)
        except MessageError as error:
            raise UsageError(str(error)) from error
    return payload


def id_of(version: int, message: EthMessage) -> int:
    """The id of a message within eth. Raises `UsageError` where the version does not have it in this form."""
    for number, struct in _of_version(version).items():
        if struct is type(message):
            return number
    raise UsageError(f"eth/{version} has no {type(message).__name__}")


def _of_version(version: int) -> Mapping[int, type[EthMessage]]:
    if version not in MESSAGES:
        raise UsageError(f"eth/{version} is not spoken here")
    return MESSAGES[version]


def _decode_status(version: int, payload: bytes) -> Status:
    try:
        return eth.decode_status(payload, version)
    except ForkIdError as error:
        raise MessageError(str(error)) from error


def _encode_status(version: int, status: Status) -> bytes:
    has_range = status.earliest is not None and status.latest is not None
    if has_range != (version >= eth.RANGE_VERSION):
        raise UsageError(f"a Status that is not of eth/{version}'s form")
    return status.encode()


def _check_announcement(message: NewPooledTransactionHashes68 | NewPooledTransactionHashes72) -> None:
    if not len(message.types) == len(message.sizes) == len(message.hashes):
        counts = f"{len(message.types)} types, {len(message.sizes)} sizes and {len(message.hashes)} hashes"
        raise MessageError(f"an announcement of {counts}")


def _check_range(message: BlockRangeUpdate) -> None:
    eth.check_range(message.earliest, message.latest, message.latest_hash)


def _check_cells(message: Cells) -> None:
    if len(message.hashes) != len(message.cells):
        raise MessageError(f"the cells of {len(message.cells)} transactions for {len(message.hashes)} hashes")


# What the fields of a message must be to each other. Raises `MessageError`.
_CHECKS: Final[dict[type, Callable[[Any], None]]] = {
    NewPooledTransactionHashes68: _check_announcement,
    NewPooledTransactionHashes72: _check_announcement,
    BlockRangeUpdate: _check_range,
    Cells: _check_cells,
}
