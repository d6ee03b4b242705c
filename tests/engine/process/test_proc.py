"""CPU time and memory of a process are what the kernel says."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from time import process_time_ns

import pytest

from rlpx.engine.process.proc import OwnMemory, cpu_ns, resident_bytes


def test_a_process_has_the_cpu_time_of_all_its_threads_and_the_pages_that_are_resident(tmp_path: Path) -> None:
    for thread, nanoseconds in ((10, 1000), (11, 200)):
        folder = tmp_path / "10" / "task" / str(thread)
        folder.mkdir(parents=True)
        (folder / "schedstat").write_text(f"{nanoseconds} 17 3\n")
    (tmp_path / "10" / "statm").write_text("999 7 1 1 0 1 0\n")
    assert cpu_ns(10, tmp_path) == 1200
    assert resident_bytes(10, tmp_path) == 7 * resource.getpagesize()


def test_a_process_that_is_gone_has_no_memory_to_read(tmp_path: Path) -> None:
    assert cpu_ns(10, tmp_path) == 0
    with pytest.raises(FileNotFoundError):
        resident_bytes(10, tmp_path)


def test_this_process_is_found_by_its_number() -> None:
    used = process_time_ns()
    assert cpu_ns(os.getpid()) > 0.5 * used
    memory = OwnMemory()
    assert 0.5 < memory.resident_bytes() / resident_bytes(os.getpid()) < 2
    memory.close()
    with pytest.raises(OSError, match="descriptor"):
        memory.resident_bytes()
