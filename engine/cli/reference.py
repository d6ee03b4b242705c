"""README's tables of commands and events, and the client's methods, made from the declarations.

`python -m rlpx.engine.cli.reference README.md engine/client/commands.py` renews both in place; a test fails if they differ.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import msgspec

from rlpx.engine.cli.ctl import parser
from rlpx.engine.cli.ctl_cluster import OPTIONS
from rlpx.engine.cli.terminal import Arguments, actions_of
from rlpx.engine.cli.typed_methods import module_text
from rlpx.protocol.bus.commands import COMMANDS
from rlpx.protocol.bus.events import LIFECYCLE, MessageEvent, TapEvent

# If a command has more options than this, --help alone lists them.
SHOWN_OPTIONS: Final = 3
# Every event has these, or nearly every one.
_USUAL_FIELDS: Final = frozenset({"time_us", "session", "peer"})
_USUAL_ARGUMENTS: Final = frozenset({"help", "run_dir", "connect", "key", "json", *OPTIONS})
_MESSAGE_TOPICS: Final = "`eth.<Message>` · `snap.<Message>`"
_TAP_TOPICS: Final = "`tap.eth.<Message>` · `tap.snap.<Message>`"


def renewed(text: str) -> str:
    """README's text with both tables as declared now. Raises `ValueError` if a table's place is missing."""
    for name, table in (("commands", command_table()), ("events", event_table())):
        start, end = f"<!-- {name}: made from the declarations -->\n", f"<!-- {name}: end -->\n"
        before, found, rest = text.partition(start)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f"there is no {start.strip()} with {end.strip()} behind it")
        text = before + start + table + end + after
    return text


def command_table() -> str:
    """A row for each command: its command line for `rlpx-ctl`, and what it does."""
    arguments = parser()
    rows = (
        f"| `{_escaped(_usage(name, arguments.command(name)))}` | {_escaped(command.text)} |\n"
        for name, command in COMMANDS.items()
    )
    return "| command | does |\n|---|---|\n" + "".join(rows)


def event_table() -> str:
    """A row for each kind of event: its topics, when it is published, and its fields."""
    topics: dict[type[msgspec.Struct], list[str]] = {}
    for topic, kind in LIFECYCLE.items():
        topics.setdefault(kind, []).append(f"`{topic}`")
    rows = [(" · ".join(names), kind) for kind, names in topics.items()]
    rows += [(_MESSAGE_TOPICS, MessageEvent), (_TAP_TOPICS, TapEvent)]
    lines = (f"| {names} | {_fields(kind)} | {_escaped(_text(kind))} |\n" for names, kind in rows)
    return "| topic | fields beside `time_us`, `session`, `peer` | meaning |\n|---|---|---|\n" + "".join(lines)


def _usage(name: str, arguments: Arguments) -> str:
    """The command line of a command, without the options that every command takes."""
    options: list[str] = []
    places = [name]
    for action in actions_of(arguments):
        if action.dest in _USUAL_ARGUMENTS:
            continue
        if not action.option_strings:
            places.append(f"[{action.metavar}]" if action.nargs == "?" else f"{action.metavar}")
        else:
            value = "" if action.nargs == 0 else f" {action.metavar}"
            options.append(f"[{action.option_strings[0]}{value}]")
    return " ".join(places + (options if len(options) <= SHOWN_OPTIONS else ["[OPTIONS]"]))


def _fields(kind: type[msgspec.Struct]) -> str:
    return ", ".join(name for name in kind.__struct_fields__ if name not in _USUAL_FIELDS) or "-"


def _text(kind: type[msgspec.Struct]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _escaped(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def main(*paths: str) -> None:
    """Renew the tables of a page, or the methods of a Python file."""
    for file in map(Path, paths):
        text = module_text() if file.suffix == ".py" else renewed(file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
