"""Every allocation of every compiled call fails in turn, alone and with all behind it. Needs `failing_malloc.c` preloaded.

Prints a line for each call: how many allocations it makes. Ends with an assertion where a call crashes, leaks, gives
something else than `MemoryError`, or leaves a cipher that goes on.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.machinery
import importlib.util
import sys
from array import array
from collections.abc import Callable

from rlpx.protocol.errors import FrameError, RlpError, SnappyError, UsageError
from rlpx.protocol.native import NATIVE
from tests.protocol.c.calls import Prepared, calls, nothing

# What a call may raise by its contract; under failing memory it may also be this.
OF_THE_CALL = (FrameError, RlpError, SnappyError, UsageError, TypeError, ValueError, StopIteration)
# No call makes as many: then something does not end.
MOST_ALLOCATIONS = 1000
REPEATS = 5
MODULE = "a module"

_MALLOC = ctypes.PyDLL(None)
_CALL = _MALLOC.call_failing
_CALL.argtypes, _CALL.restype = [ctypes.py_object, ctypes.c_long, ctypes.c_int], ctypes.py_object
_FAILED, _HELD = _MALLOC.failed_allocations, _MALLOC.held_allocations
_FAILED.restype = _HELD.restype = ctypes.c_long


def held_allocations() -> int:
    """How many pieces of memory the process holds."""
    return int(_HELD())


def outcome_of(call: Callable[[], object], number: int, *, is_lasting: bool) -> tuple[object, int]:
    """The result, or the type of the error, and how many allocations failed."""
    try:
        result: object = _CALL(call, number, int(is_lasting))
    except (MemoryError, ImportError, *OF_THE_CALL) as error:
        result = type(error)
    return result, _FAILED()


def fail_each(name: str, prepare: Callable[[], Prepared]) -> int:
    """Let the allocations of a call fail in turn, until none is left; how many there are."""
    call, check = prepare()
    expected, _ = outcome_of(call, 0, is_lasting=False)
    check(False)
    for is_lasting in (False, True):
        for number in range(1, MOST_ALLOCATIONS):
            call, check = prepare()
            result, failed = outcome_of(call, number, is_lasting=is_lasting)
            has_failed = result is MemoryError
            # An allocation may fail and be done without, as where Python caches something.
            assert has_failed or same(result, expected) or (failed and result is ImportError), (name, number, result)
            check(has_failed)
            if not failed:
                break
        else:
            raise AssertionError(f"{name} does not end")
    return number - 1


def same(result: object, expected: object) -> bool:
    """Whether two outcomes are one: objects of ours have no equality of their own."""
    if isinstance(expected, bytes | list | tuple | type) or expected is None:
        return result == expected or (isinstance(expected, tuple) and len(expected) == len(result))  # type: ignore[arg-type]
    return type(result) is type(expected)


def module_maker() -> Callable[[], Prepared]:
    """A call that initialises another module object of the same file."""
    spec: importlib.machinery.ModuleSpec | None = importlib.util.find_spec("rlpx.protocol._native")
    assert spec is not None
    assert isinstance(spec.loader, importlib.machinery.ExtensionFileLoader)
    loader = spec.loader

    def prepare() -> Prepared:
        module = loader.create_module(spec)
        assert module is not None

        def load() -> str:
            loader.exec_module(module)
            return str(module.SOURCES)

        return load, nothing

    return prepare


def main() -> None:
    """All calls."""
    assert NATIVE is not None
    every = {**calls(NATIVE), MODULE: module_maker()}
    # An array: its numbers are no objects, which would be counted.
    held = array("q", bytes(8 * REPEATS))
    for name, prepare in every.items():
        count = fail_each(name, prepare)
        # Of a module CPython itself leaks some pieces: see `repeated_calls.py`.
        for number in range(1, count + 1 if name != MODULE else 0):
            for repeat in range(REPEATS):
                held[repeat] = held_after_failure(prepare, number)
            assert min(held[2:]) <= held[1], f"{name}: a failure of allocation {number} leaks: {held}"
        sys.stdout.write(f"{name}: {count} allocations\n")


def held_after_failure(prepare: Callable[[], Prepared], number: int) -> int:
    """What the process holds after a call that failed there, when all that belongs to the call is gone."""
    call, check = prepare()
    outcome_of(call, number, is_lasting=False)
    del call, check
    gc.collect()
    return held_allocations()


if __name__ == "__main__":
    main()
