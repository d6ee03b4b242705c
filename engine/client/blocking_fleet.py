"""`BlockingFleet`: the names of `Fleet` for programs that wait for each call. Its loop runs in a thread of its own.

with connect("nats://10.0.0.1,10.0.0.2", cluster="monitors") as fleet:
    print(fleet.counts().results["host-1"].active)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

from rlpx.engine.client.blocking import BlockingItems, BlockingResponder, LoopThread, Wait
from rlpx.engine.client.by_host import ByHost
from rlpx.engine.client.commands import BlockingCommands, BlockingFleetCommands
from rlpx.engine.client.fleet import Fleet, Host
from rlpx.engine.client.fleet_feed import FleetFeed
from rlpx.engine.client.fleet_items import FleetFeedOptions, FleetItem, fleet_opening
from rlpx.engine.client.fleet_link import FleetPlace
from rlpx.engine.client.responding import Request, Response
from rlpx.protocol.bus.results import BroadcastResult
from rlpx.protocol.cluster.records import Heartbeat

if TYPE_CHECKING:
    from rlpx.engine.client.blocking_peer import BlockingPeer
    from rlpx.engine.client.forms import Sendable
    from rlpx.engine.client.typed_requests import Peer

T = TypeVar("T")


class BlockingFleetFeed(BlockingItems[FleetItem]):
    """See `FleetFeed`. `with` waits until the hosts have confirmed and their snapshots are there."""


class BlockingHost(BlockingCommands):
    """See `Host`."""

    def __init__(self, host: Host, wait: Wait) -> None:
        self.name = host.name
        self._host = host
        self._commands = host
        self._waiting = wait

    def peer(self, session: int) -> BlockingPeer:
        """See `Host.peer`."""
        from rlpx.engine.client.blocking_peer import BlockingPeer  # noqa: PLC0415 - loads every message

        async def made() -> Peer:
            return self._host.peer(session)

        return BlockingPeer(self._wait(made()), self._waiting)

    def publish(  # noqa: PLR0913 - as the other face
        self,
        message: Sendable,
        *,
        but: int | Iterable[int] = (),
        client: str | None = None,
        direction: Literal["inbound", "outbound"] | None = None,
        raw: bool = False,
        timeout: float | None = None,
    ) -> BroadcastResult:
        """See `Host.publish`."""
        return self._wait(self._host.publish(message, but=but, client=client, direction=direction, raw=raw, timeout=timeout))

    def _wait(self, called: Coroutine[Any, Any, T]) -> T:
        return self._waiting(called)


class BlockingFleet(BlockingFleetCommands):
    """See the module, and `Fleet`. Methods may be called from any thread; each waits for its own call alone."""

    def __init__(self, place: FleetPlace) -> None:
        self._thread = LoopThread()
        try:
            fleet = self._thread.wait(Fleet.opened(place))
        except BaseException:
            self._thread.close(asyncio.sleep(0))
            raise
        self.name = fleet.name
        self._fleet: Fleet = fleet

    def hosts(self) -> dict[str, Heartbeat]:
        """See `Fleet.hosts`."""
        return self._wait(self._fleet.hosts())

    def host(self, name: str) -> BlockingHost:
        """See `Fleet.host`."""

        async def made() -> Host:
            return self._fleet.host(name)

        return BlockingHost(self._wait(made()), self._thread.wait)

    def peer(self, host: str, session: int) -> BlockingPeer:
        """See `Fleet.peer`."""
        return self.host(host).peer(session)

    def find(self, peer: str) -> BlockingPeer:
        """See `Fleet.find`."""
        from rlpx.engine.client.blocking_peer import BlockingPeer  # noqa: PLC0415 - loads every message

        return BlockingPeer(self._wait(self._fleet.find(peer)), self._thread.wait)

    def feed(self, *topics: str, **options: Unpack[FleetFeedOptions]) -> BlockingFleetFeed:
        """See `Fleet.feed`. Iterate with `for`, or `read` with a time."""
        opening = fleet_opening(topics, options)

        async def made() -> FleetFeed:
            return self._fleet.made_feed(opening)

        return BlockingFleetFeed(self._wait(made()), self._thread.wait)

    def respond(
        self, topics: str | Iterable[str], handler: Callable[[Request], Response], *, at_a_time: int = 64
    ) -> BlockingResponder:
        """See `Fleet.respond`. It answers in the background; handlers run in threads of their own, up to `at_a_time`."""
        return self._thread.respond(
            handler, at_a_time, lambda threaded: self._fleet.respond(topics, threaded, at_a_time=at_a_time)
        )

    def publish(  # noqa: PLR0913 - as the other face
        self,
        message: Sendable,
        *,
        but: Iterable[tuple[str, int]] = (),
        client: str | None = None,
        direction: Literal["inbound", "outbound"] | None = None,
        raw: bool = False,
        timeout: float | None = None,
    ) -> ByHost[BroadcastResult]:
        """See `Fleet.publish`."""
        return self._wait(
            self._fleet.publish(message, but=but, client=client, direction=direction, raw=raw, timeout=timeout)
        )

    def close(self) -> None:
        """Close the connection and all feeds, and end the thread; a second time is harmless."""
        self._thread.close(self._fleet.close())

    def _wait(self, called: Coroutine[Any, Any, T]) -> T:
        return self._thread.wait(called)
