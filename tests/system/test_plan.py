"""`rlpx-swarm plan` as a process: whatever ends it, its engine ends too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS, eventually, working_folder


@contextmanager
def planning(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """A plan that has just begun, and its engine."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "rlpx.engine.swarm.command", "plan", "--peers", "10"],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH, "TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            [engine] = eventually(lambda: psutil.Process(process.pid).children(), "its engine")
            eventually(lambda: list(folder.glob("rlpx-trial-*/control.ipc")), "the engine runs")
            yield process, engine
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_its_engine_ends_with_it(number: signal.Signals) -> None:
    with working_folder() as folder, planning(folder) as (process, engine):
        processes = [engine, *engine.children(recursive=True)]
        process.send_signal(number)
        process.wait(PATIENCE_SECONDS)
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
        assert alive == []
        assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
        if number is not signal.SIGKILL:
            assert list(folder.iterdir()) == []
