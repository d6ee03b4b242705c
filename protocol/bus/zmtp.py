"""The listening side of ZMTP 3.0 and 3.1: takes bytes, returns events and bytes (RFC 23 and RFC 37).

It knows the greeting, the handshake, framing, subscriptions and heartbeats, and bounds everything that a user may send. It
knows neither sockets nor time: its driver sets a deadline for the handshake.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

import msgspec

from rlpx.protocol.errors import printable

# RFC 37, "Framing": bits of a frame's first octet.
MORE: Final = 0x01
LONG: Final = 0x02
COMMAND: Final = 0x04
# RFC 37, "Framing": a frame of up to this many bytes has a length of one octet.
SHORT_FRAME_MAX_BYTES: Final = 255
# RFC 37, "Version Negotiation": signature 10, version 2, mechanism 20, as-server 1, filler 31.
GREETING_BYTES: Final = 64
VERSION: Final = (3, 1)
# Handshake commands carry keys and a few properties. A CURVE INITIATE with a full identity takes under 700 bytes.
HANDSHAKE_COMMAND_MAX_BYTES: Final = 2048
# A subscription or a heartbeat begins with its name, of which `\x09SUBSCRIBE` is the longest.
COMMAND_NAME_MAX_BYTES: Final = 10
# RFC 37, "Heartbeating": a PING has two octets of time to live and up to 16 of context.
PING_CONTEXT_MAX_BYTES: Final = 16
# The fixed cost of dropping a frame, expressed in bytes: dropping an empty one takes as long as dropping this many bytes.
DROPPED_FRAME_BYTES: Final = 64

_LONG_HEAD: Final = struct.Struct(">BQ")
_SIGNATURE_START, _SIGNATURE_END = 0xFF, 0x7F
_MECHANISM: Final = slice(12, 32)

# Whole frames, as `encode` makes them.
Wire: TypeAlias = bytes | memoryview
Properties: TypeAlias = dict[str, bytes]


class Kind(StrEnum):
    """The socket types that an endpoint may have."""

    XPUB = "XPUB"
    ROUTER = "ROUTER"


# RFC 37, "The READY command": who may connect to whom.
PARTNERS: Final = {
    Kind.XPUB: frozenset({"SUB", "XSUB"}),
    Kind.ROUTER: frozenset({"REQ", "DEALER", "ROUTER"}),
}


class Limits(msgspec.Struct, frozen=True):
    """Bounds on what one user sends: bytes and frames of a message, subscriptions and their bytes, dropped bytes."""

    message_bytes: int
    message_frames: int = 64
    prefixes: int = 1024
    prefix_bytes: int = 64 * 1024
    dropped_bytes: int = 64 * 1024


class Ready(msgspec.Struct, frozen=True):
    """The handshake is done. `socket_type` is the peer's."""

    socket_type: str


class Subscribed(msgspec.Struct, frozen=True):
    """The peer has subscribed to a new prefix."""

    prefix: bytes


class Cancelled(msgspec.Struct, frozen=True):
    """The peer has cancelled a prefix."""

    prefix: bytes


class Message(msgspec.Struct, frozen=True):
    """A whole message from a ROUTER's peer."""

    frames: list[bytes]


class Ended(msgspec.Struct, frozen=True):
    """The peer broke the protocol or a bound. Write `outgoing`, then close; nothing follows."""

    cause: str


Event: TypeAlias = Ready | Subscribed | Cancelled | Message | Ended


class ZmtpError(Exception):
    """A mistake of the peer. `reason` is for an ERROR command, if the handshake still allows one."""

    def __init__(self, cause: str, *, reason: str | None = None) -> None:
        super().__init__(cause)
        self.reason = cause if reason is None else reason


class Mechanism(Protocol):
    """The security of one connection."""

    @property
    def name(self) -> bytes:
        """The name in the greeting."""

    @property
    def overhead_bytes(self) -> int:
        """The number of bytes that it adds to a frame on the wire."""

    @property
    def user(self) -> str | None:
        """The name of the key that the peer has proved to have, or None without keys."""

    def on_command(self, command: bytes) -> tuple[bytes, Properties | None]:
        """Take a command of the handshake; returns the answer, and after the last command the peer's properties.

        Raises `ZmtpError`.
        """

    def ready(self, metadata: bytes) -> bytes:
        """Return the READY command with our properties, which ends the handshake."""

    def open(self, flags: int, body: bytes) -> tuple[int, bytes]:
        """Return the flags and body inside a frame from the wire. Raises `ZmtpError`."""

    def seal(self, wire: Wire) -> Wire:
        """Return whole frames in the form in which they are sent."""


class Null:
    """RFC 37, "The NULL Security Mechanism"."""

    name: Final = b"NULL"
    overhead_bytes: Final = 0
    user: Final = None

    def on_command(self, command: bytes) -> tuple[bytes, Properties | None]:
        """Take READY, the only command of the handshake. Raises `ZmtpError`."""
        name, body = split_command(command)
        if name != b"READY":
            raise ZmtpError(f"{printable(name.decode('latin-1'))} where READY is due")
        return b"", parse_metadata(body)

    def ready(self, metadata: bytes) -> bytes:
        """Return READY with our properties, not encrypted."""
        return command(b"READY", metadata)

    def open(self, flags: int, body: bytes) -> tuple[int, bytes]:
        """Return the frame unchanged."""
        return flags, body

    def seal(self, wire: Wire) -> Wire:
        """Return the frames unchanged."""
        return wire


class ServerConnection:
    """One user's connection. Pass bytes to `receive`, call `step` until `is_starved`, and send `outgoing` after each."""

    def __init__(self, kind: Kind, limits: Limits, mechanism: Mechanism) -> None:
        self._kind = kind
        self._limits = limits
        self._mechanism = mechanism
        self._out = bytearray(_greeting(mechanism.name))
        self._buffer = bytearray()
        self._offset = 0
        self._on_frame = self._on_handshake
        self._is_greeted = False
        self.is_ready = False
        self.is_ended = False
        # No step can be made before more bytes arrive.
        self.is_starved = True
        self.prefixes: set[bytes] = set()
        self._prefix_bytes = 0
        self._dropped_bytes = 0
        # The frames of the message in progress.
        self._frames: list[bytes] = []
        self._message_bytes = 0
        self._is_inside_dropped = False

    @property
    def user(self) -> str | None:
        """The name of the key that the peer has proved to have, or None."""
        return self._mechanism.user

    @property
    def held_bytes(self) -> int:
        """The number of received bytes that no event contains yet."""
        return len(self._buffer) - self._offset + self._message_bytes

    @property
    def outgoing_bytes(self) -> int:
        """The size of what `outgoing` would return."""
        return len(self._out)

    def outgoing(self) -> bytes:
        """Return the bytes to send now: greeting, handshake, PONG, ERROR."""
        if not self._out:
            return b""
        out, self._out = bytes(self._out), bytearray()
        return out

    def receive(self, data: bytes) -> None:
        """Take bytes from the wire, for `step` to work on."""
        if not self.is_ended:
            self._buffer += data
            self.is_starved = False

    def step(self) -> Event | None:
        """Handle the greeting or one frame. A mistake of the peer is returned as `Ended`, never raised."""
        try:
            return self._step()
        except ZmtpError as error:
            if self._is_greeted and not self.is_ready:
                # The length of a reason is one octet.
                self._out += error_command(error.reason)
            self._end()
            return Ended(str(error))

    def seal(self, wire: Wire) -> Wire:
        """Return a message made by `encode` in its form for this peer. Messages must be sent in the order of the calls."""
        return self._mechanism.seal(wire)

    def seal_parts(self, parts: Sequence[Wire]) -> Sequence[Wire]:
        """As `seal`, for a message in parts. What is sent as it is stays in parts."""
        return parts if isinstance(self._mechanism, Null) else (self._mechanism.seal(b"".join(parts)),)

    def _step(self) -> Event | None:
        if not self._is_greeted:
            self._greet()
            return None
        frame = self._next_frame()
        if frame is None:
            self._starve()
            return None
        return self._on_frame(*frame)

    def _end(self) -> None:
        self.is_ended = self.is_starved = True
        self._buffer.clear()
        self._offset = self._message_bytes = 0
        self._frames = []

    def _starve(self) -> None:
        self.is_starved = True
        del self._buffer[: self._offset]
        self._offset = 0

    # -- handshake ----------------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        """Check the greeting (RFC 37, "Version Negotiation"). A wrong byte is refused as soon as it arrives."""
        start = self._buffer[:GREETING_BYTES]
        if start and start[0] != _SIGNATURE_START:
            raise ZmtpError("what connects does not speak ZMTP 3")
        if len(start) > 9 and start[9] != _SIGNATURE_END:  # noqa: PLR2004 - the last octet of the signature
            raise ZmtpError("what connects does not speak ZMTP 3")
        if len(start) > 10 and start[10] < VERSION[0]:  # noqa: PLR2004 - the octet behind the signature
            raise ZmtpError(f"the peer speaks ZMTP {start[10] or 1}, which is older than 3.0")
        if len(start) < GREETING_BYTES:
            self.is_starved = True
            return
        mechanism = bytes(start[_MECHANISM]).rstrip(b"\0")
        if mechanism != self._mechanism.name:
            named = printable(mechanism.decode("latin-1"))
            raise ZmtpError(f"the peer's mechanism is {named}, ours is {self._mechanism.name.decode()}")
        self._offset = GREETING_BYTES
        self._is_greeted = True

    def _on_handshake(self, flags: int, body: bytes) -> Event | None:
        if not flags & COMMAND:
            raise ZmtpError("a message before the end of the handshake")
        if body.startswith(b"\x05ERROR"):
            raise ZmtpError(f"the peer gave up: {printable(body[7:].decode('latin-1'))}", reason="")
        answer, properties = self._mechanism.on_command(body)
        self._out += answer
        if properties is None:
            return None
        socket_type = properties.get("socket-type", b"").decode("latin-1")
        if socket_type not in PARTNERS[self._kind]:
            fitting = ", ".join(sorted(PARTNERS[self._kind]))
            raise ZmtpError(f"a {printable(socket_type)} socket cannot use this endpoint; it takes {fitting}")
        ours = metadata({"Socket-Type": self._kind.encode(), "Identity": b""})
        self._out += self._mechanism.ready(ours)
        self._on_frame = self._on_traffic
        self.is_ready = True
        return Ready(socket_type)

    # -- traffic ------------------------------------------------------------------------------------------------------------

    def _next_frame(self) -> tuple[int, bytes] | None:
        """Return the next whole frame, or None. The announced length is checked before its bytes arrive."""
        buffer, start = self._buffer, self._offset
        if len(buffer) - start < 2:  # noqa: PLR2004 - the shortest frame has flags and a length
            return None
        flags = buffer[start]
        if flags & ~(MORE | LONG | COMMAND):
            raise ZmtpError(f"reserved bits of a frame's flags are set: 0x{flags:02x}")
        if flags & LONG:
            if len(buffer) - start < _LONG_HEAD.size:
                return None
            _, size = _LONG_HEAD.unpack_from(buffer, start)
            start += _LONG_HEAD.size
        else:
            size = buffer[start + 1]
            start += 2
        self._check_size(size)
        end = start + size
        if len(buffer) < end:
            return None
        self._offset = end
        with memoryview(buffer) as view:
            return flags & ~LONG, bytes(view[start:end])

    def _check_size(self, size: int) -> None:
        if not self.is_ready:
            if size > HANDSHAKE_COMMAND_MAX_BYTES:
                raise ZmtpError(f"a command of {size} bytes in the handshake, over {HANDSHAKE_COMMAND_MAX_BYTES}")
            return
        most = self._limits.message_bytes
        if self._message_bytes + size > most + COMMAND_NAME_MAX_BYTES + self._mechanism.overhead_bytes:
            raise ZmtpError(f"a message of over {most} bytes")

    def _on_traffic(self, flags: int, body: bytes) -> Event | None:
        flags, body = self._mechanism.open(flags, body)
        if flags & COMMAND:
            return self._on_command(body)
        if self._kind is Kind.XPUB:
            return self._on_upstream(flags, body)
        self._message_bytes += len(body)
        self._frames.append(body)
        if self._message_bytes > self._limits.message_bytes:
            raise ZmtpError(f"a message of over {self._limits.message_bytes} bytes")
        if len(self._frames) > self._limits.message_frames:
            raise ZmtpError(f"a message of over {self._limits.message_frames} frames")
        if flags & MORE:
            return None
        frames, self._frames, self._message_bytes = self._frames, [], 0
        return Message(frames)

    def _on_upstream(self, flags: int, body: bytes) -> Event | None:
        """Take a ZMTP 3.0 subscription, a message of one frame that begins with 1 or 0. Everything else is dropped."""
        is_alone = not flags & MORE and not self._is_inside_dropped
        self._is_inside_dropped = bool(flags & MORE)
        if is_alone and body[:1] == b"\x01":
            return self._subscribe(body[1:])
        if is_alone and body[:1] == b"\x00":
            return self._cancel(body[1:])
        self._drop(body)
        return None

    def _on_command(self, body: bytes) -> Event | None:
        name, rest = split_command(body)
        if name == b"PING":
            self._on_ping(rest)
        elif name == b"SUBSCRIBE" and self._kind is Kind.XPUB:
            return self._subscribe(rest)
        elif name == b"CANCEL" and self._kind is Kind.XPUB:
            return self._cancel(rest)
        else:
            self._drop(body)
        return None

    def _on_ping(self, rest: bytes) -> None:
        context = rest[2:]
        if len(rest) < 2 or len(context) > PING_CONTEXT_MAX_BYTES:  # noqa: PLR2004 - the time to live
            raise ZmtpError("a malformed PING")
        self._out += self.seal(command(b"PONG", context))

    def _subscribe(self, prefix: bytes) -> Event | None:
        """Add a subscription. As in libzmq's XPUB, one cancel ends it even if the peer has made it twice."""
        if prefix in self.prefixes:
            return None
        limits = self._limits
        if len(self.prefixes) >= limits.prefixes or self._prefix_bytes + len(prefix) > limits.prefix_bytes:
            raise ZmtpError(f"over {limits.prefixes} subscriptions, or over {limits.prefix_bytes} bytes of them")
        self.prefixes.add(prefix)
        self._prefix_bytes += len(prefix)
        return Subscribed(prefix)

    def _cancel(self, prefix: bytes) -> Event | None:
        if prefix not in self.prefixes:
            return None
        self.prefixes.remove(prefix)
        self._prefix_bytes -= len(prefix)
        return Cancelled(prefix)

    def _drop(self, body: bytes) -> None:
        self._dropped_bytes += len(body) + DROPPED_FRAME_BYTES
        if self._dropped_bytes > self._limits.dropped_bytes:
            raise ZmtpError("the peer goes on sending what this endpoint does not take")


# -- frames and commands ----------------------------------------------------------------------------------------------------


def frame_head(flags: int, size: int) -> bytes:
    """Return the flags and the length in front of a body of this size."""
    return bytes((flags, size)) if size <= SHORT_FRAME_MAX_BYTES else _LONG_HEAD.pack(flags | LONG, size)


def frame(flags: int, body: bytes) -> bytes:
    """Return one frame."""
    return frame_head(flags, len(body)) + body


def encode(frames: Sequence[bytes]) -> bytes:
    """Return one whole message, its frames in order."""
    parts: list[bytes] = []
    last = len(frames) - 1
    for index, body in enumerate(frames):
        parts += (frame_head(MORE if index < last else 0, len(body)), body)
    return b"".join(parts)


def frames_of(wire: Wire) -> Iterator[tuple[int, bytes]]:
    """Yield the flags and body of each frame made by `frame` or `encode`."""
    start = 0
    while start < len(wire):
        flags = wire[start]
        if flags & LONG:
            _, size = _LONG_HEAD.unpack_from(wire, start)
            start += _LONG_HEAD.size
        else:
            size = wire[start + 1]
            start += 2
        yield flags & ~LONG, bytes(wire[start : start + size])
        start += size


def decode(wire: Wire) -> list[bytes]:
    """Return the frame bodies of a message made by `encode`."""
    return [body for _, body in frames_of(wire)]


def command(name: bytes, body: bytes) -> bytes:
    """Return a command frame."""
    return frame(COMMAND, bytes((len(name),)) + name + body)


def error_command(reason: str) -> bytes:
    """Return an ERROR command (RFC 37, "The ERROR command"); the reason's length is one octet."""
    text = reason.encode("ascii", "replace")[:SHORT_FRAME_MAX_BYTES]
    return command(b"ERROR", bytes((len(text),)) + text)


def split_command(body: bytes) -> tuple[bytes, bytes]:
    """Return the name and the rest of a command's body. Raises `ZmtpError`."""
    if not body or not body[0] or len(body) < 1 + body[0]:
        raise ZmtpError("a malformed command")
    return body[1 : 1 + body[0]], body[1 + body[0] :]


def metadata(properties: dict[str, bytes]) -> bytes:
    """Encode properties (RFC 37, "Metadata"): names with one octet of length, values with four."""
    parts = []
    for name, value in properties.items():
        parts += [bytes((len(name),)), name.encode(), len(value).to_bytes(4, "big"), value]
    return b"".join(parts)


def parse_metadata(data: bytes) -> Properties:
    """Return the properties by their names in lower case, as names ignore case. Raises `ZmtpError`."""
    properties: Properties = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        value_start = name_end + 4
        value_end = value_start + int.from_bytes(data[name_end:value_start], "big")
        if name_end == at + 1 or value_start > len(data) or value_end > len(data):
            raise ZmtpError("malformed properties")
        properties[data[at + 1 : name_end].decode("latin-1").lower()] = data[value_start:value_end]
        at = value_end
    return properties


def _greeting(mechanism: bytes) -> bytes:
    signature = bytes((_SIGNATURE_START, 0, 0, 0, 0, 0, 0, 0, 0, _SIGNATURE_END))
    # A server has the as-server bit with CURVE only: NULL has no roles.
    as_server = bytes((mechanism != Null.name,))
    return (signature + bytes(VERSION) + mechanism.ljust(20, b"\0") + as_server).ljust(GREETING_BYTES, b"\0")
