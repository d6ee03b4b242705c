from __future__ import annotations

import pytest
from rich.cells import cell_len
from rich.text import Text

from rlpx.engine.cli.top_text import (
    COLUMNS,
    cell,
    fitting,
    milliseconds,
    rate,
    session_line,
    sparkline,
    state_line,
    volume,
    worker_lines,
)
from rlpx.engine.overview.overview import Overview
from rlpx.engine.overview.sessions import SessionTable
from rlpx.engine.overview.workers import Workers
from tests.engine.overview.objects import session_object, status


@pytest.mark.parametrize("text", ["", "short", "x" * 99, "漢字" * 20, "e\u0301" * 30, "[red]no markup[/]"])
def test_a_cell_has_the_width_of_its_column(text: str) -> None:
    for width in (1, 7, 20):
        for is_right in (False, True):
            assert cell_len(cell(text, width, is_right=is_right)) == width


@pytest.mark.parametrize("width", [20, 60, 80, 100, 120, 140, 200])
def test_columns_fit_or_are_those_that_cannot_be_left_out(width: int) -> None:
    columns = fitting(width)
    names = [column.name for column in columns]
    assert {"session", "way", "client", "address"} <= set(names)
    assert sum(column.width + 1 for column in columns) <= max(width, 64)
    assert names == [column.name for column in COLUMNS if column.name in names]


def test_a_name_is_text_and_never_markup() -> None:
    table = SessionTable()
    row = table.put(session_object(1, client="[bold red]evil[/]"))
    line = session_line(COLUMNS, row, is_chosen=True)
    assert "[bold red]evil[/]" in line.plain
    assert not any("bold red" in str(span.style) for span in line.spans)


def test_values() -> None:
    assert [rate(value) for value in (None, 0.0, 2.25, 5.0, 1234.4)] == ["-", "0", "2.2", "5", "1234"]
    assert [milliseconds(value) for value in (None, 0.44, 12.3)] == ["-", "0.4 ms", "12 ms"]
    assert [volume(value) for value in (None, 0.4, 2048.0)] == ["-", "0 B", "2.0 KiB"]


def test_a_sparkline_is_as_wide_as_its_column() -> None:
    assert sparkline([], 5) == "     "
    assert sparkline([0.0, None, 1.0, 2.0], 6) == "    ▄█"
    assert len(sparkline([1.0] * 100, 6)) == 6
    assert sparkline([0.0, 0.0], 2) == "  "


def test_workers_that_do_not_fit_are_counted() -> None:
    workers = Workers()
    workers.take_status(status(10)["workers"], 1 << 28)
    lines = worker_lines(workers.rows(), 3).plain.splitlines()
    assert len(lines) == 5
    assert lines[-1] == "… and 7 more"
    assert isinstance(worker_lines([], 3), Text)


def test_a_host_of_a_fleet_says_whether_it_is_a_member() -> None:
    def line(**fields: object) -> str:
        overview = Overview()
        fleet = {"name": "monitors", "host": "a", "state": "member", "hosts": ["a", "b"], "away_ms": None, **fields}
        overview.take_status(status(fleet=fleet), now=1.0)
        return state_line(overview, now=1.0, width=200).plain

    assert "a of monitors, 2 hosts" in line()
    assert "a of monitors, NO NATS for 1 min 5 s" in line(state="away", away_ms=65_000)
    assert "a of monitors, DOUBTFUL" in line(state="doubtful")
    overview = Overview()
    overview.take_status(status(), now=1.0)
    assert " of " not in state_line(overview, now=1.0, width=200).plain
