"""rlpx-watch beside a real engine: its answers whatever becomes of the engine, and that nothing of it concerns sessions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import psutil
import pytest

from rlpx.engine.settings.chain import load_chain
from tests.system.harness import IMPORT_PATH, ROOT, RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.scraping import get, scrape, serving, watched

CHAIN = load_chain("dev")


@contextmanager
def standing_alone(engine: RunningEngine) -> Iterator[str]:
    """rlpx-watch as a user starts it; its address."""
    command = [sys.executable, "-P", "-m", "rlpx.engine.watch.command", "--run-dir", str(engine.run_dir)]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield process.stdout.readline().split("http://")[1].split("/")[0]
    finally:
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
        process.stdout.close()
        process.stderr.close()


@pytest.mark.alone
def test_an_engine_that_hangs_or_is_gone_is_said_so_within_two_seconds() -> None:
    with RunningEngine() as engine, standing_alone(engine) as address:
        assert get(address, "/healthz") == (200, "ok\n")
        assert get(address, "/readyz") == (200, "ok\n")
        assert scrape(address)["rlpx_up[]"] == 1
        engine.process.send_signal(signal.SIGSTOP)
        try:
            for path in ("/healthz", "/readyz"):
                asked_at = monotonic()
                assert get(address, path)[0] == 503
                assert monotonic() - asked_at < 2.0
            assert scrape(address)["rlpx_up[]"] == 0
        finally:
            engine.process.send_signal(signal.SIGCONT)
        eventually(lambda: get(address, "/readyz")[0] == 200, "the engine is back")
        engine.stop()
        assert get(address, "/healthz")[0] == 503
        assert scrape(address)["rlpx_up[]"] == 0


@pytest.mark.alone
def test_a_worker_that_is_lost_makes_the_engine_unready_until_it_is_replaced() -> None:
    with watched() as (engine, address):
        assert get(address, "/readyz") == (200, "ok\n")
        engine.workers()[0].kill()
        _, text = eventually(lambda: (found := get(address, "/readyz"))[0] == 503 and found, "it is seen")
        assert text.splitlines() == ["worker 0 is not up"]
        assert get(address, "/healthz")[0] == 200
        eventually(lambda: get(address, "/readyz")[0] == 200, "the worker was replaced")
        figures = scrape(address)
        assert figures["rlpx_worker_ends_total[('how', 'lost')]"] == 1
        assert figures["rlpx_worker_starts_total[]"] == 3


def test_killing_rlpx_watch_leaves_sessions_alone_and_it_comes_back() -> None:
    with watched() as (engine, address), Peer(engine.address, engine.node_id, CHAIN) as peer:
        peer.establish()
        [session] = engine.call("sessions")["sessions"]
        pid = engine.call("status")["watch"]["pid"]
        for number in (signal.SIGKILL, signal.SIGSEGV):
            os.kill(pid, number)
            state = serving(engine, but=pid)
            pid = state["pid"]
            assert state["last_end"] == f"signal {number.value}"
            eventually(lambda: get(address, "/healthz") == (200, "ok\n"), "it serves again")
        assert [item["session"] for item in engine.call("sessions")["sessions"]] == [session["session"]]


def test_it_ends_with_the_engine_even_if_that_is_killed() -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with RunningEngine("--watch", "127.0.0.1:0", is_read=number is signal.SIGTERM) as engine:
            state = serving(engine)
            process = psutil.Process(state["pid"])
            workers = engine.workers()
            engine.process.send_signal(number)
            psutil.wait_procs([process, *workers], timeout=20)
            assert not process.is_running()
            engine.process.wait(20)


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--watch", "nonsense"], 78, "--watch: expected HOST:PORT"),
        (["--watch", "127.0.0.1:1", "--watch-host-names", "not a name"], 78, "it is not a host name"),
        (["--watch", "192.0.2.1:9545"], 69, "watch: 192.0.2.1:9545: Cannot assign requested address"),
    ],
)
def test_a_mistake_is_one_line_of_the_engine(flags: list[str], code: int, text: str, tmp_path: Any) -> None:
    command = [sys.executable, "-P", "-m", "rlpx.engine", "--chain", "dev", "--listen", "127.0.0.1:0"]
    command += ["--run-dir", str(tmp_path / "run"), "--node-key", str(tmp_path / "key"), "--workers", "1", *flags]
    ended = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=ROOT,
    )
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert (ended.returncode, len(lines)) == (code, 1), ended.stderr
    assert text in lines[0]
