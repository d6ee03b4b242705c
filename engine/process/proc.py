"""CPU time and memory of processes, as the kernel counts them (proc(5))."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_PAGE_BYTES: Final = resource.getpagesize()
# `statm` has seven numbers of up to 20 digits.
_STATM_BYTES: Final = 160


class OwnMemory:
    """The resident memory of this process. The file stays open: no other file can be opened when descriptors run out."""

    def __init__(self) -> None:
        self.descriptor = os.open(PROC / "self" / "statm", os.O_RDONLY | os.O_CLOEXEC)

    def resident_bytes(self) -> int:
        """Return the current resident memory."""
        return _resident_bytes(os.pread(self.descriptor, _STATM_BYTES, 0))

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def open_descriptors(proc: Path = PROC) -> int:
    """Return the number of open descriptors of this process: Linux 6.2 and later give it as the size of their folder."""
    folder = proc / "self" / "fd"
    try:
        return folder.stat().st_size or len(os.listdir(folder))  # noqa: PTH208 - only their number is asked for
    except OSError:
        return 0  # `listdir` needs a descriptor, and there is none


def resident_bytes(pid: int, proc: Path = PROC) -> int:
    """Return the resident memory of a process. Raises `OSError` if there is no such process."""
    return _resident_bytes((proc / str(pid) / "statm").read_bytes())


def cpu_ns(pid: int, proc: Path = PROC) -> int:
    """Return the CPU time of a process's current threads, in nanoseconds; threads that have ended are not counted.

    Raises `OSError` if a thread ends during the call.
    """
    return sum(int(file.read_bytes().split()[0]) for file in (proc / str(pid) / "task").glob("*/schedstat"))


def _resident_bytes(statm: bytes) -> int:
    return int(statm.split()[1]) * _PAGE_BYTES
