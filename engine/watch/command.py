"""`rlpx-watch`: serves health checks, metrics and a page about a running engine over HTTP."""

from __future__ import annotations

import os

if __name__ == "__main__":
    from rlpx.engine.process import start

    start.watch()

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from rlpx.engine.cli.completion import add_completion
from rlpx.engine.cli.terminal import Arguments, Directory, add_version, check_connection, reaching, typed
from rlpx.engine.client.door import run_dir_endpoint
from rlpx.engine.client.presence import EngineForbiddenError, EngineUnavailableError, check_there
from rlpx.engine.overview.follower import Place
from rlpx.engine.process.companion import BACKLOG
from rlpx.engine.process.extras import require
from rlpx.engine.process.listening import listening
from rlpx.engine.settings.addresses import resolve
from rlpx.engine.settings.settings import ListenAddress
from rlpx.protocol.bus.places import run_dir_path, user_path
from rlpx.protocol.mistakes import ConfigError, bind_error
from rlpx.protocol.rlpx.host_port import format_host_port, parse_host_port
from rlpx.protocol.wording import expected_of, wrong

if TYPE_CHECKING:
    from aiohttp.web import Application

PROGRAM: Final = "rlpx-watch"
DEFAULT_LISTEN: Final = "127.0.0.1:9545"
_EPILOG: Final = (
    "It serves /metrics for Prometheus, and /healthz and /readyz, which answer 503 and the reasons if the engine does not "
    "answer or takes no sessions. It stays when the engine ends, and finds the next one."
)


def parser() -> Arguments:
    """All arguments."""
    arguments = Arguments(prog=PROGRAM, description="Serves the state of a running rlpx-engine over HTTP.", epilog=_EPILOG)
    add_version(arguments)
    add_completion(arguments)
    arguments.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=DEFAULT_LISTEN,
        help=f"where to serve; port 0: a free port (default: {DEFAULT_LISTEN})",
    )
    arguments.add_argument(
        "--run-dir",
        metavar="DIR",
        type=typed(Directory),
        help="the engine's run directory (default: the engine's own default)",
    )
    arguments.add_argument(
        "--connect", metavar="ENDPOINT", help="the engine's control endpoint instead, tcp://127.0.0.1:PORT"
    )
    arguments.add_argument(
        "--key", metavar="FILE", help="the key for a TCP endpoint, as `rlpx-ctl keys new --rights control` makes it"
    )
    arguments.add_argument(
        "--events",
        metavar="ENDPOINT",
        help="the engine's endpoint for events, if it is not the port after that of --connect",
    )
    arguments.add_argument(
        "--control",
        action="store_true",
        help="let the page disconnect, ban and set limits, for those who have the token; otherwise it is read-only",
    )
    arguments.add_argument(
        "--token",
        metavar="FILE",
        help="the file with the token, made if it is missing (default: watch.token in the run directory)",
    )
    arguments.add_argument(
        "--host-name",
        metavar="NAME",
        action="append",
        default=[],
        help="a name by which clients reach this server, besides localhost and its addresses; may be repeated",
    )
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    all_arguments = parser()
    given = all_arguments.parse_args(arguments)
    check_connection(all_arguments, given)
    if given.token is not None and not given.control:
        all_arguments.error("--token: only with --control")
    with reaching(all_arguments):
        endpoint = given.connect or run_dir_endpoint(given.run_dir, "control")
        _check_allowed(endpoint)
        with _listen(given.listen) as listening:
            uvloop.run(_serve(given, endpoint, listening))


def _check_allowed(endpoint: str) -> None:
    """Check that the engine's sockets are not another user's; an engine that is not there yet may come."""
    try:
        check_there(endpoint)
    except EngineForbiddenError:
        raise
    except EngineUnavailableError:
        pass


def _listen(text: str) -> socket.socket:
    """The listening socket. Raises `ConfigError`."""
    try:
        host, port = parse_host_port(text)
    except ValueError as error:
        raise ConfigError(f"--listen: {wrong(text, expected_of(ListenAddress), str(error))}", os.EX_USAGE) from error
    try:
        return listening(socket.socket, resolve(host), port, BACKLOG)
    except OSError as error:
        raise bind_error(f"--listen: {text}", error) from error


async def _serve(given: argparse.Namespace, endpoint: str, listening: socket.socket) -> None:
    app, token = await application(given, endpoint)
    from rlpx.engine.watch.server import serve  # noqa: PLC0415 - `application` has found that its libraries are there

    def announce() -> None:
        host, port = listening.getsockname()[:2]
        address = f"http://{format_host_port(host, port)}/"
        sys.stdout.write(f"ready {address} engine={endpoint}\n")
        if token is not None:
            # The part after # stays in the browser: no server and no log sees it.
            sys.stdout.write(f"control {address}#token={token}\n")
        sys.stdout.flush()

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await serve(app, listening, announce, stopped)


async def application(given: argparse.Namespace, endpoint: str) -> tuple[Application, str | None]:
    """The application that the arguments ask for, and the token of its page if there is one. Raises `ConfigError`."""
    require("watch")
    from rlpx.engine.watch.app import make_app  # noqa: PLC0415 - its libraries may not be installed
    from rlpx.engine.watch.control import Control, load_token  # noqa: PLC0415 - see above
    from rlpx.engine.watch.link import EngineLink  # noqa: PLC0415 - see above
    from rlpx.engine.watch.page import Page  # noqa: PLC0415 - see above

    token = load_token(_token_file(given)) if given.control else None
    page = Page(Place.of(given.run_dir, given.connect, given.events, given.key), Control(token))
    return make_app(EngineLink(endpoint, key=given.key), given.host_name, page), token


def _token_file(given: argparse.Namespace) -> Path:
    if given.token is not None:
        return user_path(given.token)
    if given.connect is not None:
        raise ConfigError("--token: a file is needed with --control and --connect", os.EX_USAGE)
    return run_dir_path(given.run_dir or "", os.environ) / "watch.token"
