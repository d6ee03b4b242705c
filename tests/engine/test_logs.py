"""The log goes to stderr, in the form and from the level that the settings say."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
import structlog

from engine import logs
from engine.settings import LogSettings


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    yield
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
