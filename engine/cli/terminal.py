"""The parts that the command lines share: parsing of arguments, finding the engine, exit codes, and how values are shown."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final, NoReturn

from msgspec import Meta

from rlpx.engine.client.presence import EndpointError, EngineUnavailableError
from rlpx.engine.process.version import VERSION
from rlpx.protocol.errors import printable
from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.wording import Expected, WrongValueError, convert, item_of, nearest, wrong

# The argument whose value is a command.
_Commands: Final = argparse._SubParsersAction  # noqa: SLF001 - argparse has no other name for it
# Longer than any value that a person reads.
SHOWN_CHARACTERS: Final = 4096

Directory = Annotated[str, Meta(min_length=1, title="a directory", examples=["/run/rlpx-engine"])]
SettingsFile = Annotated[str, Meta(min_length=1, title="a file", examples=["conf/engine.toml"])]
# A number of events, and a number of seconds.
Times = Annotated[int, Meta(ge=0, examples=[10])]
SomeSeconds = Annotated[float, Meta(ge=0, le=1e9, examples=[10])]


class Arguments(argparse.ArgumentParser):
    """argparse with full names only; it suggests the nearest name for a wrong one, and ends with `EX_USAGE`."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(**{"allow_abbrev": False, **settings})
        self._is_intermixing = False

    def parse_args(  # type: ignore[override]  # argparse has it as overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse all arguments. Ends the program if one is wrong."""
        texts = sys.argv[1:] if args is None else list(args)
        if self._subparsers is not None:
            self._check_options_before_command(texts)
        known, rest = self.parse_known_args(texts, namespace)
        if rest:
            self._refuse(next((item for item in rest if item.startswith("-")), rest[0]), known)
        return known

    def _check_options_before_command(self, texts: list[str]) -> None:
        """Refuse an unknown option. argparse would take its value for the command and complain about that."""
        index = 0
        while index < len(texts) and texts[index].startswith("-") and texts[index] != "--":
            action = self._option_string_actions.get(texts[index].partition("=")[0])
            if action is None:
                self._refuse(texts[index], None)
            index += 1 if "=" in texts[index] or action.nargs == 0 else 2

    def _refuse(self, argument: str, given: argparse.Namespace | None) -> NoReturn:
        name = argument.partition("=")[0]
        hint = nearest(name, self._option_names(given)) if name.startswith("-") else ""
        self.error(f"unrecognized arguments: {printable(name)}{hint}")

    def parse_known_args(  # type: ignore[override]  # argparse has it as overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, but allow options before and between optional arguments."""
        # argparse's own method for that calls this one, and does not support commands.
        if self._is_intermixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._is_intermixing = True
        try:
            return super().parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixing = False

    def _option_names(self, given: argparse.Namespace | None) -> list[str]:
        """The options of this parser and of the given command."""
        names = list(self._option_string_actions)
        if self._subparsers is not None and given is not None:
            names += self.command(given.command)._option_string_actions  # noqa: SLF001 - of the same class
        return names

    def command(self, name: str) -> Arguments:
        """The arguments of one command. Raises `KeyError` if there is no such command."""
        return commands_of(self)[name][1]

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - as argparse has it
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            words = nearest(str(value), known) or f"; there are {', '.join(known)}"
            raise argparse.ArgumentError(action, f"there is no '{printable(str(value))}'{words}")

    def error(self, message: str) -> NoReturn:
        """Write one line, with a pointer to --help, and end the program."""
        line = " ".join(message.removeprefix("argument ").split())
        self.exit(os.EX_USAGE, f"{self.prog}: {printable(line, SHOWN_CHARACTERS)} (--help says more)\n")


def actions_of(arguments: argparse.ArgumentParser) -> list[argparse.Action]:
    """All arguments of a parser but the one that is the command."""
    actions = arguments._actions  # noqa: SLF001 - argparse tells its arguments nowhere else
    return [action for action in actions if not isinstance(action, _Commands)]


def commands_of(arguments: argparse.ArgumentParser) -> dict[str, tuple[str, Arguments]]:
    """The help text and the arguments of each command, by its name; empty if there are no commands."""
    for action in arguments._actions:  # noqa: SLF001 - as above
        if isinstance(action, _Commands):
            helps = {item.dest: item.help or "" for item in action._choices_actions}  # noqa: SLF001 - as above
            return {name: (helps.get(name, ""), parser) for name, parser in action.choices.items()}
    return {}


def typed(kind: Any) -> partial[Any]:  # noqa: ANN401 - any type
    """A reader of arguments of this type, whose error says what is allowed. A list has commas. Its `args[0]` is the type."""
    return partial(_read, kind)


def _read(kind: Any, text: str) -> Any:  # noqa: ANN401 - any type, and a value of it
    try:
        text.encode()
        is_list = item_of(kind) is not kind
        return convert(text.split(",") if is_list else text, kind, strict=False)
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(wrong(text, Expected("text in UTF-8"))) from error
    except WrongValueError as error:
        raise argparse.ArgumentTypeError(error.reason) from error


def add_version(arguments: argparse.ArgumentParser) -> None:
    """Add `--version`."""
    arguments.add_argument("--version", action="version", version=f"{arguments.prog} {VERSION}")


def add_connection(arguments: argparse.ArgumentParser, *, is_command: bool = False) -> None:
    """Add `--run-dir`, `--connect`, `--key` and `--json`; commands get them as well, so that they may stand anywhere."""
    # An option before the command is kept unless it is repeated after it.
    unset: Any = argparse.SUPPRESS if is_command else None
    arguments.add_argument(
        "--run-dir",
        metavar="DIR",
        type=typed(Directory),
        default=unset,
        help="the engine's run directory (default: the engine's own default)",
    )
    arguments.add_argument(
        "--connect",
        metavar="ENDPOINT",
        default=unset,
        help="a ZeroMQ endpoint instead, tcp://127.0.0.1:PORT",
    )
    arguments.add_argument(
        "--key",
        metavar="FILE",
        default=unset,
        help="the key for a TCP endpoint, as `rlpx-ctl keys new` makes it",
    )
    arguments.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS if is_command else False, help="JSON instead of text"
    )


def check_connection(arguments: Arguments, given: argparse.Namespace) -> None:
    """Check that only one place of the engine is given, and what is for an endpoint only with one, else end the program."""
    if given.run_dir is not None and given.connect is not None:
        arguments.error("--connect: not allowed with --run-dir")
    if given.key is not None and given.connect is None:
        arguments.error("--key: only with --connect")
    if getattr(given, "events", None) is not None and given.connect is None:
        arguments.error("--events: only with --connect")


def is_terminal() -> bool:
    """Whether a person reads and types: stdin and stdout are a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def fail(program: str, message: str, exit_code: int) -> NoReturn:
    """Write the reason to stderr and end the program."""
    sys.stderr.write(f"{program}: {message}\n")
    sys.exit(exit_code)


@contextmanager
def reaching(arguments: Arguments) -> Iterator[None]:
    """End the program with one line if no engine is reached, if its name is wrong, or if a file that it needs is."""
    try:
        yield
    except EndpointError as error:
        arguments.error(f"--connect: {error}")
    except (ConfigError, EngineUnavailableError) as error:
        fail(arguments.prog, str(error), error.exit_code)


def as_json(value: Any, indent: int | None = None) -> str:  # noqa: ANN401 - any JSON value
    """JSON in plain ASCII, so that control characters and bidi marks in a peer's name reach a terminal only as escapes."""
    return json.dumps(value, indent=indent)


def shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """A JSON value as text for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key}={shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ",".join(shown(item) for item in value) or "-"
    # Peers choose much of this text: it must not move the cursor or begin a line.
    return printable(str(value), max_characters=SHOWN_CHARACTERS)
