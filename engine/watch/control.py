"""What a page may change: nothing, unless the server has a token and the page knows it.

The token comes in a header, which no page of another site can set, so a browser cannot be tricked into sending it.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.watch.keys import LINK
from rlpx.protocol.mistakes import ConfigError, file_error

# The commands of the engine that a page may call, and their parameters; those that must be there are in `REQUIRED`.
COMMANDS: Final = {
    "disconnect": frozenset({"session", "reason"}),
    "ban": frozenset({"peer", "address", "seconds"}),
    "set-limits": frozenset(
        {
            "max_unauthenticated",
            "max_pending_inbound",
            "max_pending_outbound",
            "max_active_inbound",
            "max_active_outbound",
        }
    ),
}
REQUIRED: Final = {"disconnect": frozenset({"session"})}
_SCHEME: Final = "Bearer "
TOKEN_BYTES: Final = 32
# A shorter token could be guessed.
MIN_TOKEN_CHARACTERS: Final = 16
MAX_TOKEN_CHARACTERS: Final = 256


class Control:
    """Carries out commands for those who know the token; without a token, for nobody."""

    def __init__(self, token: str | None = None) -> None:
        self._token = token.encode() if token is not None else None

    async def show(self, request: web.Request) -> web.Response:
        """Whether there is control at all, and whether this browser's token is right."""
        shown = {"enabled": self._token is not None, "allowed": self.refusal(request) is None}
        return _answer(shown, 200)

    def refusal(self, request: web.Request) -> tuple[int, str] | None:
        """The HTTP status and the reason not to obey, or none."""
        if self._token is None:
            return 403, "this page is read-only: rlpx-watch runs without --control"
        given = request.headers.get("Authorization", "")
        if not given.startswith(_SCHEME):
            return 401, "a token is needed: open the page by the address that rlpx-watch printed"
        if not hmac.compare_digest(given.removeprefix(_SCHEME).encode("utf-8", "replace"), self._token):
            return 401, "this token is not the one of this server"
        return None

    async def carry_out(self, request: web.Request) -> web.Response:
        """Carry out one command with the parameters in the body, a JSON object."""
        refusal = self.refusal(request)
        if refusal is not None:
            status, reason = refusal
            return _refused(status, "refused", reason)
        try:
            command, parameters = await _command(request)
            result = await request.app[LINK].call(command, **parameters)
        except ValueError as error:
            return _refused(400, "invalid_params", str(error))
        except EngineError as error:
            return _refused(409, error.name, str(error))
        except EngineUnavailableError as error:
            return _refused(503, "unavailable", str(error))
        return _answer({"result": result}, 200)


async def _command(request: web.Request) -> tuple[str, dict[str, Any]]:
    """The command of a request and its parameters, which the engine checks further. Raises `ValueError`."""
    command = request.match_info["command"]
    if command not in COMMANDS:
        raise ValueError(f"a page may call {', '.join(sorted(COMMANDS))}")
    # msgspec's error is a ValueError.
    parameters = msgspec.json.decode(await request.read(), type=dict[str, Any])
    if not parameters.keys() <= COMMANDS[command]:
        raise ValueError(f"{command} takes {', '.join(sorted(COMMANDS[command]))}")
    missing = REQUIRED.get(command, frozenset()) - parameters.keys()
    if missing:
        raise ValueError(f"{command} needs {', '.join(sorted(missing))}")
    return command, parameters


def _refused(status: int, name: str, message: str) -> web.Response:
    return _answer({"error": {"name": name, "message": message}}, status)


def _answer(value: object, status: int) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004 - RFC 9110, 15.5.2
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json", headers=headers)


def load_token(file: Path) -> str:
    """Read the token in a file, or make it if it is missing. Raises `ConfigError`."""
    try:
        if not file.exists():
            _make_token(file)
        return _read_token(file)
    except OSError as error:
        raise file_error(str(file), error) from error


def _make_token(file: Path) -> None:
    """Write the whole file, then give it its name, so that two servers that start at once have one token."""
    descriptor, made = tempfile.mkstemp(prefix=".watch-token-", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w") as created:
            created.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
        with suppress(FileExistsError):
            os.link(made, file)
    finally:
        Path(made).unlink()


def _read_token(file: Path) -> str:
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:
        found = os.fstat(opened.fileno()).st_mode
        if not stat.S_ISREG(found):
            raise ConfigError(f"{file}: not a file that could hold a token")
        mode = stat.S_IMODE(found)
        if mode & 0o077:
            raise ConfigError(f"{file}: others can read the token (mode {mode:04o}); chmod 600 it", os.EX_NOPERM)
        token = opened.read(MAX_TOKEN_CHARACTERS + 2).decode("ascii", "replace").strip()
    if not MIN_TOKEN_CHARACTERS <= len(token) <= MAX_TOKEN_CHARACTERS or not token.isprintable() or " " in token:
        text = f"{MIN_TOKEN_CHARACTERS} to {MAX_TOKEN_CHARACTERS} characters without a space"
        raise ConfigError(f"{file}: not a token: expected {text}")
    return token
