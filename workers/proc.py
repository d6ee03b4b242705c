"""What the kernel says about this process (proc(5))."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = resource.getpagesize()
_STATM_BYTES: Final = 128


class ProcessMemory:
    """The resident memory of this process. The file stays open: it could not be opened once the descriptors are used up."""

    def __init__(self) -> None:
        self._descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The open descriptor."""
        return self._descriptor

    def resident_bytes(self) -> int:
        """The pages that are in memory now, in bytes."""
        return int(os.pread(self._descriptor, _STATM_BYTES, 0).split()[1]) * _PAGE_BYTES

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def open_descriptors() -> int:
    """The number of open file descriptors of this process: Linux 6.2 and later give it as the size of their folder."""
    folder = "/proc/self/fd"
    try:
        return os.stat(folder).st_size or len(os.listdir(folder))  # noqa: PTH116, PTH208 - pathlib would take twice as long
    except OSError:
        return 0  # `listdir` needs a descriptor, and there is none


def waited_seconds() -> float:
    """How long this process has been ready to run and had no core."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
