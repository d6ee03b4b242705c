"""Messages of this host's peers that pass a filter, on their way to core NATS: feeds of this host at its own workers.

The workers evaluate the filter before they build anything. Each choice of topics and filter has one feed, whoever listens
to it, and one subject. A message has the run and the worker in front of what the worker has sent, and then its payloads.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.worker_links import WorkerLink, WorkerLinks
from rlpx.engine.cluster.own_engine import OwnEngine
from rlpx.protocol.bus.feeds import Where

# What each worker may send before we have passed it on. All of it is in this process at once, for a moment.
CREDIT_BYTES: Final = 512 * 1024
# A worker that closes a feed, because too much waits in it or because the worker ends, is asked again after this time.
REOPEN_SECONDS: Final = 2.0
# A listener has its answer after this time, whether all workers have confirmed or not.
CONFIRM_SECONDS: Final = 1.5
_numbers: Final = itertools.count(1)

log = structlog.get_logger()

# It gets a head and a body, and returns whether they may leave.
Offer = Callable[[bytes, bytes], bool]


class Choice(msgspec.Struct, frozen=True):
    """The events that listeners have asked for."""

    topics: tuple[str, ...]
    where: Where


class _Head(msgspec.Struct, frozen=True):
    """What we read of a worker's message. Which fields it has says what it is."""

    run: str | None = None
    first: int = 0
    events: list[msgspec.Raw] | None = None
    closed: str | None = None
    error: dict[str, str] | None = None


_read_head: Final = msgspec.json.Decoder(_Head).decode


class _Part:
    """The feed at one worker: the ordinal of the next event, as it is, as it was a moment ago, and as listeners know it."""

    def __init__(self, link: WorkerLink) -> None:
        self.link = link
        self.number = next(_numbers)
        self.run: str | None = None
        self.next = 0
        self.seen = -1
        self.told = -1
        self._owed = 0

    def grant(self, read_bytes: int) -> None:
        """Grant what was passed on, in halves of the credit."""
        self._owed += read_bytes
        if 2 * self._owed >= CREDIT_BYTES:
            with suppress(EngineUnavailableError):
                self.link.send({"feed": self.number, "credit": self._owed})
            self._owed = 0

    def named(self, head: bytes) -> bytes:
        """A worker's head with the run and the worker in it."""
        return b'{"run":"%b","worker":%d,%b' % ((self.run or "").encode(), self.link.worker, head[1:])

    def position(self) -> bytes:
        """The head of a message without events, which says where the feed is."""
        return self.named(msgspec.json.encode({"feed": self.number, "first": self.next, "events": ()}))


class RelayedFeed:
    """One choice of events at all workers: a user of the connections to them. `error` is why it cannot be had."""

    def __init__(self, links: WorkerLinks, choice: Choice, offer: Offer) -> None:
        self._links = links
        self._choice = choice
        self._offer = offer
        self._parts: dict[WorkerLink, _Part] = {}
        self._changed = asyncio.Event()
        self.error: str | None = None

    async def confirmed(self) -> None:
        """Wait until all workers have confirmed, or `error` says why not."""
        await self._links.complete()
        while self.error is None and any(part.run is None for part in self._parts.values()):
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """End the feed at all workers."""
        self._links.remove(self)
        for link in list(self._parts):
            self._leave(link)

    def tell_positions(self, *, is_asked: bool = False) -> None:
        """Say where the feed is at workers that were quiet since the last call, or at all that are, if somebody asks."""
        for part in self._parts.values():
            is_new = is_asked or part.told != part.next
            if part.run is not None and part.seen == part.next and is_new and self._offer(part.position(), b""):
                part.told = part.next
            part.seen = part.next

    # -- a user of connections to workers -----------------------------------------------------------------------------------

    def on_worker(self, link: WorkerLink) -> None:
        """Open the feed there."""
        part = self._parts[link] = _Part(link)
        link.feeds[part.number] = lambda frames: self._on_message(part, frames)
        where = msgspec.to_builtins(self._choice.where)
        with suppress(EngineUnavailableError):
            link.send({"feed": part.number, "topics": self._choice.topics, "where": where, "credit": CREDIT_BYTES})

    def on_worker_gone(self, link: WorkerLink, cause: EngineUnavailableError) -> None:  # noqa: ARG002 - of `User`
        """What it had not sent is no event."""
        self._parts.pop(link, None)
        self._changed.set()

    def on_failure(self, error: EngineUnavailableError | EngineError) -> None:
        """Our own engine does not answer: the next listener makes another feed."""
        self.error = str(error)
        self._changed.set()

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _on_message(self, part: _Part, frames: list[bytes]) -> None:
        head = _read_head(frames[0])
        if head.events is not None:
            body = frames[1]
            self._offer(part.named(frames[0]), body)
            part.next = head.first + len(head.events)
            part.grant(len(frames[0]) + len(body))
            return
        if head.error is not None:
            self.error = head.error["message"]
            log.warning("a worker refuses a feed of the fleet", worker=part.link.worker, cause=self.error)
        elif head.closed is not None:
            part.next = head.first
            self._offer(part.position(), b"")
            self._forget(part.link)
            asyncio.get_running_loop().call_later(REOPEN_SECONDS, self._reopen, part.link)
        else:
            part.run = head.run
            self._offer(part.position(), b"")
        self._changed.set()

    def _reopen(self, link: WorkerLink) -> None:
        if link.wire.is_open and link not in self._parts and self.error is None:
            self.on_worker(link)

    def _forget(self, link: WorkerLink) -> _Part:
        part = self._parts.pop(link)
        link.feeds.pop(part.number, None)
        return part

    def _leave(self, link: WorkerLink) -> None:
        part = self._forget(link)
        with suppress(EngineUnavailableError):
            link.send({"feed": part.number, "close": True})


class Relay:
    """All choices of events that are listened to."""

    def __init__(self, engine: OwnEngine) -> None:
        self._engine = engine
        self._feeds: dict[str, RelayedFeed] = {}

    async def open(self, key: str, choice: Choice, offer: Offer) -> str | None:
        """Have a feed of these events, at all workers if they confirm in time. Returns why there is none."""
        try:
            links = (await self._engine.use(key)).links
            feed = self._feeds.get(key)
            if feed is None:
                feed = self._feeds[key] = RelayedFeed(links, choice, offer)
                links.add(feed)
            with suppress(TimeoutError):  # the others confirm later
                async with asyncio.timeout(CONFIRM_SECONDS):
                    await feed.confirmed()
        except (EngineError, EngineUnavailableError) as error:
            return str(error)
        if feed.error is not None and self._feeds.get(key) is feed:
            self.close_feed(key)
        return feed.error

    def tell_positions(self, key: str = "") -> None:
        """Say where feeds are: those that were quiet, and the one with this key if a listener asks."""
        for name, feed in self._feeds.items():
            feed.tell_positions(is_asked=name == key)

    def close_feed(self, key: str) -> None:
        """Nobody listens to it any more."""
        feed = self._feeds.pop(key, None)
        if feed is not None:
            feed.close()
        self._engine.leave(key)
