"""The file that `log.file` names: lines are added at its end, and it is moved aside when it is full.

It is written by the thread of an `Outlet`, so that a slow disk never makes the engine wait. A line that cannot be written
raises `OSError`, and the outlet counts it.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from rlpx.protocol.bus.places import user_path
from rlpx.protocol.mistakes import ConfigError, file_error

# Only our user may read it: it names peers and their addresses.
_MODE: Final = 0o600


class LogFile(io.TextIOBase):
    """See the module. `NAME.1` is the newest of the `keep` files that were moved aside; with 0 none is kept.

    All of them together have at most `(keep + 1) * max_bytes`, if no single line is longer than that.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._descriptor = -1
        self._size = 0
        # Whether the last line was written in part only.
        self._is_cut = False
        # Set by another thread: open the file by its name again before the next line.
        self._is_stale = False

    def reopen(self) -> None:
        """Open the file by its name again before the next line: another program has moved or removed it."""
        self._is_stale = True

    def write(self, text: str, /) -> int:
        """Add whole lines. Raises `OSError`."""
        data = text.encode(errors="backslashreplace")
        if self._is_stale:
            self._is_stale = False
            self._leave()
        if self._descriptor < 0:
            self._open()
        if self._size and self._size + len(data) > self._max_bytes:
            self._move_aside()
        if self._is_cut:
            data = b"\n" + data
        self._is_cut = True
        self._add(data)
        self._is_cut = False
        return len(text)

    def close(self) -> None:
        """Close the file."""
        self._leave()
        super().close()

    def _open(self) -> None:
        # Without O_NONBLOCK, a pipe of this name would make us wait for a reader.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = os.open(self._path, flags, _MODE)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a regular file")
        self._descriptor, self._size, self._is_cut = descriptor, status.st_size, False

    def _leave(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _add(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.write(self._descriptor, rest)
            self._size += written
            rest = rest[written:]

    def _move_aside(self) -> None:
        """Begin an empty file. If the full one cannot be moved, it is left as it is, and the next line tries again."""
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{number + 1}") for number in range(self._keep))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            with suppress(FileNotFoundError):
                newer.replace(older)
        if not self._keep:
            self._path.unlink(missing_ok=True)
        self._leave()
        self._open()


def check_log_file(text: str) -> Path:
    """Return the path that the setting `log.file` means, if lines can be written there. Raises `ConfigError`."""
    path = user_path(text)
    try:
        if path.exists():
            if not path.is_file():
                raise ConfigError(f"log.file: {path}: not a regular file")
            is_allowed = os.access(path, os.W_OK)
        else:
            # Raises an error if the folder is not there.
            path.parent.stat()
            is_allowed = path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)
    except OSError as error:
        raise file_error(f"log.file: {path}", error) from error
    if not is_allowed:
        raise file_error(f"log.file: {path}", PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return path
