"""A NATS credentials file: the JWT that names a user, and the seed of the key that signs for it.

nats-py reads such files only with the package nkeys, which has no wheel. The seed is 2 bytes of prefix, 32 bytes of an
Ed25519 seed and a CRC-16 of both, in base32 (github.com/nats-io/nkeys); what a server asks to sign is signed with that key.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Final

import msgspec
import nacl.signing

from rlpx.protocol.mistakes import ConfigError, file_error

# The two parts of the file, each between lines of dashes.
_JWT: Final = re.compile(r"-{3,}BEGIN NATS USER JWT-{3,}\s+([\w.-]+)\s+-{3,}END NATS USER JWT-{3,}", re.ASCII)
_SEED: Final = re.compile(r"-{3,}BEGIN USER NKEY SEED-{3,}\s+([A-Z2-7]+)\s+-{3,}END USER NKEY SEED-{3,}", re.ASCII)
# Bits of a seed's first two bytes: that it is a seed (five bits), and that it is a user's (the next eight).
_USER_SEED: Final = (18 << 3, 20 << 3)
_PREFIX_BYTES: Final = 2
_SEED_BYTES: Final = 32
_SUM_BYTES: Final = 2
# A larger file is no credentials file: JWTs of users take about a kilobyte.
_MAX_BYTES: Final = 256 * 1024


class Credentials(msgspec.Struct, frozen=True):
    """What a server is shown: the user's JWT, and signatures with the user's key."""

    jwt: str
    seed: bytes

    @classmethod
    def load(cls, path: Path | str) -> Credentials:
        """Read a credentials file. Raises `ConfigError`."""
        place = str(path)
        try:
            with Path(path).open("rb") as file:
                text = file.read(_MAX_BYTES).decode("ascii", "replace")
        except OSError as error:
            raise file_error(place, error) from error
        jwt, seed = _JWT.search(text), _SEED.search(text)
        if jwt is None or seed is None:
            raise ConfigError(
                f"{place}: no NATS credentials, which have a USER JWT and a USER NKEY SEED between lines of dashes"
            )
        try:
            return cls(jwt[1], decode_seed(seed[1]))
        except ValueError as error:
            raise ConfigError(f"{place}: the USER NKEY SEED {error}") from error

    def user_jwt(self) -> bytearray:
        """The JWT, as nats-py asks for it."""
        return bytearray(self.jwt, "ascii")

    def sign(self, nonce: str) -> bytes:
        """The signature of what the server asks to sign, in base64."""
        return base64.b64encode(nacl.signing.SigningKey(self.seed).sign(nonce.encode()).signature)


def decode_seed(text: str) -> bytes:
    """The 32 bytes of a user's seed. Raises `ValueError` with what is wrong."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error as error:
        raise ValueError("is not base32") from error
    if len(raw) != _PREFIX_BYTES + _SEED_BYTES + _SUM_BYTES:
        raise ValueError(f"has {len(raw)} bytes where {_PREFIX_BYTES + _SEED_BYTES + _SUM_BYTES} are expected")
    if binascii.crc_hqx(raw[:-_SUM_BYTES], 0) != int.from_bytes(raw[-_SUM_BYTES:], "little"):
        raise ValueError("has a wrong checksum")
    if (raw[0] & 0xF8, (raw[0] & 7) << 5 | raw[1] >> 3) != _USER_SEED:
        raise ValueError("is not a user's, which begins with SU")
    return raw[_PREFIX_BYTES:-_SUM_BYTES]
