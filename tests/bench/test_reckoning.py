from __future__ import annotations

from pathlib import Path

from tests.bench.profiles import top
from tests.bench.reckoning import Goal, Row, cpu_nanoseconds, read_rows, table, write_rows
from tests.bench.table import show


def schedstat(proc: Path, pid: int, thread: int, nanoseconds: int) -> None:
    folder = proc / str(pid) / "task" / str(thread)
    folder.mkdir(parents=True)
    (folder / "schedstat").write_text(f"{nanoseconds} 17 3\n")


def test_the_cpu_of_processes_is_that_of_all_their_threads(tmp_path: Path) -> None:
    schedstat(tmp_path, 10, 10, 1_000)
    schedstat(tmp_path, 10, 11, 200)
    schedstat(tmp_path, 20, 20, 30)
    schedstat(tmp_path, 30, 30, 4)
    assert cpu_nanoseconds([10, 20], tmp_path) == 1_230


def test_a_ratio_is_of_medians() -> None:
    row = Row("a", "µs", [10.0, 30.0, 20.0], [40.0, 10.0, 90.0], Goal(0.5))
    assert row.ratio == 0.5
    assert row.is_reached


def test_a_goal_in_the_unit_needs_nothing_to_compare_with() -> None:
    assert Row("a", "µs", [61.0], goal=Goal(60, is_ratio=False)).is_reached is False
    assert Row("a", "µs", [60.0], goal=Goal(60, is_ratio=False)).is_reached is True


def test_without_a_goal_or_the_other_side_nothing_is_reached_or_missed() -> None:
    assert Row("a", "µs", [1.0], [1.0]).is_reached is None
    assert Row("a", "µs", [1.0], goal=Goal(0.95)).is_reached is None


def test_rows_are_kept_and_compared_with_by_name(tmp_path: Path) -> None:
    earlier = [Row("a", "µs", [10.0, 20.0, 30.0], [5.0], Goal(1.1)), Row("gone", "KiB", [1.0])]
    file = tmp_path / "figures.json"
    write_rows(file, {"cores": 2}, earlier)
    assert read_rows(file) == earlier
    cells = table([Row("a", "µs", [15.0]), Row("new", "µs", [2.0])], read_rows(file))
    assert [line[-1] for line in cells] == ["to earlier", "0.75", ""]


def test_a_table_says_what_is_reached() -> None:
    shown = show(table([Row("a session", "µs", [1000.0, 900.0, 1100.0], [2000.0], Goal(0.95))], []))
    assert shown.splitlines()[1].split("  ")[0] == "a session"
    assert shown.split()[-10:] == ["µs", "1,000", "900-1,100", "2,000", "2,000-2,000", "0.50", "≤", "0.95", "x", "yes"]


def test_a_profile_counts_a_function_once_in_each_stack() -> None:
    run, seal = "run (workers/worker.py:1)", "seal (protocol/rlpx/frames.py:2)"
    shown = top(f"main;{run};{run};0x7f (libz.so) 3\nmain;{seal} 1\nmain;epoll_pwait (libc.so.6) 9\n").splitlines()
    assert shown[1:3] == ["   75.0%  in (libz.so)", f"   25.0%  {seal}"]
    assert shown[4:] == [f"   75.0%  {run}", f"   25.0%  {seal}"]
