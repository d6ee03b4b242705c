"""`rlpx-cluster demo`: from one command to a fleet, and back to nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil

from tests.system.harness import IMPORT_PATH, eventually


def test_a_fleet_to_try_things_with_starts_and_leaves_nothing_behind() -> None:
    environment = {**os.environ, "PYTHONPATH": IMPORT_PATH}
    demo = subprocess.Popen(
        [sys.executable, "-P", "-m", "rlpx.engine.cli.cluster", "demo", "--hosts", "2"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    lines = [demo.stdout.readline().strip() for _ in range(10)]
    assert lines[0] == "a fleet of 2 hosts, until Ctrl-C:"
    assert [line.split()[0] for line in lines[1:3]] == ["host-a", "host-b"]
    children = psutil.Process(demo.pid).children(recursive=True)
    assert len(children) == 5
    command = [sys.executable, "-P", "-m", "rlpx.engine.cli.ctl", *lines[4].split()[1:]]
    hosts = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
    assert [line.split()[0] for line in hosts.stdout.splitlines()] == ["host-a", "host-b"]
    demo.send_signal(signal.SIGTERM)
    _, problems = demo.communicate(timeout=200)
    assert demo.returncode == 0, problems
    assert "rlpx-swarm" in lines[7]
    eventually(lambda: not any(child.is_running() for child in children), "all have ended")


def test_if_one_ends_all_end() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-P", "-m", "rlpx.engine.cli.cluster", "demo", "--hosts", "1"],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    demo.stdout.readline()
    (server,) = [child for child in psutil.Process(demo.pid).children() if child.name() == "nats-server"]
    server.kill()
    _, problems = demo.communicate(timeout=200)
    assert demo.returncode == 69
    assert problems == "rlpx-cluster: nats-server has ended, and so do the others\n"


def test_if_it_is_killed_all_end() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-P", "-m", "rlpx.engine.cli.cluster", "demo", "--hosts", "1"],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    demo.stdout.readline()
    children = psutil.Process(demo.pid).children(recursive=True)
    assert len(children) == 3
    demo.kill()
    demo.communicate(timeout=200)
    eventually(lambda: not any(child.is_running() for child in children), "all have ended")
