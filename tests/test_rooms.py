"""The tests have the rooms of the code: a file and its test are found from each other's path."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).resolve().parent
ROOT: Final = TESTS.parent
# Compiled code is tested through Python, and as a whole under sanitizers.
OTHER_TESTS: Final = TESTS / "protocol" / "c"
# Parts of a session that only a session uses: its own tests reach every branch of them.
PARTS_OF_A_SESSION: Final = {f"session/{name}.py" for name in ("inbound", "keepalive", "sender", "setup")}
# Types that others fulfil: there is nothing in them to run.
DECLARATIONS: Final = {"bus/clockwork.py"}


def sources_of(test: Path) -> list[Path]:
    """The files that a test may be of: `rlp_items.py` or `rlp.py` for `test_rlp_items.py`."""
    folder = ROOT / test.parent.relative_to(TESTS)
    words = test.stem.removeprefix("test_").split("_")
    names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
    return [folder / f"{name}.py" for name in (*names, f"__{names[-1]}__")]


ROOMS: Final = ("protocol", "workers", "engine")
TESTS_OF_FILES: Final = [
    test for room in ROOMS for test in sorted((TESTS / room).rglob("test_*.py")) if OTHER_TESTS not in test.parents
]
FILES_OF_PROTOCOL: Final = [file for file in sorted((ROOT / "protocol").rglob("*.py")) if file.stem != "__init__"]


@pytest.mark.parametrize("test", TESTS_OF_FILES, ids=lambda test: str(test.relative_to(TESTS)))
def test_a_test_stands_where_its_file_stands(test: Path) -> None:
    assert any(source.exists() for source in sources_of(test))


@pytest.mark.parametrize("file", FILES_OF_PROTOCOL, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_of_protocol_has_a_test(file: Path) -> None:
    test = TESTS / file.parent.relative_to(ROOT) / f"test_{file.stem}.py"
    assert test.exists() or str(file.relative_to(ROOT / "protocol")) in PARTS_OF_A_SESSION | DECLARATIONS


@pytest.mark.parametrize(
    ("test", "sources"),
    [
        ("protocol/test_rlp_items.py", ["rlp.py", "rlp_items.py", "__rlp_items__.py"]),
        ("engine/test_main.py", ["main.py", "__main__.py"]),
    ],
)
def test_the_rule_itself(test: str, sources: list[str]) -> None:
    assert [source.name for source in sources_of(TESTS / test)] == sources
