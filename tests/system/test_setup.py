"""`bin/setup` on machines that lack something: each step is a line, and a lack is one line and exit code 69."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.harness import PATIENCE_SECONDS, ROOT, eventually, working_folder

# A wheel made by hand: these tests are about how packages are installed, not about which.
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{more}"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class Clone:
    """A clone of ours whose locks name a package or two of the test's own, which come from a folder."""

    def __init__(self, folder: Path, python: str) -> None:
        self.root = folder / "a clone"
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        (self.root / "tests" / "fuzz").mkdir(parents=True)
        (self.root / "protocol").mkdir()
        shutil.copytree(ROOT / "bin", self.root / "bin")
        shutil.copytree(ROOT / "protocol" / "c", self.root / "protocol" / "c")
        (self.root / "protocol" / "__init__.py").touch()
        # The error class that the compiled part raises; it cannot be imported without this.
        shutil.copy(ROOT / "protocol" / "errors.py", self.root / "protocol" / "errors.py")
        line = self.wheel("first")
        for lock in ("requirements.lock", "tests/requirements.lock", "tests/fuzz/requirements.lock"):
            (self.root / lock).write_text(line)
        # The environment of a machine on which nobody has set anything.
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHON": python, "LC_ALL": "C"}
        self.environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}

    def wheel(self, name: str, more: str = "") -> str:
        """Make a package; returns its line in a lock."""
        file = self.wheels / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(f"{name}.py", "")
            info = f"{name}-1.0.dist-info"
            archive.writestr(f"{info}/METADATA", METADATA.format(name=name, more=more))
            archive.writestr(f"{info}/WHEEL", WHEEL)
            archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
        return f"{name}==1.0 --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", str(self.root / "bin" / "setup"), *arguments],
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def set_up(self, *arguments: str, **more: str) -> tuple[int, list[str]]:
        """Run the set-up; returns its exit code and its lines."""
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=500)
        assert out == (f"{self.root}\n" if process.returncode == 0 else "")
        return process.returncode, err.splitlines()

    def holds(self, module: str, place: str = ".venv") -> bool:
        """Whether a package is installed."""
        command: list[str | Path] = [self.root / place / "bin" / "python", "-c", f"import {module}"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


# A Python that copies its first virtual environment instead of making more of them, which takes seconds each time.
QUICK_PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    [ -d {folder}/made ] || {python} -m venv {folder}/made
    rm -rf "$4"
    exec cp -a {folder}/made "$4"
fi
exec {python} "$@"
"""


@pytest.fixture(scope="module")
def quick_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("python")
    file = folder / "python3"
    file.write_text(QUICK_PYTHON.format(folder=folder, python=sys.executable))
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def clone(tmp_path: Path, quick_python: str) -> Clone:
    return Clone(tmp_path, quick_python)


def steps(clone: Clone, lock: str = "requirements.lock", packages: int = 1) -> list[str]:
    """The lines that are printed if all goes well."""
    version = ".".join(map(str, sys.version_info[:3]))
    return [
        f"bin/setup: making {clone.root}/.venv with {clone.environment['PYTHON']} ({version})",
        f"bin/setup: installing the {packages} packages of {lock}",
        "bin/setup: checking that nothing is missing",
    ]


NO_COMPILER = "compiling needs a C compiler and Python's headers"


def test_each_step_is_a_line_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    clone = Clone(tmp_path, sys.executable)
    code, lines = clone.set_up()
    assert (code, lines[:3]) == (0, steps(clone))
    assert lines[3] == "bin/setup: compiling protocol/c"
    assert clone.holds("first")
    assert clone.set_up() == (0, [])
    # What the checks need is more, and includes what the engine needs.
    (clone.root / "tests" / "requirements.lock").write_text(clone.wheel("first") + clone.wheel("second"))
    assert clone.set_up("dev") == (0, steps(clone, "tests/requirements.lock", 2)[1:])
    assert clone.holds("second")
    (clone.root / "requirements.lock").write_text("# another one\n" + clone.wheel("first"))
    assert clone.set_up() == (0, [])


def test_without_a_compiler_the_engine_runs_and_says_so_once_and_the_checks_do_not(clone: Clone) -> None:
    code, lines = clone.set_up(CC="/nowhere/cc")
    log = clone.root / ".venv" / ".compile.log"
    said = [
        "bin/setup: compiling protocol/c",
        f"bin/setup: protocol/c is not compiled, small messages take three times as long: {NO_COMPILER}; see {log}",
    ]
    assert (code, lines[3:]) == (0, said)
    assert clone.set_up(CC="/nowhere/cc") == (0, [])
    code, lines = clone.set_up("dev", CC="/nowhere/cc")
    assert (code, lines) == (69, [*said, "bin/setup: the checks need protocol/c compiled"])


def test_the_environment_of_the_user_changes_nothing(clone: Clone, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(clone.root / "bin" / "setup")
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").write_text(f"[install]\nuser = true\ntarget = {tmp_path}/target\n")
    misleading = {
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": str(tmp_path),
        "PIP_TARGET": f"{tmp_path}/target",
        "PIP_USER": "1",
        "PIP_NO_BINARY": ":all:",
        "PIP_CONSTRAINT": "/nowhere/constraints.txt",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "CDPATH": "/",
        "CC": "true",
    }
    del clone.environment["PYTHON"]
    misleading["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [link], env={**clone.environment, **misleading}, capture_output=True, text=True, timeout=500, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{clone.root}\n"), done.stderr
    assert clone.holds("first")


def test_packages_that_a_configuration_sends_elsewhere_are_missed(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").write_text(f"[install]\nprefix = {tmp_path}/prefix\n")
    code, lines = clone.set_up(CC="true")
    assert (code, lines[-1]) == (69, "bin/setup: first 1.0 was installed, but elsewhere: look at 'pip config list'")


def test_an_index_that_is_newer_than_the_lock_does_not_matter(clone: Clone) -> None:
    """Old pips look up the requirements of an extra, and find the newest release, which has no hash in the lock."""
    line = clone.wheel("asking", "Requires-Dist: first[more]\nProvides-Extra: more\n")
    (clone.root / "requirements.lock").write_text(clone.wheel("first", "Provides-Extra: more\n") + line)
    newer = clone.wheels / "first-2.0-py3-none-any.whl"
    shutil.copy(clone.wheels / "first-1.0-py3-none-any.whl", newer)
    assert clone.set_up(CC="true")[0] == 0


# -- what may be missing ----------------------------------------------------------------------------------------------------


def test_without_a_network_that_is_said(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    more = {
        "PIP_NO_INDEX": "0",
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
        "PIP_RETRIES": "0",
    }
    code, lines = clone.set_up(**more)
    assert code == 69
    assert lines[:-1] == steps(clone)[:2]
    assert "cannot be downloaded, which needs a network" in lines[-1]
    # An incomplete environment is not taken for a complete one.
    code, lines = clone.set_up(CC="true")
    assert (code, lines[:3]) == (0, steps(clone))


def test_a_package_that_is_not_the_locked_one_is_refused(clone: Clone) -> None:
    lock = clone.root / "requirements.lock"
    lock.write_text("first==1.0 --hash=sha256:" + "0" * 64 + "\n")
    code, lines = clone.set_up()
    assert code == 69
    assert "a package differs from the locked one" in lines[-1]


def test_a_lock_that_is_not_complete_is_named(clone: Clone) -> None:
    (clone.root / "requirements.lock").write_text(clone.wheel("asking", "Requires-Dist: absent>=3\n"))
    code, lines = clone.set_up()
    assert (code, lines[-1]) == (
        69,
        "bin/setup: the lock is not complete: asking 1.0 requires absent, which is not installed.",
    )


def test_a_python_without_venv_is_named(clone: Clone, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 3.11.2\nexit 1\n")
    python.chmod(0o755)
    code, [line] = clone.set_up(PYTHON=str(python))
    assert code == 69
    assert line.startswith(f"bin/setup: {python} has no venv module: install it (python3-venv on Debian)")


@pytest.mark.parametrize("python", ["/nowhere/python3", "/bin/false", "/bin/true"])
def test_without_a_python_that_is_said(clone: Clone, python: str) -> None:
    code, [line] = clone.set_up(PYTHON=python)
    assert (code, line) == (69, "bin/setup: Python 3.11, 3.12 or 3.13 with venv is needed; set PYTHON to its path")


def is_for_everyone(python: str) -> bool:
    """Whether another user can make an environment with this Python."""
    command = [python, "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"]
    try:
        return subprocess.run(command, check=False, capture_output=True, user=65534).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone becomes another user")
def test_on_a_read_only_clone_what_is_missing_is_said_and_what_is_there_is_used() -> None:
    if not is_for_everyone("/usr/bin/python3"):
        pytest.skip("the system has no Python of its own with venv")
    with working_folder() as folder:
        folder.chmod(0o755)
        read_only(Clone(folder, "/usr/bin/python3"))


def read_only(clone: Clone) -> None:
    def as_nobody() -> tuple[int, list[str]]:
        done = subprocess.run(
            ["sh", str(clone.root / "bin" / "setup")],
            env=clone.environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
            user=65534,
            group=65534,
        )
        return done.returncode, done.stderr.splitlines()

    assert as_nobody() == (69, [f"bin/setup: {clone.root} cannot be written, and {clone.root}/.venv is not complete"])
    assert clone.set_up(CC="true")[0] == 0
    assert as_nobody() == (0, [])


# -- interrupted, and two at once -------------------------------------------------------------------------------------------


@pytest.fixture
def stuck(clone: Clone) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a set-up that waits for an index which never answers."""
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    index = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple"}
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = clone.start(**index)
        started.append(process)
        silent.settimeout(PATIENCE_SECONDS)
        silent.accept()[0].detach()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    silent.close()


def test_one_that_was_killed_is_begun_anew(clone: Clone, stuck: Callable[[], subprocess.Popen[str]]) -> None:
    process = stuck()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, lines = clone.set_up(CC="true")
    assert (code, lines[:3]) == (0, steps(clone))
    assert clone.holds("first")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("is_for_all", [True, False])
def test_one_that_is_interrupted_says_so(
    clone: Clone, stuck: Callable[[], subprocess.Popen[str]], number: signal.Signals, *, is_for_all: bool
) -> None:
    process = stuck()
    if is_for_all:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 69
    [*_, line] = err.splitlines()
    assert line == f"bin/setup: interrupted: {clone.root}/.venv is not complete, the next start makes it again"
    assert len(err.splitlines()) == 3


def test_two_at_once_make_it_once(clone: Clone) -> None:
    first = clone.start(CC="true")
    eventually((clone.root / ".venv" / "pyvenv.cfg").exists, "the first has begun")
    second = clone.start(CC="true")
    said = [process.communicate(timeout=500)[1].splitlines() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert said[0][:3] == steps(clone)
    assert said[1] == [f"bin/setup: another set-up is working on {clone.root}/.venv: waiting for it"]


def test_a_clone_that_has_moved_is_set_up_anew(clone: Clone) -> None:
    """The scripts of a virtual environment name its folder."""
    assert clone.set_up(CC="true")[0] == 0
    moved = clone.root.with_name("moved")
    clone.root.rename(moved)
    clone.root = moved
    code, lines = clone.set_up(CC="true")
    assert (code, lines[:3]) == (0, steps(clone))


@pytest.mark.parametrize("name", [".venv.lock", ".venv.log"])
def test_on_a_full_disk_that_is_said(clone: Clone, name: str) -> None:
    """The set-up reports a full disk, whichever write fails first."""
    (clone.root / name).symlink_to("/dev/full")
    code, lines = clone.set_up()
    assert code == 69
    assert "the disk is full" in lines[-1] or "is the disk full?" in lines[-1]
    assert all(line.startswith("bin/setup: ") for line in lines)
    (clone.root / name).unlink()
    code, lines = clone.set_up()
    assert (code, lines[:3]) == (0, steps(clone))


def test_what_is_not_known_is_wrong_usage(clone: Clone) -> None:
    code, [line] = clone.set_up("everything")
    assert (code, line) == (
        64,
        "bin/setup: everything: unknown; use bin/setup, bin/setup dev or bin/setup fuzz",
    )


def test_what_the_fuzzer_needs_has_an_environment_of_its_own(clone: Clone) -> None:
    (clone.root / "tests" / "fuzz" / "requirements.lock").write_text(clone.wheel("second"))
    assert clone.set_up("fuzz")[0] == 0
    assert clone.holds("second", ".build/fuzz/venv")
    assert not (clone.root / ".venv").exists()
