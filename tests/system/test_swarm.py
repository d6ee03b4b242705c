"""`rlpx-swarm` as users run it, against a real engine: what both count agrees, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil
import pytest

from protocol.swarm import Fault
from tests.system.harness import PATIENCE_SECONDS, ROOT, RunningEngine, eventually

# Long enough for the longest deadline of a handshake.
ENGINE = ("--timeouts.handshake-s", "1", "--timeouts.pending-inbound-s", "2", "--timeouts.ping-interval-s", "1")
ENGINE_TIMES = (*ENGINE, "--timeouts.ping-s", "1.5", "--responders.answer-s", "1")
SECONDS = 10


def swarm(*flags: str) -> list[str]:
    """The command."""
    return [sys.executable, "-P", "-m", "engine.swarm", "--chain", "dev", *flags]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        swarm(*flags),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def every_fault(tmp_path: Path) -> Path:
    """Sixty peers, two of each fault, the others honest."""
    file = tmp_path / "every-fault.toml"
    faults = "\n".join(f"{fault} = {2 / 60}" for fault in Fault)
    file.write_text(
        "description = 'all faults'\npeers = 60\nprocesses = 2\n[ramp]\npeers_per_s = 60.0\n"
        "[messages]\nannouncements_per_s = 1.0\ntransactions_per_s = 0.5\nrequests_per_s = 1.0\n"
        "requests = ['headers', 'bodies', 'transactions', 'receipts']\n"
        f"[faults]\n{faults}\n"
    )
    return file


def test_a_swarm_with_every_fault_and_the_engine_agree(every_fault: Path, tmp_path: Path) -> None:
    with RunningEngine(*ENGINE_TIMES, "--control.history", "10000") as engine:
        picture = tmp_path / "swarm.svg"
        flags = ["--scenario", str(every_fault), "--seconds", str(SECONDS), "--json", "--plot", str(picture)]
        ended = run("--run-dir", str(engine.run_dir), *flags)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        told: dict[str, Any] = json.loads(ended.stdout)
        assert set(told["faults"]) == set(Fault)
        for fault, outcome in told["faults"].items():
            assert outcome["as_expected"] >= 2, (fault, outcome)
            assert not outcome["otherwise"], (fault, outcome)
            assert not outcome["undecided"], (fault, outcome)
        sessions, seen = told["sessions"], told["engine"]["counts"]
        assert sessions["established"] == seen["established"]
        assert sessions["connected"] == seen["closed"]
        assert told["requests"]["answered"] > 100
        history = engine.call("history", limit=10_000)
        assert len(history) == sessions["connected"]
        reset = [item for item in history if item["ended_by"] == "network" and item["stage"] == "active"]
        # Reset and half-closed by the peers; a slow reader may go without reading its end.
        assert len(reset) >= 4
        assert sum(item["reason"] == "protocol_breach" for item in history) == 2
        clients = {item["client"].partition("/")[0] for item in history if item["client"]}
        assert clients == {"Geth", "reth", "Nethermind", "erigon"}
        eventually(lambda: engine.counts() == (0, 0, 0, 0), "all are gone")
        assert ET.parse(picture).getroot().tag.endswith("svg")  # noqa: S314 - our own


def test_the_engine_dials_a_swarm_that_listens() -> None:
    with RunningEngine() as engine:
        flags = ["--listen", "127.0.0.1:0", "--peers", "20", "--seconds", "6", "--json", "--scenario", "churn"]
        ended = run("--run-dir", str(engine.run_dir), *flags)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        told = json.loads(ended.stdout)
        assert told["sessions"]["established"] == told["engine"]["counts"]["established"] == 20
        assert {item["direction"] for item in engine.call("history", limit=100)} == {"outbound"}


def test_interrupted_it_says_goodbye_and_sums_up() -> None:
    with RunningEngine() as engine:
        command = swarm("--run-dir", str(engine.run_dir), "--scenario", "churn", "--peers", "10")
        running = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        eventually(lambda: engine.counts()[2] >= 5, "some are there")
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=PATIENCE_SECONDS)
        assert running.returncode == 0, error
        assert "10 peers over 2 processes" in out
        eventually(lambda: engine.counts() == (0, 0, 0, 0), "all are gone")
        assert {item["ended_by"] for item in engine.call("history", limit=100)} == {"peer"}


def test_its_processes_end_with_the_command() -> None:
    with RunningEngine() as engine:
        command = swarm("--run-dir", str(engine.run_dir), "--peers", "6", "--scenario", "churn")
        running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
        eventually(lambda: engine.counts()[2] >= 2, "some are there")
        children = psutil.Process(running.pid).children()
        assert len(children) == 2
        running.kill()
        running.wait()
        gone, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
        assert not alive
        assert len(gone) == 2


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 64, "--target, --listen or --run-dir"),
        (("--target", "nonsense"), 64, "--target: an enode URL begins with enode://"),
        (("--nonsense",), 64, "unrecognized arguments"),
        (("--run-dir", "/nowhere"), 69, "no engine"),
        (("--scenario", "nonsense"), 78, "no such file"),
        (("--peers", "0"), 78, "--peers: expected int >= 1"),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(flags: tuple[str, ...], code: int, words: str) -> None:
    ended = run(*flags)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_target_that_is_not_there_is_its_own_exit_code() -> None:
    with RunningEngine(workers=1) as engine:
        enode = engine.enode
    ended = run("--target", enode, "--seconds", "1", "--peers", "4", "--json")
    assert ended.returncode == 69, ended.stderr
    assert json.loads(ended.stdout)["ends"] == {"no connection: Connection refused": 4}


def test_a_port_that_is_taken_is_its_own_exit_code() -> None:
    with RunningEngine(workers=1) as engine:
        ended = run("--listen", "127.0.0.1:" + engine.enode.rpartition(":")[2], "--peers", "2", "--seconds", "1")
    assert ended.returncode == 69
    assert "address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr
