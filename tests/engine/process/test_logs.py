"""The log goes to stderr, in the form and from the level that the settings say."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import orjson
import pytest
import structlog

from rlpx.engine.process import logs, stdio
from rlpx.engine.process.stdio import outlets
from rlpx.engine.settings.settings import LogSettings
from rlpx.protocol.mistakes import ConfigError


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    yield
    logs.finish()
    structlog.reset_defaults()


def test_json_is_one_object_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    structlog.get_logger().warning("two\nlines", session=7)
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    entry = orjson.loads(line)
    assert (entry["event"], entry["session"], entry["level"]) == ("two\nlines", 7, "warning")
    assert entry["timestamp"].endswith("Z")


def test_elsewhere_than_on_a_terminal_auto_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="auto"))
    structlog.get_logger().info("hello")
    assert orjson.loads(capsys.readouterr().err)["event"] == "hello"


def test_on_a_terminal_auto_is_readable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    logs.configure(LogSettings(format="auto"))
    structlog.get_logger().info("hello")
    line = capsys.readouterr().err
    assert "hello" in line
    assert not line.startswith("{")


def test_the_console_form_can_be_asked_for_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="console"))
    structlog.get_logger().info("hello", worker=1)
    assert not capsys.readouterr().err.startswith("{")


@pytest.mark.parametrize(("level", "lines"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_below_the_level_is_not_written(level: str, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(level=level, format="json"))  # type: ignore[arg-type]  # the parameter is one of them
    log = structlog.get_logger()
    log.debug("1")
    log.info("2")
    log.warning("3")
    log.error("4")
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_another_configuration_holds_for_loggers_that_exist_already(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(level="error", format="json"))
    log = structlog.get_logger()
    log.info("unheard")
    logs.configure(LogSettings(level="info", format="json"))
    log.info("heard")
    assert [orjson.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["heard"]


def test_an_exception_is_text_within_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    structlog.get_logger().error("broken", exc_info=ValueError("why"))
    [line] = capsys.readouterr().err.splitlines()
    assert "ValueError: why" in orjson.loads(line)["exception"]


class Unspeakable:
    """A value whose `repr` fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no name")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_that_cannot_be_made_costs_that_line_alone(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format=form))  # type: ignore[arg-type]  # the parameter is one of them
    log = structlog.get_logger()
    log.info("before", value=Unspeakable())
    log.info("after")
    first, second = capsys.readouterr().err.splitlines()
    assert orjson.loads(first) == {"event": "a log line could not be made", "level": "error", "error": "RuntimeError"}
    assert "after" in second


def test_what_libraries_log_has_the_form_of_our_own_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    logs.configure(LogSettings(format="json"))
    logging.getLogger("asyncio").warning("socket.send() raised %s", "exception")
    logging.getLogger("asyncio").info("not worth a line")
    logging.getLogger("asyncio").error("bad", exc_info=ValueError("why"))
    first, second = map(orjson.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["logger"], first["level"]) == ("socket.send() raised exception", "asyncio", "warning")
    assert second["level"] == "error"
    assert "ValueError: why" in second["exception"]


def test_lost_lines_are_counted_while_the_engine_runs() -> None:
    assert logs.lost_lines() == 0
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", stdio.loud(full.fileno(), "utf-8"))
        with outlets(lambda _cause: None):
            logs.configure(LogSettings(format="json"))
            structlog.get_logger().warning("lost")
            structlog.get_logger().warning("as well")
            for _ in range(1000):
                if logs.lost_lines() == 2:
                    break
                sleep(0.01)
            assert logs.lost_lines() == 2


@pytest.mark.parametrize(
    ("variables", "is_colourful"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_whose_users_want_them(
    variables: dict[str, str], *, is_colourful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    logs.configure(LogSettings(format="console"))
    structlog.get_logger().info("hello", key="value")
    assert ("\x1b[" in terminal.getvalue()) == is_colourful
    monkeypatch.setattr("sys.stderr", plain := io.StringIO())
    logs.configure(LogSettings(format="console"))
    structlog.get_logger().info("hello", key="value")
    assert "\x1b[" not in plain.getvalue()


def test_a_file_gets_the_lines_instead_of_stderr_and_is_opened_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    logs.configure(LogSettings(file=str(path)))
    structlog.get_logger().info("one")
    logs.finish()
    logs.configure(LogSettings(file=str(path)))
    path.rename(tmp_path / "moved")
    logs.reopen()
    # Back on stderr.
    logs.configure(LogSettings())
    structlog.get_logger().info("three")
    logs.finish()
    wait_for(path)
    assert [orjson.loads(line)["event"] for line in path.read_text().splitlines()] == ["the log was opened again"]
    assert [orjson.loads(line)["event"] for line in (tmp_path / "moved").read_text().splitlines()] == ["one"]
    assert [orjson.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["three"]


def wait_for(path: Path) -> None:
    """Wait until a thread has written a file."""
    for _ in range(1000):
        if path.exists() and path.stat().st_size:
            return
        sleep(0.01)
    pytest.fail("nothing was written")


def test_lines_that_the_file_loses_are_counted_and_a_place_that_cannot_be_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    logs.configure(LogSettings(file=str(folder / "log")))
    before = logs.lost_lines()
    folder.rmdir()
    for _ in range(3):
        structlog.get_logger().info("lost")
    for _ in range(1000):
        if logs.lost_lines() == before + 3:
            break
        sleep(0.01)
    assert logs.lost_lines() == before + 3
    folder.mkdir()
    with pytest.raises(ConfigError):
        logs.configure(LogSettings(file=str(tmp_path)))
    structlog.get_logger().info("found")
    logs.finish()
    assert orjson.loads((folder / "log").read_text())["event"] == "found"
    assert logs.lost_lines() == before + 3


def test_in_the_journal_each_line_has_its_priority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.configure(LogSettings(level="debug", format="json"))
        log = structlog.get_logger()
        for level in ("debug", "info", "warning", "error"):
            getattr(log, level)("words")
        # Every line of a traceback in the readable form is one of the journal's.
        logs.configure(LogSettings(format="console"))
        log.error("broken", exc_info=ValueError("why"))
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
        logs.configure(LogSettings(format="json"))
        log.info("plain")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:4] for line in lines[:4]] == ["<7>{", "<6>{", "<4>{", "<3>{"]
    assert {line[:3] for line in lines[4:-1]} == {"<3>"}
    assert len(lines) > 6
    assert lines[-1].startswith("{")
