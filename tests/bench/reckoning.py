"""Computes the figures of the bench: what processes have used, the cells of a row, and whether its goal is reached."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def cpu_nanoseconds(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """User and system time of all living threads of the processes.

    From schedstat, which counts nanoseconds; the ticks of `stat` are 10 ms.
    """
    return sum(int(file.read_text().split()[0]) for pid in pids for file in (proc / str(pid) / "task").glob("*/schedstat"))


def resident_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """Resident memory of the processes."""
    return sum(int((proc / str(pid) / "statm").read_text().split()[1]) * PAGE_BYTES for pid in pids)


def pin(pids: Iterable[int], core: int) -> None:
    """Keep all threads of the processes, and those that they start later, on one core."""
    for pid in pids:
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, {core})


class Goal(msgspec.Struct, frozen=True):
    """The largest median that reaches the goal: in the row's unit, or as a ratio to the other side's median."""

    most: float
    is_ratio: bool = True

    def __str__(self) -> str:
        return f"≤ {self.most:g}" + (" x" if self.is_ratio else "")


class Row(msgspec.Struct, frozen=True):
    """Our repeats and those of the other side, taken by turns."""

    name: str
    unit: str
    ours: list[float]
    other: list[float] = []
    goal: Goal | None = None

    @property
    def median(self) -> float:
        """The median of our repeats."""
        return statistics.median(self.ours)

    @property
    def ratio(self) -> float | None:
        """The ratio of our median to the other side's."""
        return self.median / statistics.median(self.other) if self.other else None

    @property
    def is_reached(self) -> bool | None:
        """Whether the goal is reached; `None` if there is no goal, or nothing to compare with."""
        if self.goal is None:
            return None
        value = self.ratio if self.goal.is_ratio else self.median
        return None if value is None else value <= self.goal.most


def table(rows: list[Row], earlier: list[Row]) -> list[list[str]]:
    """The rows as cells, headings first; with earlier figures also the ratio of our medians to those."""
    known = {row.name: row for row in earlier}
    heading = ["", "unit", "ours", "lowest-highest", "against", "lowest-highest", "ratio", "goal", "reached"]
    cells = [heading + (["to earlier"] if earlier else [])]
    for row in rows:
        reached = {None: "", True: "yes", False: "no"}[row.is_reached]
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        goal = "" if row.goal is None else str(row.goal)
        line = [row.name, row.unit, *_spread(row.ours), *_spread(row.other), ratio, goal, reached]
        if earlier:
            before = known.get(row.name)
            line.append(f"{row.median / before.median:.2f}" if before is not None and before.median else "")
        cells.append(line)
    return cells


def _spread(values: list[float]) -> tuple[str, str]:
    if not values:
        return "", ""
    return _number(statistics.median(values)), f"{_number(min(values))}-{_number(max(values))}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def read_rows(file: Path) -> list[Row]:
    """The rows of an earlier run. Raises `OSError`, `msgspec.MsgspecError`."""
    return msgspec.json.decode(file.read_bytes(), type=_Report).rows


def write_rows(file: Path, machine: dict[str, Any], rows: list[Row]) -> None:
    """Write the rows of this run."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(_Report(machine, rows)), indent=1) + b"\n")


class _Report(msgspec.Struct, frozen=True):
    machine: dict[str, Any]
    rows: list[Row]
