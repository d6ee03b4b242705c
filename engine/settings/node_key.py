"""The node key: a file of 64 hex digits that only its owner can read. It is made if missing, and held by one engine."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from rlpx.engine.settings.files import exists
from rlpx.protocol.bus.places import home_folder, user_path
from rlpx.protocol.errors import UsageError
from rlpx.protocol.mistakes import ConfigError, file_error
from rlpx.protocol.rlpx.crypto import PrivateKey

# 64 digits, the prefix 0x and an end of line.
KEY_FILE_MAX_BYTES: Final = 128
_KEY_DIGITS: Final = 64


def load_key(path: str, environment: Mapping[str, str]) -> PrivateKey:
    """Read the node key, or make it if it is missing. Raises `ConfigError`."""
    file = key_file(path, environment)
    try:
        if not file.exists():
            _make_key(file)
        return _read_key(file)
    except OSError as error:
        raise file_error(str(file), error) from error


def check_key(path: str, environment: Mapping[str, str]) -> None:
    """Check the node key if there is one, but do not make one. Raises `ConfigError`."""
    file = key_file(path, environment)
    if exists(file):
        load_key(path, environment)


def key_file(path: str, environment: Mapping[str, str]) -> Path:
    """Return the file that the setting names, else the one in the state directory. Raises `ConfigError`."""
    digits = path.removeprefix("0x")
    if len(digits) == _KEY_DIGITS and all(digit in "0123456789abcdefABCDEF" for digit in digits):
        # The key is already visible in the list of processes. It must not also become a file name.
        raise ConfigError("node_key: expected a file that holds the key; got what looks like a key itself")
    return user_path(path) if path else home_folder(environment, "XDG_STATE_HOME", ".local/state") / "node.key"


def _make_key(file: Path) -> None:
    """Write the whole file, then give it its name, so that a crash or a second engine never leaves a partial key."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, made = tempfile.mkstemp(prefix=".node-key-", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w") as created:
            created.write(PrivateKey.generate(secrets.token_bytes).secret.hex() + "\n")
            created.flush()
            os.fsync(created.fileno())
        with suppress(FileExistsError):
            os.link(made, file)
    finally:
        Path(made).unlink()


def _read_key(file: Path) -> PrivateKey:
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_CLOEXEC), "rb") as opened:
        found = os.fstat(opened.fileno()).st_mode
        if not (stat.S_ISREG(found) or stat.S_ISFIFO(found)):
            raise ConfigError(f"{file}: not a file that could hold a node key")
        mode = stat.S_IMODE(found)
        if mode & 0o077:
            raise ConfigError(f"{file}: others can read the node key (mode {mode:04o}); chmod 600 it", os.EX_NOPERM)
        text = opened.read(KEY_FILE_MAX_BYTES).decode("ascii", "replace").strip().removeprefix("0x")
    try:
        return PrivateKey(bytes.fromhex(text))
    except (ValueError, UsageError) as error:
        raise ConfigError(f"{file}: not a node key: 64 hex digits, not zero and below the group order") from error


class KeyHold:
    """Detects a second engine on this machine that uses the same key file.

    Two engines with one key are one node to their peers, which accept only one of them. This is allowed, because one engine
    may be about to replace another.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Hold the key until `leave`. Returns `False` if another engine holds it."""
        try:
            # If the key came through a pipe, opening it again would wait for another writer.
            self._descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks cannot know
            return True
        return True

    def leave(self) -> None:
        """Release the key; a second call is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
