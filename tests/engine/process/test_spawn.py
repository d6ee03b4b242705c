"""A process of ours inherits one socket, finds our modules, and starts with signals blocked."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from rlpx.engine.process.spawn import spawn

PATIENCE_SECONDS = 60.0


@pytest.mark.parametrize("module", ["rlpx.workers", "rlpx.workers.swarm"])
def test_a_process_inherits_one_descriptor_finds_our_modules_and_starts_with_signals_blocked(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET if module == "rlpx.workers" else socket.SOCK_STREAM)
    with ours, theirs, spawn(module, theirs.fileno(), {signal.SIGINT, signal.SIGHUP}, has_output=False) as process:
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        theirs.close()
        ours.close()
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert b"ModuleNotFoundError" not in output
    mask = int(next(line for line in status if line.startswith("SigBlk")).split()[1], 16)
    assert all(mask >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGHUP))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before


def test_a_process_with_output_writes_to_our_own_streams(capfd: pytest.CaptureFixture[str]) -> None:
    process = spawn("rlpx.no_such_module", 0, set(), has_output=True)
    assert isinstance(process, subprocess.Popen)
    assert process.wait(PATIENCE_SECONDS) == 1
    assert "rlpx.no_such_module" in capfd.readouterr().err
