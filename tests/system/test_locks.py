"""Every lock installs with the pip that each supported Python brings, and names all that its packages require."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.system.harness import PATIENCE_SECONDS, ROOT

ENGINE: Final = ROOT / "requirements.lock"
TESTS: Final = ROOT / "tests" / "requirements.lock"
FUZZ: Final = ROOT / "tests" / "fuzz" / "requirements.lock"
# The fuzzer has wheels for this kind of machine only.
ALL_TESTS: Final = (TESTS, FUZZ) if platform.machine() == "x86_64" else (TESTS,)
# A slow index or cache is not a fault of the lock.
PIP_SECONDS: Final = 500


def _candidates() -> Iterator[Path]:
    for number in (11, 12, 13):
        if found := shutil.which(f"python3.{number}"):
            yield Path(found)
    yield Path(sys.executable)
    yield Path("/usr/bin/python3")
    yield from sorted(Path.home().glob(".pyenv/versions/3.1[123].*/bin/python3"))


@cache
def pythons() -> dict[str, str]:
    """Each supported Python of this machine that can make an environment, by its version and the version of its pip."""
    asked = (
        "import ensurepip, sys; v = sys.version_info; print(sys.base_prefix, '%d.%d.%d' % v[:3], ensurepip.version());"
        "sys.exit(not (3, 11) <= v[:2] < (3, 14))"
    )
    found: dict[str, str] = {}
    for python in _candidates():
        try:
            done = subprocess.run(
                [python, "-c", asked], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
            )
        except OSError:
            continue
        if done.returncode == 0:
            _, version, pip = done.stdout.split()
            found.setdefault(f"{version}-pip-{pip}", str(python))
    return found


def pins(lock: Path) -> dict[str, str]:
    """The packages of a lock, with their versions."""
    found = re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.fixture(scope="module", params=sorted(pythons()))
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment, with the pip that this Python brings."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([pythons()[request.param], "-m", "venv", folder], check=True, capture_output=True, timeout=PIP_SECONDS)
    return folder


def resolved(environment: Path, *locks: Path) -> dict[str, Any]:
    """The packages that pip would install from locks, downloaded and compared with their hashes."""
    report = environment / "report.json"
    command: list[str | Path] = [
        environment / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--report",
        report,
    ]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    for lock in locks:
        command += ["-r", lock]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    if re.search("connection|resolution|Max retries", done.stderr) and "hash" not in done.stderr.lower():
        pytest.skip(f"LOCKS NOT TESTED: no network: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def missing(report: dict[str, Any]) -> list[str]:
    """The requirements of packages that a lock lacks, or has in another version."""
    versions = {canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"] for item in report["install"]}
    found = []
    for item in report["install"]:
        for text in item["metadata"].get("requires_dist", []):
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate(report["environment"] | {"extra": ""}):
                continue
            version = versions.get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                found.append(f"{item['metadata']['name']} requires {text}, the lock has {version}")
    return found


@pytest.mark.parametrize("locks", [(ENGINE,), ALL_TESTS], ids=["engine", "tests and fuzz"])
def test_a_lock_installs_with_the_oldest_pip_of_each_python_and_is_complete(
    environment: Path, locks: tuple[Path, ...]
) -> None:
    report = resolved(environment, *locks)
    assert report["install"]
    assert missing(report) == []


def test_a_lock_that_lacks_a_package_is_found_out() -> None:
    """This tests the test."""
    wanting = {"name": "a", "version": "1", "requires_dist": ["b>=2", "c; extra == 'more'", "d; python_version < '3'"]}
    only = {"environment": dict(default_environment()), "install": [{"metadata": wanting}]}
    assert missing(only) == ["a requires b>=2, the lock has None"]
    old = {**only, "install": [*only["install"], {"metadata": {"name": "B", "version": "1"}}]}
    assert missing(old) == ["a requires b>=2, the lock has 1"]


def test_what_the_checks_need_includes_what_the_engine_needs_in_the_same_versions() -> None:
    engine, tests = pins(ENGINE), pins(TESTS)
    assert engine == {name: tests[name] for name in engine}


def test_the_locks_have_what_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lock, names in ((ENGINE, project["dependencies"]), (TESTS, project["optional-dependencies"]["dev"])):
        versions = pins(lock)
        for text in names:
            requirement = Requirement(text)
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), (lock, text, version)


def test_everything_in_a_lock_has_a_hash() -> None:
    for lock in (ENGINE, TESTS, FUZZ):
        for entry in re.split(r"\n(?=\S)", lock.read_text().strip()):
            assert entry.startswith("#") or "--hash=sha256:" in entry, entry
