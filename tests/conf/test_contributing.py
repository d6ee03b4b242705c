"""What CONTRIBUTING, SECURITY and the package's metadata name is there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rlpx.engine.settings.fields import as_toml
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTING = ROOT / ".github" / "CONTRIBUTING.md"
SECURITY = ROOT / ".github" / "SECURITY.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def paths(text: str) -> set[str]:
    """All text that looks like a path in the clone."""
    return set(re.findall(r"(?<![./\w])(?:bin|conf|engine|protocol|tests|workers)/[\w./-]*[\w/]", text))


@pytest.mark.parametrize("file", [CONTRIBUTING, SECURITY], ids=["contributing", "security"])
def test_every_path_is_there(file: Path) -> None:
    named = paths(file.read_text())
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_kind_of_change_has_its_place() -> None:
    named = paths(CONTRIBUTING.read_text())
    assert {
        "protocol/bus/commands.py",
        "protocol/bus/events.py",
        "engine/settings/settings.py",
        "protocol/eth/eth.py",
        "engine/ledger/counter.py",
    } <= named
    target = re.search(r"bin/fuzz (\S+)", CONTRIBUTING.read_text())
    assert target is not None
    assert target[1] in TARGETS


def test_the_command_that_writes_the_settings_writes_them() -> None:
    command = re.search(r"`PYTHONPATH=.venv/house .venv/bin/python (-c '[^']+')", CONTRIBUTING.read_text())
    assert command is not None
    code = command[1].removeprefix("-c '").removesuffix("'")
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == as_toml()


def test_the_classifiers_are_the_pythons_that_are_supported() -> None:
    versions = {item.rpartition(" :: ")[2] for item in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", item)}
    lowest, highest = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert versions == {f"3.{minor}" for minor in range(int(lowest), int(highest))}
    # PEP 639: the licence is given by an expression, not by a classifier.
    assert not any(item.startswith("License ::") for item in PROJECT["classifiers"])


def test_the_readme_s_contents_lead_somewhere_and_name_every_section() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", readme, re.MULTILINE)
    anchors = {_anchor(heading): heading for heading in headings}
    links = dict(re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", readme))
    assert set(links.values()) <= set(anchors)
    # The first heading stands before the contents.
    assert [heading for heading in headings[1:] if links.get(heading) != _anchor(heading)] == []


def _anchor(heading: str) -> str:
    """What a heading is linked by: without punctuation, with hyphens for spaces."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_a_newcomer_is_running_in_one_screen() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    beginning = lines[: lines.index("## The picture")]
    assert len(beginning) <= 50
    assert "bin/rlpx-engine --workers 2" in beginning
