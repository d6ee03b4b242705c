"""The run directory, which one engine at a time holds. `protocol/bus/places.py` finds it."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from rlpx.protocol.bus.places import LONGEST_SOCKET_NAME, OWN_SOCKETS, SOCKET_PATH_MAX_BYTES, socket_endpoint, socket_path
from rlpx.protocol.mistakes import ConfigError, file_error


class RunDir:
    """The directory of the sockets and the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def check_length(self) -> None:
        """Check that its Unix sockets' paths are not too long. Raises `ConfigError`."""
        longest = len(os.fsencode(self.path.absolute() / LONGEST_SOCKET_NAME))
        if longest > SOCKET_PATH_MAX_BYTES:
            raise ConfigError(
                f"{self.path}: run_dir is too long for a Unix socket: {longest} bytes with the socket's name, "
                f"{SOCKET_PATH_MAX_BYTES} fit"
            )

    def take(self) -> None:
        """Make the directory with mode 0700, lock it, and remove a killed engine's sockets. Raises `ConfigError`."""
        self.check_length()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._check_owner()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = os.open(self.path / "lock", flags, 0o600)
            self._hold(self._lock)
            self._clear()
        except OSError as error:
            self._let_go()
            raise file_error(f"{self.path}: run_dir", error) from error

    def _check_owner(self) -> None:
        found = self.path.stat()
        if found.st_uid != os.geteuid():
            reason = f"it belongs to uid {found.st_uid}, and this is uid {os.geteuid()}; name another"
            raise ConfigError(f"{self.path}: run_dir: {reason}", os.EX_NOPERM)
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigError(f"{self.path}: run_dir: others can enter it; chmod 700 it, or name another", os.EX_NOPERM)

    def _hold(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
            self._let_go()
            raise ConfigError(
                f"{self.path}: run_dir is held by another engine, process {holder}", os.EX_UNAVAILABLE
            ) from error
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())

    def endpoint(self, name: str) -> str:
        """The ZeroMQ endpoint of a socket in it."""
        return socket_endpoint(self.path, name)

    def socket(self, name: str) -> Path:
        """The path of a socket in it."""
        return socket_path(self.path, name)

    def leave(self) -> None:
        """Remove the sockets and release the lock."""
        with suppress(OSError):  # they or the disk may be gone; the next engine removes what is left
            self._clear()
        if self._lock is not None:
            with suppress(OSError):  # the process id in it is only informative
                os.truncate(self._lock, 0)
        self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _clear(self) -> None:
        """Remove our own sockets, but no other file that a user may keep here."""
        for pattern in OWN_SOCKETS:
            for left in self.path.glob(pattern):
                if left.is_socket():
                    left.unlink(missing_ok=True)
