"""`Feed`: the events of all workers that match, first hand, as fast as the program reads them.

Each worker sends as much as it was granted. Credit is granted again as the program reads on, so a program that stops reading
costs the bytes of its credit and nothing more: the workers drop what it misses, count it, or with `lossless` stop reading
from the peers concerned.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import msgspec

from rlpx.engine.client.batch_reader import Event, Gap
from rlpx.engine.client.engine_events import EngineEvents, OpenEvents
from rlpx.engine.client.errors import answered_error
from rlpx.engine.client.feed_items import FeedHead, FeedItem, PartReader, read_head
from rlpx.engine.client.feed_options import Opening
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.worker_links import WorkerLink, WorkerLinks
from rlpx.protocol.bus.error_codes import ERROR_CODES
from rlpx.protocol.errors import ErrorName

# A worker that is about to end closes its feeds a second before. One that closes a feed for another reason is asked again.
REOPEN_SECONDS: Final = 2.0
# Each feed at a worker has a number that no other of this program has.
_numbers: Final = itertools.count(1)


class Part:
    """A feed at one worker: its reader, and the bytes that were read and not granted again."""

    def __init__(self, link: WorkerLink, credit: int) -> None:
        self.link = link
        self.number = next(_numbers)
        self.reader = PartReader(link.worker)
        self.is_confirmed = False
        self._credit = credit
        self._owed = 0

    def grant(self, read_bytes: int) -> None:
        """Grant what was read, in halves of the credit: each grant is a message."""
        self._owed += read_bytes
        if 2 * self._owed >= self._credit:
            with suppress(EngineUnavailableError):  # the loss is an item of its own
                self.link.send({"feed": self.number, "credit": self._owed})
            self._owed = 0


class Arrived(msgspec.Struct):
    """A message that waits to be read: a batch as it came, another one decoded, or the reason why a connection ended."""

    part: Part
    frames: list[bytes] = []
    head: FeedHead | None = None
    cause: str = ""

    @property
    def is_end(self) -> bool:
        """Whether nothing follows of its part."""
        return bool(self.cause) or (self.head is not None and self.head.closed is not None)

    def items(self) -> list[FeedItem]:
        """The items that it becomes."""
        reader = self.part.reader
        if self.head is not None:
            return reader.read(self.head, b"")
        if self.frames:
            return reader.read(read_head(self.frames[0]), self.frames[1])
        return [reader.lost(self.cause)]

    def done(self) -> None:
        """The program has read it. Only batches cost of the credit."""
        self.part.grant(sum(map(len, self.frames)))


class Published(msgspec.Struct):
    """The items of a message of the engine that wait to be read."""

    source: EngineEvents
    read: list[Event | Gap]

    def items(self) -> list[FeedItem]:
        """The items."""
        return list(self.read)

    def done(self) -> None:
        """The program has read it."""
        self.source.done()


class FeedClosedError(EngineUnavailableError):
    """The program has closed the feed."""


class Receiver:
    """The messages of a feed's parts until they are read. It is what the connections to workers know of a feed."""

    def __init__(self, links: WorkerLinks, open_events: OpenEvents, opening: Opening) -> None:
        self._links = links
        self._opening = opening
        self._parts: dict[WorkerLink, Part] = {}
        self._engine = EngineEvents(open_events, opening, self._on_published, self.on_failure)
        self._arrived: deque[Arrived | Published] = deque()
        # The workers that have closed the feed and are there still.
        self._closed_by: set[WorkerLink] = set()
        # Workers whose last part has ended and waits to be read up to its end. The next part of such a worker begins after
        # that: however often workers end, what waits is bounded by the credit of one part for each.
        self._unread_ends: set[int] = set()
        self._postponed: dict[int, WorkerLink] = {}
        self._changed = asyncio.Event()
        self.error: EngineUnavailableError | EngineError | None = None
        self.is_open = False
        self.received = 0
        self.missed = 0

    def open(self) -> None:
        """Open the feed at every worker, now and later; a second time is harmless."""
        if not self.is_open:
            self.is_open = True
            self._links.add(self)
            if self.error is None:
                self._engine.start()

    async def confirmed(self) -> None:
        """Wait until all workers that there are have confirmed. Raises the feed's error."""
        await self._links.complete()
        while self.error is None and not all(part.is_confirmed for part in self._parts.values()):
            await self._change()
        if self.error is not None:
            raise self.error
        await self._engine.confirmed()
        if self.error is not None:
            raise self.error

    async def read(self) -> tuple[Arrived | Published, list[FeedItem]]:
        """The next message that has items, and these. Raises the feed's error."""
        while True:
            while self._arrived:
                arrived = self._arrived.popleft()
                items = self._items(arrived)
                if isinstance(arrived, Arrived) and arrived.is_end:
                    self._on_end_read(arrived.part.link.worker)
                if items:
                    return arrived, items
                arrived.done()
            if self.error is not None:
                raise self.error
            await self._change()

    def close(self) -> None:
        """End the feed at every worker, and forget what waits."""
        self._end(self.error or FeedClosedError("the feed was closed"))
        self._arrived.clear()

    def _end(self, error: EngineUnavailableError | EngineError) -> None:
        """End the feed at every worker. What has come can still be read, and then this error is raised."""
        self._links.remove(self)
        parts, self._parts = self._parts, {}
        for link, part in parts.items():
            link.feeds.pop(part.number, None)
            with suppress(EngineUnavailableError):
                link.send({"feed": part.number, "close": True})
        self.on_failure(error)

    # -- a user of connections to workers -----------------------------------------------------------------------------------

    def on_worker(self, link: WorkerLink) -> None:
        """Open the feed there, once the last part of this worker has been read."""
        if link.worker in self._unread_ends:
            self._postponed[link.worker] = link
            return
        part = self._parts[link] = Part(link, self._opening.credit)
        link.feeds[part.number] = lambda frames: self._on_message(part, frames)
        with suppress(EngineUnavailableError):
            link.send(self._opening.head(part.number))

    def on_worker_gone(self, link: WorkerLink, cause: EngineUnavailableError) -> None:
        """Say so after what came before."""
        self._closed_by.discard(link)
        if self._postponed.get(link.worker) is link:
            del self._postponed[link.worker]
        part = self._parts.pop(link, None)
        if part is not None and part.is_confirmed:
            self._unread_ends.add(link.worker)
            self._arrived.append(Arrived(part, cause=str(cause)))
        self._changed.set()

    def on_failure(self, error: EngineUnavailableError | EngineError) -> None:
        """No more will come, also from the engine itself."""
        self.error = error
        self._engine.close()
        self._changed.set()

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _on_message(self, part: Part, frames: list[bytes]) -> None:
        if len(frames) > 1:
            self._arrived.append(Arrived(part, frames))
        else:
            # All other messages have no second frame.
            head = read_head(frames[0])
            if head.error is not None:
                self._parts.pop(part.link, None)
                part.link.feeds.pop(part.number, None)
                self._end(refusal(head.error))
                return
            part.is_confirmed = True
            self._arrived.append(Arrived(part, head=head))
            if head.closed is not None:
                self._on_closed(part)
        self._changed.set()

    def _on_closed(self, part: Part) -> None:
        link = part.link
        link.feeds.pop(part.number, None)
        self._parts.pop(link, None)
        self._closed_by.add(link)
        self._unread_ends.add(link.worker)
        asyncio.get_running_loop().call_later(REOPEN_SECONDS, self._reopen, link)

    def _reopen(self, link: WorkerLink) -> None:
        if link in self._closed_by and self.error is None:
            self._closed_by.discard(link)
            self.on_worker(link)

    def _on_end_read(self, worker: int) -> None:
        self._unread_ends.discard(worker)
        link = self._postponed.pop(worker, None)
        if link is not None and self.error is None:
            self.on_worker(link)

    def _on_published(self, items: list[Event | Gap]) -> None:
        self._arrived.append(Published(self._engine, items))
        self._changed.set()

    def _items(self, arrived: Arrived | Published) -> list[FeedItem]:
        items = arrived.items()
        for item in items:
            if type(item) is Event:
                self.received += 1
            elif type(item) is Gap:
                self.missed += item.missed
        return items

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Feed(AsyncIterator[FeedItem]):
    """See the module. Iterate with `async for`, or `read` all items of a message at once.

    `async with` waits until every worker has confirmed, and ends the feed at the end; so does dropping the object. Raises
    `EngineUnavailableError` if there is no engine for ten seconds, and the engine's error for what it does not allow.
    """

    def __init__(self, links: WorkerLinks, open_events: OpenEvents, opening: Opening) -> None:
        self._receiver = Receiver(links, open_events, opening)
        self._items: deque[FeedItem] = deque()
        self._read: Arrived | Published | None = None
        loop = asyncio.get_running_loop()
        weakref.finalize(self, _close_in, loop, self._receiver).atexit = False

    @property
    def received(self) -> int:
        """The number of events that were read from all workers."""
        return self._receiver.received

    @property
    def missed(self) -> int:
        """The number of events that are known to be missing, the sum of all gaps read so far."""
        return self._receiver.missed

    async def read(self) -> list[FeedItem]:
        """The items of the next message. Reading it grants the bytes of the one before."""
        self._receiver.open()
        if self._items:
            items = list(self._items)
            self._items.clear()
            return items
        self._done()
        read, items = await self._receiver.read()
        self._done()  # another task has read meanwhile
        self._read = read
        return items

    async def __anext__(self) -> FeedItem:
        if not self._items:
            try:
                self._items.extend(await self.read())
            except FeedClosedError:
                raise StopAsyncIteration from None
        return self._items.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        self._receiver.open()
        try:
            await self._receiver.confirmed()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the feed. What was not read yet is forgotten."""
        self._items.clear()
        self._receiver.close()

    def _done(self) -> None:
        """Grant the bytes of the message that was read last."""
        read, self._read = self._read, None
        if read is not None:
            read.done()


def refusal(error: dict[str, str]) -> EngineError:
    """The error that a worker's message to a feed has."""
    name = error["name"]
    return answered_error(name, error["message"], ERROR_CODES[ErrorName(name)] if name in ERROR_CODES else 0)


def _close_in(loop: asyncio.AbstractEventLoop, receiver: Receiver) -> None:
    """The program has dropped the feed, in whichever thread."""
    if receiver.is_open:
        with suppress(RuntimeError):  # the loop has ended, and its connections with it
            loop.call_soon_threadsafe(receiver.close)
