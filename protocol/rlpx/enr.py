"""Ethereum Node Records (EIP-778): decoding, with the signature check of the "v4" identity scheme."""

from __future__ import annotations

import base64
import binascii
from itertools import pairwise
from typing import Final

import msgspec

from rlpx.protocol import rlp
from rlpx.protocol.errors import HandshakeError, RlpError
from rlpx.protocol.rlpx.crypto import keccak256, recover

PREFIX: Final = "enr:"
# EIP-778: "the maximum encoded size of a node record is 300 bytes".
MAX_BYTES: Final = 300
# Base64 takes four characters for three bytes.
_MAX_TEXT: Final = MAX_BYTES // 3 * 4
# Every item takes a byte at least.
_MAX_ITEMS: Final = MAX_BYTES
_SIGNATURE_BYTES: Final = 64
_COMPRESSED_BYTES: Final = 33
_IP_BYTES: Final = 4
_IP6_BYTES: Final = 16
# The other two recovery ids are for an r above the group order, which practically never occurs.
_RECOVERY_IDS: Final = (0, 1)
_X_BYTES: Final = 32
# Half the group order: a larger s is the malleable twin of a smaller one; go-ethereum refuses it as well.
_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class RecordError(ValueError):
    """The text is not a valid record; the message says why."""


class Record(msgspec.Struct, frozen=True):
    """A node's id (64 bytes), the record's sequence number, and addresses (4 and 16 bytes) with their TCP ports."""

    id: bytes
    seq: int
    endpoints: tuple[tuple[bytes, int], ...]


def decode(text: str) -> Record:
    """Read `enr:` followed by base64 (EIP-778). Raises `RecordError`."""
    body = text.removeprefix(PREFIX)
    if len(body) > _MAX_TEXT:
        raise RecordError(f"it is longer than {MAX_BYTES} bytes")
    try:
        # The URL-safe alphabet; the padding is left out.
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError("it is not base64") from error
    try:
        return _decode(data)
    except RlpError as error:
        raise RecordError(str(error)) from error


def _decode(data: bytes) -> Record:
    signature, *content = rlp.as_list(rlp.decode(data, max_items=_MAX_ITEMS)) or [b""]
    if not content or len(content) % 2 == 0:
        raise RecordError("it is no list of a signature, a sequence number and pairs")
    pairs = _pairs(content[1:])
    if pairs.get(b"id") != b"v4":
        raise RecordError("its identity scheme is not v4")
    digest = keccak256(rlp.encode(content))
    node_id = _signer(digest, rlp.as_bytes(signature, _SIGNATURE_BYTES), rlp.as_bytes(pairs.get(b"secp256k1", b"")))
    return Record(node_id, rlp.as_uint(content[0]), _endpoints(pairs))


def _pairs(items: list[rlp.Item]) -> dict[bytes, rlp.Item]:
    """Return the values by key. EIP-778: "the key/value pairs must be sorted by key and must be unique"."""
    keys = [rlp.as_bytes(item) for item in items[::2]]
    if any(left >= right for left, right in pairwise(keys)):
        raise RecordError("its keys are not in order, or not unique")
    return dict(zip(keys, items[1::2], strict=True))


def _signer(digest: bytes, signature: bytes, key: bytes) -> bytes:
    """Return the node id of the compressed `key`, which must have signed the digest."""
    if len(key) == _COMPRESSED_BYTES and int.from_bytes(signature[_X_BYTES:], "big") <= _HALF_ORDER:
        for recovery_id in _RECOVERY_IDS:
            try:
                node_id = recover(digest, signature + bytes([recovery_id])).id
            except HandshakeError:
                continue
            # 0x02 or 0x03 by the parity of y, then x (SEC 1, section 2.3.3).
            if key == bytes([2 + node_id[-1] % 2]) + node_id[:_X_BYTES]:
                return node_id
    raise RecordError("its signature is not that of its key")


def _endpoints(pairs: dict[bytes, rlp.Item]) -> tuple[tuple[bytes, int], ...]:
    """Return the addresses with a TCP port. EIP-778: an IPv6 address without a port of its own has that of IPv4."""
    endpoints = []
    tcp = _port(pairs, b"tcp")
    for name, size, port in ((b"ip", _IP_BYTES, tcp), (b"ip6", _IP6_BYTES, _port(pairs, b"tcp6") or tcp)):
        if name in pairs and port:
            endpoints.append((rlp.as_bytes(pairs[name], size), port))
    return tuple(endpoints)


def _port(pairs: dict[bytes, rlp.Item], name: bytes) -> int:
    return rlp.as_uint(pairs[name], max_bytes=2) if name in pairs else 0
