"""The auth and ack of one session: takes bytes, and returns the peer's id, the secrets, and the packet to send back."""

from __future__ import annotations

from typing import NamedTuple

from rlpx.protocol.errors import HandshakeError
from rlpx.protocol.rlpx.handshake import HandshakeReader, Initiator, Recipient, Secrets
from rlpx.protocol.session.setup import LocalNode


class Opened(NamedTuple):
    """The handshake is done. `peer` is the 64-byte id that the peer claims; `ack` is to be sent, empty if we sent the auth.

    `rest` has the bytes after the packet, which belong to the first frames.
    """

    peer: bytes
    secrets: Secrets
    ack: bytes
    rest: bytes


class Opening:
    """The handshake of one session. `peer` is the id that we dialled, or None if the peer dialled us."""

    __slots__ = ("_initiator", "_node", "_reader")

    def __init__(self, node: LocalNode, peer: bytes | None) -> None:
        self._node = node
        self._reader = HandshakeReader()
        self._initiator = None if peer is None else Initiator(node.key, peer, node.entropy)

    @property
    def auth(self) -> bytes:
        """The packet to send first; empty if the peer dialled us."""
        return b"" if self._initiator is None else self._initiator.auth

    @property
    def buffered_bytes(self) -> int:
        """The number of bytes of an incomplete packet."""
        return self._reader.buffered_bytes

    def receive(self, data: bytes, *, now: float) -> Opened | None:
        """Take bytes in any cut; returns the result once the packet is complete. Raises `HandshakeError`."""
        packet_and_rest = self._reader.feed(data)
        if packet_and_rest is None:
            return None
        packet, rest = packet_and_rest
        if self._initiator is not None:
            initiator, self._initiator = self._initiator, None
            return Opened(initiator.peer.id, initiator.open_ack(packet), b"", rest)
        if self._node.seen_auths.has(packet, now=now):
            raise HandshakeError("an auth that was sent before")
        recipient = Recipient(packet, self._node.key, self._node.entropy)
        self._node.seen_auths.remember(packet, now=now)
        return Opened(recipient.peer.id, recipient.secrets, recipient.ack, rest)

    def hint(self, bytes_in: int) -> str:
        """Return a likely reason for an end now, when the peer has sent `bytes_in` bytes that we do not understand."""
        if self._reader.is_old_form:
            return ": what it sent has the length of a handshake packet in the form before EIP-8"
        if bytes_in:
            return ""
        if self._initiator is None:
            return " before it sent a byte"
        return " before it sent a byte: it may have another id than the one dialled, or refuse us"

    def close(self) -> None:
        """Forget keys and bytes: the session has ended."""
        self._initiator = None
        self._reader.clear()
