"""Files that users name: one that cannot be read is one line of error."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlpx.engine.settings.chain import load_chain
from rlpx.engine.settings.files import exists
from rlpx.engine.settings.load import load
from rlpx.protocol.bus.places import run_dir_path, user_path
from tests.engine.settings.mistakes import complaint
from tests.system.harness import IMPORT_PATH


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    error = complaint(lambda: load({}, {}, tmp_path / "none.toml"))
    assert (str(error), error.exit_code) == (f"{tmp_path / 'none.toml'}: no such file", 78)


def test_a_directory_is_no_file_of_settings_and_no_matter_of_permission(tmp_path: Path) -> None:
    error = complaint(lambda: load({}, {}, tmp_path))
    assert (str(error), error.exit_code) == (f"{tmp_path}: Is a directory", 78)


@pytest.mark.parametrize("look", [load_chain, lambda name: load({}, {}, Path(name)), lambda name: exists(Path(name))])
def test_a_place_that_cannot_be_looked_at_is_one_line(look: Callable[[str], object]) -> None:
    """A name that is too long fails as another user's folder does for anybody but root."""
    name = "/tmp/" + "x" * 300 + ".toml"  # noqa: S108 - never made
    error = complaint(lambda: look(name))
    assert (str(error), error.exit_code) == (f"{name}: {os.strerror(errno.ENAMETOOLONG)}", 78)


def test_a_byte_order_mark_is_no_setting(tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_bytes(b"\xef\xbb\xbfworkers = 3\n")
    assert load({}, {}, file).settings.workers == 3


@pytest.mark.parametrize(("path", "home"), [("~nosuchuser/x", "~nosuchuser"), ("~/x", "~")])
def test_a_home_that_is_not_known_is_named(path: str, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    words = f"{path}: the home of {home} is not known; write the whole path"
    assert str(complaint(lambda: user_path(path))) == words


def test_a_file_that_is_not_text_is_not_toml(tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert str(complaint(lambda: load({}, {}, file))).startswith(f"{file}: not TOML: ")


def test_a_file_is_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_bytes("[protocols]\nclient = 'm\u00fcller/1'\n".encode())
    command = "from pathlib import Path; from rlpx.engine.settings.load import load; "
    command += f"print(ascii(load({{}}, {{}}, Path({str(file)!r}))))"
    ascii_only = {"PYTHONPATH": IMPORT_PATH, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = subprocess.run([sys.executable, "-c", command], env=ascii_only, check=True, capture_output=True, text=True)
    assert r"m\xfcller/1" in shown.stdout


def test_a_uid_that_nobody_knows_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("HOME")
    for environment in ({}, {"HOME": ""}):
        error = complaint(lambda environment=environment: run_dir_path("", environment))  # type: ignore[misc]
        words = f"uid {os.getuid()} has no passwd entry and HOME is not set: set HOME, or --run-dir and --node-key"
        assert (str(error), error.exit_code) == (words, 78)
    assert run_dir_path("", {"HOME": "/home/x"}) == Path("/home/x/.local/state/rlpx-engine")


@pytest.mark.parametrize("path", ["a\0b", "a\x00"])
def test_a_path_that_no_file_can_have_is_one_line(path: str) -> None:
    assert "NUL" in str(complaint(lambda: run_dir_path(path, {})))
