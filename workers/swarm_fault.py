"""Simulated peers that do one thing wrong, and what a target does about each: the reasons our own engine gives.

`closed` is an end without a word, `told …` a Disconnect with a reason, `kept` none until the swarm ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from protocol import eth, handshake
from protocol.events import Established, Event
from protocol.frames import BLOCK_BYTES, HEADER_BYTES
from protocol.p2p import Hello
from protocol.swarm import Fault
from workers.swarm_peer import Hangup, Peer

_ANNOUNCEMENT_ID: Final = 0x08
# A varint of 17 MiB: over the 10 MiB of eth and the 16 MiB of the base protocol.
_OVERSIZED: Final = b"\x80\x80\xc0\x08\x00"
# More than the longest handshake packet with its size: whatever the size says, nothing is waited for.
_GARBAGE_BYTES: Final = handshake.SIZE_BYTES + handshake.MAX_PACKET_BYTES + 1
# Requests a second of a peer that hardly reads the answers.
_SLOW_READER_REQUESTS_PER_S: Final = 20.0
_CLOSED: Final = frozenset({"closed", "reset"})
_TIMED_OUT: Final = frozenset({"told ping_timeout"})


class _Mute(Peer):
    """It says so many bytes and no more, but hears everything, so that it can tell how it ended."""

    is_patient = True
    is_heard: ClassVar[bool] = False

    _said_bytes = 0
    _most_bytes: int | None = None

    def outgoing(self) -> bytes:
        """What is left of what it says."""
        data = super().outgoing()
        if self._most_bytes is None:
            self._most_bytes = self._limit(data) if data else None
        if self._most_bytes is not None:
            data = data[: max(0, self._most_bytes - self._said_bytes)]
        self._said_bytes += len(data)
        return data

    def _limit(self, first: bytes) -> int | None:
        """How much it says, known from its first bytes; `None` for all."""
        raise NotImplementedError


def _packet_bytes(first: bytes) -> int:
    return handshake.SIZE_BYTES + handshake.packet_size(first[: handshake.SIZE_BYTES])


def _hello_frame_bytes(hello: Hello) -> int:
    size = 1 + len(hello.encode())
    return HEADER_BYTES + size + -size % BLOCK_BYTES + BLOCK_BYTES


class StallConnect(_Mute):
    """TCP, and not a byte."""

    expected = _CLOSED

    def _limit(self, first: bytes) -> int:
        del first
        return 0


class StallAuth(_Mute):
    """Half of its handshake packet."""

    expected = _CLOSED

    def _limit(self, first: bytes) -> int:
        return _packet_bytes(first) // 2


class StallAck(_Mute):
    """Its handshake packet, and no Hello."""

    expected = _TIMED_OUT

    def _limit(self, first: bytes) -> int:
        return _packet_bytes(first)


class StallHello(_Mute):
    """Its Hello, and nothing more, not even a pong."""

    expected = _TIMED_OUT

    def _limit(self, first: bytes) -> int:
        return _packet_bytes(first) + _hello_frame_bytes(self._personality.hello(self.plan.key.id))


class NoStatus(Peer):
    """It never says its Status, but answers pings."""

    expected = _TIMED_OUT
    is_patient = True
    is_admitted: ClassVar[bool] = False
    is_heard: ClassVar[bool] = False

    def _flush(self, now: float) -> list[Event]:
        """The session has held back what came after the target's Status: the goodbye among it."""
        return self.session.admit(now=now)


class Garbage(Peer):
    """Random bytes where the handshake belongs."""

    expected = _CLOSED

    _has_spoken = False

    def outgoing(self) -> bytes:
        """Once."""
        if self._has_spoken:
            return b""
        self._has_spoken = True
        super().outgoing()
        return self._random.randbytes(_GARBAGE_BYTES)


class OffCurve(Peer):
    """A handshake packet whose point is none of the curve."""

    expected = _CLOSED

    _has_spoken = False

    def outgoing(self) -> bytes:
        """The packet, with the ephemeral point's x and y made (1, 1)."""
        data = super().outgoing()
        if self._has_spoken or not data:
            return b""
        self._has_spoken = True
        start = handshake.SIZE_BYTES + 1
        point = (bytes(31) + b"\x01") * 2
        return data[:start] + point + data[start + len(point) : _packet_bytes(data)]


class _AtOnce(Peer):
    """It is honest until it is established."""

    def _on_established(self, event: Established, now: float) -> None:
        raise NotImplementedError


class BadMac(_AtOnce):
    """The tag of its first message is wrong."""

    expected = _CLOSED

    _is_spoiling = False

    def outgoing(self) -> bytes:
        """The last byte is of the last frame's tag."""
        data = super().outgoing()
        if data and self._is_spoiling:
            self._is_spoiling = False
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        return data

    def _on_established(self, event: Established, now: float) -> None:
        del event
        self._announce(now)
        self._is_spoiling = True


class OversizedSnappy(_AtOnce):
    """A message that says it inflates to 17 MiB."""

    expected = frozenset({"told protocol_breach"})

    def _on_established(self, event: Established, now: float) -> None:
        del event, now
        self.session.send_deflated(eth.NAME, _ANNOUNCEMENT_ID, b"", _OVERSIZED)


class HalfOpen(_Mute):
    """It is established, and from then on as if its machine were gone: not a byte, not even a pong."""

    expected = _TIMED_OUT
    is_heard: ClassVar[bool] = True

    _is_gone = False

    def _limit(self, first: bytes) -> int | None:
        del first
        return None

    def _on_established(self, event: Established, now: float) -> None:
        """It sends nothing."""

    def outgoing(self) -> bytes:
        """Everything until it is gone."""
        data = self.session.outgoing()
        if self._is_gone:
            return b""
        self._is_gone = self.is_established
        return data


class HalfClose(_AtOnce):
    """It ends its side of TCP without a word, and goes on reading."""

    expected = _CLOSED

    def _on_established(self, event: Established, now: float) -> None:
        del event, now
        self.hangup = Hangup.EOF


class Reset(_AtOnce):
    """It resets the connection."""

    expected = frozenset({"reset by us"})

    def _on_established(self, event: Established, now: float) -> None:
        del event, now
        self.hangup = Hangup.RESET
        self._finish("reset by us")


class SlowReader(Peer):
    """It asks much and hardly reads: a target may bear with it or not, as long as nobody else suffers."""

    expected = frozenset({"kept", "left", "closed", "reset", "told ping_timeout"})
    reads_slowly: ClassVar[bool] = True

    def _on_established(self, event: Established, now: float) -> None:
        del event
        self._schedule(self._request, _SLOW_READER_REQUESTS_PER_S, now)


class DisconnectStorm(_AtOnce):
    """It leaves as soon as it is established, and comes back."""

    expected = frozenset({"left"})

    def _on_established(self, event: Established, now: float) -> None:
        del event, now
        self.leave()


FAULTS: Final[Mapping[Fault, type[Peer]]] = {
    Fault.STALL_CONNECT: StallConnect,
    Fault.STALL_AUTH: StallAuth,
    Fault.STALL_ACK: StallAck,
    Fault.STALL_HELLO: StallHello,
    Fault.NO_STATUS: NoStatus,
    Fault.GARBAGE: Garbage,
    Fault.OFF_CURVE: OffCurve,
    Fault.BAD_MAC: BadMac,
    Fault.OVERSIZED_SNAPPY: OversizedSnappy,
    Fault.HALF_OPEN: HalfOpen,
    Fault.HALF_CLOSE: HalfClose,
    Fault.RESET: Reset,
    Fault.SLOW_READER: SlowReader,
    Fault.DISCONNECT_STORM: DisconnectStorm,
}


def peer_class(fault: Fault | None) -> type[Peer]:
    """How a peer with this fault behaves; without one it is honest."""
    return Peer if fault is None else FAULTS[fault]
