"""The listening side of CURVE, ZMTP's encrypted mechanism (RFC 26; as libzmq reads it where the RFC leaves a choice).

Both sides prove that they have their long-term keys, and every frame is a box under keys of this connection alone. The
caller decides by public key who may connect.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from rlpx.protocol.bus.zmtp import (
    COMMAND,
    MORE,
    Properties,
    Wire,
    ZmtpError,
    command,
    frame,
    frames_of,
    parse_metadata,
    split_command,
)

KEY_BYTES: Final = 32
# A box is its content followed by a tag of this size.
TAG_BYTES: Final = 16
# RFC 26, "The HELLO command": version, padding, the client's transient key, nonce, and a box of 64 zeros.
HELLO_BYTES: Final = 2 + 72 + KEY_BYTES + 8 + 64 + TAG_BYTES
HELLO_VERSION: Final = b"\x01\x00"
# RFC 26, "The WELCOME command": only the server reads the cookie. It may be random, as we keep the connection's state.
COOKIE_BYTES: Final = 96
# RFC 26, "The INITIATE command": the client's key, a nonce of 16 bytes and a box of two keys, then its properties.
VOUCH_BYTES: Final = 16 + 2 * KEY_BYTES + TAG_BYTES
# RFC 26, "The MESSAGE command": its name, a nonce, and within the box one byte of flags.
MESSAGE_NAME: Final = b"\x07MESSAGE"
OVERHEAD_BYTES: Final = len(MESSAGE_NAME) + 8 + TAG_BYTES + 1
# libzmq 4.3 does not set the flag of commands inside CURVE. No request and no answer begins with these bytes.
UNMARKED_COMMANDS: Final = (b"\x04PING", b"\x09SUBSCRIBE", b"\x06CANCEL")
# RFC 27: a status code, which libzmq's clients report as a failed authentication and not as a protocol error.
REASON_UNKNOWN_KEY: Final = "400"


class ServerKeys(msgspec.Struct, frozen=True):
    """The server's long-term key pair. The secret stays in this process."""

    public: bytes
    secret: bytes

    @classmethod
    def from_secret(cls, secret: bytes) -> ServerKeys:
        """Return the key pair of a secret key of 32 bytes."""
        return cls(bindings.crypto_scalarmult_base(secret), secret)


class CurveServer:
    """One connection. `authorise` returns the name of a public key's owner, or None; `entropy(n)` returns n random bytes."""

    name: Final = b"CURVE"
    overhead_bytes: Final = OVERHEAD_BYTES

    def __init__(self, keys: ServerKeys, authorise: Callable[[bytes], str | None], entropy: Callable[[int], bytes]) -> None:
        self._keys = keys
        self._authorise = authorise
        self._entropy = entropy
        self._on_next = self._on_hello
        self.user: str | None = None
        self._client_transient = b""
        self._transient = ServerKeys(b"", b"")
        self._cookie = b""
        # The key of all boxes after the handshake.
        self._shared = b""
        self._their_nonce = 0
        self._our_nonce = 0

    # -- handshake ----------------------------------------------------------------------------------------------------------

    def on_command(self, body: bytes) -> tuple[bytes, Properties | None]:
        """Take HELLO, then INITIATE. Raises `ZmtpError`."""
        return self._on_next(*split_command(body))

    def _on_hello(self, name: bytes, body: bytes) -> tuple[bytes, Properties | None]:
        if name != b"HELLO" or len(body) != HELLO_BYTES or body[:2] != HELLO_VERSION:
            raise ZmtpError("a malformed HELLO")
        self._client_transient = body[74:106]
        short_nonce, box = body[106:114], body[114:]
        try:
            long_term = bindings.crypto_box_beforenm(self._client_transient, self._keys.secret)
            bindings.crypto_box_open_afternm(box, b"CurveZMQHELLO---" + short_nonce, long_term)
        except CryptoError as error:
            cause = "its HELLO is for another server: the server's key that it has is not ours"
            raise ZmtpError(cause, reason=REASON_UNKNOWN_KEY) from error
        self._note_nonce(short_nonce)
        self._transient = ServerKeys.from_secret(self._entropy(KEY_BYTES))
        self._cookie = self._entropy(COOKIE_BYTES)
        nonce = self._entropy(16)
        box = bindings.crypto_box_afternm(self._transient.public + self._cookie, b"WELCOME-" + nonce, long_term)
        self._on_next = self._on_initiate
        return command(b"WELCOME", nonce + box), None

    def _on_initiate(self, name: bytes, body: bytes) -> tuple[bytes, Properties | None]:
        start = COOKIE_BYTES + 8
        if name != b"INITIATE" or len(body) < start + KEY_BYTES + VOUCH_BYTES + TAG_BYTES:
            raise ZmtpError("a malformed INITIATE")
        if not hmac.compare_digest(body[:COOKIE_BYTES], self._cookie):
            raise ZmtpError("its INITIATE has another cookie than our WELCOME")
        short_nonce = body[COOKIE_BYTES:start]
        self._note_nonce(short_nonce)
        try:
            self._shared = bindings.crypto_box_beforenm(self._client_transient, self._transient.secret)
            plain = bindings.crypto_box_open_afternm(body[start:], b"CurveZMQINITIATE" + short_nonce, self._shared)
            client_key = plain[:KEY_BYTES]
            vouch_nonce, vouch = plain[KEY_BYTES : KEY_BYTES + 16], plain[KEY_BYTES + 16 : KEY_BYTES + VOUCH_BYTES]
            vouched = bindings.crypto_box_open(vouch, b"VOUCH---" + vouch_nonce, client_key, self._transient.secret)
        except CryptoError as error:
            raise ZmtpError("a box of its INITIATE does not open") from error
        if not hmac.compare_digest(vouched, self._client_transient + self._keys.public):
            raise ZmtpError("its INITIATE vouches for other keys")
        self.user = self._authorise(client_key)
        if self.user is None:
            raise ZmtpError(f"its key {client_key.hex()} is not authorised", reason=REASON_UNKNOWN_KEY)
        return b"", parse_metadata(plain[KEY_BYTES + VOUCH_BYTES :])

    def ready(self, metadata: bytes) -> bytes:
        """Return READY, with our properties in a box."""
        nonce = self._next_nonce()
        return command(b"READY", nonce + bindings.crypto_box_afternm(metadata, b"CurveZMQREADY---" + nonce, self._shared))

    # -- traffic ------------------------------------------------------------------------------------------------------------

    def open(self, flags: int, body: bytes) -> tuple[int, bytes]:  # noqa: ARG002 - the flags inside the box count
        """Return the flags and the body inside a MESSAGE. Raises `ZmtpError`."""
        if len(body) < OVERHEAD_BYTES or not body.startswith(MESSAGE_NAME):
            raise ZmtpError("a frame that is no MESSAGE of CURVE")
        short_nonce = body[8:16]
        self._note_nonce(short_nonce)
        try:
            plain = bindings.crypto_box_open_afternm(body[16:], b"CurveZMQMESSAGEC" + short_nonce, self._shared)
        except CryptoError as error:
            raise ZmtpError("a MESSAGE that does not open") from error
        inner, message = plain[0] & (MORE | COMMAND), plain[1:]
        if not inner and message.startswith(UNMARKED_COMMANDS):
            inner = COMMAND
        return inner, message

    def seal(self, wire: Wire) -> bytes:
        """Return the frames, each in a box."""
        return b"".join(frame(0, self._sealed(flags, body)) for flags, body in frames_of(wire))

    def _sealed(self, flags: int, body: bytes) -> bytes:
        nonce = self._next_nonce()
        box = bindings.crypto_box_afternm(bytes((flags,)) + body, b"CurveZMQMESSAGES" + nonce, self._shared)
        return MESSAGE_NAME + nonce + box

    def _next_nonce(self) -> bytes:
        self._our_nonce += 1
        return self._our_nonce.to_bytes(8, "big")

    def _note_nonce(self, short_nonce: bytes) -> None:
        """Check that the client's nonces rise: one that does not is of a replayed frame (RFC 26). Raises `ZmtpError`."""
        nonce = int.from_bytes(short_nonce, "big")
        if nonce <= self._their_nonce:
            raise ZmtpError("a nonce that was used before")
        self._their_nonce = nonce
