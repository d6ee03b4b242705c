"""A program's connection to the NATS servers of a fleet: who is there, and calls to one host.

A call that its program gives up is cancelled at the host.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Self

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import DEFAULT_PENDING_SIZE, Client

from rlpx.engine.client.calls import Answer, Reply
from rlpx.engine.client.credentials import Credentials
from rlpx.engine.client.errors import EngineSilentError, own_error
from rlpx.engine.client.fleet_hosts import hosts_of
from rlpx.engine.client.nats_servers import NatsUnavailableError, Servers, connect, failure
from rlpx.engine.client.presence import EngineError, EngineForbiddenError, EngineUnavailableError
from rlpx.protocol.cluster.addressing import (
    CALL,
    CANCEL,
    HEADER_BYTES,
    PAYLOAD_BYTES,
    command_subject,
    server_urls,
    without_password,
)
from rlpx.protocol.cluster.records import Heartbeat
from rlpx.protocol.errors import ErrorName

# A host carries out 64 requests of the fleet at a time and refuses more; so many are a program's own.
CALLS_IN_FLIGHT: Final = 32
_TOO_LARGE: Final = "the command is larger than a message that NATS carries"


class FleetPlace(msgspec.Struct, frozen=True):
    """Where a fleet is: servers as `nats://a,b,c`, its name, a file with credentials, and the time of a usual call."""

    servers: str
    name: str
    creds: str
    timeout_seconds: float

    @property
    def shown(self) -> str:
        """The servers as errors may show them."""
        return ", ".join(map(without_password, server_urls(self.servers)))


class FleetLink:
    """See the module. `opened` makes it."""

    def __init__(self, place: FleetPlace, client: Client) -> None:
        self.place = place
        self.client = client
        self._ids = itertools.count(1)
        # Nobody else can guess the names of calls, and so nobody else cancels them.
        self._prefix = secrets.token_hex(12)
        self._rooms: dict[str, asyncio.Semaphore] = {}
        # Called when the connection was lost and is back.
        self.on_back: set[Callable[[], None]] = set()

    @classmethod
    async def opened(cls, place: FleetPlace) -> Self:
        """Connect. Raises `EngineUnavailableError`, `EngineForbiddenError` and `ConfigError`."""
        credentials = Credentials.load(place.creds) if place.creds else None
        servers = Servers(server_urls(place.servers), credentials, DEFAULT_PENDING_SIZE)
        links: list[FleetLink] = []
        try:
            client = await connect(servers, "rlpx.engine.client", on_lost=_nothing, on_back=lambda: _tell_back(links))
        except NatsUnavailableError as error:
            raise (EngineForbiddenError if error.is_refusal else EngineUnavailableError)(str(error)) from error
        link = cls(place, client)
        links.append(link)
        return link

    async def close(self) -> None:
        """Close the connection."""
        with suppress(nats.errors.Error, OSError):
            await self.client.close()

    async def hosts(self) -> dict[str, Heartbeat]:
        """The hosts that are there, by name, as their last heartbeats say. Raises `EngineUnavailableError`."""
        try:
            return await hosts_of(self.client, self.place.name)
        except nats.js.errors.NotFoundError as error:
            raise EngineUnavailableError(f"there is no fleet named {self.place.name} at {self.place.shown}") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise EngineUnavailableError(failure(f"the store of the fleet {self.place.name}", error)) from error

    async def call(
        self, host: str, method: str, parameters: Mapping[str, object], payload: bytes | None, seconds: float | None
    ) -> Answer:
        """Carry out a command at a host. Raises `EngineError`, `EngineUnavailableError` and their subclasses."""
        within = self.place.timeout_seconds if seconds is None else seconds
        number = next(self._ids)
        name = f"{self._prefix}.{number}"
        subject = command_subject(self.place.name, host)
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": parameters})
        headers = {CALL: name}
        if payload is not None:
            headers[PAYLOAD_BYTES] = str(len(payload))
        if len(body) + len(payload or b"") > self.client.max_payload - HEADER_BYTES:
            raise own_error(ErrorName.REFUSED, _TOO_LARGE)
        room = self._rooms.setdefault(host, asyncio.Semaphore(CALLS_IN_FLIGHT))
        try:
            async with asyncio.timeout(within), room:
                # Its own time is longer, so that the one above decides.
                message = await self.client.request(subject, body + (payload or b""), timeout=within + 1.0, headers=headers)
            return _answer_of(message.data, (message.headers or {}).get(PAYLOAD_BYTES, ""))
        except nats.errors.NoRespondersError as error:
            raise EngineUnavailableError(f"no host {host} of the fleet {self.place.name} is there") from error
        except nats.errors.MaxPayloadError as error:
            raise own_error(ErrorName.REFUSED, _TOO_LARGE) from error
        except asyncio.CancelledError:
            await self._cancel(subject, name)
            raise
        except TimeoutError as error:
            if isinstance(error, EngineError | EngineUnavailableError):
                raise  # the host's own answer
            await self._cancel(subject, name)
            raise EngineSilentError(f"no answer from host {host} within {within:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise EngineUnavailableError(f"NATS does not carry a command to host {host}: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineUnavailableError(f"the answer of host {host} is not understood: {error}") from error

    async def _cancel(self, subject: str, name: str) -> None:
        with suppress(nats.errors.Error, OSError, ValueError):
            await self.client.publish(subject, b"", headers={CANCEL: name})


def _answer_of(data: bytes, size: str) -> Answer:
    """The result of a reply, and the payload behind it. Raises the error of the reply, or `msgspec.DecodeError`."""
    attachment = None
    if size.isdecimal() and 0 <= int(size) <= len(data):
        cut = len(data) - int(size)
        data, attachment = data[:cut], data[cut:]
    reply = msgspec.json.decode(data, type=Reply)
    if reply.error is not None:
        raise reply.error.raised()
    return Answer(reply.result, attachment)


def _nothing() -> None:
    """Nobody needs to know that the connection is lost: what is asked meanwhile says that nobody answers."""


def _tell_back(links: list[FleetLink]) -> None:
    for link in links:
        for on_back in list(link.on_back):
            on_back()
