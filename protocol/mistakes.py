"""Mistakes of users and failures of the machine, each as one line with an exit code of sysexits.h (`os.EX_…`)."""

from __future__ import annotations

import errno
import os
from typing import Final

from rlpx.protocol.errors import printable

# The engine answered with an error; sysexits.h has no number for that.
EXIT_ERROR_ANSWER: Final = 1
# The file system is full or read-only: EX_CANTCREAT of sysexits.h.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
# There is no such file, or it is of another kind: the user has to name another one.
_WRONG_NAME: Final = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG})
# The longest message that we print. A path in it may have up to 4096 bytes.
_MESSAGE_CHARACTERS: Final = 6000


class ConfigError(Exception):
    """One line for the user, and its exit code."""

    def __init__(self, message: str, exit_code: int = os.EX_CONFIG) -> None:
        super().__init__(printable(" ".join(message.split()), max_characters=_MESSAGE_CHARACTERS))
        self.exit_code = exit_code


def file_error(place: str, error: OSError) -> ConfigError:
    """Return the error for a failed system call on a file: EX_NOPERM, unless space is lacking or the name is wrong."""
    code = os.EX_NOPERM
    if error.errno in _NO_ROOM:
        code = os.EX_CANTCREAT
    elif error.errno in _WRONG_NAME:
        code = os.EX_CONFIG
    return ConfigError(f"{place}: {error.strerror}", code)


def bind_error(place: str, error: OSError) -> ConfigError:
    """Return the error for a socket that cannot listen: EX_UNAVAILABLE, unless permission or space is lacking."""
    is_of_file = error.errno in _NO_ROOM or isinstance(error, PermissionError)
    return file_error(place, error) if is_of_file else ConfigError(f"{place}: {error.strerror}", os.EX_UNAVAILABLE)
