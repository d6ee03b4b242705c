"""Messages that nobody reads: as soon as their frames are opened they are counted, by code, and are done with.

Most of what peers send are announcements, and a program reads few of them or none. The cipher counts the others itself,
after it has checked what a receiver must check in any case: the size of the content, and the inflated length that it
announces.

`Tally` is the compiled twin in `c/tally.c` if there is one, otherwise `PythonTally`.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from rlpx.protocol.errors import SnappyError
from rlpx.protocol.native import NATIVE
from rlpx.protocol.rlpx.p2p import LENGTH_MAX_BYTES, inflated_bytes

# A message code is one byte.
CODES: Final = 256
_U32_MAX: Final = 0xFFFF_FFFF


class PythonTally:
    """`counters` has an entry per code for messages, then one per code for the bytes of their contents."""

    __slots__ = ("_bounds", "_counters")

    def __init__(self, counters: array[int], /) -> None:
        if counters.typecode != "Q" or len(counters) < 2 * CODES:
            raise ValueError("the counters are 64-bit integers, two for each code")
        self._counters = counters
        # By code: the largest content, and the largest inflated length.
        self._bounds: dict[int, tuple[int, int]] = {}

    def skip(self, code: int, frame_limit_bytes: int, limit_bytes: int, /) -> None:
        """Take messages of this code from now on, except those over these bounds."""
        if not (0 <= code < CODES and 0 <= frame_limit_bytes <= _U32_MAX and 0 <= limit_bytes <= _U32_MAX):
            raise ValueError("a code is one byte, and a bound has 32 bits")
        self._bounds[code] = frame_limit_bytes, limit_bytes

    def skip_nothing(self) -> None:
        """Take no message any more: readers may have come."""
        self._bounds.clear()

    def takes(self, content: bytes, /) -> bool:
        """Take the content of a frame, and count it; returns False, and counts nothing, if the receiver must look at it."""
        if not content:
            return False
        code, size = content[0], len(content)
        bounds = self._bounds.get(code)
        if bounds is None or size > bounds[0]:
            return False
        try:
            inflated_bytes(content[1 : 1 + LENGTH_MAX_BYTES], bounds[1])
        except SnappyError:
            return False
        self._counters[code] += 1
        self._counters[CODES + code] += size
        return True


# The type checker sees the Python class; at run time it is the compiled one if there is one.
if TYPE_CHECKING:
    Tally = PythonTally
else:
    Tally = PythonTally if NATIVE is None else NATIVE.Tally
