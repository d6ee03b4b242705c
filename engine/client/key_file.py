"""A program's key for an engine's TCP endpoint, as `rlpx-ctl keys new` writes it.

It is a file of its own because CURVE's library is large, and most programs use no key.
"""

from __future__ import annotations

import os
import stat
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from rlpx.protocol.bus.curve import ServerKeys
from rlpx.protocol.bus.places import user_path
from rlpx.protocol.mistakes import ConfigError, file_error

Hex: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class ClientKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a user's program needs: its secret key, and the public key of the engine.

    Its own public key, which follows from the secret one, is there for libraries that cannot compute it.
    """

    secret: Hex
    server: Hex
    public: Hex | None = None

    @classmethod
    def load(cls, file: Path | str) -> ClientKey:
        """Read a file that only its owner can read. Raises `ConfigError`, which never shows what is in it."""
        path = user_path(str(file))
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                raise ConfigError(f"{path}: others can read this secret key (mode {mode:04o}); chmod 600 it", os.EX_NOPERM)
            with suppress(ValueError, RecursionError):
                return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), cls)
        except FileNotFoundError as error:
            raise ConfigError(f"{path}: no such file") from error
        except OSError as error:
            raise file_error(str(path), error) from error
        # Without the cause, which would show what is in the file.
        fields = " and ".join(name for name in cls.__struct_fields__ if name != "public")
        raise ConfigError(f"{path}: expected TOML with {fields}, each 64 hex digits in small letters")

    @property
    def pair(self) -> ServerKeys:
        """The program's own pair."""
        return ServerKeys.from_secret(bytes.fromhex(self.secret))
