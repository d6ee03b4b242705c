"""Asks the hosts of a fleet over NATS: one where one has it, all where all do.

A session's number is its host's own. Without the name of a host, the hosts are asked which of them has it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Self

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from rlpx.engine.client.fleet_hosts import hosts_of
from rlpx.engine.client.nats_servers import Servers, connect, failure, is_refusal
from rlpx.protocol.bus.commands import COMMANDS
from rlpx.protocol.bus.error_codes import ERROR_CODES
from rlpx.protocol.cluster.addressing import OF_A_NAMED_HOST, OF_A_SESSION, command_subject, dialler
from rlpx.protocol.cluster.records import Heartbeat
from rlpx.protocol.errors import ErrorName

# A host that has this session number is found within this time.
_FIND_SECONDS: Final = 5.0


class FleetError(Exception):
    """A command cannot be carried out, and no host has said so. `name` is for programs."""

    def __init__(self, name: ErrorName, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.code = ERROR_CODES[name]


class Answer(msgspec.Struct, frozen=True):
    """What one host has answered: a result, an error, or nothing."""

    host: str
    result: Any = None
    error: dict[str, Any] | None = None
    is_silent: bool = False


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Error(msgspec.Struct, frozen=True):
    message: str
    data: _Named
    code: int


class _Reply(msgspec.Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


def _strange(message: str) -> _Error:
    return _Error(message, _Named(ErrorName.BAD_RESPONSE), ERROR_CODES[ErrorName.BAD_RESPONSE])


class Commander:
    """See the module. Use it as an asynchronous context."""

    def __init__(self, servers: Servers, fleet: str) -> None:
        self._servers = servers
        self._fleet = fleet
        self._client: Client | None = None
        self._last_id = 0

    async def __aenter__(self) -> Self:
        """Connect. Raises `NatsUnavailableError`."""
        self._client = await connect(self._servers, "rlpx rlpx-ctl", on_lost=lambda: None, on_back=lambda: None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._nats.close()

    @property
    def _nats(self) -> Client:
        if self._client is None:
            raise RuntimeError("not connected")
        return self._client

    async def hosts(self) -> dict[str, Heartbeat]:
        """The hosts of the fleet by name, as their last heartbeats say. Raises `FleetError`."""
        try:
            return await hosts_of(self._nats, self._fleet)
        except nats.js.errors.NotFoundError as error:
            raise FleetError(ErrorName.REFUSED, f"there is no fleet named {self._fleet} on these servers") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            name = ErrorName.REFUSED if is_refusal(error) else ErrorName.TIMED_OUT
            raise FleetError(name, failure("the store of the fleet", error)) from error

    async def command(self, method: str, parameters: dict[str, Any], host: str | None, seconds: float) -> list[Answer]:
        """Carry out a command: on the named host, on the one that it concerns, or on all. Raises `FleetError`."""
        hosts = await self.hosts()
        if not hosts:
            raise FleetError(ErrorName.REFUSED, f"no host of the fleet {self._fleet} is there")
        if host is not None:
            if host not in hosts:
                raise FleetError(ErrorName.INVALID_PARAMS, f"there is no host {host}; there are {', '.join(hosts)}")
            return [await self._ask(host, method, parameters, seconds)]
        if method in OF_A_NAMED_HOST:
            raise FleetError(ErrorName.INVALID_PARAMS, f"{method} concerns one host: name it with --host")
        if method in OF_A_SESSION:
            return [await self._ask(await self._host_of(parameters["session"], hosts), method, parameters, seconds)]
        if method == "dial":
            return [await self._ask(dialler(parameters["enode"], hosts), method, parameters, seconds)]
        return list(await asyncio.gather(*(self._ask(name, method, parameters, seconds) for name in hosts)))

    async def _host_of(self, session: int, hosts: dict[str, Heartbeat]) -> str:
        """The only host with a session of this number."""
        answers = await asyncio.gather(*(self._ask(name, "session", {"session": session}, _FIND_SECONDS) for name in hosts))
        having = [answer.host for answer in answers if answer.result is not None]
        silent = [answer.host for answer in answers if answer.is_silent]
        if len(having) > 1:
            message = f"hosts {', '.join(having)} have a session {session} each: name one with --host"
            raise FleetError(ErrorName.INVALID_PARAMS, message)
        if not having:
            message = f"no host has a session {session}" + (f"; {', '.join(silent)} did not answer" if silent else "")
            raise FleetError(ErrorName.NO_SUCH_SESSION, message)
        return having[0]

    async def _ask(self, host: str, method: str, parameters: dict[str, Any], seconds: float) -> Answer:
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": parameters}
        try:
            body = msgspec.json.encode(request)
            message = await self._nats.request(command_subject(self._fleet, host), body, timeout=seconds)
            reply = msgspec.json.decode(message.data, type=_Reply)
            if reply.error is not None:
                return Answer(host, error=msgspec.to_builtins(reply.error))
            msgspec.json.decode(reply.result, type=COMMANDS[method].result)
            return Answer(host, msgspec.json.decode(reply.result))
        except nats.errors.MaxPayloadError as error:
            raise FleetError(ErrorName.REFUSED, "the command is larger than a message that NATS carries") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Answer(host, error=msgspec.to_builtins(_strange(f"the answer has another form than ours: {error}")))
        except (nats.errors.Error, OSError, TimeoutError):
            return Answer(host, is_silent=True)
