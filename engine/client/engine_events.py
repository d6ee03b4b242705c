"""The part of a feed that only the engine knows: failed dials, refused connections, workers, the engine itself.

It reads these topics from `events.ipc`, where every loss is exact, also over a restart of the engine. The program's reading
paces it: what waits here is bounded in messages, and the engine bounds and counts the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from rlpx.engine.client.batch_reader import BatchReader, Event, Gap
from rlpx.engine.client.feed_options import Opening
from rlpx.engine.client.presence import EngineForbiddenError, EngineUnavailableError
from rlpx.engine.client.topics import KNOWN
from rlpx.engine.client.wire import Wire
from rlpx.protocol.bus.events import AUTHENTICATED, BAD_MESSAGE, BREACH, CLOSED, ESTABLISHED, LIFECYCLE, OPENED

_OF_WORKERS: Final = {OPENED, AUTHENTICATED, ESTABLISHED, CLOSED, BAD_MESSAGE, BREACH}
ENGINE_TOPICS: Final = tuple(sorted(LIFECYCLE.keys() - _OF_WORKERS))
# Messages that wait for the program to read them. Each has the events of one topic within `events.batch_ms`.
MAX_WAITING: Final = 64
# The time between two attempts to connect.
RETRY_SECONDS: Final = 0.2


class OpenEvents(Protocol):
    """Connects to the engine's events with these subscriptions; none if they are not within reach."""

    def __call__(
        self,
        topics: Sequence[str],
        on_message: Callable[[list[bytes]], None],
        on_end: Callable[[EngineUnavailableError], None],
    ) -> Awaitable[Wire | None]:
        """See the class. Raises `EngineUnavailableError`."""


class EngineEvents:
    """See the module. `on_items` gets what came; `done` says that the program has read it."""

    def __init__(
        self,
        open_events: OpenEvents,
        opening: Opening,
        on_items: Callable[[list[Event | Gap]], None],
        on_failure: Callable[[EngineUnavailableError], None],
    ) -> None:
        self.topics = [topic for topic in ENGINE_TOPICS if topic.startswith(opening.topics)]
        self._opening = opening
        self._open_events = open_events
        self._on_items = on_items
        self._on_failure = on_failure
        self._batches = BatchReader()
        self._wire: Wire | None = None
        self._waiting = 0
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_confirmed = asyncio.Event()

    def start(self) -> None:
        """Begin to read, if a topic of the feed is the engine's."""
        if self.topics:
            self._task = asyncio.get_running_loop().create_task(self._keep())
            self._task.add_done_callback(self._on_keeper_end)
        else:
            self._is_confirmed.set()

    async def confirmed(self) -> None:
        """Wait until the subscriptions have taken effect, or are known to be out of reach."""
        await self._is_confirmed.wait()

    def done(self) -> None:
        """The program has read the items of a message."""
        self._waiting -= 1
        if self._wire is not None and self._waiting <= MAX_WAITING // 2:
            self._wire.resume()

    def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
        if self._wire is not None:
            self._wire.close()

    def _matches(self, item: Event | Gap) -> bool:
        if item.worker is not None or not item.topic.startswith(self._opening.topics):
            return False
        where = self._opening.where
        if isinstance(item, Gap):
            return True  # what is missing may have matched
        return passes(where, item.fields)

    async def _keep(self) -> None:
        """Connect, as often as the engine ends."""
        while True:
            self._ended.clear()
            try:
                self._wire = await self._open_events(self.topics, self._on_arrival, lambda _: self._ended.set())
            except EngineForbiddenError:
                self._wire = None  # the workers refuse the feed as well, and say so
            except EngineUnavailableError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self._wire is None:
                alone = [prefix for prefix in self._opening.topics if _is_engines(prefix)]
                if alone:
                    text = f"the engine serves no events over TCP, such as {alone[0]}; see events.endpoint"
                    self._on_failure(EngineUnavailableError(text))
                return
            await self._ended.wait()

    def _on_keeper_end(self, task: asyncio.Task[None]) -> None:
        """Nobody waits for ever if connecting has failed for another reason than that the engine is away."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(EngineUnavailableError(str(error)))
        self._is_confirmed.set()

    def _on_arrival(self, frames: list[bytes]) -> None:
        items = [item for item in self._batches.read(frames) if isinstance(item, Event | Gap) and self._matches(item)]
        if len(self._batches.confirmed) == len(self.topics):
            self._is_confirmed.set()
        if items:
            self._waiting += 1
            if self._waiting >= MAX_WAITING and self._wire is not None:
                self._wire.pause()
            self._on_items(items)


def passes(where: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Whether an event that only the engine knows passes a filter."""
    # The engine's events have no session whose client and capabilities would be known.
    return (
        not where.keys() & {"client", "shared"}
        and ("session" not in where or fields.get("session") in where["session"])
        and (fields.get("peer") or "").startswith(where.get("peer", ""))
        and where.get("direction", fields.get("direction")) == fields.get("direction")
    )


def _is_engines(prefix: str) -> bool:
    """Whether only the engine has topics with this prefix."""
    return {topic for topic in KNOWN if topic.startswith(prefix)} <= {*ENGINE_TOPICS}
