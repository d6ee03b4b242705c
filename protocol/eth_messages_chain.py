"""What a chain is made of as peers send it: headers, bodies, withdrawals, receipts; transactions stay encoded."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from protocol import rlp
from protocol.crypto import keccak256
from protocol.errors import MessageError, RlpError, UsageError
from protocol.eth_messages_shapes import (
    HASH_BYTES,
    MAX_TYPE,
    UINT64,
    WORD_BYTES,
    Address,
    Hash,
    Shape,
    Source,
    Text,
    Uint64,
    Word,
    flag,
    hash_list,
    hash_or,
    list_of,
    raw_transaction,
    record,
    text,
    trailing,
    uint,
)

BLOOM_BYTES: Final = 256
NONCE_BYTES: Final = 8
# A transaction costs 4,500 gas at least under Amsterdam, before it 21,000: so many fill a block of 295 million gas.
MAX_BLOCK_TRANSACTIONS: Final = 1 << 16
# `eth.md`: the ommers list may contain at most two headers.
MAX_OMMERS: Final = 2
# The consensus layer of mainnet gives 16; no rule of the execution layer limits other chains.
MAX_WITHDRAWALS: Final = 4096
# LOG4 is the last of its instructions.
MAX_TOPICS: Final = 4
# A log costs 375 gas, and each of its topics 375 more: so many fill a block of 196 million gas.
MAX_LOGS: Final = 1 << 19

Bloom = Annotated[bytes, text(BLOOM_BYTES)]
# Success or failure; before Byzantium the state root after the transaction.
Outcome = Annotated[bool | bytes, hash_or(flag())]
TRANSACTION: Final = raw_transaction()


class Header(msgspec.Struct, frozen=True):
    """A block header. Each fork added to its end: a field that the block's fork does not have yet is `None`."""

    parent_hash: Hash
    ommers_hash: Hash
    coinbase: Address
    state_root: Hash
    transactions_root: Hash
    receipts_root: Hash
    bloom: Bloom
    difficulty: Word
    number: Uint64
    gas_limit: Uint64
    gas_used: Uint64
    time: Uint64
    extra_data: Text
    # The proof of work's digest; since the Merge the beacon chain's randomness.
    mix_digest: Hash
    nonce: Annotated[bytes, text(NONCE_BYTES)]
    # London, EIP-1559
    base_fee: Annotated[int | None, trailing(uint(WORD_BYTES))] = None
    # Shanghai, EIP-4895
    withdrawals_root: Annotated[bytes | None, trailing(text(HASH_BYTES))] = None
    # Cancun, EIP-4844 and EIP-4788
    blob_gas_used: Annotated[int | None, trailing(UINT64)] = None
    excess_blob_gas: Annotated[int | None, trailing(UINT64)] = None
    parent_beacon_root: Annotated[bytes | None, trailing(text(HASH_BYTES))] = None
    # Prague, EIP-7685
    requests_hash: Annotated[bytes | None, trailing(text(HASH_BYTES))] = None
    # Amsterdam, EIP-7928 and EIP-7843
    block_access_list_hash: Annotated[bytes | None, trailing(text(HASH_BYTES))] = None
    slot_number: Annotated[int | None, trailing(UINT64)] = None

    @property
    def hash(self) -> bytes:
        """The hash of the block. Raises `UsageError` where a field does not fit its place."""
        return keccak256(HEADER.write(self))


HEADER: Final = record(Header)


class Withdrawal(msgspec.Struct, frozen=True):
    """Ether that leaves the beacon chain (EIP-4895); the amount is in gwei."""

    index: Uint64
    validator_index: Uint64
    address: Address
    amount: Uint64


TransactionList = Annotated[tuple[bytes, ...], list_of(TRANSACTION, MAX_BLOCK_TRANSACTIONS)]
Ommers = Annotated[tuple[Header, ...], list_of(HEADER, MAX_OMMERS)]
Withdrawals = Annotated[tuple[Withdrawal, ...] | None, trailing(list_of(record(Withdrawal), MAX_WITHDRAWALS))]


class BlockBody(msgspec.Struct, frozen=True):
    """A block without its header. Transactions are encoded as on the wire; there are no withdrawals before Shanghai."""

    transactions: TransactionList
    ommers: Ommers = ()
    withdrawals: Withdrawals = None


class Block(msgspec.Struct, frozen=True):
    """A block, whole, as miners announced it."""

    header: Annotated[Header, HEADER]
    transactions: TransactionList
    ommers: Ommers = ()
    withdrawals: Withdrawals = None


class Log(msgspec.Struct, frozen=True):
    """What a contract logged."""

    address: Address
    topics: Annotated[tuple[bytes, ...], hash_list(MAX_TOPICS)]
    data: Text


Logs = Annotated[tuple[Log, ...], list_of(record(Log), MAX_LOGS)]


class Receipt(msgspec.Struct, frozen=True):
    """A receipt since eth/69 (EIP-7642): the type is 0 for a legacy transaction, and the bloom is left out."""

    type: Annotated[int, uint(1, MAX_TYPE)]
    outcome: Outcome
    cumulative_gas: Uint64
    logs: Logs


class BloomReceipt(msgspec.Struct, frozen=True):
    """A receipt until eth/68, as consensus encodes it: the type stands before the list, and for a legacy one not at all."""

    outcome: Outcome
    cumulative_gas: Uint64
    bloom: Bloom
    logs: Logs
    type: int = 0


def bloom_receipt() -> Shape:
    """The shape of a `BloomReceipt`: a list, or a string of the type and that list (EIP-2718)."""
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


def transaction_envelope(transaction: bytes) -> bytes:
    """A transaction of a message (it must be one) as it is hashed and stored: a typed one without the string around it."""
    is_list, payload, end = rlp.bounds(transaction, 0, len(transaction))
    return transaction[0 if is_list else payload : end]


def transaction_hash(transaction: bytes) -> bytes:
    """The hash of a transaction as it stands in a message. Raises `RlpError` where it does not."""
    return keccak256(transaction_envelope(transaction))
