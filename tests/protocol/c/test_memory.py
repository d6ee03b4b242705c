"""Compiled code where memory runs out, and after a million calls: it never crashes, never leaks, and says `MemoryError`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlpx.protocol.native import NATIVE
from tests.protocol.c.builds import CannotBuildError, failing_malloc


@pytest.mark.timeout(600)  # a million calls
@pytest.mark.parametrize("program", ["failing_memory", "repeated_calls"])
def test_every_allocation_may_fail_and_none_leaks(program: str, tmp_path: Path) -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    try:
        build = failing_malloc(tmp_path)
    except CannotBuildError as error:
        pytest.skip(str(error))
    command = [sys.executable, "-P", "-m", f"tests.protocol.c.{program}"]
    ran = subprocess.run(command, env=build.environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
