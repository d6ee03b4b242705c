"""The RLPx auth/ack exchange in its EIP-8 form, for both roles, and the secrets that result from it.

A packet is a 2-byte size and an ECIES message that authenticates the size. Packets of the form before EIP-8 are refused:
no client sends them any more. Every failure is a `HandshakeError`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from rlpx.protocol import rlp
from rlpx.protocol.errors import HandshakeError, RlpError
from rlpx.protocol.rlpx import ecies
from rlpx.protocol.rlpx.crypto import (
    DIGEST_BYTES,
    ID_BYTES,
    SIGNATURE_BYTES,
    Entropy,
    Point,
    PrivateKey,
    keccak256,
    recover,
    xor,
)

SIZE_BYTES: Final = 2
# geth's bound. Real packets have 300 to 600 bytes. Without a bound, two bytes would make us wait for 64 KiB (core-geth 694).
MAX_PACKET_BYTES: Final = 2048
# EIP-8: "the version number must be 4". A received version is not compared.
AUTH_VERSION: Final = 4
# EIP-8: at least 100 bytes of padding, of random length, so that the packet differs from the old fixed form.
MIN_PADDING_BYTES: Final = 100
PADDING_SPREAD_BYTES: Final = 100
# An auth has four elements. Further ones are ignored (EIP-8), up to this number.
MAX_ITEMS: Final = 64
# Other protocols that may reach this port, by their first two bytes. As a size prefix none of these is valid.
_FOREIGN: Final = {
    **dict.fromkeys((b"GE", b"HE", b"PO", b"PU", b"PA", b"DE", b"OP", b"CO", b"TR", b"HT"), "HTTP"),
    b"PR": "a PROXY protocol header (or HTTP/2)",
    b"\r\n": "a PROXY protocol header",
    b"SS": "SSH",
    # A handshake or alert record of any version from SSL 3.0 on.
    b"\x16\x03": "TLS",
    b"\x15\x03": "TLS",
}
# The lengths of auth and ack before EIP-8: an ECIES message that starts with its point, without a size prefix.
_OLD_PACKET_BYTES: Final = frozenset({307, 210})


class Secrets(NamedTuple):
    """The initial state of the frame cipher (`rlpx.md`, "Initial Handshake")."""

    aes: bytes
    mac: bytes
    # The bytes that each direction's MAC absorbs before the first frame.
    egress_seed: bytes
    ingress_seed: bytes


class Initiator:
    """The dialling side. It has the `auth` to send, and `open_ack` takes the answer."""

    __slots__ = ("_ephemeral", "_key", "_nonce", "auth", "peer")

    def __init__(self, key: PrivateKey, peer_id: bytes, entropy: Entropy) -> None:
        self._key = key
        self._ephemeral = PrivateKey.generate(entropy)
        self._nonce = entropy(DIGEST_BYTES)
        self.peer = Point.parse(peer_id)
        signature = self._ephemeral.sign(xor(key.ecdh(self.peer), self._nonce))
        self.auth = _seal([signature, key.id, self._nonce, AUTH_VERSION], self.peer, entropy)

    def open_ack(self, packet: bytes) -> Secrets:
        """Open the whole ack packet, size included. Raises `HandshakeError`."""
        point, nonce = _open(packet, self._key, (ID_BYTES, DIGEST_BYTES))
        ephemeral = Point.parse(point)
        aes, mac = _keys(self._ephemeral.ecdh(ephemeral), nonce, self._nonce)
        return Secrets(
            aes,
            mac,
            egress_seed=xor(mac, nonce) + self.auth,
            ingress_seed=xor(mac, self._nonce) + packet,
        )


class Recipient:
    """The listening side. It is made from an auth packet, and has the peer, the `ack` to send, and the secrets.

    Raises `HandshakeError` if the packet is not a valid auth to `key`.
    """

    __slots__ = ("ack", "peer", "secrets")

    def __init__(self, packet: bytes, key: PrivateKey, entropy: Entropy) -> None:
        signature, peer_id, remote_nonce = _open(packet, key, (SIGNATURE_BYTES, ID_BYTES, DIGEST_BYTES))
        self.peer = Point.parse(peer_id)
        remote_ephemeral = recover(xor(key.ecdh(self.peer), remote_nonce), signature)
        ephemeral = PrivateKey.generate(entropy)
        nonce = entropy(DIGEST_BYTES)
        self.ack = _seal([ephemeral.id, nonce, AUTH_VERSION], self.peer, entropy)
        aes, mac = _keys(ephemeral.ecdh(remote_ephemeral), nonce, remote_nonce)
        self.secrets = Secrets(
            aes,
            mac,
            egress_seed=xor(mac, remote_nonce) + self.ack,
            ingress_seed=xor(mac, nonce) + packet,
        )


class HandshakeReader:
    """Collects the bytes of one auth or ack packet, in whatever pieces they arrive."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def buffered_bytes(self) -> int:
        """The number of bytes of an incomplete packet."""
        return len(self._buffer)

    @property
    def is_old_form(self) -> bool:
        """Whether the received bytes are exactly as long as an auth or ack before EIP-8."""
        return is_old_form(self._buffer)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take a chunk in any cut; returns the packet, size included, and the bytes after it, once it is complete.

        Raises `HandshakeError` as soon as the first bytes cannot begin a packet.
        """
        data = self._buffer + data
        self._buffer = data
        if len(data) < SIZE_BYTES:
            return None
        end = packet_end(data)
        if len(data) < end:
            return None
        self._buffer = b""
        return data[:end], data[end:]

    def clear(self) -> None:
        """Drop the received bytes: the session has ended."""
        self._buffer = b""


def packet_size(prefix: bytes) -> int:
    """Return the number of bytes after the 2-byte size prefix. Raises `HandshakeError` outside 113 to 2048."""
    size = int.from_bytes(prefix, "big")
    if prefix in _FOREIGN:
        raise HandshakeError(f"{_FOREIGN[prefix]} in place of a handshake packet")
    if not ecies.OVERHEAD_BYTES <= size <= MAX_PACKET_BYTES:
        raise HandshakeError(f"a handshake packet of {size} bytes")
    return size


def packet_end(data: bytes) -> int:
    """Return the end of the packet that starts with `data`, which has at least two bytes.

    Raises `HandshakeError` if no packet can start like this: the third byte must be the prefix of the ECIES message's point.
    """
    size = packet_size(data[:SIZE_BYTES])
    if len(data) > SIZE_BYTES and data[SIZE_BYTES] != ecies.POINT_PREFIX:
        is_old = data[0] == ecies.POINT_PREFIX
        raise HandshakeError(f"a handshake packet {'in the form before EIP-8' if is_old else 'that starts with no point'}")
    return SIZE_BYTES + size


def is_old_form(data: bytes) -> bool:
    """Whether the bytes that came in place of an auth or ack are exactly as long as one before EIP-8."""
    return len(data) in _OLD_PACKET_BYTES and data[0] == ecies.POINT_PREFIX


def _seal(body: rlp.Encodable, recipient: Point, entropy: Entropy) -> bytes:
    padding = bytes(MIN_PADDING_BYTES + int.from_bytes(entropy(2), "big") % PADDING_SPREAD_BYTES)
    plaintext = rlp.encode(body) + padding
    prefix = (len(plaintext) + ecies.OVERHEAD_BYTES).to_bytes(SIZE_BYTES, "big")
    return prefix + ecies.seal(plaintext, recipient, prefix, entropy)


def _open(packet: bytes, key: PrivateKey, lengths: tuple[int, ...]) -> list[bytes]:
    """Return the leading fields of the packet's list. EIP-8: further elements and bytes after the list are ignored."""
    prefix = packet[:SIZE_BYTES]
    if packet_size(prefix) != len(packet) - SIZE_BYTES:
        raise HandshakeError("a handshake packet whose size prefix is wrong")
    if len(packet) < SIZE_BYTES + ecies.OVERHEAD_BYTES + _least_bytes(lengths):
        # This is checked before any work on the curve, so that a packet that is too short costs little.
        raise HandshakeError("a handshake packet with too few fields")
    plaintext = ecies.open_(packet[SIZE_BYTES:], key, prefix)
    try:
        fields = rlp.decode_list(plaintext, max_items=MAX_ITEMS)
        if len(fields) <= len(lengths):
            raise HandshakeError("a handshake packet with too few fields")
        return [rlp.as_bytes(field, length) for field, length in zip(fields, lengths, strict=False)]
    except RlpError as error:
        raise HandshakeError("a handshake packet that is not RLP") from error


def _least_bytes(lengths: tuple[int, ...]) -> int:
    """Return the size of the shortest list with strings of these lengths and a version."""
    return len(rlp.encode([*map(bytes, lengths), AUTH_VERSION]))


def _keys(ephemeral_secret: bytes, recipient_nonce: bytes, initiator_nonce: bytes) -> tuple[bytes, bytes]:
    """Return the AES and the MAC secret, 32 bytes each."""
    shared = keccak256(ephemeral_secret + keccak256(recipient_nonce + initiator_nonce))
    aes = keccak256(ephemeral_secret + shared)
    return aes, keccak256(ephemeral_secret + aes)
