"""The ways of commands on sessions: to the worker that has the session, or to the engine if workers are not within reach.

Over TCP an engine need not serve its workers' data endpoints, and over NATS no host does; the same commands then go
through the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from rlpx.engine.client.calls import decoded
from rlpx.engine.client.errors import WorkerLostError
from rlpx.engine.client.worker_links import NoDataEndpointError, WorkerLink, WorkerLinks
from rlpx.protocol.bus.results import BroadcastResult, SessionObject
from rlpx.protocol.errors import ErrorName

if TYPE_CHECKING:
    from rlpx.engine.client.forms import Forms

T = TypeVar("T")


class CallEngine(Protocol):
    """Carries out a command at the engine."""

    def __call__(
        self, name: str, parameters: Mapping[str, object], result: type[T], payload: bytes | None, timeout: float | None
    ) -> Awaitable[T]:
        """See the class."""


class Route:
    """The way of commands on one session: through the engine, or to its worker.

    If the worker has ended, its successor is not asked, which may have another session of this number in another run.
    """

    def __init__(self, call_engine: CallEngine, link: WorkerLink | None) -> None:
        self._call_engine = call_engine
        self._link = link

    async def carry_out(self, method: str, parameters: Mapping[str, object], payload: bytes | None, kind: type[T]) -> T:
        """Carry out a command. Raises `EngineError`, `EngineUnavailableError`."""
        if self._link is None:
            return await self._call_engine(method, parameters, kind, payload, None)
        return decoded(await self._link.call(method, parameters, payload), kind)


class Routes:
    """See the module."""

    def __init__(self, call_engine: CallEngine, links: WorkerLinks | None) -> None:
        self._call_engine = call_engine
        self._links = links

    async def session(self, session: int) -> SessionObject:
        """The session's object. Raises `NoSuchSessionError`."""
        return await self._call_engine("session", {"session": session}, SessionObject, None, None)

    async def to(self, shown: SessionObject) -> Route:
        """The way of commands on this session. It ends with the process that has the session."""
        try:
            link = None if self._links is None else await self._links.find(shown.worker)
        except NoDataEndpointError:
            link = None
        return Route(self._call_engine, link)

    async def publish(self, forms: Forms, parameters: Mapping[str, object]) -> BroadcastResult:
        """Send each form of a message to the sessions of its version that match."""
        links = await self._all()
        calls: list[Awaitable[BroadcastResult]] = []
        for shared, payload in forms.payloads.items():
            given = {**parameters, "capability": forms.capability, "message": forms.message, "shared": shared}
            if links is None:
                calls.append(self._call_engine("broadcast", given, BroadcastResult, payload, None))
            else:
                calls += [_broadcast_at(link, given, payload) for link in links]
        sent = 0
        refused: dict[str, ErrorName] = {}
        for result in await asyncio.gather(*calls):
            sent += result.sent
            refused |= result.refused
        return BroadcastResult(sent, refused)

    async def _all(self) -> list[WorkerLink] | None:
        try:
            return None if self._links is None else await self._links.complete()
        except NoDataEndpointError:
            return None


async def _broadcast_at(link: WorkerLink, parameters: Mapping[str, object], payload: bytes) -> BroadcastResult:
    try:
        return decoded(await link.call("broadcast", parameters, payload), BroadcastResult)
    except WorkerLostError:
        return BroadcastResult(0, {})  # its sessions have ended with it
