"""`rlpx-ctl`: one command to the engine, its answer on stdout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from engine.client import CALL_TIMEOUT_SECONDS, Client, EngineError, EngineUnavailableError
from engine.config import EXIT_ERROR_ANSWER, EXIT_UNAVAILABLE, EXIT_USAGE, ConfigError
from engine.terminal import Arguments, add_connection, as_json, fail, shown

PROGRAM: Final = "rlpx-ctl"
# A dial that waits may take the whole pending time and a little more.
DIAL_WAIT_SECONDS: Final = 60.0
_ID_CHARACTERS: Final = 16


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    arguments = Arguments(prog=PROGRAM, description="Ask and command a running rlpx-engine.")
    add_connection(arguments)
    commands = arguments.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, words in (
        ("status", "version, identity, workers, counts"),
        ("peers", "static and trusted peers, and bans"),
        ("subprotocols", "what every new handshake offers"),
        ("counts", "pending and active sessions, and their limits"),
        ("discover", "the OpenRPC document of all commands"),
        ("shutdown", "goodbye to every peer, then the end"),
    ):
        commands.add_parser(name, help=words)
    sessions = commands.add_parser("sessions", help="the sessions, filtered")
    _add_filter(sessions)
    sessions.add_argument("--limit", type=int)
    session = commands.add_parser("session", help="one session")
    session.add_argument("session", type=int, metavar="ID")
    dial = commands.add_parser("dial", help="connect to a peer")
    dial.add_argument("enode", metavar="ENODE")
    dial.add_argument("--wait", action="store_true", help="until it is established or has failed")
    disconnect = commands.add_parser("disconnect", help="end a session politely")
    disconnect.add_argument("session", type=int, metavar="ID")
    disconnect.add_argument("--reason", metavar="NAME", help="disconnect_requested, too_many_peers, useless_peer, …")
    disconnect_all = commands.add_parser("disconnect-all", help="end all sessions politely")
    disconnect_all.add_argument("--reason", metavar="NAME")
    for name, words in (
        ("send", "send one message to one peer"),
        ("request", "send one request to one peer, and print its answer"),
    ):
        send = commands.add_parser(name, help=words)
        send.add_argument("session", type=int, metavar="ID")
        _add_message(send)
        if name == "request":
            send.add_argument("--timeout", dest="timeout_s", type=float, metavar="S", help="seconds to wait, up to 25")
    broadcast = commands.add_parser("broadcast", help="send one message to every active session that matches")
    _add_message(broadcast)
    _add_filter(broadcast)
    status = commands.add_parser("set-status", help="announce another head in new handshakes")
    status.add_argument("number", type=int)
    status.add_argument("hash")
    status.add_argument("--time", type=int, help="the head's time; without it fork rules follow the wall clock")
    status.add_argument("--earliest", type=int)
    status.add_argument("--total-difficulty")
    add = commands.add_parser("peers-add", help="keep a peer connected, or let it pass the limits")
    add.add_argument("enode", metavar="ENODE")
    add.add_argument("--trusted", action="store_true", default=None, help="it passes the limits")
    add.add_argument("--no-static", dest="static", action="store_false", default=None, help="do not dial it")
    remove = commands.add_parser("peers-remove", help="a peer is static and trusted no more")
    remove.add_argument("peer", metavar="ID")
    ban = commands.add_parser("ban", help="keep a peer or an address out; --seconds 0 lets it in again")
    ban.add_argument("--peer", metavar="ID")
    ban.add_argument("--address", metavar="IP")
    ban.add_argument("--seconds", type=float, help="default: 12 h")
    limits = commands.add_parser("set-limits", help="change limits while running")
    for way in ("pending-inbound", "pending-outbound", "active-inbound", "active-outbound"):
        limits.add_argument(f"--max-{way}", type=int)
    history = commands.add_parser("history", help="the last ended sessions and attempts")
    history.add_argument("--limit", type=int)
    _add_live(commands)
    return arguments


def _add_live(commands: argparse._SubParsersAction[Arguments]) -> None:
    """What changes a running engine."""
    add = commands.add_parser("subprotocols-add", help="offer a sub-protocol of your own in new handshakes")
    add.add_argument("protocol", metavar="NAME/VERSION/MESSAGES[/MAX_BYTES]")
    add.add_argument("--required", action="store_true", default=None, help="refuse peers that do not share its name")
    remove = commands.add_parser("subprotocols-remove", help="offer a sub-protocol no more")
    remove.add_argument("protocol", metavar="NAME/VERSION")
    level = commands.add_parser("log-level", help="write log lines of this level and above")
    level.add_argument("level", metavar="debug|info|warning|error")


def _add_message(command: argparse.ArgumentParser) -> None:
    command.add_argument("capability", metavar="CAPABILITY", help="eth or snap")
    command.add_argument("message", metavar="MESSAGE", help="its name or its id within the capability")
    command.add_argument("payload", metavar="PAYLOAD", help="RLP, 0x and hex")


def _add_filter(command: argparse.ArgumentParser) -> None:
    command.add_argument("--direction", choices=("inbound", "outbound"))
    command.add_argument("--phase", choices=("pending", "active"))
    command.add_argument("--worker", type=int)
    command.add_argument("--peer", help="beginning of the peer's id")
    command.add_argument("--client", help="part of the client's name")
    command.add_argument("--shared", help="a shared capability, eth/69")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    given = vars(parser().parse_args(arguments))
    command, as_json = given.pop("command"), given.pop("json")
    run_dir, endpoint = given.pop("run_dir"), given.pop("connect")
    parameters = {name: value for name, value in given.items() if value is not None}
    seconds = DIAL_WAIT_SECONDS if parameters.get("wait") else CALL_TIMEOUT_SECONDS
    try:
        client = Client(endpoint, timeout_seconds=seconds) if endpoint else Client.of(run_dir, timeout_seconds=seconds)
        with client:
            result = client.call(command, **parameters)
    except orjson.JSONEncodeError as error:
        fail(PROGRAM, f"an argument that no request can carry: {error}", EXIT_USAGE)
    except ConfigError as error:
        fail(PROGRAM, str(error), error.exit_code)
    except EngineUnavailableError as error:
        fail(PROGRAM, str(error), EXIT_UNAVAILABLE)
    except EngineError as error:
        if as_json:
            _write_json({"error": {"name": error.name, "message": str(error), "code": error.code}})
            sys.exit(EXIT_ERROR_ANSWER)
        fail(PROGRAM, f"{error.name}: {error}", EXIT_ERROR_ANSWER)
    if as_json or command == "discover":
        _write_json(result)
    else:
        sys.stdout.write(_SHOWN[command](result) if command in _SHOWN else _fields(result))


def _write_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    sys.stdout.write(as_json(value, indent=2) + "\n")


def _fields(result: dict[str, Any]) -> str:
    width = max(map(len, result), default=0)
    return "".join(f"{name:<{width}}  {shown(value)}\n" for name, value in result.items())


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _status(result: dict[str, Any]) -> str:
    workers = result.pop("workers")
    rows = [list(workers[0]), *([shown(value) for value in worker.values()] for worker in workers)]
    return _fields(result) + "\n" + _table(rows)


def _counts(result: dict[str, Any]) -> str:
    limits = result["limits"]
    rows = [["", "inbound", "outbound"]]
    for phase in ("pending", "active"):
        cells = [f"{result[phase][way]} of {limits[f'max_{phase}_{way}']}" for way in ("inbound", "outbound")]
        rows.append([phase, *cells])
    return _table(rows)


def _sessions(result: dict[str, Any]) -> str:
    rows = [["session", "peer", "direction", "stage", "worker", "remote", "client", "shared", "in", "out", "rtt_ms"]]
    for item in result["sessions"]:
        peer = (item["peer"] or "-")[:_ID_CHARACTERS]
        rest = (item[name] for name in ("remote", "client", "shared", "bytes_in", "bytes_out", "rtt_ms"))
        rows.append([str(item["session"]), peer, item["direction"], item["stage"], str(item["worker"]), *map(shown, rest)])
    return _table(rows) + f"{len(result['sessions'])} of {result['total']}\n"


def _history(result: list[dict[str, Any]]) -> str:
    rows = [["session", "peer", "direction", "stage", "ended_by", "reason", "cause", "client"]]
    for item in result:
        peer = (item["peer"] or "-")[:_ID_CHARACTERS]
        rest = (shown(item[name]) for name in ("direction", "stage", "ended_by", "reason", "cause", "client"))
        rows.append([str(item["session"]), peer, *rest])
    return _table(rows)


def _peers(result: dict[str, Any]) -> str:
    columns = ["peer", "static", "trusted", "next_try_s", "last_end"]
    rows = [columns]
    rows += [[shown(item[name]) for name in columns] for item in result["peers"]]
    bans = [["banned", "seconds"], *([item["who"], shown(item["seconds"])] for item in result["bans"])]
    return _table(rows) + "\n" + _table(bans)


def _subprotocols(result: dict[str, Any]) -> str:
    rows = [["protocol", "messages", "max_bytes", "required"]]
    for item in result["offered"]:
        is_required = item["protocol"].partition("/")[0] in result["required"]
        rows.append([shown(cell) for cell in (item["protocol"], item["messages"], item["max_bytes"], is_required)])
    return _table(rows)


_SHOWN: Final[dict[str, Callable[[Any], str]]] = {
    "status": _status,
    "counts": _counts,
    "set-limits": _counts,
    "peers": _peers,
    "peers-add": _peers,
    "peers-remove": _peers,
    "sessions": _sessions,
    "subprotocols": _subprotocols,
    "history": _history,
}


if __name__ == "__main__":
    main()
