"""The worker's process: what it sets up before there is a session."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Page faults of a hundred messages of 140 kB, each in six copies that go together.
FAULTS = """
import resource
from workers.__main__ import keep_freed_memory
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
