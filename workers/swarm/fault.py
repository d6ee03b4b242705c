"""Simulated peers that do one thing wrong, and the ends that a target may give each of them: those of our own engine.

`closed` is an end without a Disconnect, `told …` a Disconnect with a reason, `kept` no end until the swarm ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from rlpx.protocol.bus.swarm import Fault
from rlpx.protocol.eth import eth
from rlpx.protocol.rlpx import handshake
from rlpx.protocol.rlpx.frames import BLOCK_BYTES, HEADER_BYTES
from rlpx.protocol.rlpx.p2p import Hello
from rlpx.protocol.session.events import Established, Event
from rlpx.workers.swarm.peer import Hangup, Peer

# The varint of 17 MiB: over the limits of eth (10 MiB) and of the base protocol (16 MiB).
_OVERSIZED: Final = b"\x80\x80\xc0\x08\x00"
# Longer than any handshake packet with its size, so that the target waits for no more, whatever the size says.
_GARBAGE_BYTES: Final = handshake.SIZE_BYTES + handshake.MAX_PACKET_BYTES + 1
# Requests per second of a peer that hardly reads the answers.
_SLOW_READER_REQUESTS_PER_S: Final = 20.0
_CLOSED: Final = frozenset({"closed", "reset"})
_TIMED_OUT: Final = frozenset({"told ping_timeout"})


class _Mute(Peer):
    """Sends a limited number of bytes, but reads everything, so that it knows how it ended."""

    is_patient = True
    is_heard: ClassVar[bool] = False

    _sent_bytes = 0
    _max_bytes: int | None = None

    def data_to_send(self) -> bytes:
        """The next bytes within the limit."""
        data = super().data_to_send()
        if self._max_bytes is None:
            self._max_bytes = self._limit(data) if data else None
        if self._max_bytes is not None:
            data = data[: max(0, self._max_bytes - self._sent_bytes)]
        self._sent_bytes += len(data)
        return data

    def _limit(self, first: bytes) -> int | None:
        """The limit in bytes, which may depend on the first bytes; `None` for no limit."""
        raise NotImplementedError


def _packet_bytes(first: bytes) -> int:
    return handshake.SIZE_BYTES + handshake.packet_size(first[: handshake.SIZE_BYTES])


def _hello_frame_bytes(hello: Hello) -> int:
    size = 1 + len(hello.encode())
    return HEADER_BYTES + size + -size % BLOCK_BYTES + BLOCK_BYTES


class StallConnect(_Mute):
    """Connects, and sends nothing."""

    expected = _CLOSED

    def _limit(self, first: bytes) -> int:
        del first
        return 0


class StallAuth(_Mute):
    """Sends half of its handshake packet."""

    expected = _CLOSED

    def _limit(self, first: bytes) -> int:
        return _packet_bytes(first) // 2


class StallAck(_Mute):
    """Sends its handshake packet, and no Hello."""

    expected = _TIMED_OUT

    def _limit(self, first: bytes) -> int:
        return _packet_bytes(first)


class StallHello(_Mute):
    """Sends its Hello, and nothing more, not even a pong."""

    expected = _TIMED_OUT

    def _limit(self, first: bytes) -> int:
        return _packet_bytes(first) + _hello_frame_bytes(self._personality.hello(self.plan.key.id))


class NoStatus(Peer):
    """Never sends its Status, but answers pings."""

    expected = _TIMED_OUT
    is_patient = True
    is_admitted: ClassVar[bool] = False
    is_heard: ClassVar[bool] = False

    def _flush(self, now: float) -> list[Event]:
        """The events that the session has held back: everything after the target's Status, its Disconnect included."""
        return self.session.approve(now=now)


class Garbage(Peer):
    """Sends random bytes instead of a handshake packet."""

    expected = _CLOSED

    _has_spoken = False

    def data_to_send(self) -> bytes:
        """The random bytes, once."""
        if self._has_spoken:
            return b""
        self._has_spoken = True
        super().data_to_send()
        return self._random.randbytes(_GARBAGE_BYTES)


class OffCurve(Peer):
    """Sends a handshake packet whose point is not on the curve."""

    expected = _CLOSED

    _has_spoken = False

    def data_to_send(self) -> bytes:
        """The packet, with the ephemeral point's x and y made (1, 1)."""
        data = super().data_to_send()
        if self._has_spoken or not data:
            return b""
        self._has_spoken = True
        start = handshake.SIZE_BYTES + 1
        point = (bytes(31) + b"\x01") * 2
        return data[:start] + point + data[start + len(point) : _packet_bytes(data)]


class _AtOnce(Peer):
    """Behaves until it is established."""

    def _on_established(self, event: Established, now: float) -> None:
        raise NotImplementedError


class BadMac(_AtOnce):
    """Sends a first message with a wrong tag."""

    expected = _CLOSED

    _is_spoiling = False

    def data_to_send(self) -> bytes:
        """The bytes to write; the last byte belongs to the tag of the last frame."""
        data = super().data_to_send()
        if data and self._is_spoiling:
            self._is_spoiling = False
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        return data

    def _on_established(self, event: Established, now: float) -> None:
        del event
        self._announce(now)
        self._is_spoiling = True


class OversizedSnappy(_AtOnce):
    """Sends a message that claims to inflate to 17 MiB."""

    expected = frozenset({"told protocol_breach"})

    def _on_established(self, event: Established, now: float) -> None:
        del event, now
        self.session.send_deflated(eth.NAME, eth.NEW_POOLED_TRANSACTION_HASHES_ID, b"", _OVERSIZED)


class HalfOpen(_Mute):
    """Once it is established, it behaves as if its machine were gone: it sends nothing, not even a pong."""

    expected = _TIMED_OUT
    is_heard: ClassVar[bool] = True

    _is_gone = False

    def _limit(self, first: bytes) -> int | None:
        del first
        return None

    def _on_established(self, event: Established, now: float) -> None:
        """Send nothing."""

    def data_to_send(self) -> bytes:
        """Everything, until it is gone."""
        data = self.session.data_to_send()
        if self._is_gone:
            return b""
        self._is_gone = self.is_established
        return data


class HalfClose(_AtOnce):
    """Closes its side of TCP without a Disconnect, and keeps reading."""

    expected = _CLOSED

    def _on_established(self, event: Established, now: float) -> None:
        del event, now
        self.hangup = Hangup.EOF


class Reset(_AtOnce):
    """Resets the connection."""

    expected = frozenset({"reset by us"})

    def _on_established(self, event: Established, now: float) -> None:
        del event, now
        self.hangup = Hangup.RESET
        self._finish("reset by us")


class SlowReader(Peer):
    """Sends many requests and hardly reads. The target may tolerate it or not, as long as no other peer suffers."""

    expected = frozenset({"kept", "left", "closed", "reset", "told ping_timeout"})
    reads_slowly: ClassVar[bool] = True

    def _on_established(self, event: Established, now: float) -> None:
        del event
        self._schedule(self._request, _SLOW_READER_REQUESTS_PER_S, now)


class DisconnectStorm(_AtOnce):
    """Leaves as soon as it is established, and comes back."""

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
