"""The table of the log's fields has exactly those that lines have."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rlpx.engine.process import journal
from rlpx.engine.process.log_fields import ALWAYS, FIELDS, as_table

ENGINE: Final = Path(__file__).resolve().parent.parent.parent.parent / "engine"
LEVELS: Final = {"debug", "info", "warning", "error"}


def used_fields() -> Iterator[str]:
    """The names of the fields in all calls of the log."""
    for file in ENGINE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and is_log(node.func):
                yield from (keyword.arg for keyword in node.keywords if keyword.arg is not None)


def is_log(called: ast.expr) -> bool:
    """Whether `log.info`, `structlog.get_logger().info` or a variable with such a method is called."""
    if isinstance(called, ast.Name):
        return called.id == "write"
    if not isinstance(called, ast.Attribute) or called.attr not in LEVELS:
        return False
    owner = called.value
    return (isinstance(owner, ast.Name) and owner.id == "log") or isinstance(owner, ast.Call)


def test_every_field_of_a_line_is_in_the_table_and_the_table_has_no_other() -> None:
    # The end of a session has fields of its event; a traceback is made of `exc_info`.
    used = (set(used_fields()) | set(journal._ENDED) | {"exception"}) - {"exc_info"}  # noqa: SLF001 - the fields of a line
    assert used == set(FIELDS)


def test_the_page_has_the_table() -> None:
    assert as_table() in (ENGINE / "process" / "LOG.md").read_text(encoding="utf-8")
    assert not set(ALWAYS) & set(FIELDS)
