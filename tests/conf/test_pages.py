"""Every page is true where that can be proved: its links lead somewhere, and the files that it names exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
ROOMS: Final = sorted(
    {file.parent for package in ("engine", "protocol", "workers") for file in (ROOT / package).rglob("*.py")}
)
PAGES: Final = [
    ROOT / "README.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *(room / "README.md" for room in ROOMS),
    *sorted((ROOT / "tests").glob("README.md")),
    *sorted((ROOT / "tests").glob("*/README.md")),
]
# The page of a room is a screen and a half at most. References may be longer.
ROOM_LINES: Final = 60
REFERENCES: Final = ("engine/swarm/README.md",)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes from headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    """A path starts at the room, at the package or at the clone."""
    # A placeholder is in capitals: `tests/<room>/test_NAME.py`.
    named = re.findall(r"`([a-z0-9_./]+\.(?:py|c|h|toml|pyi))`", page.read_text(encoding="utf-8"))
    bases = [page.parent, *page.parent.parents][: len(page.relative_to(ROOT).parts)]
    missing = [path for path in named if not any((base / path).exists() for base in [*bases, ROOT])]
    assert missing == []


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_every_room_has_a_page(room: Path) -> None:
    page = room / "README.md"
    assert page.exists(), f"{name(page)}: what the room knows, what it must not know, where a change goes"
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {name(room)}"
    assert len(lines) <= ROOM_LINES or name(page) in REFERENCES


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_the_page_of_a_room_names_every_file(room: Path) -> None:
    page = (room / "README.md").read_text(encoding="utf-8")
    files = {file.name for file in room.glob("*.py")} - {"__init__.py"}
    assert {file for file in files if f"`{file}`" not in page} == set()
