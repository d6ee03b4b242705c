"""The ways of commands on sessions: to the worker that has the session, or to the engine if workers are not within reach.

Over TCP an engine need not serve its workers' data endpoints, and over NATS no host does; the same commands then go
through the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from rlpx.engine.client.calls import decoded, within
from rlpx.engine.client.errors import WorkerLostError, own_error
from rlpx.engine.client.worker_links import NoDataEndpointError, WorkerLink, WorkerLinks
from rlpx.protocol.bus.results import BroadcastResult, SessionObject
from rlpx.protocol.errors import ErrorName, UsageError

if TYPE_CHECKING:
    from rlpx.engine.client.forms import Forms, Sendable

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

    async def publish(
        self,
        message: Sendable,
        parameters: Mapping[str, object],
        timeout: float | None,  # noqa: ASYNC109 - see `Calls.call`
    ) -> BroadcastResult:
        """Send a message to the sessions that match, each form of it to those of its version, and in parts if it is long.

        Raises `EngineError`.
        """
        from rlpx.engine.client.forms import Forms  # noqa: PLC0415 - loads every message
        from rlpx.engine.client.parts import in_parts  # noqa: PLC0415 - likewise

        try:
            parts = [Forms.of(part) for part in ([message] if parameters["raw"] else in_parts(message))]
        except UsageError as error:
            raise own_error(error.name, str(error)) from error
        given = {name: value for name, value in parameters.items() if value is not None}
        async with within(timeout):
            results = [await self._publish(part, given) for part in parts]
        refused: dict[str, ErrorName] = {}
        for result in results:
            refused |= result.refused
        return BroadcastResult(min(result.sent for result in results), refused)

    async def _publish(self, forms: Forms, parameters: Mapping[str, object]) -> BroadcastResult:
        """Send one message to the sessions that match."""
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


def audience(but: int | Iterable[int], client: str | None, direction: str | None, *, raw: bool) -> dict[str, object]:
    """The parameters of a broadcast that say to whom, and how; sessions are named by one number or several."""
    excepted = [but] if isinstance(but, int) else list(but)
    return {"client": client, "direction": direction, "raw": raw, "except": excepted}


async def _broadcast_at(link: WorkerLink, parameters: Mapping[str, object], payload: bytes) -> BroadcastResult:
    try:
        return decoded(await link.call("broadcast", parameters, payload), BroadcastResult)
    except WorkerLostError:
        return BroadcastResult(0, {})  # its sessions have ended with it
