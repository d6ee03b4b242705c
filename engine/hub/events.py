"""Publishes events to subscribers: the workers' batches unchanged, and the engine's own between them.

It knows who reads what, the next ordinal of each publisher and topic, and what each reader has lost. A reader gets a batch
whole or not at all, and never out of order. If a reader's queue is full, only that reader loses events.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import Final

import msgspec
import structlog

from rlpx.engine.hub.endpoints import bind_endpoint, bind_ipc, close_endpoint
from rlpx.engine.settings.run_dir import RunDir
from rlpx.protocol.bus import control, zmtp
from rlpx.protocol.bus.batches import Batches, Interest, Numbers, Publisher, empty_batch, prefixes_of
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.control import WorkerId
from rlpx.protocol.bus.endpoint import Endpoint, Security
from rlpx.protocol.bus.events import ENGINE_STOPPED, EngineRun, Event
from rlpx.protocol.bus.link import LINGER_SECONDS, Limits, Link
from rlpx.protocol.bus.metrics import ReaderCounts, added
from rlpx.protocol.bus.reports import Published
from rlpx.protocol.bus.results import SubscriberStatus
from rlpx.protocol.mistakes import bind_error
from rlpx.protocol.settings import EventSettings

# A reader that keeps subscribing and cancelling costs each worker at most one command in this time.
INTEREST_SECONDS: Final = 0.01
# Readers send only subscriptions, which are short.
_UPSTREAM: Final = zmtp.Limits(message_bytes=1024)
_UPSTREAM_TOTAL_BYTES: Final = 4 * 1024 * 1024
_START: Final = Numbers()
# Readers are counted by user, that is by key; those of further users are counted together.
USERS_KEPT: Final = 64
# The user of readers that have no key, because they use the socket in the run directory.
NO_KEY: Final = "local"
_OTHERS: Final = "other"

log = structlog.get_logger()

# Topic and worker; `None` is the engine itself.
Source = tuple[str, WorkerId | None]
# It gets the topic and the batch.
Listener = Callable[[str, zmtp.Wire], None]


class Reader:
    """One subscriber. `lost` has the sources of batches that did not fit its queue, until we send it their next ordinals."""

    __slots__ = ("link", "lost", "missed_events", "sent_events", "unconfirmed")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.sent_events = 0
        self.missed_events = 0
        self.lost: dict[Source, None] = {}
        # Unconfirmed prefixes, and the number of the change that all workers must have confirmed first.
        self.unconfirmed: dict[bytes, int] = {}


class EventsHub:
    """The owner of the events' endpoint. `tell_workers` sends a command to every worker that has begun."""

    def __init__(
        self,
        run: str,
        settings: EventSettings,
        clockwork: Clockwork,
        tell_workers: Callable[[control.Command], None],
    ) -> None:
        self.run = run
        self.started_us = time_ns() // 1000
        self._settings = settings
        self._loop = clockwork.loop
        limits = Limits(
            links=settings.max_subscribers,
            queue_bytes=settings.queue_bytes,
            total_queue_bytes=settings.total_queue_bytes,
            total_received_bytes=_UPSTREAM_TOTAL_BYTES,
            zmtp=_UPSTREAM,
        )
        self.endpoint = Endpoint(zmtp.Kind.XPUB, self, limits, clockwork)
        self._tell_workers = tell_workers
        self._own = Publisher(run, None)
        self._batches = Batches(self._own)
        self._is_due = False
        self._numbers: dict[Source, Numbers] = {}
        self._readers: dict[int, Reader] = {}
        # What readers that have left were sent, by user.
        self._past_readers: dict[str, ReaderCounts] = {}
        self._by_prefix: dict[bytes, dict[int, Reader]] = {}
        # Parts of the engine itself that get every batch of some topics.
        self._listeners: dict[bytes, Listener] = {}
        # The readers of each topic, found once per change.
        self._of_topic: dict[str, list[Reader]] = {}
        self._listeners_of: dict[str, list[Listener]] = {}
        self._interest = Interest()
        # The prefixes that the workers publish since this change, and the last change that each worker has confirmed.
        self._told: set[bytes] = set()
        self._change = 0
        self._is_change_due = False
        self._confirmed: dict[WorkerId, int] = {}

    def start(self, run_dir: RunDir, security: Security = zmtp.Null) -> None:
        """Listen, on TCP with this security. Raises `ConfigError`."""
        second = self._settings.endpoint
        try:
            self.endpoint.listen(bind_ipc(run_dir.socket("events")), "ipc")
            if second:
                self.endpoint.listen(bind_endpoint(second), "tcp", security)
        except OSError as error:
            raise bind_error(f"events.endpoint: {second or run_dir.path}", error) from error

    def say_stopped(self) -> None:
        """Publish the last event: what the engine had to say of its sessions and workers is said."""
        self.publish(ENGINE_STOPPED, EngineRun(time_ns() // 1000, None, None, self.run))
        self.flush()

    async def close(self) -> None:
        """Send waiting events, tell each reader what it has lost, then close all connections."""
        self.flush()
        for reader in self._readers.values():
            # There is no later moment, so these few bytes are sent whatever is queued.
            for source in reader.lost:
                reader.link.append(self.reminder(source))
            reader.lost.clear()
        await close_endpoint(self.endpoint, LINGER_SECONDS)

    def listen(self, prefix: bytes, listener: Listener) -> None:
        """Give this part of the engine every batch whose topic has the prefix; it takes them as fast as they come."""
        self._listeners[prefix] = listener
        self._change_interest()

    def unlisten(self, prefix: bytes) -> None:
        """Give this prefix to that part no more."""
        self._listeners.pop(prefix, None)
        self._change_interest()

    # -- workers ------------------------------------------------------------------------------------------------------------

    def begin(self, worker: WorkerId) -> control.Begin:
        """The command with what a worker needs to know before it publishes."""
        # Everything that it publishes follows all changes so far.
        self._confirmed[worker] = self._change
        numbers = {topic: numbers for (topic, index), numbers in self._numbers.items() if index == worker}
        return control.Begin(self._change, tuple(self._told), numbers)

    def on_published(self, worker: WorkerId, published: Published) -> None:
        """Pass a worker's batch on."""
        source = (published.topic, worker)
        missed = published.first - self._numbers.get(source, _START).next
        self._numbers[source] = published.numbers
        if published.wire:
            self._pass_on(source, published.count, missed, published.wire)

    def on_interest_set(self, worker: WorkerId, number: int) -> None:
        """A worker confirms that it publishes what was subscribed to up to this change."""
        self._confirmed[worker] = number
        self._confirm()

    def on_worker_lost(self, worker: WorkerId) -> None:
        """A worker is lost: await no confirmation from it."""
        self._confirmed.pop(worker, None)
        self._confirm()

    @property
    def publishers(self) -> set[WorkerId | None]:
        """All that have published, also workers that have ended; `None` is the engine itself."""
        return {publisher for _, publisher in self._numbers}

    def positions(self, worker: WorkerId | None) -> dict[str, int]:
        """For each topic, the ordinal of a publisher's next event after those that were passed on."""
        return {topic: numbers.next for (topic, index), numbers in self._numbers.items() if index == worker}

    def sources(self, prefixes: tuple[str, ...]) -> dict[Source, Numbers]:
        """The positions of all publishers in all topics that begin with one of these."""
        return {source: numbers for source, numbers in self._numbers.items() if source[0].startswith(prefixes)}

    def reminder(self, source: Source) -> bytes:
        """A batch without events that states the position of a publisher in a topic."""
        topic, worker = source
        return empty_batch(topic.encode(), Publisher(self.run, worker), self._numbers[source])

    # -- the engine's own ---------------------------------------------------------------------------------------------------

    def wants(self, topic: str) -> bool:
        """Whether the topic has a subscriber, so that unread events need not be built."""
        return self._interest[topic]

    def publish(self, topic: str, event: Event) -> None:
        """Publish one of the engine's own events; it leaves with the next batch."""
        self._batches.add(topic, event)
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(self._settings.lifecycle_batch_ms / 1000, self.flush)

    def flush(self) -> None:
        """Send the engine's own waiting events."""
        self._is_due = False
        for batch in self._batches.take():
            count, wire = len(batch.events), batch.wire()
            batch.sent()
            self._numbers[batch.topic, None] = batch.numbers
            self._pass_on((batch.topic, None), count, 0, wire)

    # -- readers ------------------------------------------------------------------------------------------------------------

    def readers(self) -> list[ReaderCounts]:
        """The events sent to the readers of each user, and missed by them, including readers that have left."""
        totals = dict(self._past_readers)
        for reader in self._readers.values():
            _count_reader(totals, reader, is_connected=True)
        return list(totals.values())

    def status(self) -> list[SubscriberStatus]:
        """All subscribers."""
        return [
            SubscriberStatus(
                remote=reader.link.remote,
                prefixes=sorted(prefix.decode(errors="backslashreplace") for prefix in reader.link.prefixes),
                queued_bytes=reader.link.queued_bytes,
                sent_events=reader.sent_events,
                missed_events=reader.missed_events,
            )
            for reader in self._readers.values()
        ]

    def remind(self) -> None:
        """Tell each reader the next ordinals of the sources of which it has lost events; called once a second."""
        for reader in self._readers.values():
            self._remind(reader)
        self._confirm()

    def _remind(self, reader: Reader, but: Source | None = None) -> bool:
        """Tell a reader what it has lost, except from the source `but`. Returns whether its queue had room for that."""
        for source in list(reader.lost):
            if source == but:
                continue
            if not reader.link.offer(self.reminder(source)):
                return False
            del reader.lost[source]
        return True

    def on_ready(self, link: Link) -> None:
        """A reader has connected."""
        reader = link.owner_state = Reader(link)
        self._readers[link.number] = reader

    def on_subscribed(self, link: Link, prefix: bytes) -> None:
        """A reader has subscribed. It gets a confirmation when that has taken effect everywhere."""
        reader: Reader = link.owner_state
        self._by_prefix.setdefault(prefix, {})[link.number] = reader
        reader.unconfirmed[prefix] = self._change if prefix in self._told else self._change + 1
        self._change_interest()

    def on_cancelled(self, link: Link, prefix: bytes) -> None:
        """A reader has cancelled a subscription."""
        link.owner_state.unconfirmed.pop(prefix, None)
        self._leave(link, prefix)
        self._change_interest()

    def on_message(self, link: Link, frames: list[bytes]) -> None:
        """Never called: the endpoint drops everything that is not a subscription."""

    def on_room(self, link: Link) -> None:
        """A reader's queue is empty."""
        self._remind(link.owner_state)

    def on_refused(self, remote: str, cause: str, times: int) -> None:
        """A connection was refused."""
        log.warning("a subscriber was refused", remote=remote, cause=cause, times=times)

    def on_gone(self, link: Link) -> None:
        """A reader has disconnected."""
        _count_reader(self._past_readers, self._readers.pop(link.number), is_connected=False)
        for prefix in link.prefixes:
            self._leave(link, prefix)
        self._change_interest()

    def _leave(self, link: Link, prefix: bytes) -> None:
        readers = self._by_prefix[prefix]
        del readers[link.number]
        if not readers:
            del self._by_prefix[prefix]

    def _pass_on(self, source: Source, count: int, missed: int, wire: zmtp.Wire) -> None:
        """Offer a batch to the readers of its topic. The publisher itself has lost `missed` events before it.

        A reader that has lost events of any topic learns that first: it must not see the end of a session before the
        loss of its opening.
        """
        topic = source[0]
        if self._listeners:
            self._tell_listeners(topic, wire)
        readers = self._of_topic.get(topic)
        if readers is None:
            readers = self._of_topic[topic] = self._find(topic)
        for reader in readers:
            reader.missed_events += missed
            # The batch itself shows the losses of its own topic and publisher.
            if (not reader.lost or self._remind(reader, source)) and reader.link.offer(wire):
                reader.sent_events += count
                reader.lost.pop(source, None)
            else:
                reader.missed_events += count
                reader.lost[source] = None

    def _tell_listeners(self, topic: str, wire: zmtp.Wire) -> None:
        listeners = self._listeners_of.get(topic)
        if listeners is None:
            found = map(self._listeners.get, prefixes_of(topic))
            listeners = self._listeners_of[topic] = [listener for listener in found if listener is not None]
        for listener in listeners:
            listener(topic, wire)

    def _find(self, topic: str) -> list[Reader]:
        found: dict[int, Reader] = {}
        for prefix in prefixes_of(topic):
            found.update(self._by_prefix.get(prefix, {}))
        return list(found.values())

    # -- subscriptions ------------------------------------------------------------------------------------------------------

    def _change_interest(self) -> None:
        self._of_topic.clear()
        self._listeners_of.clear()
        if not self._is_change_due:
            self._is_change_due = True
            self._loop.call_later(INTEREST_SECONDS, self._tell_interest)

    def _tell_interest(self) -> None:
        """Tell the workers the net change, then the readers whose subscriptions have taken effect everywhere."""
        self._is_change_due = False
        wanted = {*self._by_prefix, *self._listeners}
        added, removed = wanted - self._told, self._told - wanted
        if added or removed:
            self._told = wanted
            self._change += 1
            self._interest.change(added, removed)
            self._tell_workers(control.SetInterest(self._change, tuple(added), tuple(removed)))
        self._confirm()

    def _confirm(self) -> None:
        """Confirm subscriptions that all publishers follow, each by an empty batch whose topic is the prefix itself."""
        done = min(self._confirmed.values(), default=self._change)
        for reader in self._readers.values():
            for prefix, number in list(reader.unconfirmed.items()):
                if number <= done and reader.link.offer(self._confirmation(prefix)):
                    del reader.unconfirmed[prefix]

    def _confirmation(self, prefix: bytes) -> bytes:
        positions = [
            (topic, worker, numbers.next)
            for (topic, worker), numbers in self._numbers.items()
            if prefix in prefixes_of(topic)
        ]
        more = f'"started_us":{self.started_us},"next":{msgspec.json.encode(positions).decode()},'
        numbers = self._numbers.get((prefix.decode(errors="replace"), None), _START)
        return empty_batch(prefix, self._own, numbers, more)


def _count_reader(totals: dict[str, ReaderCounts], reader: Reader, *, is_connected: bool) -> None:
    """Add a reader to the counts of its user."""
    user = reader.link.user or NO_KEY
    if user not in totals and len(totals) >= USERS_KEPT:
        user = _OTHERS
    queued_bytes = reader.link.queued_bytes if is_connected else 0
    counts = ReaderCounts(user, int(is_connected), queued_bytes, reader.sent_events, reader.missed_events)
    totals[user] = added(totals[user], counts) if user in totals else counts
