"""`rlpx-ctl top` before it draws anything: each reason why it cannot is one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rlpx.engine.cli import ctl


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person reads and types."""
    monkeypatch.setattr(ctl, "is_terminal", lambda: True)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str]:
    """The exit code and the one line of a failing start."""
    with pytest.raises(SystemExit) as ended:
        ctl.main(["top", *arguments])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return ended.value.code, told


def test_without_a_terminal_it_says_what_to_use_instead(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = failure(capsys)
    assert code == os.EX_USAGE
    assert "it needs a terminal; `rlpx-ctl status --json` is for programs" in told


@pytest.mark.usefixtures("terminal")
def test_without_textual_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("textual", "rlpx.engine.cli.top"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "textual", None)
    code, told = failure(capsys)
    assert code == os.EX_UNAVAILABLE
    assert "is not installed: pip install 'rlpx-engine[top]'" in told


@pytest.mark.usefixtures("terminal")
def test_without_an_engine_it_ends(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, told = failure(capsys, "--run-dir", str(tmp_path))
    assert code == os.EX_UNAVAILABLE
    assert f"no engine at ipc://{tmp_path}/control.ipc" in told


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--connect", "nonsense"), "--connect"),
        (("--connect", "tcp://127.0.0.1:1", "--run-dir", "/x"), "--connect: not allowed with --run-dir"),
        (("--key", "k"), "--key: only with --connect"),
        (("--nonsense",), "unrecognized arguments: --nonsense"),
        (("extra",), "unrecognized arguments: extra"),
    ],
)
def test_wrong_arguments_are_usage(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str) -> None:
    code, told = failure(capsys, *arguments)
    assert code == os.EX_USAGE
    assert text in told
