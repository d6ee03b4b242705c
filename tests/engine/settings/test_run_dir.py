"""One engine holds a run directory, for its owner alone."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from rlpx.engine.settings.run_dir import RunDir
from rlpx.protocol.bus.places import run_dir_path
from tests.engine.settings.mistakes import complaint


def test_the_run_directory_is_the_setting_else_the_runtime_directory_else_the_state_directory() -> None:
    assert run_dir_path("/x/y", {"XDG_RUNTIME_DIR": "/run/user/1"}) == Path("/x/y")
    assert run_dir_path("~/y", {}) == Path.home() / "y"
    assert run_dir_path("", {"XDG_RUNTIME_DIR": "/run/user/1"}) == Path("/run/user/1/rlpx-engine")
    assert run_dir_path("", {}) == Path.home() / ".local/state/rlpx-engine"


def test_a_run_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run" / "deep")
    run_dir.take()
    assert stat.S_IMODE(run_dir.path.stat().st_mode) == 0o700
    assert run_dir.endpoint("control") == f"ipc://{run_dir.path}/control.ipc"
    run_dir.leave()


def test_a_second_engine_hears_who_holds_the_run_directory(tmp_path: Path) -> None:
    first = RunDir(tmp_path)
    first.take()
    error = complaint(RunDir(tmp_path).take)
    assert str(error) == f"{tmp_path}: run_dir is held by another engine, process {os.getpid()}"
    assert error.exit_code == 69
    first.leave()
    second = RunDir(tmp_path)
    second.take()
    second.leave()


def test_what_a_killed_engine_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "control.ipc"))
    (tmp_path / "table.ipc").touch()
    (tmp_path / "notes.txt").touch()
    run_dir = RunDir(tmp_path)
    run_dir.take()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lock", "notes.txt", "table.ipc"]
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "events.ipc"))
    run_dir.leave()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lock", "notes.txt", "table.ipc"]


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o777])
def test_a_directory_that_others_can_enter_is_neither_taken_nor_changed(tmp_path: Path, mode: int) -> None:
    open_dir = tmp_path / "open"
    open_dir.mkdir()
    open_dir.chmod(mode)
    error = complaint(RunDir(open_dir).take)
    assert "others can enter it" in str(error)
    assert error.exit_code == 77
    assert stat.S_IMODE(open_dir.stat().st_mode) == mode
    assert list(open_dir.iterdir()) == []


def test_leaving_twice_is_harmless(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.take()
    run_dir.leave()
    run_dir.leave()


def test_the_longest_path_that_fits_a_unix_socket_is_taken_and_not_one_byte_more(tmp_path: Path) -> None:
    left = 107 - len(os.fsencode(tmp_path)) - len("//worker-127.ipc")
    fits = RunDir(tmp_path / ("x" * left))
    fits.take()
    assert len(fits.endpoint("worker-127").removeprefix("ipc://")) == 107
    fits.leave()
    error = complaint(RunDir(tmp_path / ("x" * (left + 1))).take)
    assert "run_dir is too long for a Unix socket: 108 bytes with the socket's name, 107 fit" in str(error)
    assert error.exit_code == 78


def test_a_path_is_measured_in_bytes_not_characters(tmp_path: Path) -> None:
    left = 107 - len(os.fsencode(tmp_path)) - len("//worker-127.ipc")
    assert "too long" in str(complaint(RunDir(tmp_path / ("ä" * left)).take))


def test_a_run_directory_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = complaint(RunDir(tmp_path / "file" / "run").take)
    assert error.exit_code == 78
    assert "run_dir" in str(error)


def test_a_directory_of_another_user_says_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("os.geteuid", lambda: 4242)
    error = complaint(RunDir(tmp_path).take)
    words = f"{tmp_path}: run_dir: it belongs to uid {tmp_path.stat().st_uid}, and this is uid 4242; name another"
    assert (str(error), error.exit_code) == (words, 77)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["os.write", "os.open", "os.truncate"])
def test_a_run_directory_on_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(call, full)
        error = complaint(RunDir(tmp_path).take)
    assert (str(error), error.exit_code) == (f"{tmp_path}: run_dir: No space left on device", 73)
    # It has released the lock that it held.
    again = RunDir(tmp_path)
    again.take()
    again.leave()
