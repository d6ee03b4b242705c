"""The node key file: made once, read in the usual spellings, refused if others can read it, and never shown."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rlpx.engine.settings import node_key
from rlpx.engine.settings.node_key import KeyHold
from rlpx.protocol.bus.places import run_dir_path
from rlpx.protocol.mistakes import ConfigError

KEY = "11" * 32


def complaint(call: Callable[[], object]) -> ConfigError:
    """The error of the call, which is one line."""
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


# -- node key ---------------------------------------------------------------------------------------------------------------


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> str:
    """A key file."""
    file = folder / "node.key"
    file.write_bytes(content)
    file.chmod(mode)
    return str(file)


def test_a_place_that_cannot_be_looked_at_is_one_line() -> None:
    name = "/tmp/" + "x" * 300  # noqa: S108 - never made
    for error in (complaint(lambda: node_key.check_key(name, {})), complaint(lambda: node_key.load_key(name, {}))):
        assert str(error) == f"{name}: File name too long"


def test_a_device_is_no_key_and_is_not_to_be_changed() -> None:
    error = complaint(lambda: node_key.load_key("/dev/null", {}))
    assert (str(error), error.exit_code) == ("/dev/null: not a file that could hold a node key", 78)


def test_a_key_may_come_through_a_pipe_whose_writer_has_gone() -> None:
    """A pipe, as of a shell's <(command): it is read once, and holding it waits for nobody."""
    reader, writer = os.pipe()
    os.fchmod(reader, 0o600)
    path = f"/dev/fd/{reader}"
    os.write(writer, KEY.encode())
    closer = threading.Timer(0.2, os.close, [writer])
    closer.start()
    assert node_key.load_key(path, {}).secret.hex() == KEY
    closer.join()
    hold = KeyHold(Path(path))
    assert hold.take()
    hold.leave()
    os.close(reader)


def test_a_missing_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "node.key"
    made = node_key.load_key(str(file), {})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() == made.secret.hex()
    assert node_key.load_key(str(file), {}).secret == made.secret


def test_without_a_setting_the_key_is_in_the_state_directory(tmp_path: Path) -> None:
    node_key.load_key("", {"XDG_STATE_HOME": str(tmp_path)})
    assert (tmp_path / "rlpx-engine" / "node.key").exists()


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f"0x{KEY}", KEY.upper()])
def test_a_key_is_read_in_the_spellings_that_clients_write(tmp_path: Path, content: str) -> None:
    assert node_key.load_key(key_file(tmp_path, content.encode()), {}).secret.hex() == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o777])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = key_file(tmp_path, KEY.encode(), mode)
    error = complaint(lambda: node_key.load_key(file, {}))
    assert str(error) == f"{file}: others can read the node key (mode {mode:04o}); chmod 600 it"
    assert error.exit_code == 77


@pytest.mark.parametrize("content", [b"", b"\n", b"11" * 31, b"11" * 33, b"00" * 32, b"ff" * 32, b"zz" * 32, b"1" * 63])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    file = key_file(tmp_path, content)
    error = complaint(lambda: node_key.load_key(file, {}))
    assert str(error) == f"{file}: not a node key: 64 hex digits, not zero and below the group order"
    assert error.exit_code == 78


def test_a_key_of_32_raw_bytes_is_refused_like_any_other_that_is_not_hex(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"\xff\xfe" * 16)
    error = complaint(lambda: node_key.load_key(file, {}))
    assert str(error).startswith(f"{file}: not a node key")


def test_a_key_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    error = complaint(lambda: node_key.load_key(str(tmp_path / "node.key"), {}))
    assert (str(error), error.exit_code) == (f"{tmp_path / 'node.key'}: No space left on device", 73)
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_a_key_at_once_both_have_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "node.key"
    link = os.link

    def late(source: str, target: Path) -> None:
        key_file(tmp_path, KEY.encode())
        link(source, target)

    monkeypatch.setattr("os.link", late)
    assert node_key.load_key(str(file), {}).secret.hex() == KEY
    assert list(tmp_path.iterdir()) == [file]


def test_checking_a_key_reads_it_and_makes_none(tmp_path: Path) -> None:
    node_key.check_key(str(tmp_path / "none.key"), {})
    assert list(tmp_path.iterdir()) == []
    node_key.check_key(key_file(tmp_path, KEY.encode()), {})
    readable = key_file(tmp_path, KEY.encode(), 0o644)
    assert complaint(lambda: node_key.check_key(readable, {})).exit_code == 77


def test_a_key_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = complaint(lambda: node_key.load_key(str(tmp_path / "file" / "node.key"), {}))
    assert error.exit_code == 78


@pytest.mark.parametrize("load", [lambda path: node_key.load_key(path, {}), lambda path: run_dir_path(path, {})])
def test_a_home_of_nobody_is_a_mistake_of_one_line(load: Callable[[str], object]) -> None:
    complaint(lambda: load("~nobody-of-this-name/x"))


@pytest.mark.parametrize("path", [KEY, "0x" + KEY, KEY.replace("1", "A")])
def test_a_key_given_for_its_file_becomes_no_name_of_a_file_and_is_not_shown(path: str) -> None:
    error = complaint(lambda: node_key.load_key(path, {}))
    assert path not in str(error)
    assert (str(error), error.exit_code) == (
        "node_key: expected a file that holds the key; got what looks like a key itself",
        78,
    )


def test_a_second_engine_of_one_key_is_told_apart(tmp_path: Path) -> None:
    file = Path(key_file(tmp_path, KEY.encode()))
    first, second = node_key.KeyHold(file), node_key.KeyHold(file)
    assert first.take()
    assert not second.take()
    second.leave()
    first.leave()
    assert second.take()
    second.leave()
    second.leave()


def test_where_nothing_can_be_locked_nothing_is_said(tmp_path: Path) -> None:
    assert node_key.KeyHold(tmp_path / "none.key").take()
