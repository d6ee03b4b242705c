"""`rlpx-ctl keys` makes, lists and removes keys without any engine, and reports a mistake in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpx.engine.cli.ctl import main
from rlpx.engine.client.key_file import ClientKey
from rlpx.engine.settings.user_keys import UserKeys


def run(folder: Path, *arguments: str) -> None:
    """The command, on this folder."""
    main(["keys", *arguments, "--keys-dir", str(folder / "keys")])


def test_a_key_is_made_listed_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "key"
    run(tmp_path, "new", "alice", "--rights", "events,control", "--out", str(out))
    assert str(out) in capsys.readouterr().out
    keys = UserKeys(tmp_path / "keys")
    public = ClientKey.load(out).pair.public
    assert keys.who(public, "control") == "alice"
    run(tmp_path, "list")
    assert f"alice  events control  {public.hex()[:16]}" in capsys.readouterr().out
    run(tmp_path, "remove", "alice")
    assert capsys.readouterr().out == "alice was removed\n"
    assert keys.who(public, "control") is None


def test_a_new_key_may_read_events_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "new", "alice")
    keys = UserKeys(tmp_path / "keys")
    public = ClientKey.load("alice.secret").pair.public
    assert keys.who(public, "events") == "alice"
    assert keys.who(public, "control") is None


def test_programs_get_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "new", "alice", "--json", "--out", str(tmp_path / "key"))
    assert json.loads(capsys.readouterr().out) == {"name": "alice", "rights": ["events"], "key": str(tmp_path / "key")}
    (tmp_path / "keys" / "bad.key").write_text("")
    run(tmp_path, "list", "--json")
    good, bad = json.loads(capsys.readouterr().out)
    assert (good["name"], good["rights"]) == ("alice", ["events"])
    assert bad["name"] == "bad"
    assert "public" in bad["problem"]
    run(tmp_path, "list")
    assert "bad" in capsys.readouterr().out
    run(tmp_path, "remove", "alice", "--json")
    assert json.loads(capsys.readouterr().out) == {"removed": "alice"}


def test_the_folder_is_that_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLPX_ENGINE_CURVE_KEYS_DIR", str(tmp_path / "elsewhere"))
    main(["keys", "new", "alice", "--out", str(tmp_path / "key")])
    assert (tmp_path / "elsewhere" / "alice.key").exists()
    assert "alice may use events" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["new"], "NAME: new needs one", 64),
        (["remove"], "NAME: remove needs one", 64),
        (["list", "alice"], "NAME: not allowed with list", 64),
        (["new", "../alice"], "expected a name of up to 64 letters", 64),
        (["new", "alice", "--rights", "all"], "expected events, control or events,control; got 'all'", 64),
        (["new", "alice", "--rights", "events,all"], "got 'events,all'", 64),
        (["change", "alice"], "change", 64),
        (["remove", "alice"], "alice.key: No such file or directory", 78),
        (["new", "alice", "--out", "/nowhere/at/all"], "/nowhere/at/all: No such file or directory", 78),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str, code: int
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, *arguments)
    assert caught.value.code == code
    assert words in capsys.readouterr().err.splitlines()[-1]
