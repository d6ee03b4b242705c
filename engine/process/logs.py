"""The engine's log: readable text on a terminal, JSON lines elsewhere; on stderr or in a file. Workers have none.

A handler acts first and logs last. If a line cannot be made or written, only that line is lost.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

from rlpx.engine.process.log_file import LogFile, check_log_file
from rlpx.engine.process.stdio import LAST_LINES_SECONDS, Outlet
from rlpx.engine.settings.settings import LogSettings


class _Rendering:
    """Runs structlog's processors up to a line of text. It never raises, whatever the values in the line."""

    def __init__(self, steps: Sequence[Processor]) -> None:
        self._steps = steps

    def __call__(self, logger: object, name: str, event: EventDict) -> str:
        line: Any = event
        try:
            for step in self._steps:
                line = step(logger, name, line)
        except Exception as error:  # noqa: BLE001 - values come from anywhere, and must not make logging fail
            line = json.dumps({"event": "a log line could not be made", "level": "error", "error": type(error).__name__})
        return str(line)


# The priorities of syslog(3), which a journal takes from the beginning of a line (sd-daemon(3)).
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


class _Place:
    """Where lines go: to the current stderr, which is an `Outlet` while the engine runs, or to a file of our own."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._file: LogFile | None = None
        self._outlet: Outlet | None = None
        self._limits = (0, 0)
        self._has_priorities = False
        # The lines that files written earlier have lost.
        self._lost_lines = 0

    def use(self, path: Path | None, max_bytes: int, keep: int) -> None:
        """Write to this file, or to stderr, from now on."""
        self._has_priorities = path is None and is_journal(sys.stderr, os.environ)
        if (path, (max_bytes, keep)) == (self.path, self._limits):
            return
        self.leave(0.0)
        self.path, self._limits = path, (max_bytes, keep)
        if path is not None:
            self._file = LogFile(path, max_bytes, keep)
            self._outlet = Outlet(cast("TextIO", self._file), closes_stream=True)

    def leave(self, seconds: float) -> None:
        """Write to stderr from now on; the lines that wait for the file have this long before we go on."""
        if self._outlet is not None:
            self._outlet.finish(seconds)
            self._lost_lines += self._outlet.lost_lines
        self.path, self._file, self._outlet = None, None, None

    def reopen(self) -> None:
        """Open the file by its name again."""
        if self._file is not None:
            self._file.reopen()

    def write(self, level: str, line: str) -> None:
        """Write one line."""
        if self._has_priorities:
            # Every line of a text is an entry of its own in the journal.
            mark = f"<{_PRIORITIES[level]}>"
            line = mark + line.replace("\n", f"\n{mark}")
        (self._outlet or sys.stderr).write(line + "\n")

    @property
    def lost_lines(self) -> int:
        """The number of lines that could not be written."""
        of_stderr = sys.stderr.lost_lines if isinstance(sys.stderr, Outlet) else 0
        of_file = self._outlet.lost_lines if self._outlet is not None else 0
        return of_stderr + of_file + self._lost_lines


_PLACE: Final = _Place()


class _Lines:
    """Writes structlog's lines."""

    def debug(self, line: str) -> None:
        """Write one line of this level."""
        _PLACE.write("debug", line)

    def info(self, line: str) -> None:
        """Write one line of this level."""
        _PLACE.write("info", line)

    def warning(self, line: str) -> None:
        """Write one line of this level."""
        _PLACE.write("warning", line)

    def error(self, line: str) -> None:
        """Write one line of this level."""
        _PLACE.write("error", line)

    def critical(self, line: str) -> None:
        """Write one line of this level."""
        _PLACE.write("critical", line)


class _Libraries(logging.Handler):
    """Writes the log records of libraries, such as asyncio, in the form of our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        write = structlog.get_logger().error if record.levelno >= logging.ERROR else structlog.get_logger().warning
        write(record.getMessage(), logger=record.name, exc_info=record.exc_info or None)


_LIBRARIES: Final = _Libraries(logging.WARNING)


def configure(settings: LogSettings) -> None:
    """Write the log as the settings say: place, form, lowest level. Raises `ConfigError`; then nothing changes."""
    _PLACE.use(check_log_file(settings.file) if settings.file else None, settings.max_bytes, settings.keep)
    is_terminal = not settings.file and sys.stderr.isatty()
    is_console = settings.format == "console" or (settings.format == "auto" and is_terminal)
    colors = not settings.file and has_colors()
    renderer: Any = structlog.dev.ConsoleRenderer(colors=colors) if is_console else structlog.processors.JSONRenderer()
    steps: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        renderer,
    ]
    structlog.configure(
        processors=[_Rendering(steps)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,
    )
    logging.getLogger().addHandler(_LIBRARIES)


def has_colors() -> bool:
    """Whether stderr is a terminal with colours that its user has not turned off (no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def reopen() -> None:
    """Open the log's file by its name again, because another program has moved it, and write a line there."""
    _PLACE.reopen()
    structlog.get_logger().info("the log was opened again", file=str(_PLACE.path or "stderr"))


def finish() -> None:
    """Write what still waits for the log's file, for a limited time. Later lines go to stderr."""
    _PLACE.leave(LAST_LINES_SECONDS)


def is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether the stream leads to systemd's journal, whose device and inode `JOURNAL_STREAM` names (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def lost_lines() -> int:
    """Return the number of the running engine's log lines that could not be written."""
    return _PLACE.lost_lines
