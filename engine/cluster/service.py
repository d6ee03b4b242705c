"""The commands of this host as a NATS service: one request in, one reply out, both JSON-RPC 2.0 as on `control.ipc`.

A caller that has named its request (header `Rlpx-Call`) cancels it with a message whose header `Rlpx-Cancel` has the name.
There is no reply then.

Who may publish to the subjects of the fleet may command it: NATS' own accounts and permissions say who that is.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import nats.errors
import structlog
from nats.aio.client import Client
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from rlpx.engine.hub.registry import Registry
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.json_rpc import identifier_of, refused
from rlpx.protocol.cluster.addressing import CALL, CANCEL, HEADER_BYTES, PAYLOAD_BYTES, command_subject
from rlpx.protocol.errors import ErrorName

SERVICE: Final = "rlpx"
# So many requests are carried out at the same time; further ones are refused.
MAX_REQUESTS: Final = 64
# A longer name of a request is ignored: it cannot be cancelled.
MAX_NAME_CHARACTERS: Final = 64
# NATS carries no payload whose size has more digits.
MAX_SIZE_DIGITS: Final = 10

log = structlog.get_logger()


class CommandService:
    """See the module."""

    def __init__(self, client: Client, fleet: str, host: str, registry: Registry) -> None:
        self._client = client
        self._subject = command_subject(fleet, host)
        metadata = {"fleet": fleet, "host": host}
        config = ServiceConfig(name=SERVICE, version="1.0.0", description="commands of a host of a fleet", metadata=metadata)
        self._service = Service(client, config)
        self._registry = registry
        self._tasks: set[asyncio.Task[None]] = set()
        # Those whose callers may cancel them, by the name that the caller has given.
        self._named: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Take requests."""
        await self._service.start()
        await self._service.add_endpoint(EndpointConfig(name="command", subject=self._subject, handler=self._on_request))

    async def close(self) -> None:
        """Take no more requests, and abandon those that are under way."""
        for task in self._tasks:
            task.cancel()
        with suppress(nats.errors.Error, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._service.stop()

    async def _on_request(self, request: Request) -> None:
        headers = request.headers or {}
        if CANCEL in headers:
            cancelled = self._named.get(headers[CANCEL])
            if cancelled is not None:
                cancelled.cancel()
            return
        if len(self._tasks) >= MAX_REQUESTS:
            error = CommandError(ErrorName.BUSY, f"the host carries out {MAX_REQUESTS} requests of the fleet already")
            await request.respond(refused(None, error))
            return
        task = asyncio.get_running_loop().create_task(self._carry_out(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        name = headers.get(CALL)
        if name is not None and len(name) <= MAX_NAME_CHARACTERS and name not in self._named:
            self._named[name] = task
            task.add_done_callback(lambda _: self._named.pop(name, None))

    async def _carry_out(self, request: Request) -> None:
        body, attachments = _split(request.data, (request.headers or {}).get(PAYLOAD_BYTES, ""))
        reply = await self._registry.call(body, attachments)
        payload = reply.payload
        headers = None if payload is None else {PAYLOAD_BYTES: str(len(payload))}
        answer = reply.body + (payload or b"")
        if len(answer) > self._client.max_payload - HEADER_BYTES:
            error = CommandError(
                ErrorName.REFUSED, f"the answer has {len(answer)} bytes, more than NATS carries; ask for less"
            )
            answer, headers = refused(identifier_of(body), error), None
        with suppress(nats.errors.Error, ValueError):
            await request.respond(answer, headers)


def _split(data: bytes, size: str) -> tuple[bytes, list[bytes]]:
    """The text of a request, and the payload behind it if its header says so."""
    if len(size) > MAX_SIZE_DIGITS or not size.isdecimal() or not 0 < int(size) <= len(data):
        return data, []
    return data[: len(data) - int(size)], [data[len(data) - int(size) :]]
