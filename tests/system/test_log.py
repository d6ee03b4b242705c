"""The log of a running engine in a file: moved by another program, full, and in a folder that is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from rlpx.engine.client.presence import EngineError
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.harness import IMPORT_PATH, RunningEngine, eventually, working_folder


def events(path: Path) -> list[str]:
    """The events of the lines in a file."""
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


def test_sigusr1_opens_the_file_by_its_name_again() -> None:
    with working_folder() as folder:
        path, moved = folder / "engine.log", folder / "moved"
        with RunningEngine("--log.file", str(path), workers=1) as engine:
            eventually(lambda: "the engine has started" in events(path), "the start is in the file")
            assert engine.stderr == ""
            path.rename(moved)
            engine.process.send_signal(signal.SIGUSR1)
            eventually(lambda: events(path) == ["the log was opened again"], "it was opened")
            assert engine.call("status")["log_lines_lost"] == 0
            assert engine.stop() == 0
            assert engine.stderr == ""
        assert events(path)[1:] == ["ending: goodbyes first"]


def test_a_file_is_moved_aside_when_it_is_full_and_lost_lines_are_counted() -> None:
    with working_folder() as folder:
        inner = folder / "inner"
        inner.mkdir()
        path = inner / "engine.log"
        flags = ("--log.file", str(path), "--log.max-bytes", "65536", "--log.keep", "2", "--log.level", "debug")
        with RunningEngine(*flags, workers=1) as engine:
            # A line at debug for every dial that is refused.
            for number in range(1, 400):
                node_id = PrivateKey(number.to_bytes(32, "big")).id.hex()
                with suppress(EngineError):
                    engine.call("dial", enode=f"enode://{node_id}@127.0.0.1:1", wait=True)
                if (inner / "engine.log.2").exists():
                    break
            eventually((inner / "engine.log.1").exists, "the first was moved aside")
            sizes = [file.stat().st_size for file in inner.iterdir()]
            assert max(sizes) <= 65_536
            assert len(sizes) <= 3
            for file in inner.iterdir():
                file.unlink()
            inner.rmdir()
            engine.process.send_signal(signal.SIGUSR1)
            eventually(lambda: engine.call("status")["log_lines_lost"] > 0, "losses are counted")
            assert engine.counts()[2] == 0


def test_check_writes_no_file_and_a_place_that_cannot_be_is_one_line() -> None:
    with working_folder() as folder:
        command = [sys.executable, "-P", "-m", "rlpx.engine", "--run-dir", str(folder), "--node-key", str(folder / "key")]
        checked = subprocess.run(
            [*command, "--check", "--log.file", str(folder / "log")],
            env={"PYTHONPATH": IMPORT_PATH},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f'log.file = "{folder}/log"' in checked.stdout
        assert not (folder / "log").exists()
        refused = subprocess.run(
            [*command, "--log.file", str(folder / "nowhere" / "log")],
            env={"PYTHONPATH": IMPORT_PATH},
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.stderr.startswith(f"rlpx-engine: log.file: {folder}/nowhere/log: ")
        assert (refused.stderr.count("\n"), refused.stdout) == (1, "")
        assert refused.returncode == 78
