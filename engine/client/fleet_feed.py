"""`FleetFeed`: the events of all hosts of a fleet: lives of sessions from the stream, messages of peers from core subjects.

The lives are those of the stream, each once, from now on or from a time. Messages come while the feed is open, because it
asks all hosts again and again; a program that reads too slowly loses some, and their numbers say how many. The order is
kept within each topic of a host, and among all events of the stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import msgspec
import nats.errors
from nats.aio.msg import Msg

from rlpx.engine.client.batch_reader import Malformed
from rlpx.engine.client.feed import FeedClosedError
from rlpx.engine.client.fleet_items import FleetItem, FleetOpening, HostEvent, HostGap, HostLost, HostSnapshot
from rlpx.engine.client.fleet_link import FleetLink
from rlpx.engine.client.fleet_lives import Lives
from rlpx.engine.client.fleet_sessions import SessionFilter
from rlpx.engine.client.fleet_traffic import FleetTraffic
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.protocol.bus.results import SessionObject, SnapshotResult
from rlpx.protocol.cluster.addressing import EVENTS_LOST

# Hosts are asked for traffic again after this time, a third of what they publish it for, and those that come are noticed.
REFRESH_SECONDS: Final = 5.0
SNAPSHOT_SECONDS: Final = 10.0
# What an item costs of the credit beside its payload, and what each session of a snapshot does.
_ITEM_BYTES: Final = 512
_SESSION_BYTES: Final = 1024

TakeSnapshot: TypeAlias = Callable[[str], Awaitable[SnapshotResult[SessionObject]]]


class _Cut(msgspec.Struct, frozen=True):
    """The events of a host's run that its snapshot includes: those before these ordinals, by topic and worker."""

    run: str
    following: dict[tuple[str, int | None], int]

    def covers(self, event: HostEvent) -> bool:
        """Whether the snapshot includes an event."""
        return event.run == self.run and event.ordinal < self.following.get((event.topic, event.worker), 0)


class FleetFeed(AsyncIterator[FleetItem]):
    """See the module. `async with` waits until the hosts have confirmed and their snapshots are there.

    While NATS is away the feed waits, for as long as it takes; the stream has kept what happened meanwhile.
    """

    def __init__(self, link: FleetLink, opening: FleetOpening, take_snapshot: TakeSnapshot) -> None:
        self._link = link
        self._opening = opening
        self._take_snapshot = take_snapshot
        self._prefix_length = len(f"rlpx.{link.place.name}.")
        self._lives = Lives(link, opening, lambda cause: self._add([HostLost("", cause)]))
        self._traffic = FleetTraffic(link, opening, self._on_traffic, self._on_lost)
        self._filter = SessionFilter(opening.where)
        # By host: what its last snapshot covers, events that wait for a snapshot, and the epoch that was seen last.
        self._cuts: dict[str, _Cut] = {}
        self._held: dict[str, list[FleetItem]] = {}
        self._held_bytes = 0
        self._epochs: dict[str, str] = {}
        self._arrived: deque[tuple[FleetItem, int]] = deque()
        self._waiting_bytes = 0
        self._has_changed = asyncio.Event()
        self._has_room = asyncio.Event()
        # Set if hosts are to be asked and looked for at once.
        self._look = asyncio.Event()
        # How many events did not fit, and the ordinal of the first, by topic, worker and host.
        self._losses: dict[tuple[str, int | None, str], tuple[int, int]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_open = False
        self._error: BaseException | None = None
        self.received = 0
        self.missed = 0

    async def __aenter__(self) -> Self:
        self._is_open = True
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FleetItem:
        try:
            return await self._next()
        except FeedClosedError:
            raise StopAsyncIteration from None

    async def read(self) -> list[FleetItem]:
        """All items that wait, at least one. Raises `EngineUnavailableError` if the feed was closed."""
        items = [await self._next()]
        while self._arrived:
            items.append(await self._next())
        return items

    async def close(self) -> None:
        """End the feed. What was not read yet is forgotten; hosts publish for it for a few seconds more."""
        self._error = self._error or FeedClosedError("the feed was closed")
        self._link.on_back.discard(self._look.set)
        await self._lives.close()
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        await self._traffic.close()
        self._arrived.clear()
        self._held.clear()
        self._has_changed.set()

    # -- opening ------------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        opening = self._opening
        hosts = await self._link.hosts()
        self._epochs = {name: beat.epoch for name, beat in hosts.items()}
        self._link.on_back.add(self._look.set)
        if opening.lives:
            await self._lives.start()
        await self._traffic.open(hosts)
        # Events that come before the snapshot of their host wait for it.
        if opening.takes_snapshots:
            self._held = {name: [] for name in hosts}
        if opening.lives:
            self._start(self._lives.follow(self._on_life))
        if opening.takes_snapshots:
            for refusal in await asyncio.gather(*(self._snapshot(name) for name in hosts)):
                if refusal is not None:
                    raise refusal
        self._start(self._refresh())

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._on_task_end)
        self._tasks.append(task)

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        """A reader does not wait for ever for what has failed."""
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()
            self._has_changed.set()

    # -- while it is open ---------------------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        """Ask for traffic again, and notice the hosts that come and go."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._look.wait()
            self._look.clear()
            with suppress(nats.errors.Error, OSError):
                await self._traffic.ask()
            # A program that does not read gets no more snapshots meanwhile, as they may be long.
            if self._opening.takes_snapshots and self._waiting_bytes <= self._opening.credit:
                await self._look_for_hosts()

    async def _look_for_hosts(self) -> None:
        try:
            hosts = await self._link.hosts()
        except EngineUnavailableError:
            return  # NATS is away, which says nothing of the hosts
        for name in self._epochs.keys() - hosts.keys():
            del self._epochs[name]
            self._filter.forget(name)
            self._add([HostLost(name, "it has left, or has sent no heartbeat for 15 s")])
        new = [name for name, beat in hosts.items() if self._epochs.get(name) != beat.epoch]
        self._epochs |= {name: hosts[name].epoch for name in new}
        for name in new:
            self._held[name] = []
        await asyncio.gather(*(self._snapshot(name) for name in new))

    def _on_lost(self, host: str, cause: str) -> None:
        """Nobody knows how much is missing of a host: its snapshot is taken again."""
        self._add([HostLost(host, cause)])
        if self._epochs.pop(host, None) is not None:
            self._look.set()

    async def _snapshot(self, host: str) -> EngineError | None:
        """Add the snapshot of a host, and after it what came meanwhile. It returns the host's refusal."""
        refusal: EngineError | None = None
        try:
            taken = await self._take_snapshot(host)
        except (EngineError, EngineUnavailableError) as error:
            refusal = error if isinstance(error, EngineError) else None
            self._epochs.pop(host, None)  # it is asked again
            self._add([HostLost(host, str(error))])
        else:
            following = {(topic, worker): number for topic, worker, number in taken.next}
            self._cuts[host] = _Cut(taken.run, following)
            sessions = self._filter.begin(host, taken.sessions)
            if self._opening.has_snapshot:
                self._add([HostSnapshot(host, taken.run, sessions)])
        held = self._held.pop(host, [])
        self._held_bytes -= sum(map(_size, held))
        self._add(held)
        self._has_room.set()
        return refusal

    async def _on_life(self, message: Msg) -> None:
        """Take an event of the stream, once there is room: the stream keeps the others."""
        self._add([_life(message, self._prefix_length)])
        while self._waiting_bytes + self._held_bytes > self._opening.credit:
            self._has_room.clear()
            await self._has_room.wait()

    def _on_traffic(self, items: Sequence[FleetItem], size: int) -> None:
        if self._waiting_bytes + size > self._opening.credit:
            self._lose(items)
        else:
            self._tell_losses()
            self._add(items)

    def _lose(self, items: Sequence[FleetItem]) -> None:
        """There is no room for these: count them, from the first that is missing of each topic, worker and host."""
        for item in items:
            if isinstance(item, HostEvent | HostGap):
                missed, first = (item.missed, item.first) if isinstance(item, HostGap) else (1, item.ordinal)
                # The events of a filtered feed have their numbers over all topics.
                key = "" if self._opening.is_filtered else item.topic, item.worker, item.host
                before, begun = self._losses.get(key, (0, first))
                self._losses[key] = before + missed, begun

    def _tell_losses(self) -> None:
        losses, self._losses = self._losses, {}
        self._add([HostGap(topic, worker, *lost, host) for (topic, worker, host), lost in losses.items()])

    def _add(self, items: Sequence[FleetItem]) -> None:
        for item in items:
            if isinstance(item, HostEvent) and item.topic in self._opening.tracked:
                held = self._held.get(item.host)
                if held is not None:
                    held.append(item)
                    self._held_bytes += _size(item)
                    continue
                cut = self._cuts.get(item.host)
                is_known = cut is not None and cut.covers(item)
                if is_known or not self._filter.passes(item) or item.topic not in self._opening.lives:
                    continue
            size = _size(item)
            self._arrived.append((item, size))
            self._waiting_bytes += size
        self._has_changed.set()

    async def _next(self) -> FleetItem:
        if not self._is_open:
            await self.__aenter__()
        while not self._arrived:
            if self._error is not None:
                raise self._error
            self._has_changed.clear()
            await self._has_changed.wait()
        item, size = self._arrived.popleft()
        self._waiting_bytes -= size
        if 2 * self._waiting_bytes <= self._opening.credit:
            self._has_room.set()
            if self._losses:
                self._tell_losses()
        if isinstance(item, HostEvent):
            self.received += 1
        elif isinstance(item, HostGap):
            self.missed += item.missed
        return item


def _size(item: FleetItem) -> int:
    """What an item costs of the credit until it is read."""
    if isinstance(item, HostSnapshot):
        return _ITEM_BYTES + _SESSION_BYTES * len(item.sessions)
    return _ITEM_BYTES + (len(item.payload) if isinstance(item, HostEvent) else 0)


def _life(message: Msg, prefix_length: int) -> FleetItem:
    """An event of the stream. Its id has the run, the worker and the ordinal."""
    host, _, topic = message.subject[prefix_length:].partition(".")
    try:
        fields = msgspec.json.decode(message.data, type=dict[str, Any])
        if topic == EVENTS_LOST:
            lost = int(fields["lost"])
            return HostGap("", None, lost, int(fields["lost_in_all"]) - lost, host)
        source, _, ordinal = (message.headers or {}).get("Nats-Msg-Id", "").rpartition("-")
        run, _, publisher = source.removesuffix(f"-{topic}").rpartition("-")
        return HostEvent(topic, None if publisher == "e" else int(publisher), fields, b"", run, int(ordinal), host)
    except (ValueError, KeyError, TypeError) as error:  # msgspec's own are ValueErrors
        return Malformed(topic, f"host {host}: {error}")
