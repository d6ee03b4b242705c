"""`rlpx-ctl`: sends one command to the engine and writes its answer to stdout.

A mistake that can be found without an engine is reported before one is asked, with the engine's own error.
"""

from __future__ import annotations

if __name__ == "__main__":
    from rlpx.engine.process import start

    start.ctl()

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from rlpx.engine.cli.command_arguments import add_parameters, described_by
from rlpx.engine.cli.completion import add_completion
from rlpx.engine.cli.ctl_cluster import HOSTS, OPTIONS, Asked, add_cluster, carry_out_in_fleet, check_cluster
from rlpx.engine.cli.ctl_keys import KEYS, add_keys, carry_out
from rlpx.engine.cli.ctl_text import as_text
from rlpx.engine.cli.terminal import (
    Arguments,
    actions_of,
    add_connection,
    add_version,
    as_json,
    check_connection,
    fail,
    is_terminal,
    reaching,
)
from rlpx.engine.client.client import CALL_TIMEOUT_SECONDS, Client
from rlpx.engine.client.presence import EngineError, check_there
from rlpx.engine.hub.arguments import check
from rlpx.engine.ledger.addresses import parse_address
from rlpx.engine.overview.follower import Place
from rlpx.protocol.bus.commands import COMMANDS
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.values import PeerId
from rlpx.protocol.mistakes import EXIT_ERROR_ANSWER
from rlpx.protocol.rlpx.enode import EnodeError, parse_enode
from rlpx.protocol.wording import Expected, convert, wrong

PROGRAM: Final = "rlpx-ctl"
# A dial that waits may take the whole pending timeout and a little more, and new workers half a minute. A restart takes the
# drain time for each worker.
WAIT_SECONDS: Final = {"dial": 60.0, "set-workers": 60.0, "restart-workers": 86_400.0}
_PEER: Final = Expected("a peer id of 128 hex digits or an enode URL", "enode://d860a01f...98ee@203.0.113.7:30303")
_WHO: Final = Expected("a peer id of 128 hex digits, an enode URL or an IP address", "203.0.113.7")
_ID_DIGITS: Final = 128
# Arguments of this type may be an enode as well.
_PEER_TITLE: Final = described_by(PeerId).title
TOP: Final = "top"
# The command whose answer is always JSON.
DISCOVER: Final = "discover"


def parser() -> Arguments:
    """All commands with their arguments, as `rlpx.protocol.bus.commands` declares them, and `keys`."""
    arguments = Arguments(prog=PROGRAM, description="Ask and command a running rlpx-engine.")
    add_version(arguments)
    add_completion(arguments)
    add_connection(arguments)
    add_cluster(arguments)
    found = arguments.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for declared in COMMANDS.values():
        summary = declared.summary.rstrip(".")
        made = found.add_parser(
            declared.name, help=summary[:1].lower() + summary[1:], description=declared.text.replace("%", "%%")
        )
        add_connection(made, is_command=True)
        add_cluster(made, is_command=True)
        add_parameters(made, declared.parameters, {_PEER_TITLE: _read_peer})
    found.choices["ban"].add_argument(
        "who", metavar="WHO", nargs="?", type=_read_who, help="a peer id, an enode or an IP address"
    )
    hosts = found.add_parser(HOSTS, help="the hosts of a fleet, with --cluster", description="List the hosts of a fleet.")
    add_connection(hosts, is_command=True)
    add_cluster(hosts, is_command=True)
    keys = found.add_parser(KEYS, help="who may use the TCP endpoints: list, new NAME, remove NAME; asks no engine")
    add_connection(keys, is_command=True)
    add_cluster(keys, is_command=True)
    add_keys(keys)
    top = found.add_parser(TOP, help="show sessions, rates, workers and the last ends, live; keys act on a session")
    add_connection(top, is_command=True)
    top.add_argument(
        "--events", metavar="ENDPOINT", help="the endpoint for events, if it is not the port after that of --connect"
    )
    return arguments


def _read_peer(text: str) -> str:
    """Read the id of a peer, or its enode. Raises `argparse.ArgumentTypeError`."""
    try:
        return _peer_id(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(wrong(text, _PEER, str(error))) from error


def _read_who(text: str) -> dict[str, str]:
    """Read a peer or an address; returns the parameter for it. Raises `argparse.ArgumentTypeError`."""
    try:
        if text.startswith(("enode:", "enr:")) or len(text.removeprefix("0x")) == _ID_DIGITS:
            return {"peer": _peer_id(text)}
        parse_address(text)
    except EnodeError as error:
        raise argparse.ArgumentTypeError(wrong(text, _WHO, str(error))) from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(wrong(text, _WHO)) from error
    return {"address": text}


def _peer_id(text: str) -> str:
    """The 128 hex digits of an id, in lower case. Raises `ValueError`."""
    if text.startswith(("enode:", "enr:")):
        return parse_enode(text).id.hex()
    digits = text.removeprefix("0x").lower()
    if len(digits) != _ID_DIGITS:
        raise ValueError(f"it has {len(digits)} digits")
    if any(digit not in "0123456789abcdef" for digit in digits):
        raise ValueError("it is not hex")
    return digits


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    all_arguments = parser()
    namespace = all_arguments.parse_args(arguments)
    check_connection(all_arguments, namespace)
    check_cluster(all_arguments, namespace)
    if namespace.command == KEYS:
        carry_out(PROGRAM, all_arguments.command(KEYS), namespace)
        return
    if namespace.command == TOP:
        _show_top(all_arguments, namespace)
        return
    given = vars(namespace)
    command, is_json = given.pop("command"), given.pop("json")
    run_dir, endpoint, key = given.pop("run_dir"), given.pop("connect"), given.pop("key")
    options = {name: given.pop(name) for name in OPTIONS}
    parameters = {} if command == HOSTS else _parameters(all_arguments, command, given)
    waits = parameters.get("wait", command == "set-workers")
    seconds = WAIT_SECONDS[command] if waits else CALL_TIMEOUT_SECONDS
    asked = Asked(PROGRAM, options, command, parameters, seconds, is_json)
    if options["cluster"] is not None:
        carry_out_in_fleet(asked)
        return
    with reaching(all_arguments):
        made = (
            Client(endpoint, timeout_seconds=seconds, key=key) if endpoint else Client.of(run_dir, timeout_seconds=seconds)
        )
        with made as client:
            result = _result(client, asked)
    if is_json or command == DISCOVER:
        _write_json(result)
    else:
        sys.stdout.write(as_text(command, result))


def _result(client: Client, asked: Asked) -> Any:  # noqa: ANN401 - any JSON value
    """The result of a command. Ends the program if the engine answers with an error."""
    try:
        return client.call(asked.command, **asked.parameters)
    except EngineError as error:
        if asked.is_json:
            _write_json({"error": {"name": error.name, "message": str(error), "code": error.code}})
            sys.exit(EXIT_ERROR_ANSWER)
        fail(PROGRAM, f"{error.name}: {error}", EXIT_ERROR_ANSWER)


def _show_top(arguments: Arguments, given: argparse.Namespace) -> None:
    """Show the engine at this terminal. Ends the program if there is none, or no engine."""
    if not is_terminal():
        arguments.command(TOP).error("it needs a terminal; `rlpx-ctl status --json` is for programs")
    try:
        from rlpx.engine.cli.top import run  # noqa: PLC0415 - Textual is optional, and large
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] == "rlpx":
            raise
        fail(PROGRAM, f"{error.name} is not installed: pip install 'rlpx-engine[top]'", os.EX_UNAVAILABLE)
    with reaching(arguments):
        place = Place.of(given.run_dir, given.connect, given.events, given.key)
        check_there(place.control)
    run(place)


def _parameters(arguments: Arguments, command: str, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the request. Ends the program if no engine could carry it out."""
    who = given.pop("who", None) or {}
    for name, value in who.items():
        if given.get(name) is not None:
            _refuse(arguments.command(command), f"--{name}: not allowed with WHO")
        given[name] = value
    parameters = {name: value for name, value in given.items() if value is not None}
    try:
        check(convert(parameters, COMMANDS[command].parameters))
    except CommandError as error:
        _refuse(arguments.command(command), str(error))
    return parameters


def _refuse(arguments: Arguments, message: str) -> NoReturn:
    """End the program as argparse does, and name the argument as the user knows it."""
    name, colon, rest = message.partition(": ")
    for action in actions_of(arguments):
        if colon and action.dest == name:
            message = f"{action.option_strings[0] if action.option_strings else action.metavar}: {rest}"
    arguments.error(message)


def _write_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    sys.stdout.write(as_json(value, indent=2) + "\n")
