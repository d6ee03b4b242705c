"""What the kernel says about this process, compared with other sources."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from rlpx.workers.proc import ProcessMemory, open_descriptors, waited_seconds


def test_memory_is_what_status_says() -> None:
    memory = ProcessMemory()
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    assert memory.resident_bytes() == pytest.approx(int(line.split()[1]) * 1024, rel=0.1)
    memory.close()


def test_memory_can_be_read_without_another_descriptor() -> None:
    memory = ProcessMemory()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert memory.resident_bytes() > 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    memory.close()


def test_the_descriptor_goes_with_it() -> None:
    memory = ProcessMemory()
    descriptor = memory.fileno()
    memory.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_wait_for_a_core_only_grows() -> None:
    before = waited_seconds()
    assert 0 <= before <= waited_seconds()


def test_open_descriptors_are_counted() -> None:
    before = open_descriptors()
    read_end, write_end = os.pipe()
    try:
        assert open_descriptors() == before + 2
    finally:
        os.close(read_end)
        os.close(write_end)


def test_without_a_descriptor_to_count_with_the_number_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_folder: str) -> list[str]:
        raise OSError

    monkeypatch.setattr(os, "stat", fail)
    assert open_descriptors() == 0
