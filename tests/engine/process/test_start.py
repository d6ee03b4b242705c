"""The start and end of a program: its `main` leaves an exit code and at most one line."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from rlpx.engine.process import start
from rlpx.engine.process.stdio import OutputError
from tests.system.harness import IMPORT_PATH


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


class Full(io.StringIO):
    """stdout that fails at the end."""

    def flush(self) -> None:
        raise OutputError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SystemExit(), 0, ""),
        (SystemExit(0), 0, ""),
        (SystemExit(78), 78, ""),
        (SystemExit("usage: this"), 1, "usage: this\n"),
        (KeyboardInterrupt(), 130, "rlpx-ctl: interrupted\n"),
        (OutputError(errno.EIO, "Input/output error"), 74, "rlpx-ctl: stdout: Input/output error\n"),
        (OutputError(errno.EPIPE, "Broken pipe"), 0, ""),
    ],
    ids=repr,
)
def test_what_leaves_main_is_a_code_and_at_most_a_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start.exit_code("rlpx-ctl", raising(error)) == code
    assert capsys.readouterr() == ("", line)


def test_a_fault_of_ours_is_a_traceback_and_not_the_code_of_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert start.exit_code("rlpx-ctl", raising(RuntimeError("ours"))) == 70
    assert "RuntimeError: ours" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(SystemExit(0), 74), (SystemExit(1), 1)], ids=repr)
def test_output_that_is_lost_at_the_last_flush_is_said_and_hides_no_other_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    assert start.exit_code("rlpx-tail", raising(error)) == code
    assert capsys.readouterr().err == "rlpx-tail: stdout: No space left on device\n"


# A program whose imports take long: it prints that it has begun, and how it ends.
SLOW = """
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "rlpx.engine.cli.ctl":
            os.write(1, b"importing\\n")
            import time
            time.sleep(20)
sys.meta_path.insert(0, Finder())
from rlpx.engine.process import start
start.ctl()
"""


@pytest.fixture
def slow() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_an_interrupt_while_modules_are_imported_is_one_line(slow: subprocess.Popen[str]) -> None:
    assert slow.stdout is not None
    assert slow.stdout.readline() == "importing\n"
    slow.send_signal(signal.SIGINT)
    _, err = slow.communicate(timeout=10)
    assert (slow.returncode, err) == (130, "rlpx-ctl: interrupted\n")


# Prints which signals are ignored and which blocked when `main` runs.
STATE = """
import importlib, signal, sys, types
from rlpx.engine.process import start
module = types.ModuleType("fake")
def main():
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE"):
        number = getattr(signal, name)
        ignored = signal.getsignal(number) is signal.SIG_IGN
        print(name, "blocked" if number in blocked else "ignored" if ignored else "heeded")
module.main = main
start.import_module = lambda name: module
{before}
getattr(start, sys.argv[1])()
"""


def state(program: str, before: str = "") -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", STATE.format(before=before), program],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: what for name, _, what in (line.partition(" ") for line in done.stdout.splitlines())}


def test_habitual_signals_end_no_program_that_holds_sessions() -> None:
    ignored = dict.fromkeys(("SIGUSR1", "SIGUSR2", "SIGPIPE"), "ignored")
    assert state("engine") == {"SIGINT": "heeded", "SIGTERM": "heeded", "SIGHUP": "blocked", **ignored}
    assert state("swarm") == {"SIGINT": "heeded", "SIGTERM": "heeded", "SIGHUP": "heeded", **ignored}


@pytest.mark.parametrize("program", ["engine", "ctl", "tail", "swarm"])
def test_what_the_launcher_holds_back_is_heeded_from_the_start(program: str) -> None:
    held = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})"
    now = state(program, held)
    assert (now["SIGINT"], now["SIGTERM"]) == ("heeded", "heeded")


def test_who_is_started_to_ignore_interrupts_does_so() -> None:
    assert state("tail", "signal.signal(signal.SIGINT, signal.SIG_IGN)")["SIGINT"] == "ignored"
