"""Memory of large messages is kept for the next ones."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from rlpx.protocol.allocator import keep_freed_memory

# Page faults of a hundred messages of 140 kB, each in six copies that go together.
FAULTS = """
import resource
from rlpx.protocol.allocator import keep_freed_memory
{setup}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    copies = [bytes(140_000) for _ in range(6)]
    copies = None
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(setup: str) -> int:
    run = subprocess.run([sys.executable, "-c", FAULTS.format(setup=setup)], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_of_large_messages_is_used_again() -> None:
    assert faults("") > 5000
    assert faults("keep_freed_memory()") < 1000


def test_where_the_library_has_no_such_setting_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    keep_freed_memory()


def test_both_bounds_of_the_allocator_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, parameter: int, value: int) -> None:
            calls.append((parameter, value))

    monkeypatch.setattr("ctypes.CDLL", lambda _: Library())
    keep_freed_memory()
    # mallopt(3): M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    assert calls == [(-1, 4 * 1024 * 1024), (-3, 1024 * 1024)]
