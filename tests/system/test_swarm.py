"""`rlpx-swarm` as users run it, against a real engine: the counts of both agree, and the exit codes are right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil
import pytest

from rlpx.engine.swarm.watch import Watch
from rlpx.protocol.bus.swarm import Fault
from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS, RunningEngine, eventually

# Long enough for the longest deadline of a handshake.
ENGINE = ("--timeouts.handshake-s", "1", "--timeouts.pending-inbound-s", "2", "--timeouts.ping-interval-s", "1")
ENGINE_TIMES = (*ENGINE, "--timeouts.ping-s", "1.5", "--responders.answer-s", "1")
SECONDS = 10
# Of some ninety sessions.
FEW = 3


def swarm(*flags: str) -> list[str]:
    """The command."""
    return [sys.executable, "-P", "-m", "rlpx.engine.swarm.command", "--chain", "dev", *flags]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        swarm(*flags),
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def started(*flags: str) -> subprocess.Popen[str]:
    """Start the command; yields it while it runs."""
    return subprocess.Popen(
        swarm(*flags),
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
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


@pytest.mark.alone
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
        # A peer that leaves at once may not have read the Status that made its session active for the engine.
        assert 0 <= seen["established"] - sessions["established"] <= FEW
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


@pytest.mark.alone
def test_the_engine_dials_a_swarm_that_listens_and_again_who_has_left_and_is_back(tmp_path: Path) -> None:
    scenario = tmp_path / "come-and-go.toml"
    scenario.write_text(
        "description = 'who comes and goes'\npeers = 20\n[ramp]\npeers_per_s = 0\n"
        "[churn]\nshare = 0.5\nstay_s = 0.5\naway_s = 0.3\n"
    )
    with RunningEngine() as engine:
        flags = ["--listen", "127.0.0.1:0", "--seconds", "10", "--json", "--scenario", str(scenario)]
        ended = run("--run-dir", str(engine.run_dir), *flags)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        told = json.loads(ended.stdout)
        sessions = told["sessions"]
        # A peer that has left closes every connection to it.
        history = [item for item in engine.call("history", limit=10_000) if item["stage"] == "active"]
        assert told["engine"]["counts"]["established"] == len(history)
        assert 0 <= len(history) - sessions["established"] <= FEW
        assert {item["direction"] for item in history} == {"outbound"}
        visits = Counter(item["peer"] for item in history)
        assert len(visits) == 20
        # Ten stay, ten come and go every second or so.
        assert sum(count == 1 for count in visits.values()) >= 10
        assert sum(count >= 3 for count in visits.values()) >= 5, visits


def test_a_process_that_is_killed_is_told_with_its_peers() -> None:
    with RunningEngine() as engine:
        flags = ["--run-dir", str(engine.run_dir), "--scenario", "churn", "--peers", "20", "--seconds", "60", "--json"]
        running = started(*flags)
        eventually(lambda: engine.counts()[2] == 20, "all are there")
        children = psutil.Process(running.pid).children()
        children[0].kill()
        eventually(lambda: engine.counts()[2] <= 10, "its peers are gone")
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=PATIENCE_SECONDS)
        assert running.returncode == 70, error
        assert error == "rlpx-swarm: 1 of 2 processes of the swarm were lost\n"
        [lost] = json.loads(out)["lost"]
        assert (lost["cause"], lost["peers"]) == ("was ended by signal 9", 10)
        assert json.loads(out)["ends"]["left"] >= 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("is_watched", [True, False])
def test_a_target_that_dies_in_the_middle_is_told_and_what_was_is_summed_up(number: int, *, is_watched: bool) -> None:
    with RunningEngine() as engine:
        where = ["--run-dir", str(engine.run_dir)] if is_watched else ["--target", engine.enode]
        running = started(*where, "--scenario", "slots", "--peers", "20", "--seconds", "60", "--json")
        eventually(lambda: engine.counts()[2] == 20, "all are there")
        children = [child.pid for child in engine.workers()]
        engine.stop(number)
        eventually(lambda: not any(map(psutil.pid_exists, children)), "its workers end with it")
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=PATIENCE_SECONDS)
        assert running.returncode == 69, error
        assert error == "rlpx-swarm: the target was gone before the end\n"
        assert json.loads(out)["sessions"]["established"] == 20


def test_a_worker_that_the_engine_replaces_stays_in_the_picture() -> None:
    with RunningEngine(workers=1) as engine, Watch(str(engine.run_dir)) as watch:
        [before] = engine.workers()
        cost = watch.cost()
        before.kill()

        def has_followed() -> bool:
            watch.read()
            return watch.counts["workers_lost"] == 1 and watch.cost().memory_bytes > 0.8 * cost.memory_bytes

        eventually(has_followed, "the new worker counts")
        [after] = engine.workers()
        assert after.pid != before.pid
        assert watch.cost().cpu_seconds > cost.cpu_seconds


def test_interrupted_it_says_goodbye_and_sums_up() -> None:
    with RunningEngine() as engine:
        running = started("--run-dir", str(engine.run_dir), "--scenario", "churn", "--peers", "10")
        eventually(lambda: engine.counts()[2] >= 5, "some are there")
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=PATIENCE_SECONDS)
        assert running.returncode == 0, error
        assert "10 peers over 2 processes" in out
        eventually(lambda: engine.counts() == (0, 0, 0, 0), "all are gone")
        assert {item["ended_by"] for item in engine.call("history", limit=100)} == {"peer"}


def test_whose_output_nobody_reads_ends_quietly() -> None:
    running = started("--listen", "127.0.0.1:0", "--peers", "2", "--seconds", "1")
    assert running.stdout is not None
    assert running.stdout.readline().startswith("listening enode://")
    running.stdout.close()
    assert running.wait(PATIENCE_SECONDS) == 0
    assert running.stderr is not None
    with running.stderr:
        assert running.stderr.read() == ""


def test_its_processes_end_with_the_command() -> None:
    with RunningEngine() as engine:
        command = swarm("--run-dir", str(engine.run_dir), "--peers", "6", "--scenario", "churn")
        running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": IMPORT_PATH}, stdout=subprocess.DEVNULL)
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
        ((), 64, "one of --target, --listen and --run-dir is needed"),
        (("--target", "nonsense"), 64, "--target: expected an enode URL"),
        (("--nonsense",), 64, "unrecognized arguments"),
        (("--run-dir", "/nowhere"), 69, "no engine"),
        (("--scenario", "nonsense"), 78, "no such file"),
        (("--peers", "0"), 78, "--peers: expected a whole number from 1 to 100000"),
        (("--peers", "2", "--processes", "3"), 78, "--processes: 3 are more than the 2 peers"),
        (("--seed", str(2**64), "--listen", "127.0.0.1:0"), 64, "--seed: expected a whole number from 0 to"),
        (("--seed", "one"), 64, "--seed"),
        (("--listen", "127.0.0.1:0", "--target", "enode://"), 64, "exclude each other"),
        (("--listen", "here"), 64, "--listen: expected HOST:PORT"),
        (("--listen", "127.0.0.1:65530", "--peers", "20"), 64, "--listen: 20 ports from 65530 on go beyond 65535"),
        (("--listen", "203.0.113.1:0", "--peers", "2"), 69, "--listen: 203.0.113.1:0: Cannot assign requested address"),
        (("--listen", "127.0.0.1:0", "--plot", "/nowhere/swarm.svg"), 77, "--plot: /nowhere/swarm.svg cannot be written"),
        (("--listen", "127.0.0.1:0", "--plot", "/"), 77, "--plot: / cannot be written"),
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
    assert "Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr
