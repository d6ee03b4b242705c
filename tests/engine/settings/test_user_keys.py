"""Keys of users: who may connect over TCP, and files that nobody else can have read or written."""

from __future__ import annotations

import errno
import os
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog.testing

from rlpx.engine.client.key_file import ClientKey
from rlpx.engine.settings.user_keys import (
    MAX_KEY_FILES,
    Right,
    UserFile,
    UserKeys,
    keys_folder,
    listed_keys,
    make_key,
    remove_key,
    server_keys,
)
from rlpx.protocol.mistakes import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def made(folder: Path, name: str, *rights: Right) -> ClientKey:
    """Add a new user; returns the file for its program."""
    out = folder.parent / f"{name}.secret"
    make_key(folder, name, list(rights), out)
    return ClientKey.load(out)


def test_a_user_has_the_rights_that_it_was_made_with(folder: Path) -> None:
    keys = UserKeys(folder)
    alice = made(folder, "alice", "events", "control")
    bob = made(folder, "bob", "events")
    assert bytes.fromhex(alice.server) == keys.server.public == server_keys(folder).public
    assert keys.authorise("control")(alice.pair.public) == "alice"
    assert keys.authorise("events")(bob.pair.public) == "bob"
    assert keys.authorise("control")(bob.pair.public) is None
    assert keys.authorise("events")(keys.server.public) is None
    assert keys.has("bob", "events")
    assert not keys.has("bob", "control")
    assert not keys.has("carol", "events")


def test_a_user_that_was_removed_has_no_right(folder: Path) -> None:
    keys = UserKeys(folder)
    alice = made(folder, "alice", "events")
    assert keys.who(alice.pair.public, "events") == "alice"
    remove_key(folder, "alice")
    assert keys.who(alice.pair.public, "events") is None


def test_rights_that_change_are_seen(folder: Path) -> None:
    keys = UserKeys(folder)
    alice = made(folder, "alice", "events")
    assert keys.has("alice", "events")
    file = folder / "alice.key"
    file.write_text(f'public = "{alice.pair.public.hex()}"\nrights = ["control"]\n')
    os.utime(file, ns=(1, 1))
    assert not keys.has("alice", "events")
    assert keys.has("alice", "control")


def test_files_are_their_owners_alone(folder: Path) -> None:
    made(folder, "alice", "events")
    for file in (folder / "server.secret", folder / "alice.key", folder.parent / "alice.secret"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["server.secret", "alice.secret"])
def test_a_secret_that_others_can_read_is_refused(folder: Path, name: str) -> None:
    made(folder, "alice", "events")
    file = folder / name if name == "server.secret" else folder.parent / name
    file.chmod(0o640)
    read: Callable[[], object] = (lambda: UserKeys(folder)) if name == "server.secret" else (lambda: ClientKey.load(file))
    with pytest.raises(ConfigError, match="others can read this secret key") as caught:
        read()
    assert caught.value.exit_code == os.EX_NOPERM


@pytest.mark.parametrize("place", ["", "alice.key"])
def test_what_others_can_write_lets_nobody_in(folder: Path, place: str) -> None:
    keys = UserKeys(folder)
    alice = made(folder, "alice", "events")
    (folder / place).chmod(0o777)
    with structlog.testing.capture_logs() as logs:
        assert keys.who(alice.pair.public, "events") is None
    assert "others can write" in logs[0]["cause"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("bad", "public = 5", "public"),
        ("bad", "not toml", "TOML"),
        ("bad", f'public = "{"ab" * 32}"\nrights = ["all"]', "rights"),
        ("bad", f'public = "{"ab" * 32}"', "rights"),
        ("b ad", f'public = "{"ab" * 32}"\nrights = []', "its name"),
    ],
)
def test_a_file_that_is_no_key_lets_nobody_in_and_is_named(folder: Path, name: str, text: str, words: str) -> None:
    keys = UserKeys(folder)
    alice = made(folder, "alice", "events")
    file = folder / f"{name}.key"
    file.write_text(text)
    file.chmod(0o600)
    with structlog.testing.capture_logs() as logs:
        assert keys.who(alice.pair.public, "events") == "alice"
    assert len(logs) == 1
    assert words in logs[0]["cause"]
    assert isinstance(listed_keys(folder)[name], str)
    assert isinstance(listed_keys(folder)["alice"], UserFile)


@pytest.mark.parametrize(
    "content", ['secret = "{0}"', "secret = {0}", "{0}", 'secret = "{0}"\nserver = "{0}"', '{0} = "secret"', '"\\x00{0}']
)
def test_a_secret_file_that_is_wrong_is_named_and_not_shown(folder: Path, content: str) -> None:
    """One digit is missing; the others must not appear in a log."""
    made(folder, "alice", "events")
    digits = "5a" * 31 + "b"
    for file, kind in ((folder / "server.secret", server_keys), (folder.parent / "alice.secret", ClientKey.load)):
        file.write_text(content.format(digits))
        with pytest.raises(ConfigError) as caught:
            kind(folder if kind is server_keys else file)
        assert str(caught.value).startswith(f"{file}: expected TOML with secret")
        assert "5a5a" not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_could_not_be_written_whole_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", is_full)
        with pytest.raises(ConfigError, match="No space left") as caught:
            server_keys(folder)
    assert caught.value.exit_code == os.EX_CANTCREAT
    assert list(folder.iterdir()) == []
    server_keys(folder)
    files = sorted(folder.iterdir())
    with monkeypatch.context() as patched:
        fsync, calls = os.fsync, iter([True, False])
        patched.setattr(os, "fsync", lambda number: fsync(number) if next(calls) else is_full(number))
        with pytest.raises(ConfigError, match=r"bob\.key: No space left"):
            make_key(folder, "bob", ["events"], folder.parent / "bob.secret")
    assert sorted(folder.iterdir()) == files
    assert not (folder.parent / "bob.secret").exists()


def test_no_key_is_written_over(folder: Path) -> None:
    first = made(folder, "alice", "events")
    with pytest.raises(ConfigError, match=r"alice\.secret: exists already") as caught:
        made(folder, "alice", "events")
    assert caught.value.exit_code == os.EX_CANTCREAT
    with pytest.raises(ConfigError, match=r"alice\.key: exists already"):
        make_key(folder, "alice", ["events"], folder.parent / "other")
    assert not (folder.parent / "other").exists()
    assert ClientKey.load(folder.parent / "alice.secret") == first


def test_what_is_not_there_is_said(folder: Path) -> None:
    assert listed_keys(folder) == {}
    with pytest.raises(ConfigError, match=r"nobody\.key: No such file"):
        remove_key(folder, "nobody")
    with pytest.raises(ConfigError, match="no such file") as caught:
        ClientKey.load(folder / "missing")
    assert caught.value.exit_code == os.EX_CONFIG


def test_a_folder_that_cannot_be_made_is_a_mistake(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(ConfigError, match=str(folder)):
        UserKeys(folder)
    with pytest.raises(ConfigError, match=str(folder)):
        ClientKey.load(folder / "x")


def test_a_folder_that_vanishes_lets_nobody_in(folder: Path) -> None:
    keys = UserKeys(folder)
    alice = made(folder, "alice", "events")
    assert keys.has("alice", "events")
    folder.rename(folder.with_name("elsewhere"))
    assert keys.who(alice.pair.public, "events") is None


def test_the_files_that_are_read_are_bounded(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for number in range(MAX_KEY_FILES + 1):
        (folder / f"k{number}.key").touch()
    assert len(listed_keys(folder)) == MAX_KEY_FILES


def test_the_folder_is_the_settings_or_the_state_directorys() -> None:
    assert keys_folder("/etc/keys", {}) == Path("/etc/keys")
    assert keys_folder("", {"XDG_STATE_HOME": "/state"}) == Path("/state/rlpx-engine/keys")
