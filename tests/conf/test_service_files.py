"""The unit and the image file fit the engine: their flags, files and exit codes exist, and nothing is missing.

If systemd is installed, it checks the unit itself. No container engine is needed or run: the image file is read line by
line.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from rlpx.engine.__main__ import parser
from rlpx.engine.fleet.process import RETIRE_GRACE_SECONDS
from rlpx.engine.settings.load import load
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus.places import run_dir_path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "conf" / "systemd" / "rlpx-engine.service"
SYSUSERS = ROOT / "conf" / "systemd" / "rlpx-engine.sysusers"
CONTAINERFILE = ROOT / "conf" / "Containerfile"
# systemd-analyze rates a unit without any of the options at 9.6.
MOST_EXPOSURE = 2.0


def unit() -> dict[str, list[str]]:
    """The settings of the unit; a name may occur twice."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_only_the_engine_is_told_to_end() -> None:
    """If the workers received SIGTERM too, every goodbye would be lost."""
    assert unit()["KillMode"] == ["mixed"]


def test_nobody_else_enters_the_run_directory() -> None:
    assert unit()["RuntimeDirectoryMode"] == ["0700"]
    assert unit()["StateDirectoryMode"] == ["0700"]
    assert unit()["UMask"] == ["0077"]


def test_the_command_is_one_that_the_engine_understands(tmp_path: Path) -> None:
    [command] = unit()["ExecStart"]
    program, *arguments = shlex.split(command.replace("${RUNTIME_DIRECTORY}", "/run/x").replace("${STATE_DIRECTORY}", "/s"))
    given = vars(parser().parse_args(arguments))
    assert program == "/opt/rlpx-engine/bin/rlpx-engine"
    assert (given["conf"], given["run_dir"], given["node_key"]) == ("/etc/rlpx-engine/engine.toml", "/run/x", "/s/node.key")
    loaded = load({"run_dir": str(tmp_path)}, {}, ROOT / "conf" / "engine.toml")
    assert loaded.settings.run_dir == str(tmp_path)


def test_what_a_restart_cannot_mend_is_not_restarted() -> None:
    [codes] = unit()["RestartPreventExitStatus"]
    assert {int(code) for code in codes.split()} == {os.EX_USAGE, os.EX_NOPERM, os.EX_CONFIG}


def test_there_is_time_for_the_goodbyes() -> None:
    # engine.STOP_GRACE_SECONDS and the fleet's grace follow the goodbyes.
    assert float(unit()["TimeoutStopSec"][0]) > Settings().timeouts.goodbye_s + 3 + 2 * RETIRE_GRACE_SECONDS


def test_signs_of_life_may_fail_for_as_long_as_a_stuck_worker_takes_to_be_replaced() -> None:
    assert float(unit()["WatchdogSec"][0]) >= 40
    assert unit()["Type"] == ["notify"]
    assert unit()["NotifyAccess"] == ["main"]
    # SIGABRT, the default, would dump the key and lose the goodbyes of the workers that are alive.
    assert unit()["WatchdogSignal"] == ["SIGTERM"]


@pytest.mark.parametrize("name", ["MemoryDenyWriteExecute", "SystemCallFilter=~@resources", "DynamicUser", "PrivateNetwork"])
def test_what_is_left_out_has_its_reason(name: str) -> None:
    _, _, reasons = UNIT.read_text().partition("# Options left out, with the reason:")
    assert name in reasons
    assert name.partition("=")[0] not in unit() or name.partition("=")[2] not in unit()[name.partition("=")[0]]


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: the unit was not verified")
    # The programs stand where they will be installed, because `verify` checks that they exist.
    file = tmp_path / UNIT.name
    file.write_text(UNIT.read_text().replace("/opt/rlpx-engine/bin/rlpx-engine", str(ROOT / "bin" / "rlpx-engine")))
    ran = subprocess.run([analyze, "verify", str(file)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_systemd_finds_the_unit_little_exposed() -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: the unit's exposure was not measured")
    command = [analyze, "security", "--offline=true", "--no-pager", str(UNIT)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", ran.stdout)
    if exposure is None:
        pytest.skip(f"this systemd measures no exposure offline: {ran.stderr.strip()}")
    assert float(exposure[1]) <= MOST_EXPOSURE


def test_the_user_of_the_unit_is_the_one_that_is_made() -> None:
    made = [shlex.split(line) for line in SYSUSERS.read_text().splitlines() if line and not line.startswith("#")]
    assert [(line[0], line[1]) for line in made] == [("u", unit()["User"][0])]


# -- the image --------------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Every instruction of the image file with its arguments; continued lines are joined."""
    text = "\n".join(line for line in CONTAINERFILE.read_text().splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text)
    found = []
    for line in joined.splitlines():
        if line.strip():
            name, _, words = line.partition(" ")
            found.append((name, words.strip()))
    return found


def of(name: str) -> list[str]:
    return [words for found, words in instructions() if found == name]


def test_the_image_knows_only_the_instructions_that_there_are() -> None:
    known = {"FROM", "RUN", "COPY", "WORKDIR", "LABEL", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {name for name, _ in instructions()} <= {*known, "ENTRYPOINT"}


def test_the_image_copies_what_is_there() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for words in of("COPY"):
        sources = [word for word in words.split() if not word.startswith("--")][:-1]
        if "--from=build" in words:
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not tracked or any(file == source or file.startswith(f"{source}/") for file in tracked), source


def test_the_image_copies_all_that_is_installed() -> None:
    """`pip install .` needs the packages, the configuration, and the build hook."""
    copied = {word for words in of("COPY") for word in words.split()}
    assert {"engine", "workers", "protocol", "conf", "bin", "pyproject.toml", "README.md", "requirements.lock"} <= copied


def test_the_image_stands_on_versions() -> None:
    bases = [words.split()[0] for words in of("FROM")]
    # Both stages need the same Python, because the second runs what the first has compiled.
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.1[123]\.\d+-slim-\w+", bases[0])
    installs = [words for words in of("RUN") if "pip install" in words]
    assert "--require-hashes" in installs[0]
    assert all("--no-deps" in words for words in installs)


def test_the_image_runs_as_nobody_s_root() -> None:
    [user] = of("USER")
    number = int(user.partition(":")[0])
    assert number > 999
    assert f"--uid {number}" in " ".join(of("RUN"))
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_the_image_s_command_is_one_that_the_engine_understands() -> None:
    [words] = of("ENTRYPOINT")
    program, *arguments = [word.strip(' "') for word in words.strip("[]").split(",")]
    assert program == "rlpx-engine"
    assert parser().parse_args(arguments).conf == "/etc/rlpx-engine/engine.toml"
    environment = dict(word.split("=", 1) for words in of("ENV") for word in words.split())
    volumes = set(re.findall(r'"([^"]+)"', of("VOLUME")[0]))
    # The default run directory, which `rlpx-ctl status` uses too.
    assert str(run_dir_path("", environment)) == "/run/rlpx-engine"
    assert volumes == {"/run/rlpx-engine", f"{environment['XDG_STATE_HOME']}/rlpx-engine"}
    assert of("HEALTHCHECK")[0].endswith('CMD ["rlpx-ctl", "status"]')
    assert of("STOPSIGNAL") == ["SIGTERM"]
