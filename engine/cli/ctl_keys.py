"""`rlpx-ctl keys`: manages the users of an engine's TCP endpoints. It edits the folder of keys and needs no engine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta

from rlpx.engine.cli.ctl_text import table
from rlpx.engine.cli.terminal import Arguments, Directory, as_json, fail, typed
from rlpx.engine.settings.load import default_file, load
from rlpx.engine.settings.user_keys import NAME, RIGHTS, Right, UserFile, keys_folder, listed_keys, make_key, remove_key
from rlpx.protocol.bus.places import user_path
from rlpx.protocol.mistakes import ConfigError

KEYS: Final = "keys"
ACTIONS: Final = ("list", "new", "remove")

KeyName = Annotated[
    str,
    Meta(
        pattern=f"^{NAME.pattern}$",
        title="a name of up to 64 letters, digits, dots, hyphens and underscores",
        examples=["monitor-1"],
    ),
]


def add_keys(arguments: Arguments) -> None:
    """Add the arguments of `keys`."""
    arguments.add_argument("action", metavar="ACTION", choices=ACTIONS, help="list, new or remove")
    arguments.add_argument("name", metavar="NAME", nargs="?", type=typed(KeyName), help="of the user")
    arguments.add_argument(
        "--rights", metavar="LIST", type=_rights, default=["events"], help="events, control, or both (default: events)"
    )
    arguments.add_argument("--out", metavar="FILE", help="where the key for the user's program goes (default: NAME.secret)")
    arguments.add_argument(
        "--keys-dir",
        metavar="DIR",
        type=typed(Directory),
        help="the folder of keys (default: as curve.keys_dir says)",
    )


def carry_out(program: str, arguments: Arguments, given: argparse.Namespace) -> None:
    """Carry out the command and report on stdout. Ends the program if it cannot be done."""
    if given.action == "list" and given.name is not None:
        arguments.error("NAME: not allowed with list")
    if given.action != "list" and given.name is None:
        arguments.error(f"NAME: {given.action} needs one")
    try:
        folder = _folder(given.keys_dir)
        if given.action == "list":
            sys.stdout.write(_listed(folder, is_json=given.json))
        elif given.action == "new":
            out = user_path(given.out or f"{given.name}.secret")
            make_key(folder, given.name, given.rights, out)
            said = {"name": given.name, "rights": given.rights, "key": str(out.absolute())}
            rights = " and ".join(given.rights)
            words = f"{given.name} may use {rights}; its key is {out.absolute()}: move it to where its program is\n"
            sys.stdout.write(as_json(said) + "\n" if given.json else words)
        else:
            remove_key(folder, given.name)
            sys.stdout.write(as_json({"removed": given.name}) + "\n" if given.json else f"{given.name} was removed\n")
    except ConfigError as error:
        fail(program, str(error), error.exit_code)


def _folder(given: str | None) -> Path:
    if given is not None:
        return user_path(given)
    settings = load({}, os.environ, default_file(os.environ)).settings
    return keys_folder(settings.curve.keys_dir, os.environ)


def _listed(folder: Path, *, is_json: bool) -> str:
    found = listed_keys(folder)
    if is_json:
        rows: list[dict[str, Any]] = []
        for name, user in found.items():
            if isinstance(user, UserFile):
                rows.append({"name": name, "rights": user.rights, "public": user.public})
            else:
                rows.append({"name": name, "problem": user})
        return as_json(rows, indent=2) + "\n"
    lines = [["name", "rights", "public"]]
    for name, user in found.items():
        lines.append([name, " ".join(user.rights), user.public] if isinstance(user, UserFile) else [name, "-", user])
    return table(lines)


def _rights(text: str) -> list[Right]:
    """Read a list of rights, `events,control`. Raises `argparse.ArgumentTypeError`."""
    named = [part.strip() for part in text.split(",")]
    found: list[Right] = [right for right in RIGHTS if right in named]
    if not found or len(found) != len(set(named)):
        raise argparse.ArgumentTypeError(f"expected events, control or events,control; got {text!r}")
    return found
