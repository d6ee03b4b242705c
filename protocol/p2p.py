"""The base protocol, version 5 (`rlpx.md`, "p2p Capability"): Hello, Disconnect, Ping, Pong, and Snappy."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Final

import cramjam
import msgspec

from protocol import rlp
from protocol.crypto import ID_BYTES
from protocol.errors import (
    DisconnectReason,
    IncompatibleVersionError,
    MessageError,
    NullIdentityError,
    PingFloodError,
    RlpError,
    SnappyError,
    UnexpectedIdentityError,
    printable,
)

# The version with Snappy (EIP-706). Older peers cannot be understood; newer ones are told apart by nothing we use.
P2P_VERSION: Final = 5

HELLO_CODE: Final = 0x00
DISCONNECT_CODE: Final = 0x01
PING_CODE: Final = 0x02
PONG_CODE: Final = 0x03
# Codes below belong to the base protocol; capabilities share the rest.
FIRST_CAPABILITY_CODE: Final = 0x10
# A message code is an RLP integer: zero is the byte 0x80, and no capability reaches 0x80, so that it is one byte always.
HELLO_BYTE: Final = 0x80

# A Hello fits the first frame, and its capabilities are bounded with it: three items each, and their list.
_HELLO_FIELDS: Final = 5
# Each is at most a Hello long, and a hostile peer must not fill memory with them.
LISTS_KEPT: Final = 256
HELLO_MAX_ITEMS: Final = 2048

# Payload of Ping and Pong: the empty list, before and after Snappy.
EMPTY_LIST: Final = b"\xc0"
SNAPPY_EMPTY_LIST: Final = b"\x01\x00\xc0"

# Inflated size that no message may pass (`rlpx.md`, "Snappy": 16 MiB).
MAX_PAYLOAD_BYTES: Final = 0xFFFFFF

# A reason takes two bytes; more is a spelling nobody uses.
DISCONNECT_MAX_BYTES: Final = 64

# reth's bucket: a burst of five pings, then one a second (CVE-2023-40591 is what happens without).
PING_BURST: Final = 5
PING_REFILL_SECONDS: Final = 1.0

# A Snappy block starts with its inflated length, 32 bits as a varint: up to five bytes.
LENGTH_MAX_BYTES: Final = 5
_U16_MAX: Final = 0xFFFF


class Capability(msgspec.Struct, frozen=True, order=True):
    """A name and a version as a Hello announces them: `eth/69`."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class Hello(msgspec.Struct, frozen=True):
    """What a peer says of itself. `client` is as sent, `node_id` 64 bytes."""

    client: str
    capabilities: tuple[Capability, ...]
    listen_port: int
    node_id: bytes
    version: int = P2P_VERSION

    def encode(self) -> bytes:
        """The RLP payload, without the message code."""
        capabilities: list[rlp.Encodable] = [[item.name.encode(), item.version] for item in self.capabilities]
        return rlp.encode([self.version, self.client.encode(), capabilities, self.listen_port, self.node_id])

    @classmethod
    def decode(cls, payload: bytes) -> Hello:
        """Read a Hello. EIP-8: further list elements and bytes after the list are ignored.

        Raises `RlpError`, `NullIdentityError`, `MessageError`.
        """
        fields = rlp.raw_elements(payload, _HELLO_FIELDS)
        if len(fields) < _HELLO_FIELDS:
            raise MessageError(f"a Hello with {len(fields)} of its {_HELLO_FIELDS} fields")
        version, client, capabilities, port, node_id = fields
        identity = rlp.as_bytes(rlp.decode(node_id))
        if len(identity) != ID_BYTES or not any(identity):
            raise NullIdentityError("a Hello without a node id")
        return cls(
            client=rlp.as_bytes(rlp.decode(client)).decode("utf-8", "replace"),
            capabilities=_capabilities(capabilities),
            listen_port=min(rlp.as_uint(rlp.decode(port)), _U16_MAX),
            node_id=identity,
            version=rlp.as_uint(rlp.decode(version)),
        )

    def check(self, proven_id: bytes) -> None:
        """Insist on Snappy and on the id that ECIES proved.

        Raises `UnexpectedIdentityError`, `IncompatibleVersionError`.
        """
        if self.node_id != proven_id:
            raise UnexpectedIdentityError("the Hello names another node id than the handshake proved")
        if self.version < P2P_VERSION:
            raise IncompatibleVersionError(f"base protocol version {self.version}, which has no Snappy")


# A crowd has few different lists: to read each one anew took 14 of the 36 µs of a Hello.
@lru_cache(maxsize=LISTS_KEPT)
def _capabilities(encoded: bytes) -> tuple[Capability, ...]:
    return tuple(_capability(item) for item in rlp.as_list(rlp.decode(encoded, max_items=HELLO_MAX_ITEMS)))


def _capability(item: rlp.Item) -> Capability:
    fields = rlp.as_list(item)
    try:
        name, version = fields[:2]
    except ValueError as error:
        raise RlpError("a capability without name and version") from error
    return Capability(printable(rlp.as_bytes(name).decode("utf-8", "replace")), rlp.as_uint(version))


def encode_disconnect(reason: DisconnectReason) -> bytes:
    """The payload of a Disconnect: a list of one integer."""
    return rlp.encode([int(reason)])


def decode_disconnect(payload: bytes) -> DisconnectReason | None:
    """The reason in any spelling that clients use, `None` where it is missing, unknown or unreadable.

    Legal: a bare integer or a list whose first element is one, zero as `00` or `80`. The peer leaves in any case: what
    it got wrong in saying so is nobody's breach.
    """
    try:
        item = rlp.decode(payload, max_items=rlp.MAX_DEPTH)
        if isinstance(item, list):
            item = item[0]
        return DisconnectReason(int.from_bytes(rlp.as_bytes(item), "big"))
    except (RlpError, IndexError, ValueError):
        return None


def decode_disconnect_after_hello(payload: bytes) -> DisconnectReason | None:
    """The same where Snappy is on: geth and reth compress it, some peers do not."""
    if len(payload) > len(b"\xc1\x04"):
        with suppress(SnappyError):
            payload = inflate(payload, DISCONNECT_MAX_BYTES)
    return decode_disconnect(payload)


def inflated_bytes(payload: bytes, limit: int) -> int:
    """The length that a Snappy block says it inflates to. Raises `SnappyError` where unreadable or over `limit`."""
    length = shift = 0
    for byte in payload[:LENGTH_MAX_BYTES]:
        length |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit of a varint
            break
        shift += 7
    else:
        raise SnappyError("a payload without a Snappy length")
    if length > limit:
        raise SnappyError(f"a payload that says it inflates to {length} bytes where {limit} are allowed")
    return length


def inflate(payload: bytes, limit: int) -> bytes:
    """Undo Snappy (block format); the announced length is checked before anything is allocated. Raises `SnappyError`."""
    inflated_bytes(payload, limit)
    try:
        return bytes(cramjam.snappy.decompress_raw(payload))
    except cramjam.DecompressionError as error:
        raise SnappyError("a payload that is not Snappy") from error


def deflate(payload: bytes) -> bytes:
    """Apply Snappy (block format)."""
    return bytes(cramjam.snappy.compress_raw(payload))


def check_ping_payload(payload: bytes) -> None:
    """Ping and Pong carry the empty list and nothing else. Raises `MessageError`."""
    if payload != SNAPPY_EMPTY_LIST and inflate(payload, len(EMPTY_LIST)) != EMPTY_LIST:
        raise MessageError("a ping or pong with a payload")


class PingBucket:
    """How many pings a peer may still send; whole seconds refill it."""

    __slots__ = ("_refilled_at", "_tokens")

    def __init__(self, *, now: float) -> None:
        self._tokens = PING_BURST
        self._refilled_at = now

    def take(self, *, now: float) -> None:
        """Count one ping. Raises `PingFloodError` where none is left."""
        refill = int((now - self._refilled_at) / PING_REFILL_SECONDS)
        self._tokens = min(PING_BURST, self._tokens + refill)
        self._refilled_at = now if self._tokens == PING_BURST else self._refilled_at + refill * PING_REFILL_SECONDS
        if not self._tokens:
            raise PingFloodError("pings faster than one a second")
        self._tokens -= 1
