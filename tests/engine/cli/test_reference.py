"""README's tables are those of the declarations."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpx.engine.cli.reference import command_table, event_table, main, renewed
from rlpx.protocol.bus.commands import COMMANDS
from rlpx.protocol.bus.events import LIFECYCLE

README = Path(__file__).parents[3] / "README.md"


def test_readme_has_the_tables_of_the_declarations() -> None:
    text = README.read_text(encoding="utf-8")
    # If this fails: PYTHONPATH=.venv/house .venv/bin/python -m rlpx.engine.cli.reference README.md engine/client/commands.py
    assert renewed(text) == text


def test_every_command_and_every_topic_has_its_row() -> None:
    commands, events = command_table(), event_table()
    assert [name for name in COMMANDS if f"| `{name}" not in commands] == []
    assert [topic for topic in LIFECYCLE if f"`{topic}`" not in events] == []


def test_a_row_shows_the_command_line_that_is_taken() -> None:
    table = command_table()
    assert "| `ban [WHO] [--peer PEER] [--address IP] [--seconds S]` |" in table
    assert "| `send ID CAPABILITY MESSAGE PAYLOAD [--raw]` |" in table
    assert "| `sessions [OPTIONS]` |" in table


def test_the_tables_are_renewed_in_place(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    text = README.read_text(encoding="utf-8")
    file.write_text(text.replace("| `status` |", "| `statues` |"), encoding="utf-8")
    main(str(file))
    assert file.read_text(encoding="utf-8") == text


def test_a_page_without_the_place_of_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="commands"):
        renewed("nothing")
