"""The RLPx auth/ack exchange in its EIP-8 form, for both roles, and the secrets that come of it.

A packet is a 2-byte size and an ECIES message that authenticates the size. Pre-EIP-8 packets are refused: no client
sends them any more. Every failure is one `HandshakeError`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from protocol import ecies, rlp
from protocol.crypto import (
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
from protocol.errors import HandshakeError, RlpError

SIZE_BYTES: Final = 2
# geth's cap: real packets have 300 to 600 bytes; without a cap two bytes make us wait for 64 KiB (core-geth 694).
MAX_PACKET_BYTES: Final = 2048
# EIP-8: "the version number must be 4"; received ones are not compared.
AUTH_VERSION: Final = 4
# EIP-8: at least 100 bytes of padding, of random length, so that the packet differs from the old fixed form.
MIN_PADDING_BYTES: Final = 100
PADDING_SPREAD_BYTES: Final = 100
# Auth has four elements and may have a few that we ignore.
MAX_ITEMS: Final = 64


class Secrets(NamedTuple):
    """What the frame cipher starts from (`rlpx.md`, "Initial Handshake")."""

    aes: bytes
    mac: bytes
    # What the MACs of both directions have absorbed before the first frame.
    egress_seed: bytes
    ingress_seed: bytes


class Initiator:
    """The dialling side: `auth` goes out, `open_ack` takes the answer."""

    __slots__ = ("_ephemeral", "_key", "_nonce", "auth", "peer")

    def __init__(self, key: PrivateKey, peer_id: bytes, entropy: Entropy) -> None:
        self._key = key
        self._ephemeral = PrivateKey.generate(entropy)
        self._nonce = entropy(DIGEST_BYTES)
        self.peer = Point.parse(peer_id)
        signature = self._ephemeral.sign(xor(key.ecdh(self.peer), self._nonce))
        self.auth = _seal([signature, key.id, self._nonce, AUTH_VERSION], self.peer, entropy)

    def open_ack(self, packet: bytes) -> Secrets:
        """Take the whole ack packet, size included. Raises `HandshakeError`."""
        point, nonce = _open(packet, self._key, (ID_BYTES, DIGEST_BYTES))
        ephemeral = Point.parse(point)
        aes, mac = _keys(self._ephemeral.ecdh(ephemeral), nonce, self._nonce)
        return Secrets(
            aes,
            mac,
            egress_seed=xor(mac, nonce) + self.auth,
            ingress_seed=xor(mac, self._nonce) + packet,
        )


class Responder:
    """The listening side: made from an auth packet, it knows the peer, the `ack` to send, and the secrets.

    Raises `HandshakeError` where the packet is not a valid auth to `key`.
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


def packet_size(prefix: bytes) -> int:
    """How many bytes follow the 2-byte size prefix. Raises `HandshakeError` outside 113 to 2048."""
    size = int.from_bytes(prefix, "big")
    if not ecies.OVERHEAD_BYTES <= size <= MAX_PACKET_BYTES:
        raise HandshakeError(f"a handshake packet of {size} bytes")
    return size


def _seal(body: rlp.Encodable, recipient: Point, entropy: Entropy) -> bytes:
    padding = bytes(MIN_PADDING_BYTES + int.from_bytes(entropy(2), "big") % PADDING_SPREAD_BYTES)
    plaintext = rlp.encode(body) + padding
    prefix = (len(plaintext) + ecies.OVERHEAD_BYTES).to_bytes(SIZE_BYTES, "big")
    return prefix + ecies.seal(plaintext, recipient, prefix, entropy)


def _open(packet: bytes, key: PrivateKey, lengths: tuple[int, ...]) -> list[bytes]:
    """The leading fields of the packet's list. EIP-8: further elements and bytes after the list are ignored."""
    prefix = packet[:SIZE_BYTES]
    if packet_size(prefix) != len(packet) - SIZE_BYTES:
        raise HandshakeError("a handshake packet whose size prefix is wrong")
    plaintext = ecies.open_(packet[SIZE_BYTES:], key, prefix)
    try:
        fields = rlp.decode_list(plaintext, max_items=MAX_ITEMS)
        if len(fields) <= len(lengths):
            raise HandshakeError("a handshake packet with too few fields")
        return [rlp.as_bytes(field, length) for field, length in zip(fields, lengths, strict=False)]
    except RlpError as error:
        raise HandshakeError("a handshake packet that is not RLP") from error


def _keys(ephemeral_secret: bytes, responder_nonce: bytes, initiator_nonce: bytes) -> tuple[bytes, bytes]:
    """The AES and the MAC secret, 32 bytes each."""
    shared = keccak256(ephemeral_secret + keccak256(responder_nonce + initiator_nonce))
    aes = keccak256(ephemeral_secret + shared)
    return aes, keccak256(ephemeral_secret + aes)
