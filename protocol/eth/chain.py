"""The parts of a chain as peers send them: headers, bodies, withdrawals, receipts. Transactions stay encoded.

In a message a legacy transaction is a list, and a typed one is a string: the type and a list (EIP-2718). A pooled blob
transaction may be wrapped with its sidecar: the type, then a list of transaction, (wrapper version,) blobs, commitments and
proofs (EIP-4844, EIP-7594).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Final

import msgspec

from rlpx.protocol import rlp
from rlpx.protocol.errors import MessageError, RlpError, UsageError
from rlpx.protocol.eth.schema import (
    HASH_BYTES,
    MAX_TYPE,
    UINT64,
    UINT256_BYTES,
    Address,
    ByteString,
    Hash,
    Shape,
    Source,
    Uint64,
    Uint256,
    byte_string,
    flag,
    hash_list,
    hash_or,
    list_of,
    raw_transaction,
    record,
    trailing,
    uint,
)
from rlpx.protocol.rlpx.crypto import keccak256

BLOOM_BYTES: Final = 256
NONCE_BYTES: Final = 8
# A transaction costs at least 4,500 gas under Amsterdam, 21,000 before: this many fill a block of 295 million gas.
MAX_BLOCK_TRANSACTIONS: Final = 1 << 16
# `eth.md`: the ommers list may contain at most two headers.
MAX_OMMERS: Final = 2
# Mainnet's consensus layer allows 16; no rule of the execution layer limits other chains.
MAX_WITHDRAWALS: Final = 4096
# LOG4 is the log instruction with the most topics.
MAX_TOPICS: Final = 4
# A log costs 375 gas, and each of its topics 375 more: this many fill a block of 196 million gas.
MAX_LOGS: Final = 1 << 19

BLOB_TYPE: Final = 0x03
COMMITMENT_BYTES: Final = 48
VERSIONED_HASH_BYTES: Final = 32
# EIP-4844: a versioned hash is this byte, then the commitment's SHA-256 without its first byte.
VERSION_OF_KZG: Final = b"\x01"
# The index of a blob transaction's field with the hashes of its blobs.
_NAMED_HASHES: Final = 10
# The index of the commitments in a sidecar, after the blobs. EIP-7594 adds a version before these.
_COMMITMENTS: Final = 2

Bloom = Annotated[bytes, byte_string(BLOOM_BYTES)]
# Success or failure; before Byzantium, the state root after the transaction.
Outcome = Annotated[bool | bytes, hash_or(flag())]
TRANSACTION: Final = raw_transaction()


class Header(msgspec.Struct, frozen=True):
    """A block header. Forks have added fields at its end; a field that the block's fork does not have is None."""

    parent_hash: Hash
    ommers_hash: Hash
    coinbase: Address
    state_root: Hash
    transactions_root: Hash
    receipts_root: Hash
    bloom: Bloom
    difficulty: Uint256
    number: Uint64
    gas_limit: Uint64
    gas_used: Uint64
    time: Uint64
    extra_data: ByteString
    # The digest of the proof of work; since the Merge, the beacon chain's randomness.
    mix_digest: Hash
    nonce: Annotated[bytes, byte_string(NONCE_BYTES)]
    # London, EIP-1559
    base_fee: Annotated[int | None, trailing(uint(UINT256_BYTES))] = None
    # Shanghai, EIP-4895
    withdrawals_root: Annotated[bytes | None, trailing(byte_string(HASH_BYTES))] = None
    # Cancun, EIP-4844 and EIP-4788
    blob_gas_used: Annotated[int | None, trailing(UINT64)] = None
    excess_blob_gas: Annotated[int | None, trailing(UINT64)] = None
    parent_beacon_root: Annotated[bytes | None, trailing(byte_string(HASH_BYTES))] = None
    # Prague, EIP-7685
    requests_hash: Annotated[bytes | None, trailing(byte_string(HASH_BYTES))] = None
    # Amsterdam, EIP-7928 and EIP-7843
    block_access_list_hash: Annotated[bytes | None, trailing(byte_string(HASH_BYTES))] = None
    slot_number: Annotated[int | None, trailing(UINT64)] = None

    @property
    def hash(self) -> bytes:
        """The hash of the block. Raises `UsageError` if a field has an invalid value."""
        return keccak256(HEADER.write(self))


HEADER: Final = record(Header)


class Withdrawal(msgspec.Struct, frozen=True):
    """A withdrawal from the beacon chain (EIP-4895); the amount is in gwei."""

    index: Uint64
    validator_index: Uint64
    address: Address
    amount: Uint64


TransactionList = Annotated[tuple[bytes, ...], list_of(TRANSACTION, MAX_BLOCK_TRANSACTIONS)]
Ommers = Annotated[tuple[Header, ...], list_of(HEADER, MAX_OMMERS)]
Withdrawals = Annotated[tuple[Withdrawal, ...] | None, trailing(list_of(record(Withdrawal), MAX_WITHDRAWALS))]


class BlockBody(msgspec.Struct, frozen=True):
    """A block without its header. Transactions are encoded as on the wire; before Shanghai `withdrawals` is None."""

    transactions: TransactionList
    ommers: Ommers = ()
    withdrawals: Withdrawals = None


class Block(msgspec.Struct, frozen=True):
    """A whole block, as miners announced it."""

    header: Annotated[Header, HEADER]
    transactions: TransactionList
    ommers: Ommers = ()
    withdrawals: Withdrawals = None


class Log(msgspec.Struct, frozen=True):
    """A log entry of a contract."""

    address: Address
    topics: Annotated[tuple[bytes, ...], hash_list(MAX_TOPICS)]
    data: ByteString


Logs = Annotated[tuple[Log, ...], list_of(record(Log), MAX_LOGS)]


class Receipt(msgspec.Struct, frozen=True):
    """A receipt since eth/69 (EIP-7642): the type is 0 for a legacy transaction, and the bloom is left out."""

    type: Annotated[int, uint(1, MAX_TYPE)]
    outcome: Outcome
    cumulative_gas: Uint64
    logs: Logs


class BloomReceipt(msgspec.Struct, frozen=True):
    """A receipt until eth/68, in the consensus encoding: the type precedes the list; a legacy receipt has none."""

    outcome: Outcome
    cumulative_gas: Uint64
    bloom: Bloom
    logs: Logs
    type: int = 0


def bloom_receipt() -> Shape:
    """Return the shape of a `BloomReceipt`: a list, or a string of the type and that list (EIP-2718)."""
    fields = record(BloomReceipt)

    def read(source: Source, start: int, stop: int) -> tuple[BloomReceipt, int]:
        is_list, payload, end = rlp.bounds(source.data, start, stop)
        if is_list:
            return fields.read(source, start, stop)
        if payload == end or not 0 < source.data[payload] <= MAX_TYPE:
            raise MessageError("a string that is no typed receipt")
        value, list_end = fields.read(source, payload + 1, end)
        if list_end != end:
            raise RlpError("bytes after a receipt, in its string")
        return msgspec.structs.replace(value, type=source.data[payload]), end

    def write(value: BloomReceipt) -> bytes:
        encoding = fields.write(value)
        if not 0 <= value.type <= MAX_TYPE:
            raise UsageError(f"a receipt of type {value.type}")
        return rlp.encode(bytes([value.type]) + encoding) if value.type else encoding

    return Shape(read, write)


# -- transactions ------------------------------------------------------------------------------------------------------


def transaction_envelope(transaction: bytes) -> bytes:
    """Return a message's transaction, a typed one without the string around it. Raises `RlpError` if it is none."""
    is_list, payload, end = rlp.bounds(transaction, 0, len(transaction))
    return transaction[0 if is_list else payload : end]


def without_sidecar(transaction: bytes) -> bytes:
    """Return a message's transaction as it is hashed, stored in blocks, and, from eth/72 on, sized in announcements.

    Raises `RlpError`.
    """
    envelope = transaction_envelope(transaction)
    inner = _wrapped(envelope)
    return envelope if inner is None else bytes([BLOB_TYPE]) + inner


def transaction_hash(transaction: bytes) -> bytes:
    """Return the hash of a message's transaction, with or without a sidecar. Raises `RlpError`."""
    return keccak256(without_sidecar(transaction))


def size_without_sidecar(transaction: bytes) -> int:
    """Return the size of a transaction without its sidecar, as announced in eth/72. Raises `RlpError`."""
    return len(without_sidecar(transaction))


def versioned_hashes(transaction: bytes) -> tuple[bytes, ...] | None:
    """Return the versioned hashes of the sidecar's commitments; None without a sidecar. Raises `RlpError`."""
    envelope = transaction_envelope(transaction)
    if _wrapped(envelope) is None:
        return None
    fields = _fields(envelope, 1)
    has_version = len(fields) > 1 and not fields[1][0]
    commitments = _COMMITMENTS + has_version
    if len(fields) <= commitments:
        raise RlpError("a sidecar without commitments")
    return tuple(
        VERSION_OF_KZG + sha256(commitment).digest()[1:]
        for commitment in _strings(envelope, fields[commitments], COMMITMENT_BYTES)
    )


def named_versioned_hashes(transaction: bytes) -> tuple[bytes, ...]:
    """Return the versioned hashes in a blob transaction; empty for any other type. Raises `RlpError`."""
    inner = without_sidecar(transaction)
    if inner[:1] != bytes([BLOB_TYPE]):
        return ()
    fields = _fields(inner, 1)
    if len(fields) <= _NAMED_HASHES:
        raise RlpError("a blob transaction without the hashes of its blobs")
    return tuple(_strings(inner, fields[_NAMED_HASHES], VERSIONED_HASH_BYTES))


def _wrapped(envelope: bytes) -> bytes | None:
    """Return the wrapper's list if there is a sidecar, else None: a bare transaction begins with a number, the chain id."""
    if envelope[:1] != bytes([BLOB_TYPE]):
        return None
    is_list, start, end = rlp.bounds(envelope, 1, len(envelope))
    if not is_list:
        raise RlpError("a string where a list belongs")
    is_inner_list, _, inner_end = rlp.bounds(envelope, start, end)
    return envelope[start:inner_end] if is_inner_list else None


def _fields(data: bytes, start: int) -> list[tuple[bool, int, int]]:
    """Return, for each element of the list at `start`, whether it is a list, and where its payload starts and ends."""
    _, position, end = rlp.bounds(data, start, len(data))
    fields: list[tuple[bool, int, int]] = []
    while position < end:
        fields.append(rlp.bounds(data, position, end))
        position = fields[-1][2]
    return fields


def _strings(data: bytes, field: tuple[bool, int, int], length: int) -> list[bytes]:
    """Return the strings of a list, all of which must have this length. Raises `RlpError`."""
    is_list, position, end = field
    if not is_list:
        raise RlpError("a string where a list belongs")
    found: list[bytes] = []
    while position < end:
        is_inner_list, start, position = rlp.bounds(data, position, end)
        if is_inner_list or position - start != length:
            raise RlpError(f"something else than {length} bytes")
        found.append(data[start:position])
    return found
