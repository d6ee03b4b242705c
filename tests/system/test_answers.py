"""Errors as users see them: each command, run as a real process, with its exit code and its one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from rlpx.engine.process.version import VERSION
from tests.pair import key
from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS

PROGRAMS: Final = {
    "rlpx-engine": "rlpx.engine.__main__",
    "rlpx-ctl": "rlpx.engine.cli.ctl",
    "rlpx-tail": "rlpx.engine.cli.tail",
    "rlpx-swarm": "rlpx.engine.swarm.command",
    "rlpx-watch": "rlpx.engine.watch.command",
}
# A user id that has no passwd entry on any machine.
STRANGER: Final = 54_321
# A locale with ASCII only, and a Python that obeys it.
ASCII_ONLY: Final = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
# The interpreter may be in a directory that a stranger cannot enter, so it changes user after it has loaded the program.
AS_STRANGER: Final = """
import importlib, os, sys
program = importlib.import_module(sys.argv.pop(1))
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
program.main()
"""
only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user and mount")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can enter, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="rlpx-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Our environment without the variables that tell an engine its places."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "RLPX_"))}
    return {**kept, "PYTHONPATH": IMPORT_PATH, **changes}


def run(program: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    command = [sys.executable, "-P", "-m", PROGRAMS[program].removesuffix(".__main__"), *arguments]
    return subprocess.run(
        command, env=environment(changes), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


def run_as_stranger(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a user without a passwd entry and without HOME."""
    variables = environment({})
    variables.pop("HOME", None)
    command = [sys.executable, "-P", "-c", AS_STRANGER.format(uid=STRANGER), PROGRAMS[program], *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def one_line(ended: subprocess.CompletedProcess[str], program: str) -> str:
    """The only line on stderr."""
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"{program}")
    return line


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[str]:
    """An engine in `run` of this folder, with its key and its log beside that; its ready line."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "rlpx.engine",
        "--chain",
        "dev",
        "--workers",
        "1",
        "--run-dir",
        str(folder / "run"),
    ]
    command += ["--node-key", str(folder / "key"), "--listen", "127.0.0.1:0", "--log.format", "json", *flags]
    with (folder / "stderr").open("wb") as stderr:
        started = subprocess.Popen(command, env=environment({}), stdout=subprocess.PIPE, stderr=stderr, text=True)
        assert started.stdout is not None
        try:
            yield started.stdout.readline().rstrip("\n")
            started.terminate()
            assert started.wait(PATIENCE_SECONDS) == 0
        finally:
            started.kill()
            started.wait()
            started.stdout.close()


ROWS: Final = [
    (
        "rlpx-engine --log.level foo",
        78,
        "--log.level: expected one of debug, error, info, warning, for example info; got 'foo'",
    ),
    ("rlpx-engine --workers two", 78, "--workers: expected a whole number from 1 to 128, for example 2; got 'two'"),
    ("rlpx-engine --protocols.extra WIT", 78, "--protocols.extra: expected NAME/VERSION/MESSAGES[/MAX_BYTES], where NAME"),
    (
        "rlpx-engine --protocols.required W-T",
        78,
        "--protocols.required: expected a name of up to 8 lower-case letters and digits",
    ),
    ("rlpx-engine --listen nowhere", 78, "--listen: expected HOST:PORT, where HOST is a name, an address"),
    (
        "rlpx-engine --external-ip ::",
        78,
        "--external-ip: expected an IP address that peers can dial, for example 203.0.113.7",
    ),
    (
        "rlpx-engine --peers.static enode://ab@1.2.3.4:5",
        78,
        "--peers.static: expected an enode URL, enode://ID@ADDRESS:PORT",
    ),
    ("rlpx-engine --access.deny-cidrs 10.0.0.1/8", 78, "--access.deny-cidrs: expected a network, ADDRESS/BITS"),
    ("rlpx-engine --chain mainet", 78, "--chain: expected one of dev, hoodi, mainnet, sepolia, or a TOML file"),
    (
        "rlpx-engine --node-key " + "11" * 32,
        78,
        "node_key: expected a file that holds the key; got what looks like a key itself",
    ),
    ("rlpx-engine --work 3", 64, "unrecognized arguments: --work; did you mean --workers?"),
    ("rlpx-ctl statu", 64, "COMMAND: there is no 'statu'; did you mean status?"),
    (
        "rlpx-ctl ban foo",
        64,
        "WHO: expected a peer id of 128 hex digits, an enode URL or an IP address, for example 203.0.113.7",
    ),
    ("rlpx-ctl peers-remove foo", 64, "PEER: expected a peer id of 128 hex digits or an enode URL"),
    ("rlpx-ctl set-status 5 0xab", 64, "HASH: expected a hash, 0x and 64 hex digits, for example 0xd4e5...8fa3; got '0xab'"),
    ("rlpx-ctl subprotocols-add foo", 64, "PROTOCOL: expected NAME/VERSION/MESSAGES[/MAX_BYTES]"),
    ("rlpx-ctl send 1 eth Transactions zz", 64, "PAYLOAD: expected 0x and hex digits, for example 0xc0; got 'zz'"),
    ("rlpx-ctl --connect nonsense status", 64, "--connect: expected tcp://HOST:PORT or ipc://PATH as an endpoint"),
    ("rlpx-ctl --run-dir /nowhere status --json", 69, "no engine at ipc:///nowhere/control.ipc"),
    ("rlpx-ctl session --run-dir /nowhere 3", 69, "no engine at ipc:///nowhere/control.ipc"),
    ("rlpx-ctl ban 203.0.113.7 --run-dir /nowhere", 69, "no engine at ipc:///nowhere/control.ipc"),
    ("rlpx-tail --count many", 64, "--count: expected a whole number, 0 or more, for example 10; got 'many'"),
    ("rlpx-tail --run-dir /nowhere session.", 69, "no engine at ipc:///nowhere/events.ipc"),
    ("rlpx-swarm --peers many --listen 127.0.0.1:0", 64, "--peers: expected a whole number"),
    ("rlpx-swarm --target nonsense", 64, "--target: expected an enode URL, enode://ID@ADDRESS:PORT"),
    ("rlpx-swarm --scenario smok --listen 127.0.0.1:0", 78, "; did you mean smoke?"),
]


@pytest.mark.parametrize(("command", "code", "words"), ROWS, ids=[command[:40] for command, _, _ in ROWS])
def test_a_mistake_is_one_line_with_what_is_allowed(command: str, code: int, words: str) -> None:
    program, *arguments = command.split()
    ended = run(program, *arguments)
    line = one_line(ended, program)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert words in line
    assert not re.search(r"regex|Expected `|Invalid enum|\^\[|str, got|got `", line)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_says_its_version(program: str) -> None:
    ended = run(program, "--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{program} {VERSION}\n", "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_written_where_only_ascii_can_be(program: str) -> None:
    ended = run(program, "--help", **ASCII_ONLY)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.isascii()


def test_a_file_in_utf_8_is_read_where_only_ascii_can_be_written(folder: Path) -> None:
    file = folder / "engine.toml"
    file.write_text("# Zürich …\n[protocols]\nclient = 'Zürich/1'\n", encoding="utf-8")
    ended = run("rlpx-engine", "--conf", str(file), "--run-dir", str(folder / "run"), "--check", **ASCII_ONLY)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert tomllib.loads(ended.stdout)["protocols"]["client"] == "Zürich/1"


def test_what_check_prints_is_toml_with_the_places_in_use(folder: Path) -> None:
    ended = run("rlpx-engine", "--check", "--chain", "dev", HOME=str(folder))
    assert (ended.returncode, ended.stderr) == (0, "")
    values = tomllib.loads(ended.stdout)
    assert values["run_dir"] == f"{folder}/.local/state/rlpx-engine"
    assert values["node_key"] == f"{folder}/.local/state/rlpx-engine/node.key"
    assert values["conduct"]["ends_on_breach"] is True
    again = folder / "again.toml"
    again.write_text(ended.stdout, encoding="utf-8")
    fed_back = run("rlpx-engine", "--check", "--conf", str(again))
    assert tomllib.loads(fed_back.stdout) == values


# -- other users and full disks ---------------------------------------------------------------------------------------------


@only_root
@pytest.mark.parametrize(
    "command", ["rlpx-engine --check", "rlpx-engine --chain dev", "rlpx-ctl status", "rlpx-tail session."]
)
def test_a_user_whom_the_machine_does_not_know_is_told_what_to_set(command: str) -> None:
    program, *arguments = command.split()
    ended = run_as_stranger(program, *arguments)
    words = f"uid {STRANGER} has no passwd entry and HOME is not set: set HOME, or --run-dir and --node-key"
    assert (ended.returncode, one_line(ended, program)) == (78, f"{program}: {words}")


@only_root
@pytest.mark.parametrize("program", ["rlpx-ctl", "rlpx-tail", "rlpx-swarm", "rlpx-watch"])
def test_another_users_run_directory_is_a_matter_of_permission(folder: Path, program: str) -> None:
    (folder / "theirs").mkdir(mode=0o700)
    command = {"rlpx-ctl": ["status"], "rlpx-tail": ["session."], "rlpx-swarm": [], "rlpx-watch": []}[program]
    ended = run_as_stranger(program, "--run-dir", str(folder / "theirs"), *command)
    assert ended.returncode == 77
    assert one_line(ended, program).endswith(f"Permission denied: {folder}/theirs belongs to uid 0")


@only_root
def test_a_run_directory_of_another_user_is_not_taken(folder: Path) -> None:
    theirs = folder / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, STRANGER, STRANGER)
    ended = run("rlpx-engine", "--chain", "dev", "--run-dir", str(theirs), "--node-key", str(folder / "key"))
    words = f"rlpx-engine: {theirs}: run_dir: it belongs to uid {STRANGER}, and this is uid 0; name another"
    assert (ended.returncode, one_line(ended, "rlpx-engine")) == (77, words)


@pytest.fixture
def full_disk(folder: Path) -> Iterator[Path]:
    """A file system without room, if the machine lets us mount one."""
    disk = folder / "full"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=8k,mode=700", "none", disk], check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    try:
        with (disk / "fill").open("wb", buffering=0) as fill, suppress(OSError):
            while fill.write(bytes(4096)):
                pass
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@only_root
@pytest.mark.parametrize("what", ["run", "", "key"])
def test_a_full_disk_is_one_line(folder: Path, full_disk: Path, what: str) -> None:
    run_dir = folder / "run" if what == "key" else full_disk / what
    node_key = full_disk / "key" if what == "key" else folder / "key"
    ended = run(
        "rlpx-engine", "--chain", "dev", "--listen", "127.0.0.1:0", "--run-dir", str(run_dir), "--node-key", str(node_key)
    )
    assert ended.returncode == 73
    assert one_line(ended, "rlpx-engine").endswith(": No space left on device")


# -- a running engine -------------------------------------------------------------------------------------------------------


def test_where_nobody_can_dial_there_is_no_enode(folder: Path) -> None:
    with serving(folder, "--listen", "") as ready:
        assert ready == f"ready not-listening workers=1 run-dir={folder}/run"
        status = run("rlpx-ctl", "--run-dir", str(folder / "run"), "status", "--json")
        assert '"enode": null' in status.stdout


@pytest.mark.parametrize("listen", ["localhost:0", ":0", "0.0.0.0:0", "[::1]:0"])
def test_names_and_no_host_are_listened_on(folder: Path, listen: str) -> None:
    with serving(folder, "--listen", listen) as ready:
        found = re.match(
            r"ready enode://[0-9a-f]{128}@(\[[0-9a-f:]+\]|[0-9.]+):(\d+) workers=1 run-dir=\S+( external-ip=guessed)?$",
            ready,
        )
        assert found is not None, ready
        assert int(found[2]) > 0
        # If the machine has no address of its own, the loopback is the best guess.
        assert (found[3] is not None) == (listen in {":0", "0.0.0.0:0"})


def test_the_external_address_is_the_one_that_was_given(folder: Path) -> None:
    with serving(folder, "--listen", "0.0.0.0:0", "--external-ip", "203.0.113.7") as ready:
        assert "@203.0.113.7:" in ready
        assert "guess" not in ready


def test_two_engines_of_one_key_are_told(folder: Path) -> None:
    with serving(folder):
        second = folder / "second"
        second.mkdir(mode=0o755)
        with serving(second, "--node-key", str(folder / "key")):
            pass
        assert "the node key is in use by another engine" in (second / "stderr").read_text()
    assert "in use" not in (folder / "stderr").read_text()


def test_the_log_says_what_has_started_and_at_debug_every_session(folder: Path) -> None:
    with serving(folder, "--log.level", "debug"):
        run_dir = str(folder / "run")
        dialled = run("rlpx-ctl", "dial", "--run-dir", run_dir, f"enode://{key(3).id.hex()}@127.0.0.1:9", "--wait")
        assert (dialled.returncode, "refused" in one_line(dialled, "rlpx-ctl")) == (1, True)
        tables = run("rlpx-ctl", "history", "--run-dir", run_dir)
        assert tables.stdout.splitlines()[0].split()[:3] == ["time", "session", "peer"]
    text = (folder / "stderr").read_text()
    for event in ("the engine has started", "a session was opened", "a session has ended"):
        assert text.count(event) == 1
