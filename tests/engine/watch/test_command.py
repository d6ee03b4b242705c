"""rlpx-watch's mistakes: one line each, with the exit codes of the other programs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rlpx.engine.process import extras
from rlpx.engine.watch.command import main


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--listen", "nonsense"], 64, "--listen: expected HOST:PORT"),
        (["--listen", "127.0.0.1:70000"], 64, "the port is not a number from 0 to 65535"),
        (["--listen", "192.0.2.1:0"], 69, "--listen: 192.0.2.1:0: Cannot assign requested address"),
        (["--connect", "http://x", "--listen", "127.0.0.1:0"], 64, "--connect: expected tcp://HOST:PORT or ipc://PATH"),
        (["--connect", "tcp://127.0.0.1:1", "--run-dir", "/x"], 64, "--connect: not allowed with --run-dir"),
        (["--key", "/x"], 64, "--key: only with --connect"),
        (["--connect", "tcp://127.0.0.1:1", "--key", "/no/such", "--listen", "127.0.0.1:0"], 78, "/no/such: no such file"),
        (["--events", "tcp://127.0.0.1:1"], 64, "--events: only with --connect"),
        (["--token", "/x"], 64, "--token: only with --control"),
        (["--lisen", "127.0.0.1:0"], 64, "did you mean --listen"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if "--connect" not in arguments:
        arguments = ["--run-dir", str(tmp_path), *arguments]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (code, "", 1), printed.err
    assert printed.err.startswith("rlpx-watch: ")
    assert text in printed.err


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main(["--run-dir", str(tmp_path), "--listen", f"127.0.0.1:{taken.getsockname()[1]}"])
    assert ended.value.code == 69
    assert capsys.readouterr().err.endswith("Address already in use\n")


def test_a_missing_library_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(extras.LIBRARIES, "watch", ("no_such_library",))
    with pytest.raises(SystemExit) as ended:
        main(["--run-dir", str(tmp_path), "--listen", "127.0.0.1:0"])
    assert ended.value.code == 69
    assert capsys.readouterr().err == "rlpx-watch: no_such_library is not installed: pip install 'rlpx-engine[watch]'\n"
