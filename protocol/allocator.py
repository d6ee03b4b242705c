"""Settings of the C library's allocator for large blocks. Every process that handles peers' messages applies them."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

# Parameters of mallopt(3) and our values. By default glibc returns freed memory beyond 128 KiB at the end of the heap to the
# kernel, and maps longer blocks anew: each of the six copies of a message of 128 KiB then costs 32 page faults, together 100
# of its 540 µs.
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
TRIM_BYTES: Final = 4 * 1024 * 1024
MMAP_BYTES: Final = 1024 * 1024


def keep_freed_memory() -> None:
    """Make the C library keep a few megabytes of freed memory for later allocations."""
    with suppress(AttributeError):  # Only glibc has it.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
