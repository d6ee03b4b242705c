"""Checks the form of requests that have no reader, by their message and version, without building them.

`messages.py` and `snap_messages.py` decode the same forms in full, at about ten times the cost. These checks do not look at
what a request asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from rlpx.protocol import rlp
from rlpx.protocol.errors import MessageError, PeerError, RlpError
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.eth import HASH_BYTES
from rlpx.protocol.eth.kinds import MessageKind
from rlpx.protocol.eth.table import MessageType

# A hash in a list is always 0xa0 and 32 bytes.
_HASH_PREFIX: Final = b"\xa0"
# Paths in GetTrieNodes: 4096 sets of a few each, four times as many as any client serves.
_PATHS_MAX_ITEMS: Final = 1 << 15


# Checks the form of one field. Its arguments are the request, whether the field is a list, and its payload's start and end.
# Raises `RlpError`, `MessageError`.
Check: TypeAlias = Callable[[bytes, bool, int, int], None]


def _uint64(data: bytes, is_list: bool, start: int, end: int) -> None:  # noqa: FBT001 - the decoder's signature
    if is_list:
        raise RlpError("a list where a string belongs")
    if start != end and (end - start > rlp.U64_BYTES or not data[start]):
        rlp.as_uint(data[start:end])


def _text(*lengths: int) -> Check:
    def check(_data: bytes, is_list: bool, start: int, end: int) -> None:  # noqa: FBT001 - the decoder's signature
        if is_list:
            raise RlpError("a list where a string belongs")
        if end - start not in lengths:
            raise RlpError(f"a string of {end - start} bytes where {' or '.join(map(str, lengths))} belong")

    return check


def _start(data: bytes, is_list: bool, start: int, end: int) -> None:  # noqa: FBT001 - the decoder's signature
    """Check a block's hash or number."""
    if is_list or end - start != HASH_BYTES:
        _uint64(data, is_list, start, end)


def _flag(data: bytes, is_list: bool, start: int, end: int) -> None:  # noqa: FBT001 - the decoder's signature
    if is_list or data[start:end] not in {b"", b"\x01"}:
        raise MessageError("a flag that is neither 0 nor 1")


def _hashes(data: bytes, is_list: bool, start: int, end: int) -> None:  # noqa: FBT001 - the decoder's signature
    if not is_list:
        raise RlpError("a string where a list belongs")
    count, rest = divmod(end - start, eth.ENCODED_HASH_BYTES)
    if rest or data[start : end : eth.ENCODED_HASH_BYTES] != _HASH_PREFIX * count:
        raise RlpError("a list of something else than 32-byte hashes")


def _paths(data: bytes, is_list: bool, start: int, end: int) -> None:  # noqa: FBT001 - the decoder's signature
    """Check lists of paths, which are strings."""
    if not is_list:
        raise RlpError("a string where a list belongs")
    while start < end:
        item, size = rlp.decode_prefix(data[start:end], max_items=_PATHS_MAX_ITEMS)
        for path in rlp.as_list(item):
            rlp.as_bytes(path)
        start += size


def _record(fields: Mapping[str, Check]) -> Check:
    """Return a check for a list with exactly these fields."""
    checks = tuple(fields.items())

    def check(data: bytes, is_list: bool, start: int, end: int) -> None:  # noqa: FBT001 - the decoder's signature
        if not is_list:
            raise RlpError("a string where a list belongs")
        name = ""
        try:
            for name, check_field in checks:  # noqa: B007 - the handler says which
                is_inner_list, inner, start = rlp.bounds(data, start, end)
                check_field(data, is_inner_list, inner, start)
        except PeerError as error:
            error.inside(name)
            raise
        if start != end:
            raise MessageError(f"more than the {len(checks)} fields that belong here")

    return check


_HASHES: Final = _record({"request_id": _uint64, "hashes": _hashes})
_QUERY: Final = _record({"start": _start, "limit": _uint64, "skip": _uint64, "reverse": _flag})
_HASH: Final = _text(HASH_BYTES)
# The first or last storage slot; empty means the very first, or the very last.
_BOUND: Final = _text(0, HASH_BYTES)

# By capability and message name: each form, by the first version that has it.
_FORMS: Final[dict[tuple[str, str], dict[int, Check]]] = {
    (eth.NAME, "GetBlockHeaders"): {66: _record({"request_id": _uint64, "query": _QUERY})},
    (eth.NAME, "GetBlockBodies"): {66: _HASHES},
    (eth.NAME, "GetPooledTransactions"): {66: _HASHES},
    (eth.NAME, "GetNodeData"): {66: _HASHES},
    (eth.NAME, "GetReceipts"): {
        66: _HASHES,
        eth.PARTIAL_RECEIPTS_VERSION: _record({"request_id": _uint64, "first_index": _uint64, "hashes": _hashes}),
    },
    (eth.NAME, "GetBlockAccessLists"): {71: _HASHES},
    (eth.NAME, "GetCells"): {
        eth.CELLS_VERSION: _record({"request_id": _uint64, "hashes": _hashes, "mask": _text(eth.CELL_MASK_BYTES)})
    },
    (snap.NAME, "GetAccountRange"): {
        1: _record({"request_id": _uint64, "root": _HASH, "origin": _HASH, "limit": _HASH, "response_bytes": _uint64})
    },
    (snap.NAME, "GetStorageRanges"): {
        1: _record(
            {
                "request_id": _uint64,
                "root": _HASH,
                "accounts": _hashes,
                "origin": _BOUND,
                "limit": _BOUND,
                "response_bytes": _uint64,
            }
        )
    },
    (snap.NAME, "GetByteCodes"): {1: _record({"request_id": _uint64, "hashes": _hashes, "response_bytes": _uint64})},
    (snap.NAME, "GetTrieNodes"): {
        1: _record({"request_id": _uint64, "root": _HASH, "paths": _paths, "response_bytes": _uint64})
    },
    (snap.NAME, "GetBlockAccessLists"): {2: _record({"request_id": _uint64, "hashes": _hashes, "response_bytes": _uint64})},
}


def _by_version(capability: str, versions: tuple[int, ...], messages: tuple[MessageType, ...]) -> dict[str, Check]:
    found: dict[str, Check] = {}
    for version in versions:
        for row in messages:
            forms = _FORMS.get((capability, row.name), {})
            since = [first for first in forms if first <= version and row.is_in(version)]
            if since:
                found[f"{capability}/{version}.{row.name}"] = forms[max(since)]
    return found


# The check of each request in each version.
_CHECKS: Final = _by_version(eth.NAME, eth.VERSIONS, eth.MESSAGES) | _by_version(snap.NAME, snap.VERSIONS, snap.MESSAGES)


def check_request(kind: MessageKind, payload: bytes) -> None:
    """Check that a request has the form of its version; bytes after it are ignored, as in geth. Raises `PeerError`.

    Requests of capabilities other than eth and snap are unknown here and pass.
    """
    check = _CHECKS.get(kind.form)
    if check is None:
        return
    try:
        check(payload, *rlp.bounds(payload, 0, len(payload)))
    except PeerError as error:
        error.inside(kind.name)
        raise
