"""One message for peers of every version: it is converted to the form that each version has, as far as nothing is invented.

`Announcement` is of no version: it is made from transactions and has what each version's form needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from rlpx.protocol.errors import UsageError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.chain import (
    BLOB_TYPE,
    BloomReceipt,
    Receipt,
    named_versioned_hashes,
    transaction_envelope,
    transaction_hash,
    versioned_hashes,
    without_sidecar,
)
from rlpx.protocol.eth.dialects import DIALECTS
from rlpx.protocol.eth.messages import (
    ETH,
    EthMessage,
    GetReceipts,
    GetReceipts70,
    NewPooledTransactionHashes66,
    NewPooledTransactionHashes68,
    NewPooledTransactionHashes72,
    Receipts,
    Receipts69,
    Receipts70,
)
from rlpx.protocol.eth.snap_messages import SNAP, SnapMessage

# A legacy transaction is a list, whose first byte is this or above.
_FIRST_LIST: Final = 0xC0


class PooledTransaction(msgspec.Struct, frozen=True):
    """A transaction as it stands in Transactions and PooledTransactions, a blob transaction with its sidecar.

    Its properties raise `RlpError` if it is malformed.
    """

    encoding: bytes

    @property
    def hash(self) -> bytes:
        """The transaction's hash, which does not cover the sidecar."""
        return transaction_hash(self.encoding)

    @property
    def type(self) -> int:
        """The type (EIP-2718), 0 for a legacy transaction."""
        first = transaction_envelope(self.encoding)[0]
        return 0 if first >= _FIRST_LIST else first

    @property
    def size(self) -> int:
        """The size that announcements until eth/71 have: with the sidecar."""
        return len(transaction_envelope(self.encoding))

    @property
    def size_without_sidecar(self) -> int:
        """The size that announcements from eth/72 on have."""
        return len(without_sidecar(self.encoding))

    @property
    def versioned_hashes(self) -> tuple[bytes, ...]:
        """The versioned hashes of the blobs that it names; empty for any other type."""
        return named_versioned_hashes(self.encoding)

    @property
    def sidecar_hashes(self) -> tuple[bytes, ...] | None:
        """The versioned hashes of the commitments in the sidecar, which must be those that it names; none without one."""
        return versioned_hashes(self.encoding)


class Announcement(msgspec.Struct, frozen=True):
    """NewPooledTransactionHashes in every version's form. `mask` has the cells of blobs that we have (eth/72, EIP-8070)."""

    hashes: tuple[bytes, ...]
    types: bytes
    sizes: tuple[int, ...]
    sizes_without_sidecars: tuple[int, ...]
    mask: bytes | None = bytes(eth.CELL_MASK_BYTES)

    @classmethod
    def of(cls, transactions: Iterable[bytes], mask: bytes | None = bytes(eth.CELL_MASK_BYTES)) -> Announcement:
        """The announcement of transactions as they stand in messages. Raises `RlpError`."""
        pooled = [PooledTransaction(encoding) for encoding in transactions]
        return cls(
            tuple(transaction.hash for transaction in pooled),
            bytes(transaction.type for transaction in pooled),
            tuple(transaction.size for transaction in pooled),
            tuple(transaction.size_without_sidecar for transaction in pooled),
            mask,
        )

    def in_version(self, version: int) -> EthMessage:
        """The message of one version."""
        if version < eth.TYPED_ANNOUNCEMENT_VERSION:
            return NewPooledTransactionHashes66(self.hashes)
        if version < eth.CELLS_VERSION:
            return NewPooledTransactionHashes68(self.types, self.sizes, self.hashes)
        return NewPooledTransactionHashes72(self.types, self.sizes_without_sidecars, self.hashes, self.mask)


# NewPooledTransactionHashes as peers send it: the form of their version.
AnnouncedHashes: TypeAlias = NewPooledTransactionHashes66 | NewPooledTransactionHashes68 | NewPooledTransactionHashes72
# What a program sends, in any form.
Sendable: TypeAlias = EthMessage | SnapMessage | Announcement


class Forms(msgspec.Struct, frozen=True):
    """A message for every version that has it: `payloads` by capability with version. `message` is its id."""

    capability: str
    message: int
    payloads: dict[str, bytes]

    @classmethod
    def of(cls, message: Sendable) -> Forms:
        """All forms of a message. Raises `UsageError` if a version has the message, and this one cannot have its form."""
        capability = capability_of(message)
        dialect = DIALECTS[capability]
        payloads: dict[str, bytes] = {}
        number = -1
        lacking: dict[int, UsageError] = {}
        for version in dialect.messages:
            try:
                form = in_version(version, message)
                number = dialect.id_of(version, form)
            except UsageError as error:
                lacking[version] = error
                continue
            payloads[f"{capability}/{version}"] = dialect.encode(version, form)
        for version, why in lacking.items():
            if number in dialect.messages[version] or not payloads:
                raise UsageError(f"in the form of {capability}/{version}: {why}") from why
        return cls(capability, number, payloads)


def capability_of(message: Sendable) -> str:
    """The capability of a message: eth or snap."""
    return SNAP.name if isinstance(message, SnapMessage) else ETH.name


def in_version(version: int, message: Sendable) -> EthMessage | SnapMessage:
    """The message in the form of a version of its capability, or as it is if it has one form.

    Raises `UsageError` if the form needs what the message does not have.
    """
    if isinstance(message, Announcement):
        return message.in_version(version)
    convert = _CONVERSIONS.get(type(message))
    return message if convert is None else convert(version, message)


def encode_for(capability: str, version: int, message: Sendable) -> bytes:
    """The payload of a message in the form of the version. Raises `UsageError` if the version lacks it."""
    return DIALECTS[capability].encode(version, in_version(version, message))


def _announced(
    version: int, message: NewPooledTransactionHashes68 | NewPooledTransactionHashes72
) -> NewPooledTransactionHashes66 | NewPooledTransactionHashes68 | NewPooledTransactionHashes72:
    if version < eth.TYPED_ANNOUNCEMENT_VERSION:
        return NewPooledTransactionHashes66(message.hashes)
    has_cells = version >= eth.CELLS_VERSION
    if has_cells == isinstance(message, NewPooledTransactionHashes72):
        return message
    if BLOB_TYPE in message.types:
        raise UsageError("sizes of blob transactions are others in eth/72: make an Announcement of the transactions")
    kind = NewPooledTransactionHashes72 if has_cells else NewPooledTransactionHashes68
    return kind(message.types, message.sizes, message.hashes)


def _question(version: int, message: GetReceipts | GetReceipts70) -> GetReceipts | GetReceipts70:
    if version >= eth.PARTIAL_RECEIPTS_VERSION:
        return message if isinstance(message, GetReceipts70) else GetReceipts70(message.request_id, 0, message.hashes)
    if isinstance(message, GetReceipts):
        return message
    if message.first_index:
        raise UsageError(f"eth/{version} has no receipts from index {message.first_index} on")
    return GetReceipts(message.request_id, message.hashes)


def _receipts(version: int, message: Receipts | Receipts69 | Receipts70) -> Receipts | Receipts69 | Receipts70:
    if version < eth.RANGE_VERSION:
        if isinstance(message, Receipts):
            return message
        raise UsageError(f"receipts in eth/{version} have blooms: make Receipts")
    blocks = tuple(tuple(map(without_bloom, block)) for block in message.blocks)
    is_cut = isinstance(message, Receipts70) and message.last_block_incomplete
    if version >= eth.PARTIAL_RECEIPTS_VERSION:
        return Receipts70(message.request_id, is_cut, blocks)
    if is_cut:
        raise UsageError(f"eth/{version} has no incomplete blocks of receipts")
    return Receipts69(message.request_id, blocks)


def without_bloom(receipt: BloomReceipt | Receipt) -> Receipt:
    """The receipt as eth/69 and later versions have it."""
    if isinstance(receipt, Receipt):
        return receipt
    return Receipt(receipt.type, receipt.outcome, receipt.cumulative_gas, receipt.logs)


_CONVERSIONS: Final[Mapping[type, Callable[[int, Any], Any]]] = {
    NewPooledTransactionHashes68: _announced,
    NewPooledTransactionHashes72: _announced,
    GetReceipts: _question,
    GetReceipts70: _question,
    Receipts: _receipts,
    Receipts69: _receipts,
    Receipts70: _receipts,
}
