"""The messages of snap/1 and snap/2 as Structs: `decode` reads a payload of a peer's, `encode` writes one of ours.

Legality is a table: which Struct a message id is, by version. Trie nodes, code, slot values and block access lists stay as
they are encoded; whether a proof holds is the caller's to find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, TypeAlias, cast

import msgspec

from protocol import eth, rlp, snap
from protocol.errors import MessageError, RlpError, UsageError
from protocol.eth_messages_shapes import (
    HASH_BYTES,
    Hash,
    Shape,
    Source,
    Text,
    Uint64,
    Word,
    hash_list,
    list_of,
    raw_access_list,
    record,
    text,
)

# geth asks for at most 1024 of anything, answers 1024 codes, nodes or access lists, and looks no further.
MAX_ASKED: Final = 4096
# An answer holds no more than can be asked for.
MAX_ANSWERED: Final = MAX_ASKED
# Nobody answers with more than 2 MiB, of which 58,254 slots of a byte take all; twice that.
MAX_RANGE_ELEMENTS: Final = 1 << 17
# geth refuses more.
MAX_PROOF_NODES: Final = 128
# List elements of one message, on all levels: this bounds what is built of 10 MiB of the smallest.
MAX_ELEMENTS: Final = MAX_RANGE_ELEMENTS + MAX_ANSWERED + MAX_PROOF_NODES

Asked = Annotated[tuple[bytes, ...], hash_list(MAX_ASKED)]
Items = Annotated[tuple[bytes, ...], list_of(text(), MAX_ANSWERED)]
Proof = Annotated[tuple[bytes, ...], list_of(text(), MAX_PROOF_NODES)]
# The first or last slot, or the empty string for all from the beginning, or to the end.
Bound = Annotated[bytes, text(0, HASH_BYTES)]
# The hash of what is not the empty trie, or not empty code: the slim format says these with an empty string.
SlimHash = Annotated[bytes, text(0, HASH_BYTES)]


class SlimAccount(msgspec.Struct, frozen=True):
    """An account in the slim format: an empty `root` or `code_hash` is the one of no storage, or of no code.

    geth sends the list of the fields; `snap.md` and reth have that list in a byte string, which is told by `in_string`.
    """

    nonce: Uint64
    balance: Word
    root: SlimHash = b""
    code_hash: SlimHash = b""
    in_string: bool = False


def slim_account() -> Shape:
    """The shape of an account: its list, or that list inside a string."""
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
    data: Text


class GetAccountRange(msgspec.Struct, frozen=True):
    """Asks for the accounts from one hash to another, up to so many bytes."""

    request_id: Uint64
    root: Hash
    origin: Hash
    limit: Hash
    response_bytes: Uint64


class AccountRange(msgspec.Struct, frozen=True):
    """Accounts that follow on each other, with the nodes that prove the first and the last; both empty if not available."""

    request_id: Uint64
    accounts: Annotated[tuple[AccountData, ...], list_of(record(AccountData), MAX_RANGE_ELEMENTS)] = ()
    proof: Proof = ()


class GetStorageRanges(msgspec.Struct, frozen=True):
    """Asks for the slots of accounts, or of one account from one hash to another, up to so many bytes."""

    request_id: Uint64
    root: Hash
    accounts: Asked
    origin: Bound
    limit: Bound
    response_bytes: Uint64


class StorageRanges(msgspec.Struct, frozen=True):
    """Slots by account; only the last account's may be cut off, and then are proved."""

    request_id: Uint64
    slots: Annotated[
        tuple[tuple[StorageData, ...], ...],
        list_of(list_of(record(StorageData), MAX_RANGE_ELEMENTS), MAX_ANSWERED),
    ] = ()
    proof: Proof = ()


class GetByteCodes(msgspec.Struct, frozen=True):
    """Asks for code by its hash, up to so many bytes."""

    request_id: Uint64
    hashes: Asked
    response_bytes: Uint64


class ByteCodes(msgspec.Struct, frozen=True):
    """The codes that were asked for, in that order, with gaps."""

    request_id: Uint64
    codes: Items = ()


class GetTrieNodes(msgspec.Struct, frozen=True):
    """Asks for trie nodes by path, up to so many bytes; gone with snap/2.

    The first path of a set is one of the account trie. If others follow, they are of that account's storage trie.
    """

    request_id: Uint64
    root: Hash
    paths: Annotated[tuple[tuple[bytes, ...], ...], list_of(list_of(text(), MAX_ASKED), MAX_ASKED)]
    response_bytes: Uint64


class TrieNodes(msgspec.Struct, frozen=True):
    """The nodes that were asked for, in that order; gone with snap/2."""

    request_id: Uint64
    nodes: Items = ()


class GetBlockAccessLists(msgspec.Struct, frozen=True):
    """Asks for block access lists by block hash, up to so many bytes; new in snap/2 (EIP-8189)."""

    request_id: Uint64
    hashes: Asked
    response_bytes: Uint64


class BlockAccessLists(msgspec.Struct, frozen=True):
    """A block access list for each hash, cut off at the end, encoded as on the wire; `b""` where it is not available."""

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

_STRUCTS: Final[dict[str, type[SnapMessage]]] = {
    "GetAccountRange": GetAccountRange,
    "AccountRange": AccountRange,
    "GetStorageRanges": GetStorageRanges,
    "StorageRanges": StorageRanges,
    "GetByteCodes": GetByteCodes,
    "ByteCodes": ByteCodes,
    "GetTrieNodes": GetTrieNodes,
    "TrieNodes": TrieNodes,
    "GetBlockAccessLists": GetBlockAccessLists,
    "BlockAccessLists": BlockAccessLists,
}
# For each version: which Struct a message id is. An id that is not here is not the version's.
MESSAGES: Final[Mapping[int, Mapping[int, type[SnapMessage]]]] = MappingProxyType(
    {
        version: MappingProxyType({row.id: _STRUCTS[row.name] for row in snap.MESSAGES if row.since <= version <= row.until})
        for version in snap.VERSIONS
    }
)
_SHAPES: Final = {struct: record(struct) for struct in _STRUCTS.values()}


def decode(version: int, message_id: int, payload: bytes) -> SnapMessage:
    """The message in a payload, which it fills. Raises `RlpError`, `MessageError`."""
    struct = _of_version(version).get(message_id)
    if struct is None:
        raise MessageError(f"snap/{version} has no message 0x{message_id:02x}")
    if len(payload) > eth.MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(payload)} bytes")
    message, end = _SHAPES[struct].read(Source(payload, MAX_ELEMENTS), 0, len(payload))
    if end != len(payload):
        raise RlpError("bytes after the message")
    return cast("SnapMessage", message)


def encode(version: int, message: SnapMessage) -> bytes:
    """The payload of a message. Raises `UsageError` where the version has it not, or a field does not fit."""
    id_of(version, message)
    return _SHAPES[type(message)].write(message)


def id_of(version: int, message: SnapMessage) -> int:
    """The id of a message within snap. Raises `UsageError` where the version does not have it."""
    for number, struct in _of_version(version).items():
        if struct is type(message):
            return number
    raise UsageError(f"snap/{version} has no {type(message).__name__}")


def _of_version(version: int) -> Mapping[int, type[SnapMessage]]:
    if version not in MESSAGES:
        raise UsageError(f"snap/{version} is not spoken here")
    return MESSAGES[version]
