"""A million calls of compiled code, good and bad ones: what the process holds at the end is what it held before.

Needs `failing_malloc.c` preloaded, which counts every piece of memory exactly. References to what lives for ever (errors,
`None`) take no memory: they are counted as well.
"""

from __future__ import annotations

import gc
import sys
from array import array
from typing import Final

from rlpx.protocol.errors import FrameError, OversizedFrameError, RlpError, SnappyError, UsageError
from rlpx.protocol.native import NATIVE
from tests.protocol.c.calls import calls
from tests.protocol.c.failing_memory import held_allocations, module_maker

COUNT: Final = 32_000
# The curve takes 20 to 50 µs each time; what leaks there leaks at every call as well.
CURVE_COUNT: Final = 4_000
TEXT: Final = bytes(range(200))
MODULES: Final = 200
# Of a module CPython itself leaks some pieces, whatever the module: 3 to 8 were seen, of ours and of its own.
PIECES_OF_A_MODULE: Final = 15
# Whatever Python keeps for its own use, lists of free objects for example.
SLACK_PIECES: Final = 50
_LASTING: Final = (
    None,
    True,
    False,
    FrameError,
    OversizedFrameError,
    RlpError,
    SnappyError,
    UsageError,
    TypeError,
    ValueError,
    TEXT,
)


def references() -> array[int]:
    """How often what lives for ever is referred to."""
    return array("q", [sys.getrefcount(item) for item in _LASTING])


def main() -> None:
    """All calls."""
    assert NATIVE is not None
    total = 0
    for name, prepare in calls(NATIVE, TEXT).items():
        count = CURVE_COUNT if name.startswith("curve") else COUNT
        repeat(prepare, 200)
        gc.collect()
        before, held = references(), held_allocations()
        repeat(prepare, count)
        gc.collect()
        more, after = held_allocations() - held, references()
        assert more < SLACK_PIECES, f"{name}: {more} pieces of memory more after {count} calls"
        for item, first, last in zip(_LASTING, before, after, strict=True):
            assert abs(last - first) < SLACK_PIECES, f"{name}: {last - first} references to {item!r} after {count} calls"
        total += count
    make_module = module_maker()
    repeat(make_module, 5)
    gc.collect()
    held = held_allocations()
    repeat(make_module, MODULES)
    gc.collect()
    more = held_allocations() - held
    assert more < MODULES * PIECES_OF_A_MODULE, f"{more} pieces of memory more after {MODULES} modules"
    sys.stdout.write(f"{total:,} calls\n")


def repeat(prepare: object, count: int) -> None:
    """Prepare and call, so many times."""
    assert callable(prepare)
    for _ in range(count):
        call, _check = prepare()
        try:
            call()
        except (FrameError, RlpError, SnappyError, UsageError, TypeError, ValueError):
            continue


if __name__ == "__main__":
    main()
