"""Carries out users' commands: a task for each request, and exactly one reply, however the task ends.

The notification `cancel` ends a request of the same connection; its reply is then the error `cancelled`.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from rlpx.engine.hub.registry import Registry, Reply
from rlpx.engine.hub.router import Envelope, Hub
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.settings.settings import ControlSettings
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.endpoint import Endpoint, Security
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.json_rpc import (
    INTERNAL_ERROR,
    REFUSALS,
    Cancel,
    Identifier,
    failed,
    identifier_of,
    read_cancel,
    read_request,
    refused,
)
from rlpx.protocol.errors import ErrorName

# A longer text is no notification that cancels a request, and is not read twice.
CANCEL_MAX_BYTES: Final = 512

log = structlog.get_logger()


class OpenRequest:
    """A request that is under way: where its reply goes, and its text, from which its id is read when it is needed."""

    __slots__ = ("_body", "_identifier", "envelope")

    def __init__(self, envelope: Envelope, body: bytes) -> None:
        self.envelope = envelope
        self._body: bytes | None = body
        self._identifier: Identifier = None

    @property
    def identifier(self) -> Identifier:
        """The id, read once: a text may have megabytes, and cancellations may be many."""
        if self._body is not None:
            self._identifier, self._body = identifier_of(self._body), None
        return self._identifier


class CommandServer:
    """See the module."""

    def __init__(self, run_dir: RunDir, settings: ControlSettings, clockwork: Clockwork) -> None:
        self._hub = Hub(run_dir, settings, clockwork, self._on_request)
        self._registry: Registry
        self._tasks: dict[asyncio.Task[Reply], OpenRequest] = {}
        # Those that their callers have cancelled.
        self._cancelled: set[asyncio.Task[Reply]] = set()

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that the commands come from."""
        return self._hub.endpoint

    def start(self, registry: Registry, security: Security) -> None:
        """Take commands, over TCP with this security. Raises `ConfigError` if an endpoint is taken."""
        self._registry = registry
        self._hub.start(security)

    async def close(self) -> None:
        """Refuse the commands that are under way, let the replies leave, then close the endpoint."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Callbacks send their replies; they run in the next loop iteration.
        await asyncio.sleep(0)
        await self._hub.close()

    def _on_request(self, envelope: Envelope, body: bytes, attachments: list[bytes]) -> None:
        if len(body) <= CANCEL_MAX_BYTES and self._is_cancel(envelope, body):
            self._hub.settle(envelope)
            return
        task = asyncio.get_running_loop().create_task(self._registry.call(body, attachments))
        self._tasks[task] = OpenRequest(envelope, body)
        task.add_done_callback(self._on_done)

    def _is_cancel(self, envelope: Envelope, body: bytes) -> bool:
        """Whether it is a notification that cancels a request of its caller, which is then done."""
        try:
            request = read_request(body)
            if request.method != Cancel.METHOD or request.id is not None:
                return False
            identifier = read_cancel(request)
        except REFUSALS:
            return False  # the reply says why
        for task, other in self._tasks.items():
            if other.envelope.link is envelope.link and identifier is not None and other.identifier == identifier:
                self._cancelled.add(task)
                task.cancel()
        return True

    def _on_done(self, task: asyncio.Task[Reply]) -> None:
        request = self._tasks.pop(task)
        is_cancelled = task in self._cancelled
        self._cancelled.discard(task)
        if task.cancelled():
            ending = CommandError(ErrorName.REFUSED, "the engine is shutting down")
            if is_cancelled:
                ending = CommandError(ErrorName.CANCELLED, "cancelled by its caller")
            self._hub.reply(request.envelope, refused(request.identifier, ending))
            return
        error = task.exception()
        if error is not None:
            message = "a fault of the engine; its log says more"
            self._hub.reply(request.envelope, failed(request.identifier, INTERNAL_ERROR, message, "internal"))
            log.error("a command failed by a fault of ours", exc_info=error)
            return
        self._hub.reply(request.envelope, *task.result())
