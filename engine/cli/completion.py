"""`--completion SHELL`: prints the completion script of a shell, made from the program's own parser.

The script contains the names of messages, reasons, topics and chains of this version.
"""

from __future__ import annotations

import argparse
import enum
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from rlpx.engine.cli.completion_scripts import DIRECTORIES, FILES, SHELLS, Command, Option, Program, Values, script
from rlpx.engine.cli.terminal import actions_of, commands_of
from rlpx.engine.client.topics import KNOWN
from rlpx.engine.settings.conf import chain_names, scenario_names
from rlpx.engine.settings.fields import setting_fields
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.kinds import message_names
from rlpx.protocol.wording import item_of


class _Print(argparse.Action):
    """The action of the option: print the script and end the program."""

    def __call__(
        self, parser: argparse.ArgumentParser, _namespace: object, values: str | Sequence[Any] | None, _option: object = None
    ) -> None:
        sys.stdout.write(script(program_of(parser), str(values)))
        parser.exit()


def add_completion(arguments: argparse.ArgumentParser) -> None:
    """Add `--completion SHELL`."""
    arguments.add_argument(
        "--completion",
        metavar="SHELL",
        choices=SHELLS,
        action=_Print,
        help="print what a shell needs to complete this program's command line: bash, zsh or fish",
    )


# -- from a parser ----------------------------------------------------------------------------------------------------------


def program_of(arguments: argparse.ArgumentParser) -> Program:
    """The program as its parser describes it."""
    commands = (_command(name, text, parser) for name, (text, parser) in commands_of(arguments).items())
    return Program(arguments.prog, _command("", "", arguments), tuple(commands))


def _command(name: str, text: str, arguments: argparse.ArgumentParser) -> Command:
    options: list[Option] = []
    places: list[Values] = []
    repeats = False
    for action in actions_of(arguments):
        if action.option_strings:
            values = None if action.nargs == 0 else _values(action)
            options.append(Option(tuple(action.option_strings), _in_short(action.help), values))
        else:
            places.append(_values(action))
            # argparse up to 3.12 keeps the number here while it parses options between arguments.
            repeats = getattr(action, "save_nargs", action.nargs) in ("*", "+")
    return Command(name, _in_short(text), tuple(options), tuple(places), repeats)


def _in_short(text: str | None) -> str:
    """The first sentence of a help text, without its default, for one row of a list."""
    return (text or "").partition(" (default")[0].partition(". ")[0].partition("; ")[0].replace("%%", "%").rstrip(".")


def _values(action: argparse.Action) -> Values:
    metavar = str(action.metavar or "")
    paths = DIRECTORIES if metavar == "DIR" else FILES if metavar.endswith("FILE") else ""
    if action.choices is not None:
        return Values(tuple(map(str, action.choices)), paths)
    named = _named_values(action.dest)
    if named is not None:
        return named
    kind = action.type.args[0] if isinstance(action.type, partial) else None
    return Values(tuple(_literals(kind)), paths)


def _named_values(name: str) -> Values | None:
    """The values of an argument with this name, if its type does not list them."""
    versions = [f"{language.NAME}/{version}" for language in (eth, snap) for version in language.VERSIONS]
    by_name = {
        "capability": lambda: Values((eth.NAME, snap.NAME)),
        "chain": lambda: Values(tuple(chain_names()), FILES),
        "conf": lambda: Values((), FILES),
        "message": lambda: Values(tuple(sorted({*message_names(eth.NAME), *message_names(snap.NAME)}))),
        "node_key": lambda: Values((), FILES),
        "reason": lambda: Values(tuple(reason.label for reason in DisconnectReason)),
        "run_dir": lambda: Values((), DIRECTORIES),
        "scenario": lambda: Values(tuple(scenario_names()), FILES),
        "shared": lambda: Values(tuple(versions)),
        "topics": lambda: Values(tuple(sorted({*KNOWN, *(topic.partition(".")[0] + "." for topic in KNOWN)}))),
    }
    if name in by_name:
        return by_name[name]()
    setting = next((item for item in setting_fields() if item.key == name), None)
    return None if setting is None else Values(tuple(_literals(item_of(setting.kind) if setting.is_list else setting.kind)))


def _literals(kind: Any) -> Iterator[str]:  # noqa: ANN401 - any type
    """The values that a type allows, if it allows only a few."""
    while hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    if kind is bool:
        yield from ("true", "false")
    elif get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    elif get_origin(kind) in (Union, UnionType):
        for part in get_args(kind):
            yield from _literals(part)
    elif isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        yield from (str(item) for item in kind)
