"""The messages of snap/1 and snap/2 as Structs: `decode` reads a peer's payload, `encode` writes one of ours.

Trie nodes, code, slot values and block access lists stay encoded. The caller verifies proofs.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from rlpx.protocol import rlp
from rlpx.protocol.errors import RlpError
from rlpx.protocol.eth import snap
from rlpx.protocol.eth.dialect import Dialect, Form
from rlpx.protocol.eth.schema import (
    HASH_BYTES,
    ByteString,
    Hash,
    Shape,
    Source,
    Uint64,
    Uint256,
    byte_string,
    hash_list,
    list_of,
    raw_access_list,
    record,
)

# geth requests at most 1024 items of any kind, and serves at most 1024 codes, nodes or access lists.
MAX_ASKED: Final = 4096
# An answer holds no more items than one request can ask for.
MAX_ANSWERED: Final = MAX_ASKED
# No client answers with more than 2 MiB, which hold 58,254 slots of one byte; this is twice as many.
MAX_RANGE_ELEMENTS: Final = 1 << 17
# geth refuses more nodes.
MAX_PROOF_NODES: Final = 128
# List elements of one message, on all levels: this bounds the objects built from 10 MiB of the smallest elements.
MAX_ELEMENTS: Final = MAX_RANGE_ELEMENTS + MAX_ANSWERED + MAX_PROOF_NODES

Asked = Annotated[tuple[bytes, ...], hash_list(MAX_ASKED)]
Items = Annotated[tuple[bytes, ...], list_of(byte_string(), MAX_ANSWERED)]
Proof = Annotated[tuple[bytes, ...], list_of(byte_string(), MAX_PROOF_NODES)]
# The first or last slot; the empty string means the very first, or the very last.
Bound = Annotated[bytes, byte_string(0, HASH_BYTES)]
# A root or code hash; the slim format has an empty string for the empty trie and for empty code.
SlimHash = Annotated[bytes, byte_string(0, HASH_BYTES)]


class SlimAccount(msgspec.Struct, frozen=True):
    """An account in the slim format: `root` is empty without storage, `code_hash` is empty without code.

    geth sends the list of the fields. `snap.md` and reth wrap that list in a byte string, which `in_string` notes.
    """

    nonce: Uint64
    balance: Uint256
    root: SlimHash = b""
    code_hash: SlimHash = b""
    in_string: bool = False


def slim_account() -> Shape:
    """Return the shape of an account: a list, or that list wrapped in a string."""
    fields = record(SlimAccount)

    def read(source: Source, start: int, stop: int) -> tuple[SlimAccount, int]:
        is_list, payload, end = rlp.bounds(source.data, start, stop)
        if is_list:
            return fields.read(source, start, stop)
        account, list_end = fields.read(source, payload, end)
        if list_end != end:
            raise RlpError("bytes after an account, in its string")
        return msgspec.structs.replace(account, in_string=True), end

    def write(value: SlimAccount) -> bytes:
        encoding = fields.write(value)
        return rlp.encode(encoding) if value.in_string else encoding

    return Shape(read, write)


class AccountData(msgspec.Struct, frozen=True):
    """An account of a range, by the hash of its address."""

    hash: Hash
    account: Annotated[SlimAccount, slim_account()]


class StorageData(msgspec.Struct, frozen=True):
    """A storage slot of a range, by the hash of its key; the value is encoded as in the trie."""

    hash: Hash
    data: ByteString


class GetAccountRange(msgspec.Struct, frozen=True):
    """Asks for the accounts from one hash to another, up to a number of bytes."""

    request_id: Uint64
    root: Hash
    origin: Hash
    limit: Hash
    response_bytes: Uint64


class AccountRange(msgspec.Struct, frozen=True):
    """Consecutive accounts, with the nodes that prove the first and the last. Both are empty if not available."""

    request_id: Uint64
    accounts: Annotated[tuple[AccountData, ...], list_of(record(AccountData), MAX_RANGE_ELEMENTS)] = ()
    proof: Proof = ()


class GetStorageRanges(msgspec.Struct, frozen=True):
    """Asks for the slots of accounts, or of one account from one hash to another, up to a number of bytes."""

    request_id: Uint64
    root: Hash
    accounts: Asked
    origin: Bound
    limit: Bound
    response_bytes: Uint64


class StorageRanges(msgspec.Struct, frozen=True):
    """Slots by account. Only those of the last account may be cut off; they then come with a proof."""

    request_id: Uint64
    slots: Annotated[
        tuple[tuple[StorageData, ...], ...],
        list_of(list_of(record(StorageData), MAX_RANGE_ELEMENTS), MAX_ANSWERED),
    ] = ()
    proof: Proof = ()


class GetByteCodes(msgspec.Struct, frozen=True):
    """Asks for code by its hash, up to a number of bytes."""

    request_id: Uint64
    hashes: Asked
    response_bytes: Uint64


class ByteCodes(msgspec.Struct, frozen=True):
    """The requested codes in order; unavailable ones are left out."""

    request_id: Uint64
    codes: Items = ()


class GetTrieNodes(msgspec.Struct, frozen=True):
    """Asks for trie nodes by path, up to a number of bytes; removed in snap/2.

    The first path of a set is in the account trie. Further ones are in that account's storage trie.
    """

    request_id: Uint64
    root: Hash
    paths: Annotated[tuple[tuple[bytes, ...], ...], list_of(list_of(byte_string(), MAX_ASKED), MAX_ASKED)]
    response_bytes: Uint64


class TrieNodes(msgspec.Struct, frozen=True):
    """The requested nodes in order; removed in snap/2."""

    request_id: Uint64
    nodes: Items = ()


class GetBlockAccessLists(msgspec.Struct, frozen=True):
    """Asks for block access lists by block hash, up to a number of bytes; new in snap/2 (EIP-8189)."""

    request_id: Uint64
    hashes: Asked
    response_bytes: Uint64


class BlockAccessLists(msgspec.Struct, frozen=True):
    """A block access list for each hash, possibly cut off at the end, encoded as on the wire; `b""` if not available."""

    request_id: Uint64
    access_lists: Annotated[tuple[bytes, ...], list_of(raw_access_list(), MAX_ANSWERED)] = ()


SnapMessage: TypeAlias = (
    GetAccountRange
    | AccountRange
    | GetStorageRanges
    | StorageRanges
    | GetByteCodes
    | ByteCodes
    | GetTrieNodes
    | TrieNodes
    | GetBlockAccessLists
    | BlockAccessLists
)

_STRUCTS: Final[tuple[type[SnapMessage], ...]] = (
    GetAccountRange,
    AccountRange,
    GetStorageRanges,
    StorageRanges,
    GetByteCodes,
    ByteCodes,
    GetTrieNodes,
    TrieNodes,
    GetBlockAccessLists,
    BlockAccessLists,
)
# Each Struct has the name of its message, and one form in all versions.
_FORMS: Final = {struct.__name__: {1: Form(struct, record(struct), MAX_ELEMENTS)} for struct in _STRUCTS}

SNAP: Final[Dialect[SnapMessage]] = Dialect(snap.NAME, (snap.VERSIONS, snap.MESSAGES), _FORMS, is_exact=True)
# For each version, the Struct of each message id. An id that is missing does not exist in that version.
MESSAGES: Final = SNAP.messages
decode, encode, id_of = SNAP.decode, SNAP.encode, SNAP.id_of
