"""Whatever happens to stdin, stdout and stderr, the engine works and ends well, and the tools report what is lost."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.engine.settings.chain import load_chain
from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS, ROOT, RunningEngine, eventually, working_folder
from tests.system.peers import Peer
from tests.system.threads import in_threads

CHAIN = load_chain("dev")
ENVIRONMENT = {**os.environ, "PYTHONPATH": IMPORT_PATH}
ENGINE = (sys.executable, "-P", "-m", "rlpx.engine", "--chain", "dev", "--workers", "2", "--listen", "127.0.0.1:0")
# The text that a user would see if something were wrong.
FAULTS = ("Traceback", "Exception ignored", "Fatal", "Aborted")


def engine_command(run_dir: Path) -> list[str]:
    conf = ROOT / "conf" / "engine.toml"
    return [*ENGINE, "--run-dir", str(run_dir), "--node-key", str(run_dir / "key"), "--conf", str(conf)]


def status_of(run_dir: Path) -> dict[str, Any]:
    """The engine's status, when it answers and its workers are there."""

    def ask() -> dict[str, Any] | None:
        try:
            with Client.of(run_dir) as client:
                status: dict[str, Any] = client.call("status")
        except EngineUnavailableError:
            return None
        return status if all(worker["ready"] for worker in status["workers"]) else None

    found: dict[str, Any] = eventually(ask, "the engine answers")
    return found


def peer_of(status: dict[str, Any]) -> Peer:
    """A peer with a session, on the engine of a status."""
    node_id, _, address = status["enode"].removeprefix("enode://").partition("@")
    return Peer(("127.0.0.1", int(address.rpartition(":")[2])), bytes.fromhex(node_id), CHAIN).establish()


@contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """The engine has ended, and nothing of it is left behind."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def works_and_ends_well(process: subprocess.Popen[Any], run_dir: Path) -> dict[str, Any]:
    """Check that it has sessions, replaces a killed worker, obeys SIGHUP, and ends at SIGTERM with 0; returns its status."""
    before = status_of(run_dir)
    peer_of(before).close()
    pid = psutil.Process(process.pid)
    [*_, first] = sorted(worker["pid"] for worker in before["workers"])
    psutil.Process(first).kill()
    eventually(
        lambda: first not in {worker["pid"] for worker in status_of(run_dir)["workers"]}, "the killed worker is replaced"
    )
    process.send_signal(signal.SIGHUP)
    status = status_of(run_dir)
    workers = pid.children()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert not psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)[1]
    return status


@pytest.mark.parametrize(
    "redirections",
    [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"],
)
def test_the_engine_works_with_streams_that_are_closed_or_full(redirections: str) -> None:
    with working_folder() as run_dir, (run_dir / "err").open("wb") as err:
        command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *engine_command(run_dir)]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=err)
        with ended(process):
            status = works_and_ends_well(process, run_dir)
        text = (run_dir / "err").read_text()
        assert not any(fault in text for fault in FAULTS), text
        is_log_lost = "2>" in redirections
        assert (status["log_lines_lost"] > 0) == is_log_lost
        # Only the ready line goes to stdout; its loss is reported in one line.
        assert ("ready line could not be written" in text) == (">" in redirections.partition("2>")[0] and not is_log_lost)


def test_the_engine_works_when_the_reader_of_its_log_has_gone() -> None:
    with working_folder() as run_dir:
        process = subprocess.Popen(
            engine_command(run_dir), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        with ended(process):
            assert process.stdout is not None
            # Both streams are one pipe here: lines of the log may stand before the ready line.
            assert any(line.startswith("ready ") for line in iter(process.stdout.readline, ""))
            process.stdout.close()
            assert works_and_ends_well(process, run_dir)["log_lines_lost"] > 0


def test_the_engine_works_when_nobody_reads_its_log() -> None:
    """A full pipe blocks its writer for as long as nobody reads."""
    reading, writing = os.pipe()
    with working_folder() as run_dir:
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
        process = subprocess.Popen(engine_command(run_dir), env=ENVIRONMENT, stdout=writing, stderr=writing)
        with ended(process):
            works_and_ends_well(process, run_dir)
        os.close(writing)
        os.close(reading)


def test_the_engine_outlives_its_terminal() -> None:
    """Closing a window hangs up on the whole foreground group: it gets SIGHUP, and every later write fails."""
    primary, secondary = pty.openpty()
    with working_folder() as run_dir:
        process = subprocess.Popen(
            ["setsid", "--ctty", *engine_command(run_dir)],
            env=ENVIRONMENT,
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
        )
        os.close(secondary)
        with ended(process):
            status_of(run_dir)
            os.close(primary)
            assert works_and_ends_well(process, run_dir)["log_lines_lost"] > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone mounts a file system")
def test_a_log_on_a_full_disk_costs_the_lines_that_do_not_fit() -> None:
    """Once the disk has room again, later log lines are written."""
    with working_folder() as folder:
        disk, run_dir = folder / "disk", folder / "run"
        disk.mkdir()
        run_dir.mkdir(mode=0o700)
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=False, capture_output=True
        ).returncode:
            pytest.skip("no file system may be mounted here")
        try:
            (disk / "ballast").write_bytes(bytes(56 * 1024))
            with (disk / "log").open("ab") as log:
                log.write(b"x" * (8 * 1024 - 10))
                log.flush()
                process = subprocess.Popen(engine_command(run_dir), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=log)
            with ended(process):
                status_of(run_dir)
                process.send_signal(signal.SIGHUP)
                lost = eventually(lambda: status_of(run_dir)["log_lines_lost"], "a line is lost")
                assert lost > 0
                (disk / "ballast").unlink()
                works_and_ends_well(process, run_dir)
            lines = [line for line in (disk / "log").read_text().splitlines() if line.startswith('{"')]
            assert json.loads(lines[-1])["event"] == "ending: goodbyes first"
        finally:
            subprocess.run(["umount", disk], check=True)


# -- the tools --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with RunningEngine(workers=1) as running:
        yield running


def tool(module: str, arguments: Sequence[str], redirections: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'"$@" {redirections}', "sh", sys.executable, "-P", "-m", module, *arguments]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False, stdin=subprocess.DEVNULL
    )


TOOLS = [
    ("rlpx.engine", ["--check"]),
    ("rlpx.engine", ["--help"]),
    ("rlpx.engine", ["--version"]),
    ("rlpx.engine.cli.ctl", ["RUN-DIR", "status"]),
    ("rlpx.engine.cli.ctl", ["RUN-DIR", "discover"]),
    ("rlpx.engine.cli.ctl", ["--help"]),
    ("rlpx.engine.cli.tail", ["RUN-DIR", "--count", "1", "engine."]),
    ("rlpx.engine.cli.tail", ["--help"]),
    ("rlpx.engine.swarm.command", ["RUN-DIR", "--peers", "2", "--processes", "1", "--seconds", "1", "--any-reason"]),
    ("rlpx.engine.swarm.command", ["--help"]),
]


@contextmanager
def reloading(engine: RunningEngine) -> Iterator[None]:
    """Reload the settings continuously, so that there are events to read whenever somebody subscribes."""
    is_over = threading.Event()

    def reload() -> None:
        while not is_over.wait(0.3):
            engine.process.send_signal(signal.SIGHUP)

    with in_threads(reload, is_over=is_over):
        yield


def placed(arguments: list[str], engine: RunningEngine) -> list[str]:
    """The arguments, with the engine's run directory in place of `RUN-DIR`."""
    return [part for item in arguments for part in (["--run-dir", str(engine.run_dir)] if item == "RUN-DIR" else [item])]


@pytest.mark.parametrize(("module", "arguments"), TOOLS, ids=lambda value: value if isinstance(value, str) else value[-1])
@pytest.mark.parametrize(
    ("redirections", "cause"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_output_that_cannot_be_written_is_one_line_and_74(
    engine: RunningEngine, module: str, arguments: list[str], redirections: str, cause: str
) -> None:
    with reloading(engine):
        done = tool(module, placed(arguments, engine), redirections)
    assert done.returncode == 74, done.stderr
    program = f"rlpx-{module.removesuffix('.command').rpartition('.')[2]}"
    assert done.stderr == f"{program}: stdout: {cause}\n"


@pytest.mark.parametrize(("module", "arguments"), TOOLS, ids=lambda value: value if isinstance(value, str) else value[-1])
def test_a_reader_that_has_read_enough_is_no_error(engine: RunningEngine, module: str, arguments: list[str]) -> None:
    if module == "rlpx.engine.cli.tail" and "--count" in arguments:
        return  # it has nothing to write to the reader that has gone
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *placed(arguments, engine)],
            env=ENVIRONMENT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=200,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", "<&-"])
def test_the_tools_work_without_stderr_and_stdin(engine: RunningEngine, redirections: str) -> None:
    done = tool("rlpx.engine.cli.ctl", placed(["RUN-DIR", "counts"], engine), redirections)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pending" in done.stdout
    wrong = tool("rlpx.engine.cli.ctl", placed(["RUN-DIR", "session", "99"], engine), redirections)
    assert wrong.returncode == 1
    assert tool("rlpx.engine.cli.ctl", ["no-such-command"], redirections).returncode == 64


def test_no_socket_gets_the_number_of_a_stream() -> None:
    with working_folder() as run_dir:
        command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *engine_command(run_dir)]
        process = subprocess.Popen(command, env=ENVIRONMENT)
        with ended(process):
            workers = [worker["pid"] for worker in status_of(run_dir)["workers"]]
            for pid in (process.pid, *workers):
                places = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)]
                assert all(place == "/dev/null" or place.startswith("pipe:") for place in places), (pid, places)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0


def test_a_worker_that_is_killed_while_the_engine_starts_is_replaced() -> None:
    """The engine answers users before its last worker is up; losing one that was up by then does not end the start."""
    with working_folder() as run_dir:
        process = subprocess.Popen(
            engine_command(run_dir), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

        def ready() -> list[int]:
            try:
                with Client.of(run_dir) as client:
                    return [worker["pid"] for worker in client.call("status")["workers"] if worker["ready"]]
            except EngineUnavailableError:
                return []

        with ended(process):
            psutil.Process(eventually(ready, "a worker is up")[0]).kill()
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready ")
            assert all(worker["ready"] for worker in status_of(run_dir)["workers"])
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0
