"""The log's file: what happens if it is full, moved, removed, or cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlpx.engine.process.log_file import LogFile, check_log_file
from rlpx.protocol.mistakes import ConfigError

LINE = "x" * 99 + "\n"


def names(folder: Path) -> list[str]:
    """The files of a folder."""
    return sorted(file.name for file in folder.iterdir())


def test_lines_are_added_at_the_end_of_a_file_that_only_its_user_may_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for number in range(2):
        file = LogFile(path, 1000, 2)
        file.write(f"line {number}\n")
        file.close()
        file.close()
    assert path.read_text() == "line 0\nline 1\n"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_a_full_file_is_moved_aside_and_so_many_are_kept(tmp_path: Path, keep: int) -> None:
    file = LogFile(tmp_path / "log", 1000, keep)
    for number in range(75):
        file.write(f"{number:02}" + LINE[2:])
    file.close()
    assert names(tmp_path) == ["log", *(f"log.{number}" for number in range(1, keep + 1))]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 500 + 1000 * keep
    assert (tmp_path / "log").read_text().startswith("70")
    for number in range(1, keep + 1):
        assert (tmp_path / f"log.{number}").read_text().startswith(str(70 - 10 * number))


def test_the_size_of_an_earlier_start_counts_and_a_line_longer_than_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("a" * 950 + "\n")
    file = LogFile(path, 1000, 1)
    file.write(LINE)
    assert (path.read_text(), (tmp_path / "log.1").stat().st_size) == (LINE, 951)
    file.write("y" * 3000 + "\n")
    file.write(LINE)
    file.close()
    assert ((tmp_path / "log.1").stat().st_size, path.read_text()) == (3001, LINE)


def test_a_file_that_was_moved_by_another_program_is_opened_again_when_told(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "moved"
    file = LogFile(path, 1000, 1)
    file.write("1\n")
    path.rename(moved)
    file.write("2\n")
    file.reopen()
    file.write("3\n")
    file.close()
    assert (moved.read_text(), path.read_text()) == ("1\n2\n", "3\n")


def test_a_line_that_cannot_be_written_is_an_error_and_the_next_one_tries_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    file = LogFile(folder / "log", 1000, 1)
    with pytest.raises(FileNotFoundError):
        file.write("1\n")
    folder.mkdir()
    file.write("2\n")
    file.close()
    assert (folder / "log").read_text() == "2\n"


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    file = LogFile(tmp_path / "pipe", 1000, 1)
    with pytest.raises(OSError, match="No such device"):
        file.write("1\n")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="not a regular file"):
        file.write("1\n")
    os.close(reader)
    file.close()


def test_a_full_file_that_cannot_be_moved_grows_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    file = LogFile(path, 1000, 1)
    for _ in range(10):
        file.write(LINE)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        for _ in range(3):
            with pytest.raises(PermissionError):
                file.write(LINE)
        assert path.stat().st_size == 1000
    file.write(LINE)
    file.close()
    assert names(tmp_path) == ["log", "log.1"]


def test_after_a_line_that_was_cut_the_next_one_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(tmp_path / "log", 1000, 1)
    file.write("1\n")
    real = os.write

    def some(descriptor: int, data: bytes) -> int:
        if len(data) <= 2:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", some)
        with pytest.raises(OSError, match="No space"):
            file.write("abc\n")
    file.write("2\n")
    file.close()
    assert (tmp_path / "log").read_text() == "1\nab\n2\n"


def test_a_place_where_no_log_can_be_is_a_mistake_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_log_file(str(tmp_path / "log")) == tmp_path / "log"
    assert not (tmp_path / "log").exists()
    with pytest.raises(ConfigError, match=r"^log.file: .*: not a regular file$"):
        check_log_file(str(tmp_path))
    with pytest.raises(ConfigError, match=r"^log.file: .*/nowhere/log"):
        check_log_file(str(tmp_path / "nowhere" / "log"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=r"^log.file: .*ermission") as caught:
        check_log_file(str(tmp_path / "log"))
    assert caught.value.exit_code == os.EX_NOPERM
