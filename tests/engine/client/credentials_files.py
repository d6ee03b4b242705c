"""Makes NATS keys, JWTs and credentials files, as NATS' own tool nsc does (docs.nats.io, "JWT")."""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Any, Final

from nacl.signing import SigningKey

SEED: Final = 18 << 3
OPERATOR: Final = 14 << 3
ACCOUNT: Final = 0
USER: Final = 20 << 3


def text_of(raw: bytes) -> str:
    summed = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(summed).decode().rstrip("=")


def seed_text(seed: bytes, kind: int = USER) -> str:
    return text_of(bytes([SEED | kind >> 5, (kind & 31) << 3]) + seed)


class Key:
    """A key pair of an operator, an account or a user."""

    def __init__(self, kind: int, number: int) -> None:
        self.seed = bytes([number]) * 32
        self._key = SigningKey(self.seed)
        self.public = text_of(bytes([kind]) + self._key.verify_key.encode())

    def jwt(self, subject: Key, name: str, nats: dict[str, Any]) -> str:
        """A JWT in which this key says something of `subject`."""
        claims = {
            "jti": f"{name}-1",
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject.public,
            "nats": {**nats, "version": 2},
        }
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = ".".join(_url_safe(json.dumps(part).encode()) for part in (head, claims))
        return f"{text}.{_url_safe(self._key.sign(text.encode()).signature)}"


def _url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def credentials(jwt: str, seed: str) -> str:
    """The contents of a credentials file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


_ALL: Final = dict.fromkeys(
    ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams", "consumer"),
    -1,
)


def operated(number: int = 1) -> tuple[str, str]:
    """The settings of a server that admits only users with credentials, and the credentials of one."""
    operator, system, account, user = Key(OPERATOR, number), Key(ACCOUNT, 2), Key(ACCOUNT, 3), Key(USER, 4)
    limits = {"type": "account", "limits": {**_ALL, "wildcards": True}}
    preload = f"{account.public}: {operator.jwt(account, 'fleet', limits)}\n  {system.public}: " + operator.jwt(
        system, "SYS", {"type": "account", "limits": {**_ALL, "mem_storage": 0, "disk_storage": 0, "wildcards": True}}
    )
    settings = (
        f"operator: {operator.jwt(operator, 'operator', {'type': 'operator'})}\nsystem_account: {system.public}\n"
        f"resolver: MEMORY\nresolver_preload: {{\n  {preload}\n}}\n"
    )
    user_jwt = account.jwt(user, "host", {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1})
    return settings, credentials(user_jwt, seed_text(user.seed))
