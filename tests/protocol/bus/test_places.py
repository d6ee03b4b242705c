"""Places: where the sockets of an engine are, and what may be an endpoint."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from rlpx.protocol.bus.places import check_endpoint, home_folder, run_dir_path, socket_endpoint, socket_path, user_path
from rlpx.protocol.mistakes import ConfigError


def test_the_run_directory_is_the_setting_else_the_runtime_directory_else_the_state_directory() -> None:
    assert run_dir_path("/x/y", {"XDG_RUNTIME_DIR": "/run/user/1"}) == Path("/x/y")
    assert run_dir_path("~/y", {}) == Path.home() / "y"
    assert run_dir_path("", {"XDG_RUNTIME_DIR": "/run/user/1"}) == Path("/run/user/1/rlpx-engine")
    assert run_dir_path("", {"HOME": "/home/x"}) == Path("/home/x/.local/state/rlpx-engine")


def test_a_socket_has_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert socket_path(Path("run"), "worker-0") == tmp_path / "run" / "worker-0.ipc"
    assert socket_endpoint(Path("run"), "control") == f"ipc://{tmp_path}/run/control.ipc"


def test_a_folder_of_ours_is_where_the_environment_says() -> None:
    assert home_folder({"XDG_STATE_HOME": "/s"}, "XDG_STATE_HOME", ".local/state") == Path("/s/rlpx-engine")
    assert home_folder({"HOME": "/h"}, "XDG_STATE_HOME", ".local/state") == Path("/h/.local/state/rlpx-engine")


def test_without_a_home_in_the_environment_it_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    found = home_folder({}, "XDG_STATE_HOME", ".local/state")
    assert found == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".local/state/rlpx-engine"


def test_a_user_without_a_home_is_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(ConfigError, match="has no passwd entry and HOME is not set"):
        home_folder({}, "XDG_STATE_HOME", ".local/state")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a\0b", "a path has no NUL character"),
        ("~nobody-of-this-name/x", "the home of ~nobody-of-this-name is not known"),
        ("\ud800", "this locale cannot name it"),
    ],
)
def test_a_path_that_no_file_can_have_is_a_mistake(path: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        user_path(path)


@pytest.mark.parametrize("endpoint", ["ipc:///run/control.ipc", "tcp://127.0.0.1:5555", "tcp://[::1]:1", "tcp://host:1"])
def test_an_endpoint_is_a_socket_or_a_port(endpoint: str) -> None:
    check_endpoint(endpoint)


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("ipc://", "it begins with neither"),
        ("udp://127.0.0.1:1", "it begins with neither"),
        ("tcp://:1", "a host and a port are needed"),
        ("tcp://host:0", "a host and a port are needed"),
        ("tcp://host", "there is no :PORT"),
    ],
)
def test_what_is_no_endpoint_says_why(endpoint: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_endpoint(endpoint)
