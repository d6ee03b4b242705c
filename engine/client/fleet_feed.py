"""`FleetFeed`: the events of all hosts of a fleet: lives of sessions from the stream, messages of peers from core subjects.

The lives are those of the stream, each once, from now on or from a time. Messages come while the feed is open, because it
asks all hosts again and again; a program that reads too slowly loses some, and their numbers say how many. The order is
kept within each topic of a host, and among all events of the stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from rlpx.engine.client.batch_reader import BatchReader, Event, Gap, Malformed
from rlpx.engine.client.errors import own_error
from rlpx.engine.client.feed import FeedClosedError
from rlpx.engine.client.fleet_items import FleetItem, FleetOpening, HostEvent, HostGap, HostLost, HostSnapshot
from rlpx.engine.client.fleet_link import FleetLink
from rlpx.engine.client.fleet_lives import Lives
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.protocol.bus.results import SessionObject, SnapshotResult
from rlpx.protocol.cluster.addressing import EVENTS_LOST
from rlpx.protocol.errors import ErrorName

# Hosts publish traffic for this time after they were asked, and are asked again after a third of it.
WISH_SECONDS: Final = 15.0
REFRESH_SECONDS: Final = 5.0
# All hosts answer a wish within this time, or are asked again later.
ANSWER_SECONDS: Final = 2.0
SNAPSHOT_SECONDS: Final = 10.0
# What an item costs of the credit beside its payload.
_ITEM_BYTES: Final = 512

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
        self._prefix = f"rlpx.{link.place.name}."
        self._lives = Lives(link, opening, lambda cause: self._add([HostLost("", cause)]))
        self._batches: dict[str, BatchReader] = {}
        # By host: what its last snapshot covers, events that wait for a snapshot, and the epoch that was seen last.
        self._cuts: dict[str, _Cut] = {}
        self._held: dict[str, list[FleetItem]] = {}
        self._epochs: dict[str, str] = {}
        self._arrived: deque[tuple[FleetItem, int]] = deque()
        self._waiting_bytes = 0
        self._has_changed = asyncio.Event()
        self._has_room = asyncio.Event()
        # How many events did not fit, and the ordinal of the first, by topic, worker and host.
        self._losses: dict[tuple[str, int | None, str], tuple[int, int]] = {}
        self._subscriptions: list[Subscription] = []
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
        await self._lives.close()
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        for subscription in self._subscriptions:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
        self._subscriptions.clear()
        self._arrived.clear()
        self._has_changed.set()

    # -- opening ------------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        opening = self._opening
        try:
            for subject in opening.subjects:
                made = await self._link.client.subscribe(f"{self._prefix}*.{subject}", cb=self._on_traffic)
                self._subscriptions.append(made)
        except (nats.errors.Error, OSError) as error:
            raise EngineUnavailableError(f"NATS carries no traffic to this program: {error}") from error
        hosts = await self._link.hosts()
        self._epochs = {name: beat.epoch for name, beat in hosts.items()}
        if opening.lives:
            await self._lives.start()
        if opening.wishes:
            await self._wish(len(hosts))
        # Events that come before the snapshot of their host wait for it.
        loop = asyncio.get_running_loop()
        if opening.has_snapshot:
            self._held = {name: [] for name in hosts}
        if opening.lives:
            self._tasks.append(loop.create_task(self._lives.follow(self._on_life)))
        if opening.has_snapshot:
            for refusal in await asyncio.gather(*(self._snapshot(name) for name in hosts)):
                if refusal is not None:
                    raise refusal
        task = loop.create_task(self._refresh())
        task.add_done_callback(self._on_refresh_end)
        self._tasks.append(task)

    async def _wish(self, hosts: int) -> None:
        """Ask all hosts for traffic, and wait until all have said yes. Raises `InvalidParamsError` if one says no."""
        inbox = self._link.client.new_inbox()
        answers = await self._link.client.subscribe(inbox)
        try:
            await self._ask(inbox)
            async with asyncio.timeout(ANSWER_SECONDS):
                for _ in range(hosts):
                    answer = msgspec.json.decode((await answers.next_msg(ANSWER_SECONDS)).data, type=dict[str, Any])
                    if "error" in answer:
                        raise own_error(ErrorName.INVALID_PARAMS, f"host {answer['host']}: {answer['error']}")
        except (nats.errors.TimeoutError, TimeoutError, msgspec.DecodeError):
            pass  # who did not answer is asked again
        finally:
            await answers.unsubscribe()

    async def _ask(self, inbox: str = "") -> None:
        wish = {"topics": self._opening.wishes, "seconds": WISH_SECONDS}
        await self._link.client.publish(f"{self._prefix}listen", msgspec.json.encode(wish), inbox)

    # -- while it is open ---------------------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        """Ask for traffic again, and notice the hosts that come and go."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            if self._opening.wishes:
                with suppress(nats.errors.Error, OSError):
                    await self._ask()
            if not self._opening.has_snapshot:
                continue
            try:
                hosts = await self._link.hosts()
            except EngineUnavailableError:
                continue  # NATS is away, which says nothing of the hosts
            for name in self._epochs.keys() - hosts.keys():
                del self._epochs[name]
                self._add([HostLost(name, "it has left, or has sent no heartbeat for 15 s")])
            new = [name for name, beat in hosts.items() if self._epochs.get(name) != beat.epoch]
            self._epochs |= {name: hosts[name].epoch for name in new}
            for name in new:
                self._held[name] = []
            await asyncio.gather(*(self._snapshot(name) for name in new))

    def _on_refresh_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()
            self._has_changed.set()

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
            self._add([HostSnapshot(host, taken.run, tuple(taken.sessions))])
        self._add(self._held.pop(host, []))
        return refusal

    async def _on_life(self, message: Msg) -> None:
        """Take an event of the stream, once there is room: the stream keeps the others."""
        self._add([_life(message, len(self._prefix))])
        while self._waiting_bytes > self._opening.credit:
            self._has_room.clear()
            await self._has_room.wait()

    async def _on_traffic(self, message: Msg) -> None:
        host, _, topic = message.subject[len(self._prefix) :].partition(".")
        head, _, body = message.data.partition(b"\n")
        reader = self._batches.setdefault(host, BatchReader())
        items: list[FleetItem] = []
        for item in reader.read([topic.encode(), head, body]):
            if isinstance(item, Malformed):
                items.append(item)
            elif item.topic.startswith(self._opening.prefixes) and item.topic not in self._opening.lives:
                items.append(_with_host(item, host))
        if self._waiting_bytes + len(message.data) > self._opening.credit:
            self._lose(items)
        else:
            self._tell_losses()
            self._add(items)

    def _lose(self, items: list[FleetItem]) -> None:
        """There is no room for these: count them, from the first that is missing of each topic, worker and host."""
        for item in items:
            if isinstance(item, HostEvent | HostGap):
                missed, first = (item.missed, item.first) if isinstance(item, HostGap) else (1, item.ordinal)
                key = item.topic, item.worker, item.host
                before, begun = self._losses.get(key, (0, first))
                self._losses[key] = before + missed, begun

    def _tell_losses(self) -> None:
        losses, self._losses = self._losses, {}
        self._add([HostGap(topic, worker, *lost, host) for (topic, worker, host), lost in losses.items()])

    def _add(self, items: list[FleetItem]) -> None:
        for item in items:
            if isinstance(item, HostEvent):
                held = self._held.get(item.host)
                if held is not None and item.topic in self._opening.lives:
                    held.append(item)
                    continue
                cut = self._cuts.get(item.host)
                if cut is not None and item.topic in self._opening.lives and cut.covers(item):
                    continue
            size = _ITEM_BYTES + (len(item.payload) if isinstance(item, HostEvent) else 0)
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


def _with_host(item: Event | Gap, host: str) -> HostEvent | HostGap:
    if isinstance(item, Gap):
        return HostGap(item.topic, item.worker, item.missed, item.first, host)
    return HostEvent(item.topic, item.worker, item.fields, item.payload, item.run, item.ordinal, host)


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
