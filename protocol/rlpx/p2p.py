"""The base protocol, version 5 (`rlpx.md`, "p2p Capability"): Hello, Disconnect, Ping, Pong, and Snappy."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import cramjam
import msgspec

from rlpx.protocol import rlp
from rlpx.protocol.errors import (
    DisconnectReason,
    IncompatibleVersionError,
    MessageError,
    NullIdentityError,
    RlpError,
    SnappyError,
    UnexpectedIdentityError,
    bounded,
    printable,
    reading,
)
from rlpx.protocol.native import NATIVE
from rlpx.protocol.rlpx.capabilities import Capability
from rlpx.protocol.rlpx.crypto import ID_BYTES

# The version with Snappy (EIP-706). We do not support older peers; newer versions do not differ in anything that we use.
P2P_VERSION: Final = 5

HELLO_CODE: Final = 0x00
DISCONNECT_CODE: Final = 0x01
PING_CODE: Final = 0x02
PONG_CODE: Final = 0x03
# These codes also belong to the base protocol, which assigns no meaning to them so far.
RESERVED_CODES: Final = range(0x04, 0x10)
# A message code is an RLP integer, so zero is the byte 0x80. No capability reaches 0x80: a code is always one byte.
HELLO_BYTE: Final = 0x80

# The first frame bounds a Hello, and so its capabilities: three items each, and their list.
_HELLO_FIELDS: Final = 5
# Lists of capabilities to remember. This bounds the memory that hostile peers can fill: each is shorter than a Hello.
LISTS_KEPT: Final = 256
HELLO_MAX_ITEMS: Final = 2048

# Payload of Ping and Pong: the empty list, before and after Snappy.
EMPTY_LIST: Final = b"\xc0"
SNAPPY_EMPTY_LIST: Final = b"\x01\x00\xc0"

# A reason takes two bytes, and some clients add a sentence. This is far more, so that no deflated text is taken for plain.
DISCONNECT_MAX_BYTES: Final = 64 * 1024
# A reason takes one byte; this many letters or more are a text in place of a number.
_SHORTEST_WORD_BYTES: Final = 4
# The number of bytes of an unreadable Disconnect that its cause shows.
DISCONNECT_SHOWN_BYTES: Final = 16

# A ping's payload is ignored: the empty list takes one byte, and some clients send other small things.
PING_MAX_BYTES: Final = 16
# The deflated size of such a payload, with Snappy's overhead, and its largest inflated size: 64 bytes for every three.
PING_MAX_WIRE_BYTES: Final = 32
PING_INFLATED_MAX_BYTES: Final = 1024

# Snappy's encoders look for copies only in inputs of at least this length.
SHORTEST_COPYING_BYTES: Final = 17
# A Snappy block starts with its inflated length, 32 bits as a varint: up to five bytes.
LENGTH_MAX_BYTES: Final = 5
_U16_MAX: Final = 0xFFFF


class Hello(msgspec.Struct, frozen=True):
    """A node's description of itself. `node_id` has 64 bytes; `client` is cut to 128 characters if it is a peer's."""

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
        with reading("Hello"):
            fields = rlp.raw_elements(payload, _HELLO_FIELDS)
            if len(fields) < _HELLO_FIELDS:
                raise MessageError(f"{len(fields)} of its {_HELLO_FIELDS} fields")
            version, client, capabilities, port, node_id = fields
            with reading("node_id"):
                identity = rlp.as_bytes(rlp.decode(node_id))
                if len(identity) != ID_BYTES or not any(identity):
                    raise NullIdentityError("no node id" if not any(identity) else f"{len(identity)} bytes where 64 belong")
            with reading("client"):
                name = bounded(rlp.as_bytes(rlp.decode(client)).decode("utf-8", "replace"))
            with reading("capabilities"):
                offered = _capabilities(capabilities)
            with reading("listen_port"):
                listen_port = _port(rlp.as_uint(rlp.decode(port), ID_BYTES))
            with reading("version"):
                return cls(name, offered, listen_port, identity, rlp.as_uint(rlp.decode(version)))

    def check(self, proven_id: bytes) -> None:
        """Check that the peer supports Snappy and has the id that the handshake proved.

        Raises `UnexpectedIdentityError`, `IncompatibleVersionError`.
        """
        if self.node_id != proven_id:
            raise UnexpectedIdentityError("the Hello names another node id than the handshake proved")
        if self.version < P2P_VERSION:
            raise IncompatibleVersionError(f"base protocol version {self.version}, which has no Snappy")


def _port(number: int) -> int:
    """Return the number if it can be a TCP port, else 0, which means none in a Hello."""
    return number if number <= _U16_MAX else 0


# Peers send few different lists. Without the cache, decoding one took 14 of the 36 µs of a Hello.
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
    """Return the payload of a Disconnect: a list of one integer."""
    return rlp.encode([int(reason)])


class Disconnect(msgspec.Struct, frozen=True):
    """A peer's Disconnect: the reason, None if it gave none, and the cause as text."""

    reason: DisconnectReason | None
    cause: str


def decode_disconnect(payload: bytes) -> Disconnect:
    """Read a Disconnect in any form that clients use, at any stage, deflated or not.

    The specification has a list of one integer, deflated after Hello. An ethrex node that is full deflates it before Hello,
    other clients never do. Also accepted are a bare integer, a nested list, further elements (the cause repeats a text),
    bytes after the list, and integers that are not in their shortest form. The peer leaves in any case, so a malformed
    Disconnect is not a breach.
    """
    if len(payload) > len(b"\xc1\x04"):
        with suppress(SnappyError):
            payload = inflate(payload, DISCONNECT_MAX_BYTES)
    if payload in {b"", EMPTY_LIST}:
        return Disconnect(None, "the peer left without a reason")
    number, behind = _first_string(payload)
    if number is not None and len(number) >= _SHORTEST_WORD_BYTES and number.isascii() and number.decode().isprintable():
        return Disconnect(None, f"the peer left with text in place of a reason: {printable(number.decode())}")
    # No client writes a reason with a row of zeros.
    if number is None or len(number) > rlp.U64_BYTES or payload[: len(b"\x00\x00")] == b"\x00\x00":
        shown = payload[:DISCONNECT_SHOWN_BYTES].hex()
        return Disconnect(None, f"the peer left with a Disconnect that cannot be read: 0x{shown}")
    reason = DisconnectReason(int.from_bytes(number, "big"))
    text = _text(_first_string(behind)[0] or b"")
    if not reason.is_known:
        return Disconnect(reason, f"the peer left with reason 0x{reason:02x}, which is unknown{text}")
    return Disconnect(reason, f"the peer said goodbye{text}")


def _text(data: bytes) -> str:
    """Return the text after a reason, in the form that is appended to the cause; empty if there is no text."""
    text = data.decode("utf-8", "replace").strip()
    is_text = len(text) > 1 and all(c.isprintable() or c.isspace() for c in text)
    return f": {printable(text)}" if is_text else ""


def _first_string(data: bytes) -> tuple[bytes | None, bytes]:
    """Return the first string of an RLP item, canonical or not, and the bytes after it in its list; None without one."""
    for _ in range(rlp.MAX_DEPTH):
        if not data:
            break
        head = data[0]
        if head < rlp.SHORT_STRING:
            return data[:1], data[1:]
        is_list = head >= rlp.SHORT_LIST
        length, start = head - (rlp.SHORT_LIST if is_list else rlp.SHORT_STRING), 1
        if length > rlp.SHORT_MAX_BYTES:
            start += length - rlp.SHORT_MAX_BYTES
            length = int.from_bytes(data[1:start], "big")
        if start + length > len(data):
            break
        if not is_list:
            return data[start : start + length], data[start + length :]
        data = data[start : start + length]
    return None, b""


def inflated_bytes(payload: bytes, limit: int) -> int:
    """Return the inflated length that a Snappy block announces. Raises `SnappyError` if it is unreadable or over `limit`."""
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


def python_inflate(payload: bytes, limit: int, start: int = 0, /) -> bytes:
    """Undo Snappy (block format) from `start` on; the announced length is checked before anything is allocated.

    Raises `SnappyError`.
    """
    block = payload[start:]
    inflated_bytes(block, limit)
    try:
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise SnappyError("a payload that is not Snappy") from error


# The type checker sees the Python function; at run time it is the compiled one if there is one.
if TYPE_CHECKING:
    inflate = python_inflate
else:
    inflate = python_inflate if NATIVE is None else NATIVE.inflate


def deflate(payload: bytes) -> bytes:
    """Apply Snappy (block format)."""
    size = len(payload)
    if 0 < size < SHORTEST_COPYING_BYTES:
        # Snappy finds nothing to copy in an input this short: the block is its length, the tag of a literal, and the input.
        return bytes((size, (size - 1) << 2)) + payload
    return bytes(cramjam.snappy.compress_raw(payload))


def check_ping_payload(payload: bytes) -> None:
    """Check the size of a Ping's or Pong's payload, which is otherwise ignored, as in geth. Raises `MessageError`.

    The specification has an empty list. Besu until 23.7 and go-ethereum's own test tool send an empty payload.
    """
    if payload == SNAPPY_EMPTY_LIST:
        return
    if len(payload) > PING_MAX_WIRE_BYTES:
        raise MessageError(f"a ping or pong of {len(payload)} bytes")
    length = 0
    with suppress(SnappyError):  # not deflated, but short: ignored as well
        length = len(inflate(payload, PING_INFLATED_MAX_BYTES))
    if length > PING_MAX_BYTES:
        raise MessageError(f"a ping or pong that inflates to {length} bytes where {PING_MAX_BYTES} are allowed")
