"""The one door to the cryptographic libraries: secp256k1, Keccak, AES, SHA-256.

It knows keys, points, digests and ciphers; it does not know what they are for. ECDH with a secret runs in constant
time through `secp256k1_ecdh`; the variable-time `multiply` of coincurve is never used.

`c/` is the other door: what is done with every frame and handshake, compiled (see `native.py`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import cache
from typing import Final, Protocol, cast

import sha3
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocol.errors import HandshakeError, UsageError
from protocol.native import NATIVE

# Given a count, that many random bytes: entropy is an argument everywhere in `protocol`.
Entropy = Callable[[int], bytes]
Buffer = bytes | bytearray | memoryview

SECRET_BYTES: Final = 32
# A node id and a point on our wires: x and y, without the 0x04 byte of the uncompressed form.
ID_BYTES: Final = 64
# r, s and the recovery id.
SIGNATURE_BYTES: Final = 65
DIGEST_BYTES: Final = 32
MAX_RECOVERY_ID: Final = 3

_CONTEXT: Final = GLOBAL_CONTEXT.ctx
_UNCOMPRESSED_PREFIX: Final = b"\x04"
_UNCOMPRESSED_BYTES: Final = 65


class RunningHash(Protocol):
    """A Keccak-256 state that goes on after `digest`."""

    def update(self, data: Buffer, /) -> None:
        """Absorb data."""

    def digest(self) -> bytes:
        """The 32-byte digest of all absorbed so far; does not finalise."""


class StreamCipher(Protocol):
    """A running AES-CTR keystream, or AES-ECB on whole blocks."""

    def update(self, data: Buffer, /) -> bytes:
        """Encrypt or decrypt the next bytes."""


class Point:
    """A public key that is known to lie on the curve."""

    __slots__ = ("_raw", "id")

    def __init__(self, raw: object, node_id: bytes) -> None:
        self._raw = raw
        self.id = node_id

    @classmethod
    def parse(cls, node_id: bytes) -> Point:
        """Check 64 bytes x‖y. Raises `HandshakeError` where they are no point of secp256k1."""
        if len(node_id) != ID_BYTES:
            raise HandshakeError("a public key of the wrong length")
        raw = curve_parse(bytes(node_id))
        if raw is None:
            raise HandshakeError("a public key that is not on the curve")
        return cls(raw, bytes(node_id))


class PrivateKey:
    """A secp256k1 secret (32 bytes) with its public point: a node's key, or an ephemeral one."""

    __slots__ = ("point", "secret")

    def __init__(self, secret: bytes) -> None:
        made = curve_create(secret) if len(secret) == SECRET_BYTES else None
        if made is None:
            raise UsageError("a private key is 32 bytes, not zero and below the group order")
        self.secret = secret
        self.point = Point(*made)

    @classmethod
    def generate(cls, entropy: Entropy) -> PrivateKey:
        """A fresh key; a draw outside the group order (2⁻¹²⁸) is drawn again."""
        while True:
            try:
                return cls(entropy(SECRET_BYTES))
            except UsageError:
                continue

    def __repr__(self) -> str:
        return f"PrivateKey(id={self.id.hex()[:8]}…)"

    @property
    def id(self) -> bytes:
        """The 64-byte node id of this key."""
        return self.point.id

    def ecdh(self, point: Point) -> bytes:
        """The x coordinate of the shared point, 32 bytes, in constant time."""
        return curve_ecdh(point._raw, self.secret)  # noqa: SLF001 - one file, one library handle

    def sign(self, digest: bytes) -> bytes:
        """A recoverable signature r‖s‖v of a 32-byte digest, 65 bytes (RFC 6979 nonce)."""
        signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
        lib.secp256k1_ecdsa_sign_recoverable(_CONTEXT, signature, digest, self.secret, ffi.NULL, ffi.NULL)
        output = ffi.new("unsigned char[64]")
        recovery = ffi.new("int *")
        lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(_CONTEXT, output, recovery, signature)
        return bytes(ffi.buffer(output, ID_BYTES)) + bytes([recovery[0]])


def recover(digest: bytes, signature: bytes) -> Point:
    """The point whose key made `signature` (65 bytes) of `digest` (32). Raises `HandshakeError`."""
    if len(signature) != SIGNATURE_BYTES or signature[-1] > MAX_RECOVERY_ID:
        raise HandshakeError("a malformed signature")
    made = curve_recover(digest, signature)
    if made is None:
        raise HandshakeError("a signature of nobody")
    return Point(*made)


# -- the curve: points as the library keeps them, with their ids where they are made ------------------------------------


def python_curve_parse(node_id: bytes) -> object | None:
    """64 bytes x‖y to a point, if they are one."""
    raw = ffi.new("secp256k1_pubkey *")
    is_point = lib.secp256k1_ec_pubkey_parse(_CONTEXT, raw, _UNCOMPRESSED_PREFIX + node_id, _UNCOMPRESSED_BYTES)
    return cast("object", raw) if is_point else None


def python_curve_create(secret: bytes) -> tuple[object, bytes] | None:
    """The point of 32 bytes, if they are a secret."""
    raw = ffi.new("secp256k1_pubkey *")
    return _with_id(raw) if lib.secp256k1_ec_pubkey_create(_CONTEXT, raw, secret) else None


def python_curve_ecdh(raw: object, secret: bytes) -> bytes:
    """The shared x coordinate, 32 bytes, in constant time."""
    output = ffi.new("unsigned char[32]")
    lib.secp256k1_ecdh(_CONTEXT, output, raw, secret, _raw_x(), ffi.NULL)
    return bytes(ffi.buffer(output, SECRET_BYTES))


def python_curve_recover(digest: bytes, signature: bytes) -> tuple[object, bytes] | None:
    """The point whose key signed, if any did."""
    parsed = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    raw = ffi.new("secp256k1_pubkey *")
    is_recovered = lib.secp256k1_ecdsa_recoverable_signature_parse_compact(
        _CONTEXT, parsed, signature[:-1], signature[-1]
    ) and lib.secp256k1_ecdsa_recover(_CONTEXT, raw, parsed, digest)
    return _with_id(raw) if is_recovered else None


def _with_id(raw: object) -> tuple[object, bytes]:
    output = ffi.new("unsigned char[65]")
    length = ffi.new("size_t *", _UNCOMPRESSED_BYTES)
    lib.secp256k1_ec_pubkey_serialize(_CONTEXT, output, length, raw, lib.SECP256K1_EC_UNCOMPRESSED)
    return raw, bytes(ffi.buffer(output, _UNCOMPRESSED_BYTES))[1:]


@cache
def _raw_x() -> object:
    """libsecp256k1 hashes the shared point with this; RLPx wants the bare x coordinate.

    cffi's callback needs memory that is writable and then executable: systemd's `MemoryDenyWriteExecute` forbids it.
    Compiled code needs none.
    """

    def raw_x(output: object, x: object, _y: object, _data: object) -> int:
        ffi.memmove(output, x, SECRET_BYTES)
        return 1

    words = "int(unsigned char *, const unsigned char *, const unsigned char *, void *)"
    return cast("object", ffi.callback(words, raw_x))


def _addresses() -> list[int]:
    """Where the context and the functions are that compiled code calls, in its order."""
    names = (
        "secp256k1_ecdh",
        "secp256k1_ec_pubkey_parse",
        "secp256k1_ec_pubkey_create",
        "secp256k1_ec_pubkey_serialize",
        "secp256k1_ecdsa_recoverable_signature_parse_compact",
        "secp256k1_ecdsa_recover",
    )
    return [int(ffi.cast("uintptr_t", at)) for at in (_CONTEXT, *(ffi.addressof(lib, name) for name in names))]


# Of a handshake 30 µs less than by cffi's objects.
curve_parse: Callable[[bytes], object | None]
curve_create: Callable[[bytes], tuple[object, bytes] | None]
curve_ecdh: Callable[[object, bytes], bytes]
curve_recover: Callable[[bytes, bytes], tuple[object, bytes] | None]
curve_parse, curve_create, curve_ecdh, curve_recover = (
    (python_curve_parse, python_curve_create, python_curve_ecdh, python_curve_recover)
    if NATIVE is None
    else NATIVE.curve(*_addresses())
)


# -- digests and ciphers ------------------------------------------------------------------------------------------------


def python_keccak256(data: Buffer) -> bytes:
    """Keccak-256 as Ethereum uses it (the original padding, not SHA-3's)."""
    return running_keccak256(data).digest()


keccak256: Callable[[Buffer], bytes] = python_keccak256 if NATIVE is None else NATIVE.keccak256


def running_keccak256(seed: Buffer = b"") -> RunningHash:
    """A running Keccak-256 that has absorbed `seed`."""
    state: RunningHash = sha3.keccak_256(seed)
    return state


def sha256(data: Buffer) -> bytes:
    """SHA-256 of `data`."""
    return hashlib.sha256(data).digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA-256 of `data`."""
    return hmac.digest(key, data, "sha256")


def aes_ctr(key: bytes, counter: bytes) -> StreamCipher:
    """AES-CTR with a 16-byte initial counter block; key of 16 or 32 bytes. Decrypting is the same operation."""
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()


def aes_ecb(key: bytes) -> StreamCipher:
    """AES on single 16-byte blocks, for the frame MACs (`rlpx.md`, "Framing")."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the RLPx MAC is defined with single AES blocks


def is_same(left: bytes, right: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(left, right)


def python_xor(left: bytes, right: bytes) -> bytes:
    """Exclusive or of two byte strings of one length."""
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


xor: Callable[[bytes, bytes], bytes] = python_xor if NATIVE is None else NATIVE.xor
