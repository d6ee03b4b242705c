"""`rlpx-engine doctor`: its text, its JSON and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlpx.engine.doctor import command, libraries
from rlpx.engine.doctor.finding import Finding, State
from tests.system.harness import IMPORT_PATH


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # Short, for the 107 bytes of a Unix socket's path.
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/nobody")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Its exit code and its output."""
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().out


def test_json_has_every_check_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "--json", "--listen", "127.0.0.1:0", "--workers", "1")
    answer = json.loads(text)
    assert (code, answer["ok"]) == (0, True)
    names = [finding["check"] for finding in answer["findings"]]
    assert len(names) == len(set(names))
    assert {"python", "compiled", "settings", "descriptors", "cores", "memory", "port", "address", "clock"} <= set(names)
    assert {"ok", "warn"} >= {finding["state"] for finding in answer["findings"]}
    assert all(bool(finding["advice"]) == (finding["state"] != "ok") for finding in answer["findings"])


def test_text_has_a_line_each_and_the_advice_below(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "--listen", "192.0.2.1:30303")
    lines = text.splitlines()
    assert code == os.EX_CONFIG
    place = next(index for index, line in enumerate(lines) if line.startswith("FAIL  port"))
    assert lines[place + 1].strip().startswith("-> choose an address")
    assert lines[-1].endswith("1 fail")


def test_wrong_settings_are_a_finding_and_the_rest_is_examined(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    conf = tmp_path / "conf.toml"
    conf.write_text("workers = 0\n")
    code, text = run(capsys, "--json", "--conf", str(conf))
    findings = {finding["check"]: finding for finding in json.loads(text)["findings"]}
    assert (code, findings["settings"]["state"]) == (os.EX_CONFIG, "fail")
    assert "workers" in findings["settings"]["found"]
    assert "clock" in findings


def test_a_missing_library_is_told_before_anything_needs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Finding("library.uvloop", State.FAIL, "not installed", "install it")
    monkeypatch.setattr(libraries, "examine", lambda: iter([gone]))
    code, text = run(capsys, "--json")
    assert (code, json.loads(text)["findings"]) == (os.EX_CONFIG, [gone.as_dict()])


def test_it_is_a_word_of_the_engine_s_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rlpx.engine", "doctor", "--listen", "127.0.0.1:0", "--workers", "1"],
        env={"PYTHONPATH": IMPORT_PATH, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/nobody"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok    python")
    # It has changed nothing.
    assert list(tmp_path.iterdir()) == []
