"""ECIES as RLPx uses it (`rlpx.md`, "ECIES Encryption"): seal to a public key, open with a private one.

Sealed form: 0x04 ‖ ephemeral point (64) ‖ IV (16) ‖ AES-128-CTR ciphertext ‖ HMAC-SHA-256 tag (32).
"""

from __future__ import annotations

from typing import Final

from protocol.crypto import (
    ID_BYTES,
    Entropy,
    Point,
    PrivateKey,
    aes_128_ctr,
    hmac_sha256,
    is_same,
    sha256,
)
from protocol.errors import HandshakeError

POINT_PREFIX: Final = 0x04
IV_BYTES: Final = 16
TAG_BYTES: Final = 32
# 65 bytes of point, 16 of IV, 32 of tag: nothing shorter may be sliced (CVE-2026-22862).
OVERHEAD_BYTES: Final = 1 + ID_BYTES + IV_BYTES + TAG_BYTES

_IV_START: Final = 1 + ID_BYTES
_TEXT_START: Final = _IV_START + IV_BYTES
_KEY_BYTES: Final = 16
# Counter of the NIST SP 800-56 concatenation KDF; one SHA-256 block is all that is needed.
_KDF_COUNTER: Final = b"\x00\x00\x00\x01"


def seal(plaintext: bytes, recipient: Point, mac_data: bytes, entropy: Entropy) -> bytes:
    """Encrypt to `recipient`; `mac_data` (the size prefix of EIP-8) is authenticated, not sent."""
    ephemeral = PrivateKey.generate(entropy)
    encryption_key, mac_key = _keys(ephemeral.ecdh(recipient))
    iv = entropy(IV_BYTES)
    ciphertext = aes_128_ctr(encryption_key, iv, plaintext)
    tag = hmac_sha256(mac_key, iv + ciphertext + mac_data)
    return bytes([POINT_PREFIX]) + ephemeral.id + iv + ciphertext + tag


def open_(sealed: bytes, key: PrivateKey, mac_data: bytes) -> bytes:
    """Decrypt what was sealed to `key`. Raises `HandshakeError`, the same for every cause."""
    if len(sealed) < OVERHEAD_BYTES or sealed[0] != POINT_PREFIX:
        raise HandshakeError("not an ECIES message")
    encryption_key, mac_key = _keys(key.ecdh(Point.parse(sealed[1:_IV_START])))
    iv, ciphertext, tag = sealed[_IV_START:_TEXT_START], sealed[_TEXT_START:-TAG_BYTES], sealed[-TAG_BYTES:]
    if not is_same(tag, hmac_sha256(mac_key, iv + ciphertext + mac_data)):
        raise HandshakeError("an ECIES message with a wrong tag")
    return aes_128_ctr(encryption_key, iv, ciphertext)


def _keys(shared_secret: bytes) -> tuple[bytes, bytes]:
    """Encryption key (16 bytes) and MAC key (32 bytes) from the shared x coordinate."""
    derived = sha256(_KDF_COUNTER + shared_secret)
    return derived[:_KEY_BYTES], sha256(derived[_KEY_BYTES:])
