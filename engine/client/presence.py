"""Checks whether there is an engine at an endpoint, and has the errors that tell programs so."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import ClassVar, Final

from rlpx.protocol.rlpx.host_port import parse_host_port
from rlpx.protocol.wording import Expected, wrong

# The time that a probe of a TCP endpoint may take.
PROBE_SECONDS: Final = 2.0
# An engine that restarts is back within this time; a program that waits longer waits in vain.
PATIENCE_SECONDS: Final = 10.0
# Each probe is a connection to the engine, so a waiting program makes at most one in this time.
_PROBE_EVERY_SECONDS: Final = 0.5
_ENDPOINT: Final = Expected("tcp://HOST:PORT or ipc://PATH as an endpoint", "tcp://127.0.0.1:5555")


class EngineError(Exception):
    """The engine answered with an error; `name` is for programs (`no_such_session`, `refused`, …)."""

    def __init__(self, name: str, message: str, code: int) -> None:
        super().__init__(message)
        self.name = name
        self.code = code


class EngineUnavailableError(Exception):
    """No engine answers at the endpoint. `exit_code` (sysexits) is for programs that end because of it."""

    exit_code: ClassVar[int] = os.EX_UNAVAILABLE


class EngineForbiddenError(EngineUnavailableError):
    """The run directory or its sockets belong to another user, or the engine refuses this key."""

    exit_code = os.EX_NOPERM


class EndpointError(EngineUnavailableError, ValueError):
    """The given text is not an endpoint."""

    exit_code = os.EX_USAGE

    def __init__(self, given: str, why: str) -> None:
        super().__init__(wrong(given, _ENDPOINT, why))


def check_there(endpoint: str) -> None:
    """Check that somebody listens there, because ZeroMQ itself would only wait. Raises `EngineUnavailableError`."""
    scheme, _, place = endpoint.partition("://")
    try:
        if scheme == "ipc":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(place)
        else:
            host, port = parse_host_port(place)
            socket.create_connection((host, port), PROBE_SECONDS).close()
    except PermissionError as error:
        raise EngineForbiddenError(f"{endpoint}: {error.strerror}{_owner(place)}") from error
    except (OSError, ValueError) as error:
        raise EngineUnavailableError(f"no engine at {endpoint}") from error


def why_missing(endpoint: str) -> EngineUnavailableError:
    """The error of `check_there`, or one that says that there was no engine a moment ago."""
    try:
        check_there(endpoint)
    except EngineUnavailableError as error:
        return error
    return EngineUnavailableError(f"no engine at {endpoint}")


def _owner(place: str) -> str:
    """The owner of the nearest folder that can be examined."""
    for folder in Path(place).parents:
        with suppress(OSError):
            return f": {folder} belongs to uid {folder.stat().st_uid}"
    return ""


class Presence:
    """Raises `EngineUnavailableError` if nobody was at an endpoint for `patience_seconds`."""

    def __init__(self, endpoint: str, patience_seconds: float) -> None:
        self._endpoint = endpoint
        self._patience_seconds = patience_seconds
        self._alone_since: float | None = None
        self._next_probe_at = 0.0

    def heard(self) -> None:
        """Note that somebody is there: a later absence counts from its own beginning."""
        self._alone_since = None

    def check(self) -> None:
        """Check again, at most twice a second. There is no waiting for another user's endpoint."""
        now = monotonic()
        if now < self._next_probe_at:
            return
        self._next_probe_at = now + _PROBE_EVERY_SECONDS
        try:
            check_there(self._endpoint)
        except EngineForbiddenError:
            raise
        except EngineUnavailableError as error:
            if self._alone_since is None:
                self._alone_since = now
            if now - self._alone_since >= self._patience_seconds:
                raise EngineUnavailableError(f"{error} for {self._patience_seconds:g} s") from error
        else:
            self._alone_since = None
