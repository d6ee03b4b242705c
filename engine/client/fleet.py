"""`Fleet`: a program's connection to many hosts that act as one, over NATS alone. `connect` makes it.

async with connect("nats://10.0.0.1,10.0.0.2", cluster="monitors") as fleet:
    print((await fleet.counts()).results["host-1"].active)
    print(await fleet.host("host-2").status())
    headers = await (await fleet.find(peer)).request(GetBlockHeaders(0, HeadersQuery(start=1, limit=16)))
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar, Unpack
from weakref import WeakSet, WeakValueDictionary

from rlpx.engine.client.by_host import ByHost
from rlpx.engine.client.calls import decoded
from rlpx.engine.client.commands import Commands, FleetCommands
from rlpx.engine.client.connection import WAIT_SECONDS
from rlpx.engine.client.errors import NoSuchSessionError, own_error
from rlpx.engine.client.fleet_feed import SNAPSHOT_SECONDS, FleetFeed
from rlpx.engine.client.fleet_items import FleetFeedOptions, FleetOpening, fleet_opening
from rlpx.engine.client.fleet_link import FleetLink, FleetPlace
from rlpx.engine.client.fleet_responding import FleetResponder
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.responding import Handler, requests_of
from rlpx.engine.client.routes import Routes, audience
from rlpx.protocol.bus.results import BroadcastResult, SessionObject
from rlpx.protocol.cluster.addressing import dialler
from rlpx.protocol.cluster.records import Heartbeat
from rlpx.protocol.errors import ErrorName

if TYPE_CHECKING:
    from rlpx.engine.client.forms import Sendable
    from rlpx.engine.client.typed_requests import Peer

# Looking for the host that has a session or a peer may take this time.
FIND_SECONDS: Final = 5.0

T = TypeVar("T")


class Host(Commands):
    """One host of a fleet: the commands of its engine, and the peers of its sessions."""

    def __init__(self, link: FleetLink, name: str) -> None:
        self.name = name
        self._link = link
        self._routes = Routes(self._command, None)
        # All `Peer`s of a session take turns.
        self._rooms: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    def peer(self, session: int) -> Peer:
        """The peer of a session of this host, to send it messages and requests."""
        from rlpx.engine.client.typed_requests import MAX_OPEN_REQUESTS, Peer  # noqa: PLC0415 - loads every message

        room = self._rooms.setdefault(session, asyncio.Semaphore(MAX_OPEN_REQUESTS))
        return Peer(session, self._routes, room)

    async def publish(  # noqa: PLR0913 - options by keyword, which editors complete
        self,
        message: Sendable,
        *,
        but: int | Iterable[int] = (),
        client: str | None = None,
        direction: Literal["inbound", "outbound"] | None = None,
        raw: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - see `Calls.call`
    ) -> BroadcastResult:
        """Send a message to every active session of this host that matches, as `Engine.publish` does."""
        return await self._routes.publish(message, audience(but, client, direction, raw=raw), timeout)

    async def _command(
        self,
        name: str,
        parameters: Mapping[str, object],
        result: type[T],
        payload: bytes | None,
        timeout: float | None,  # noqa: ASYNC109 - the host must know of a cancellation
    ) -> T:
        given = {key: value for key, value in parameters.items() if value is not None}
        if timeout is None and given.get("wait"):
            timeout = WAIT_SECONDS
        return decoded(await self._link.call(self.name, name, given, payload, timeout), result)


class Fleet(FleetCommands):
    """See the module. Its commands concern the host that has the session or the peer, and otherwise all hosts.

    A session's number is its host's own. If several hosts have a session of a number, `host` must name one.
    """

    def __init__(self, link: FleetLink) -> None:
        self.name = link.place.name
        self._link = link
        self._hosts: dict[str, Host] = {}
        self._feeds: WeakSet[FleetFeed] = WeakSet()
        self._responders: WeakSet[FleetResponder] = WeakSet()

    @classmethod
    async def opened(cls, place: FleetPlace) -> Self:
        """Connect. Raises `EngineUnavailableError` if no server or no such fleet is there."""
        link = await FleetLink.opened(place)
        try:
            await link.hosts()
        except BaseException:
            await link.close()
            raise
        return cls(link)

    async def hosts(self) -> dict[str, Heartbeat]:
        """The hosts that are there, by name, with their free places. Raises `EngineUnavailableError`."""
        return await self._link.hosts()

    def host(self, name: str) -> Host:
        """One host, whether it is there or not."""
        if name not in self._hosts:
            self._hosts[name] = Host(self._link, name)
        return self._hosts[name]

    def peer(self, host: str, session: int) -> Peer:
        """The peer of a session of a host, to send it messages and requests."""
        return self.host(host).peer(session)

    async def find(self, peer: str) -> Peer:
        """The peer with this id, or with an id that begins so, wherever it has its session.

        Raises `NoSuchSessionError` if no host has it, and `InvalidParamsError` if several peers match.
        """
        found = await self.of_all(lambda at: at.sessions(peer=peer, phase="active", limit=2, timeout=FIND_SECONDS))
        having = [(host, shown) for host, result in found.results.items() for shown in result.sessions]
        if len(having) > 1:
            names = ", ".join(f"{shown.peer} at {host}" for host, shown in having[:4])
            raise own_error(ErrorName.INVALID_PARAMS, f"several active peers match {peer}: {names}")
        if not having:
            raise own_error(ErrorName.NO_SUCH_SESSION, f"no host has an active session with {peer}{_but(found)}")
        [(host, shown)] = having
        return self.peer(host, shown.session)

    def feed(self, *topics: str, **options: Unpack[FleetFeedOptions]) -> FleetFeed:
        """The events of all hosts whose topics begin with one of these and that are as all `options` say, with their hosts.

        With `since`, a time or seconds since 1970, the lives of sessions are replayed from there; otherwise the feed begins
        with the sessions of each host, unless `snapshot` is false. Hosts publish only messages that pass the filters; lives
        are filtered here, by what is known of each session.
        """
        return self.made_feed(fleet_opening(topics, options))

    def made_feed(self, opening: FleetOpening) -> FleetFeed:
        """The feed of an opening."""
        feed = FleetFeed(self._link, opening, lambda host: self.host(host).snapshot(timeout=SNAPSHOT_SECONDS))
        self._feeds.add(feed)
        return feed

    def respond(self, topics: str | Iterable[str], handler: Handler, *, at_a_time: int = 64) -> FleetResponder:
        """Answer peers' requests of these topics at all hosts, as `Engine.respond` does, until it or the fleet is closed.

        Programs that serve the same topic share its requests. An answer must fit into a message of NATS.
        """
        responder = FleetResponder(self._link, tuple(dict.fromkeys(requests_of(topics))), handler, at_a_time)
        self._responders.add(responder)
        return responder

    async def publish(  # noqa: PLR0913 - options by keyword, which editors complete
        self,
        message: Sendable,
        *,
        but: Iterable[tuple[str, int]] = (),
        client: str | None = None,
        direction: Literal["inbound", "outbound"] | None = None,
        raw: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - see `Calls.call`
    ) -> ByHost[BroadcastResult]:
        """Send a message to every active session of all hosts that matches, to each in the form of its version.

        `but` names sessions that do not get it, each as host and number. NATS must carry the message (`max_payload`).
        """
        excepted: dict[str, list[int]] = {}
        for host, session in but:
            excepted.setdefault(host, []).append(session)
        return await self.of_all(
            lambda at: at.publish(
                message, but=excepted.get(at.name, ()), client=client, direction=direction, raw=raw, timeout=timeout
            )
        )

    async def close(self) -> None:
        """Close the connection, all feeds and all responders. Calls under way fail."""
        responders = list(self._responders)
        for responder in responders:
            responder.close()
        await asyncio.gather(*(responder.wait() for responder in responders), return_exceptions=True)
        for feed in list(self._feeds):
            await feed.close()
        await self._link.close()

    async def of_all(self, call: Callable[[Host], Awaitable[T]]) -> ByHost[T]:
        """Call this at every host at once; the errors of hosts are part of the answer."""
        names = sorted(await self.hosts())
        if not names:
            raise EngineUnavailableError(f"no host of the fleet {self.name} is there")
        answers = await asyncio.gather(*(_outcome(call(self.host(name))) for name in names))
        results: dict[str, T] = {}
        errors: dict[str, EngineError] = {}
        silent: list[str] = []
        for name, (result, error) in zip(names, answers, strict=True):
            if isinstance(error, EngineError):
                errors[name] = error
            elif error is not None:
                silent.append(name)
            else:
                results[name] = result[0]
        return ByHost(results, errors, tuple(silent))

    async def of_session(self, session: int, host: str | None, call: Callable[[Commands], Awaitable[T]]) -> T:
        """Call this at the named host, or at the only one that has the session."""
        return await call(self.host(host or await self._host_of(session)))

    async def of_dialler(self, enode: str, host: str | None, call: Callable[[Commands], Awaitable[T]]) -> T:
        """Call this at the named host, or at the one that the peer belongs to."""
        if host is None:
            hosts = await self.hosts()
            if not hosts:
                raise EngineUnavailableError(f"no host of the fleet {self.name} is there")
            try:
                host = dialler(enode, hosts)
            except ValueError as error:
                raise own_error(ErrorName.INVALID_PARAMS, f"enode: {error}") from error
        return await call(self.host(host))

    async def _host_of(self, session: int) -> str:
        found: ByHost[SessionObject] = await self.of_all(lambda at: at.session(session, timeout=FIND_SECONDS))
        if len(found.results) > 1:
            names = ", ".join(found.results)
            raise own_error(ErrorName.INVALID_PARAMS, f"hosts {names} have a session {session} each: name one with host=")
        if not found.results:
            for error in found.errors.values():
                if not isinstance(error, NoSuchSessionError):
                    raise error
            raise own_error(ErrorName.NO_SUCH_SESSION, f"no host has a session {session}{_but(found)}")
        return next(iter(found.results))


async def _outcome(answer: Awaitable[T]) -> tuple[tuple[T, ...], EngineError | EngineUnavailableError | TimeoutError | None]:
    try:
        return (await answer,), None
    except (EngineError, EngineUnavailableError, TimeoutError) as error:
        return (), error


def _but(found: ByHost[T]) -> str:
    """What an answer without a result does not cover."""
    return f"; {', '.join(found.no_answer)} did not answer" if found.no_answer else ""
