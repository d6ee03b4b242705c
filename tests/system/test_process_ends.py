"""The ends of programs: who ends them, with which goodbyes, and what they write."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS, ROOT, RunningEngine, eventually, working_folder
from tests.system.peers import Peer
from tests.system.test_streams import ENVIRONMENT, ended, engine_command, peer_of, status_of

CHAIN = load_chain("dev")


def goodbye_of(peer: Peer) -> str:
    """The reason that a peer gets at the end."""
    while not peer.session.is_closed:
        peer.step()
    return str(peer.events[-1]).lower()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_engine_and_workers_at_once_loses_no_goodbye(number: signal.Signals) -> None:
    """A signal to the whole group, as systemd sends by default, a terminal, and `kill` with a group."""
    with RunningEngine() as engine:
        log = engine.log("worker.", "engine.")
        peers = [Peer(engine.address, engine.node_id, CHAIN).establish() for _ in range(10)]
        for process in [*engine.workers(), psutil.Process(engine.process.pid)]:
            process.send_signal(number)
        for peer in peers:
            assert "client_quitting" in goodbye_of(peer)
            peer.close()
        assert engine.process.wait(PATIENCE_SECONDS) == 0
        log.wait("engine.stopped")
        assert len(log.of("worker.stopped")) == 2
        assert not log.of("worker.lost")
        assert '"error"' not in engine.stderr


def test_signals_to_a_worker_alone_end_nothing() -> None:
    with RunningEngine(workers=1) as engine, Peer(engine.address, engine.node_id, CHAIN) as peer:
        peer.establish()
        [worker] = engine.workers()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            worker.send_signal(number)
        sleep(0.5)
        assert engine.workers() == [worker]
        engine.comes_to(0, 0, 1, 0)


def test_habitual_signals_end_no_engine() -> None:
    with RunningEngine(workers=1) as engine:
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGHUP):
            engine.process.send_signal(number)
        eventually(lambda: "read again" in engine.stderr, "SIGHUP was heeded")
        assert engine.call("counts")
        assert engine.stop() == 0


def test_a_worker_without_its_engine_ends() -> None:
    with working_folder() as run_dir:
        process = subprocess.Popen(
            engine_command(run_dir), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with ended(process):
            workers = [psutil.Process(worker["pid"]) for worker in status_of(run_dir)["workers"]]
            process.kill()
            assert not psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)[1]


def test_a_second_signal_stops_the_workers_and_loses_none() -> None:
    with RunningEngine("--timeouts.goodbye-s", "60") as engine, Peer(engine.address, engine.node_id, CHAIN) as peer:
        peer.establish()
        log = engine.log("worker.", "engine.")
        engine.process.send_signal(signal.SIGTERM)
        eventually(lambda: "goodbyes first" in engine.stderr, "the first signal was heard")
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(PATIENCE_SECONDS) == 0
        log.wait("engine.stopped")
        assert not log.of("worker.lost")
        assert len(log.of("worker.stopped")) == 2


def test_a_hangup_before_it_is_ready_is_a_reload_when_it_is() -> None:
    with working_folder() as run_dir, (run_dir / "err").open("wb") as err:
        process = subprocess.Popen(engine_command(run_dir), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=err, text=True)
        with ended(process):
            assert process.stdout is not None
            # The run directory is taken before workers start, long before the ready line.
            eventually((run_dir / "lock").exists, "it has begun")
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline().startswith("ready ")
            eventually(lambda: "read again" in (run_dir / "err").read_text(), "it was read again")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0
            process.stdout.close()


# -- a terminal -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", " 2>&1 | tee log", " 2>&1 | cat"])
def test_ctrl_c_on_a_terminal_says_goodbye_to_every_peer(suffix: str) -> None:
    """Ctrl-C signals the engine, its workers, and the reader of the log at once."""
    primary, secondary = pty.openpty()
    with working_folder() as run_dir:
        script = '"$@"' + suffix + "; echo ended; exec sleep 60"
        process = subprocess.Popen(
            ["setsid", "--ctty", "sh", "-c", f"trap : INT; {script}", "sh", *engine_command(run_dir)],
            env=ENVIRONMENT,
            cwd=run_dir,
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
        )
        os.close(secondary)
        with ended(process):
            status = status_of(run_dir)
            peers = [peer_of(status) for _ in range(5)]
            os.write(primary, b"\x03")
            for peer in peers:
                assert "client_quitting" in goodbye_of(peer)
                peer.close()
            engine = psutil.Process(status["pid"]) if psutil.pid_exists(status["pid"]) else None
            assert engine is None or engine.wait(PATIENCE_SECONDS) in {0, None}
            shown = read_until(primary, b"ended")
            assert b"Traceback" not in shown
        os.close(primary)


def read_until(descriptor: int, end: bytes) -> bytes:
    """The terminal's output up to some text."""
    shown, ends_at = b"", monotonic() + PATIENCE_SECONDS
    while end not in shown:
        assert monotonic() < ends_at, shown
        shown += os.read(descriptor, 1 << 16)
    return shown


# -- the first moments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["rlpx-engine", "rlpx-ctl", "rlpx-tail", "rlpx-swarm", "rlpx-watch"])
@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.05, 0.1, 0.15, 0.25])
def test_an_interrupt_in_the_first_moments_is_at_most_one_line(program: str, seconds: float) -> None:
    with working_folder() as run_dir:
        arguments = {
            "rlpx-engine": engine_command(run_dir)[4:],
            "rlpx-ctl": ["--run-dir", str(run_dir), "status"],
            "rlpx-tail": ["--run-dir", str(run_dir)],
            "rlpx-swarm": ["--target", f"enode://{PrivateKey(bytes([7]) * 32).id.hex()}@127.0.0.1:1"],
            "rlpx-watch": ["--run-dir", str(run_dir), "--listen", "127.0.0.1:0"],
        }[program]
        process = subprocess.Popen(
            [ROOT / "bin" / program, *arguments],
            env={**os.environ, "PYTHON": sys.executable},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        # A swarm that has just begun reports what it did.
        assert out == "" or out.startswith("60 peers over " if program == "rlpx-swarm" else "ready ")
        assert "-0.0 s" not in out
        lines = [line for line in err.splitlines() if '"event"' not in line]
        assert len(lines) <= 1, err
        assert "Traceback" not in err
        assert process.returncode in {130, -signal.SIGINT, 0, 69}, (process.returncode, err)


@pytest.mark.parametrize(
    "module", ["rlpx.engine", "rlpx.engine.cli.ctl", "rlpx.engine.cli.tail", "rlpx.engine.swarm.command"]
)
def test_an_interrupt_while_it_loads_its_libraries_is_one_line(module: str, tmp_path: Path) -> None:
    """The moment is chosen by the library that is being loaded, not by the clock."""
    (tmp_path / "msgspec.py").write_text("import os, time\nos.write(1, b'loading\\n')\ntime.sleep(20)\n")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{IMPORT_PATH}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ended(process):
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    [line] = err.splitlines()
    assert line.endswith(": interrupted")
