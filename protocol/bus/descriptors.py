"""The number of file descriptors that a process uses before it takes no more.

Linux gives a new descriptor the lowest free number, so a number at the ceiling means that all below it are in use.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

# Descriptors kept for operations that must not fail: replacing a worker, reading files again, polite goodbyes.
RESERVE: Final = 64

# Errors of accept(2): no descriptor or memory is left.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Errors of accept(2): the other side left before we accepted it, which needs no action.
GONE: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    }
)


def ceiling(limit: int) -> int:
    """Return the first descriptor number that a process with this limit (RLIMIT_NOFILE) leaves to its reserve."""
    return max(0, limit - RESERVE)


class Descriptors:
    """Whether this process has file descriptors to spare. `dup` and `close` are system calls; `probe` is any open one."""

    def __init__(self, limit: int, probe: int, dup: Callable[[int], int], close: Callable[[int], None]) -> None:
        self.limit = limit
        self.ceiling = ceiling(limit)
        self._probe, self._dup, self._close = probe, dup, close

    def has_room(self) -> bool:
        """Whether the next descriptor is below the ceiling."""
        try:
            lowest_free = self._dup(self._probe)
        except OSError:
            return False
        self._close(lowest_free)
        return lowest_free < self.ceiling
