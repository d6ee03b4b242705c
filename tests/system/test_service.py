"""An engine under a service manager: the test listens on NOTIFY_SOCKET, as systemd would."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlpx.engine.settings.chain import load_chain
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer

WATCHDOG_USEC = 200_000


@contextmanager
def listening(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's socket, named in the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_USEC))
        yield manager


def hear(manager: socket.socket, beginning: str) -> str:
    """The next notification that begins with this text."""
    while not (word := manager.recv(4096).decode()).startswith(beginning):
        pass
    return word


def test_a_service_s_life_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(tmp_path, monkeypatch) as manager, RunningEngine(workers=1) as engine:
        assert manager.recv(4096) == b"READY=1"
        hear(manager, "WATCHDOG=1")
        with Peer(engine.address, engine.node_id, load_chain("dev")).establish():
            hear(manager, "STATUS=1 active and 0 pending sessions, 1 of 1 workers")
        engine.process.send_signal(signal.SIGHUP)
        hear(manager, "RELOADING=1\nMONOTONIC_USEC=")
        hear(manager, "READY=1")
        assert engine.stop() == 0
        hear(manager, "STOPPING=1")


def test_a_worker_that_is_gone_is_no_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(tmp_path, monkeypatch) as manager, RunningEngine(workers=1) as engine:
        worker = engine.workers()[0]
        assert "NOTIFY_SOCKET" not in worker.environ()
        os.kill(worker.pid, signal.SIGKILL)
        hear(manager, "STATUS=0 active and 0 pending sessions, 0 of 1 workers")
        # Until another worker is up, nothing else is sent; then the signs of life resume.
        manager.settimeout(60)
        assert manager.recv(4096).decode() == "WATCHDOG=1"
        eventually(lambda: engine.workers()[0].pid != worker.pid, "another worker")
