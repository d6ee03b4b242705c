"""Joining a running engine: the sessions as they are, then every change, without gaps or duplicates.

with join(["eth.Transactions"]) as changes:
    for item in changes: …

The first item is a `Snapshot`. Another one follows if events of sessions were lost, and after a restart of the engine; it
replaces everything known before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeAlias

import msgspec

from rlpx.engine.client.batch_reader import Event, Gap, Item, Malformed
from rlpx.engine.client.client import Client
from rlpx.engine.client.closing import Closing
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.subscriber import Subscriber
from rlpx.protocol.bus.events import ENGINE_STARTED

SESSIONS: Final = "session."
# The time that subscriptions and a snapshot may take. A worker that hangs is replaced after ten seconds.
JOIN_SECONDS: Final = 30.0


class Snapshot(msgspec.Struct, frozen=True):
    """All sessions of a run at this place in the stream, as session objects with the fields of `session.established`."""

    run: str
    sessions: list[dict[str, Any]]


Change: TypeAlias = Snapshot | Item
# Topic and worker.
Source: TypeAlias = tuple[str, int | None]


class Joined(Closing):
    """See the module. Raises `EngineUnavailableError` if there is no engine, `EngineError` if it cannot make a snapshot."""

    def __init__(self, client: Client, subscriber: Subscriber) -> None:
        self._client = client
        self._subscriber = subscriber
        # Items that were read before the snapshot arrived.
        self._early: list[Item] = []
        # The first ordinal that the last snapshot does not show, by topic and worker.
        self._cuts: dict[Source, int] = {}
        self._run: str | None = None
        self._is_current = False
        # A new snapshot, its place in the stream, and the items read so far that come after that place.
        self._taken: Snapshot | None = None
        self._place: dict[Source, int] = {}
        self._held: list[Item] = []

    def poll(self, seconds: float) -> list[Change]:
        """The next changes, or none within this time. Waiting for a snapshot may take longer."""
        if self._taken is not None:
            return self._catch_up(self._taken, seconds)
        if not self._is_current:
            return self._join()
        return self._changes(self._subscriber.poll(seconds))

    def __iter__(self) -> Iterator[Change]:
        while True:
            yield from self.poll(1.0)

    def close(self) -> None:
        """Close the sockets."""
        self._subscriber.close()
        self._client.close()

    def _join(self) -> list[Change]:
        ends_at = monotonic() + JOIN_SECONDS
        while True:
            self._early += self._subscriber.confirm(max(0.0, ends_at - monotonic()))
            taken = self._client.call("snapshot")
            if taken["run"] == self._subscriber.run:
                break
            # The engine was replaced in the meantime, and the items read before are about the old one.
            self._early += self._subscriber.poll(max(0.0, min(0.1, ends_at - monotonic())))
            if monotonic() >= ends_at:
                raise EngineUnavailableError(f"{self._subscriber.endpoint} has no batch of the run that answers")
        positions = {(topic, worker): following for topic, worker, following in taken["next"]}
        snapshot = Snapshot(taken["run"], taken["sessions"])
        if taken["run"] == self._run:
            # Only the sessions are new. Other topics continue: their events from before this place come before the snapshot.
            self._taken, self._place = snapshot, positions
            return self._catch_up(snapshot, 0.0)
        self._run, self._cuts, self._is_current = taken["run"], positions, True
        early, self._early = self._early, []
        return [snapshot, *self._changes(early)]

    def _catch_up(self, snapshot: Snapshot, seconds: float) -> list[Change]:
        """Read up to the place of a snapshot: return other topics' events, then the snapshot and what follows it."""
        changes: list[Change] = []
        items, self._early = self._early, []
        if not items and not self._subscriber.has_read(self._place):
            items = self._subscriber.poll(seconds)
        for index, item in enumerate(items):
            if isinstance(item, Event) and item.run != self._run:
                # The engine was replaced, and the snapshot is about the old one.
                self._taken, held, self._held = None, self._held, []
                return [*changes, *self._changes([*held, *items[index:]])]
            if not isinstance(item, Malformed) and self._is_behind(item):
                self._held.append(item)
            elif not item.topic.startswith(SESSIONS):
                changes.append(item)
        if not self._subscriber.has_read(self._place):
            return changes
        self._cuts |= {source: first for source, first in self._place.items() if source[0].startswith(SESSIONS)}
        self._taken, held, self._held, self._is_current = None, self._held, [], True
        return [*changes, snapshot, *self._changes(held)]

    def _is_behind(self, item: Event | Gap) -> bool:
        """Whether the snapshot does not show the item, or not all of it."""
        first = item.ordinal if isinstance(item, Event) else item.first + item.missed - 1
        return first >= self._place.get((item.topic, item.worker), 0)

    def _changes(self, items: list[Item]) -> list[Change]:
        """The items that the last snapshot does not show."""
        changes: list[Change] = []
        for index, item in enumerate(items):
            change = self._cut(item)
            if change is None:
                continue
            changes.append(change)
            if isinstance(change, Event) and change.topic == ENGINE_STARTED and change.run != self._run:
                self._is_current = False
                # The following items belong to the next run.
                self._early += items[index + 1 :]
                break
            if isinstance(change, Gap) and change.topic.startswith(SESSIONS):
                self._is_current = False
        return changes

    def _cut(self, item: Item) -> Item | None:
        if isinstance(item, Event):
            if item.run != self._run:
                # It is a late event of an earlier run, or the first event of the next one.
                return item if item.topic == ENGINE_STARTED else None
            return item if item.ordinal >= self._cuts.get((item.topic, item.worker), 0) else None
        if isinstance(item, Gap):
            known = self._cuts.get((item.topic, item.worker), 0) - item.first
            if known >= item.missed:
                return None
            return item if known <= 0 else Gap(item.topic, item.worker, item.missed - known, item.first + known)
        return item


def join(topics: Iterable[str] = (), *, run_dir: Path | str | None = None) -> Joined:
    """The sessions of a run directory's engine, their changes, and the events of further topics."""
    client = Client.of(run_dir)
    try:
        subscriber = Subscriber.of(run_dir, [SESSIONS, *topics])
    except (EngineUnavailableError, EngineError):
        client.close()
        raise
    return Joined(client, subscriber)
