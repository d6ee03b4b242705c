"""The only Python interface to the cryptographic libraries of RLPx: secp256k1, Keccak, AES, SHA-256.

It knows keys, points, digests and ciphers, but not their uses. ECDH with a secret runs in constant time through
`secp256k1_ecdh`; coincurve's variable-time `multiply` is never used.

The compiled functions in `c/` are a second interface, for the work of every frame and handshake (see `native.py`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import cache
from typing import Final, Protocol, cast

import sha3
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT, Context
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from rlpx.protocol.errors import HandshakeError, UsageError
from rlpx.protocol.native import NATIVE

# Returns n random bytes: entropy is an argument everywhere in `protocol`.
Entropy = Callable[[int], bytes]
Buffer = bytes | bytearray | memoryview

SECRET_BYTES: Final = 32
# The size of a node id, or a point, on the wire: x and y, without the 0x04 byte of the uncompressed form.
ID_BYTES: Final = 64
# r, s and the recovery id.
SIGNATURE_BYTES: Final = 65
DIGEST_BYTES: Final = 32
MAX_RECOVERY_ID: Final = 3

_CONTEXT: Final = GLOBAL_CONTEXT.ctx
_UNCOMPRESSED_PREFIX: Final = b"\x04"
_UNCOMPRESSED_BYTES: Final = 65


class RunningHash(Protocol):
    """A Keccak-256 state that can be read by `digest` and still absorb more."""

    def update(self, data: Buffer, /) -> None:
        """Absorb data."""

    def digest(self) -> bytes:
        """The 32-byte digest of everything absorbed so far; it does not finalise the state."""


class StreamCipher(Protocol):
    """A running AES-CTR keystream, or AES-ECB on whole blocks."""

    def update(self, data: Buffer, /) -> bytes:
        """Encrypt or decrypt the next bytes."""


class Point:
    """A public key that has been checked to lie on the curve."""

    __slots__ = ("_raw", "id")

    def __init__(self, raw: object, node_id: bytes) -> None:
        self._raw = raw
        self.id = node_id

    @classmethod
    def parse(cls, node_id: bytes) -> Point:
        """Check 64 bytes x‖y. Raises `HandshakeError` if they are not a point of secp256k1."""
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
        """Make a new key. A number outside the group order (probability 2⁻¹²⁸) is drawn again."""
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
        """Return the x coordinate of the shared point, 32 bytes, in constant time."""
        return curve_ecdh(point._raw, self.secret)  # noqa: SLF001 - one file, one library handle

    def sign(self, digest: bytes) -> bytes:
        """Return a recoverable signature r‖s‖v of a 32-byte digest, 65 bytes (RFC 6979 nonce). Raises `ValueError`."""
        signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
        lib.secp256k1_ecdsa_sign_recoverable(
            _CONTEXT, signature, _of_size(digest, DIGEST_BYTES), self.secret, ffi.NULL, ffi.NULL
        )
        output = ffi.new("unsigned char[64]")
        recovery = ffi.new("int *")
        lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(_CONTEXT, output, recovery, signature)
        return bytes(ffi.buffer(output, ID_BYTES)) + bytes([recovery[0]])


def recover(digest: bytes, signature: bytes) -> Point:
    """Return the point whose key made `signature` (65 bytes) of `digest` (32). Raises `HandshakeError`."""
    if len(signature) != SIGNATURE_BYTES or signature[-1] > MAX_RECOVERY_ID:
        raise HandshakeError("a malformed signature")
    made = curve_recover(digest, signature)
    if made is None:
        raise HandshakeError("a signature that recovers to no key")
    return Point(*made)


# -- the curve: points in the library's form, with their ids if they are made here ---------------------------------------
#
# The library takes no lengths and reads as many bytes as it expects. Both twins check lengths first and raise `ValueError`.


def _of_size(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ValueError(f"{size} bytes belong here")
    return data


def python_curve_parse(node_id: bytes) -> object | None:
    """Return the point of 64 bytes x‖y, or None if they are not a point."""
    raw = ffi.new("secp256k1_pubkey *")
    serialized = _UNCOMPRESSED_PREFIX + _of_size(node_id, ID_BYTES)
    is_point = lib.secp256k1_ec_pubkey_parse(_CONTEXT, raw, serialized, _UNCOMPRESSED_BYTES)
    return cast("object", raw) if is_point else None


def python_curve_create(secret: bytes) -> tuple[object, bytes] | None:
    """Return the point and id of a 32-byte secret, or None if the secret is invalid."""
    raw = ffi.new("secp256k1_pubkey *")
    return _with_id(raw) if lib.secp256k1_ec_pubkey_create(_CONTEXT, raw, _of_size(secret, SECRET_BYTES)) else None


def python_curve_ecdh(raw: object, secret: bytes) -> bytes:
    """Return the shared x coordinate, 32 bytes, in constant time. Raises `UsageError` if point or secret is invalid."""
    output = ffi.new("unsigned char[32]")
    ecdh = _ecdh_context()
    is_made = lib.secp256k1_ecdh(ecdh.context.ctx, output, raw, _of_size(secret, SECRET_BYTES), ecdh.raw_x, ffi.NULL)
    if ecdh.refused:
        raise UsageError(f"libsecp256k1 refuses an argument: {ecdh.refused.pop()}")
    if not is_made:
        raise UsageError("not a valid secret")
    return bytes(ffi.buffer(output, SECRET_BYTES))


def python_curve_recover(digest: bytes, signature: bytes) -> tuple[object, bytes] | None:
    """Return the point whose key signed, and its id, or None if there is none."""
    _of_size(signature, SIGNATURE_BYTES)
    parsed = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    raw = ffi.new("secp256k1_pubkey *")
    is_recovered = lib.secp256k1_ecdsa_recoverable_signature_parse_compact(
        _CONTEXT, parsed, signature[:-1], signature[-1]
    ) and lib.secp256k1_ecdsa_recover(_CONTEXT, raw, parsed, _of_size(digest, DIGEST_BYTES))
    return _with_id(raw) if is_recovered else None


def _with_id(raw: object) -> tuple[object, bytes]:
    output = ffi.new("unsigned char[65]")
    length = ffi.new("size_t *", _UNCOMPRESSED_BYTES)
    lib.secp256k1_ec_pubkey_serialize(_CONTEXT, output, length, raw, lib.SECP256K1_EC_UNCOMPRESSED)
    return raw, bytes(ffi.buffer(output, _UNCOMPRESSED_BYTES))[1:]


class _EcdhContext:
    """The callbacks of `secp256k1_ecdh`: the hash function of the shared point, and a record of refused arguments.

    RLPx needs the bare x coordinate. Of the functions used here, only this one takes a point as an argument; if that is
    invalid, the library aborts the process by default.

    cffi's callbacks need memory that is made executable after it was writable, which systemd's `MemoryDenyWriteExecute`
    forbids. The compiled code needs none.
    """

    def __init__(self) -> None:
        self.refused: list[str] = []

        def raw_x(output: object, x: object, _y: object, _data: object) -> int:
            ffi.memmove(output, x, SECRET_BYTES)
            return 1

        def refuse(text: object, _data: object) -> None:
            self.refused.append(ffi.string(text).decode())

        self.raw_x: object = ffi.callback(
            "int(unsigned char *, const unsigned char *, const unsigned char *, void *)", raw_x
        )
        # The context uses it, so it must live as long.
        self._refuse: object = ffi.callback("void(*)(const char *, void *)", refuse)
        self.context = Context()
        lib.secp256k1_context_set_illegal_callback(self.context.ctx, self._refuse, ffi.NULL)


_ecdh_context = cache(_EcdhContext)


def curve_of(context: Context) -> tuple[Context, *tuple[int, ...]]:
    """Return a context, its address, and the addresses of the functions that the compiled code calls, in its order."""
    names = (
        "secp256k1_ecdh",
        "secp256k1_ec_pubkey_parse",
        "secp256k1_ec_pubkey_create",
        "secp256k1_ec_pubkey_serialize",
        "secp256k1_ecdsa_recoverable_signature_parse_compact",
        "secp256k1_ecdsa_recover",
        "secp256k1_context_set_illegal_callback",
    )
    places = (context.ctx, *(ffi.addressof(lib, name) for name in names))
    return context, *(int(ffi.cast("uintptr_t", place)) for place in places)


# This saves 30 µs of a handshake, compared with cffi's objects.
curve_parse: Callable[[bytes], object | None]
curve_create: Callable[[bytes], tuple[object, bytes] | None]
curve_ecdh: Callable[[object, bytes], bytes]
curve_recover: Callable[[bytes, bytes], tuple[object, bytes] | None]
curve_parse, curve_create, curve_ecdh, curve_recover = (
    (python_curve_parse, python_curve_create, python_curve_ecdh, python_curve_recover)
    if NATIVE is None
    else NATIVE.curve(*curve_of(GLOBAL_CONTEXT))
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
