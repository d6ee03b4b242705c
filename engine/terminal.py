"""What the command line tools have in common: flags that say where the engine is, exit codes, and how values look."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final, NoReturn

from engine.config import EXIT_USAGE
from protocol.errors import printable

# Longer than any value that is meant to be read.
SHOWN_CHARACTERS: Final = 4096


class Arguments(argparse.ArgumentParser):
    """argparse with the exit code of sysexits for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """One line, and the way to more."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (--help says more)\n")


def add_connection(arguments: argparse.ArgumentParser) -> None:
    """`--run-dir` or `--connect`, and `--json`."""
    where = arguments.add_mutually_exclusive_group()
    where.add_argument("--run-dir", metavar="DIR", help="the engine's run directory (default: the engine's own default)")
    where.add_argument("--connect", metavar="ENDPOINT", help="a ZeroMQ endpoint instead, tcp://127.0.0.1:PORT")
    arguments.add_argument("--json", action="store_true", help="JSON instead of text")


def fail(program: str, message: str, exit_code: int) -> NoReturn:
    """Say why on stderr and end."""
    sys.stderr.write(f"{program}: {message}\n")
    sys.exit(exit_code)


def as_json(value: Any, indent: int | None = None) -> str:  # noqa: ANN401 - any JSON value
    """JSON in plain ASCII: on a terminal even a C1 control or a bidi mark in a peer's name is only its escape."""
    return json.dumps(value, indent=indent)


def shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """A JSON value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{key}={shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ",".join(shown(item) for item in value) or "-"
    # Much of it a peer has chosen: it must not move the cursor or begin a line.
    return printable(str(value), max_characters=SHOWN_CHARACTERS)
