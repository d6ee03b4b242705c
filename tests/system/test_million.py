"""A million events to readers that read, lag and stop, over replaced workers and a restart: received + missed = sent."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from time import monotonic, sleep

import pytest

from rlpx.engine.client.batch_reader import Event, Gap
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.hub.events import EventsHub
from rlpx.engine.settings.run_dir import RunDir
from rlpx.protocol.bus.batches import Batches, Publisher
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.control import WorkerId
from rlpx.protocol.bus.reports import Published
from rlpx.protocol.settings import EventSettings
from tests.system.harness import working_folder

EVENTS = 1_000_000
BATCH = 250
TOPICS = ("eth.Transactions", "eth.NewPooledTransactionHashes")
WORKERS = (WorkerId(0), WorkerId(1))
# Nobody can know what a worker drops right before its end, so a drop never comes right before a replacement.
REPLACED_EVERY = 300
DROPPED_EVERY = 100
PATIENCE_SECONDS = 200.0
# So small that a reader that stops reading soon loses events.
SETTINGS = EventSettings(queue_bytes=1 << 20, total_queue_bytes=4 << 20)


class Reading:
    """A reader in a thread of its own, which may pause after each batch, or stop for a while."""

    def __init__(self, folder: Path, pause_seconds: float) -> None:
        self._subscriber = Subscriber.of(folder, ["eth."])
        self._pause_seconds = pause_seconds
        self.received: Counter[tuple[str, str, int | None]] = Counter()
        self.missed: Counter[tuple[str, str, int | None]] = Counter()
        self.stops = threading.Event()
        self.may_read = threading.Event()
        self.may_read.set()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    @property
    def is_confirmed(self) -> bool:
        return self._subscriber.is_confirmed

    @property
    def run(self) -> str | None:
        return self._subscriber.run

    @property
    def is_reading(self) -> bool:
        return self.thread.is_alive()

    def total(self, run: str) -> int:
        """The sum of received and missed events of one run."""
        both = (*self.received.items(), *self.missed.items())
        return sum(count for (of, _, _), count in both if of == run)

    def close(self) -> None:
        self.stops.set()
        self.may_read.set()
        self.thread.join(PATIENCE_SECONDS)
        self._subscriber.close()

    def _run(self) -> None:
        while not self.stops.is_set():
            self.may_read.wait()
            for item in self._subscriber.poll(0.05):
                run = self._subscriber.run or ""
                if isinstance(item, Gap):
                    self.missed[run, item.topic, item.worker] += item.missed
                elif isinstance(item, Event) and item.topic in TOPICS:
                    source = run, item.topic, item.worker
                    # Every event is where its ordinal says.
                    assert item.ordinal == self.received[source] + self.missed[source], item
                    self.received[source] += 1
            if self._pause_seconds:
                sleep(self._pause_seconds)


async def until(condition: object, what: str) -> None:
    """Wait in the loop, which keeps serving the readers."""
    assert callable(condition)
    ends_at = monotonic() + PATIENCE_SECONDS
    while not condition():
        assert monotonic() < ends_at, what
        await asyncio.sleep(0.01)


def mix(batches: Batches, topic: str, *, is_dropped: bool) -> Published | None:
    """The next batch of a topic, unless the worker has no room for it."""
    for _ in range(BATCH):
        batches.add_encoded(topic, '{"size":40}', b"x" * 40)
    [batch] = batches.take()
    if is_dropped:
        batch.refused()
        return None
    first, wire = batch.numbers.next, batch.wire()
    batch.sent()
    return Published(batch.topic, first, batch.numbers, (), wire)


def replaced(hub: EventsHub, index: WorkerId) -> Batches:
    """Let a worker end, and another one continue its numbers."""
    hub.on_worker_lost(index)
    return Batches(Publisher(hub.run, index), hub.begin(index).numbers)


async def published(hub: EventsHub, events: int, may_read: threading.Event) -> Counter[tuple[str, str, int | None]]:
    """Publish this many events from two workers, which are replaced now and then and sometimes drop their events."""
    sent: Counter[tuple[str, str, int | None]] = Counter()
    batches = {index: Batches(Publisher(hub.run, index), hub.begin(index).numbers) for index in WORKERS}
    rounds = events // BATCH
    for number in range(rounds):
        index, topic = WORKERS[number % 2], TOPICS[number // 2 % 2]
        if number % REPLACED_EVERY == 0:
            batches[index] = replaced(hub, index)
        sent[hub.run, topic, index] += BATCH
        published = mix(batches[index], topic, is_dropped=number % DROPPED_EVERY == DROPPED_EVERY // 2)
        if published is not None:
            hub.on_published(index, published)
        if number in {rounds // 3, 2 * rounds // 3}:
            # Meanwhile, one of the readers does not read.
            (may_read.clear if number == rounds // 3 else may_read.set)()
        if number % 8 == 0:
            await asyncio.sleep(0)
    for index in WORKERS:
        for batch in batches[index].owing():
            hub.on_published(index, Published(batch.topic, batch.numbers.next, batch.numbers, (), batch.reminder()))
    return sent


def test_received_and_missed_are_what_was_sent_for_every_reader_over_a_million_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Otherwise the library would keep reading in a thread of its own when the reader does not.
    monkeypatch.setattr("rlpx.engine.client.subscriber.RECEIVE_QUEUE_BATCHES", 20)
    with working_folder() as folder:
        readers: list[Reading] = []

        async def run(name: str, events: int) -> Counter[tuple[str, str, int | None]]:
            hub = EventsHub(name, SETTINGS, Clockwork(asyncio.get_running_loop(), monotonic, lambda: True), lambda _: None)
            hub.start(RunDir(folder))
            if not readers:
                readers.extend(Reading(folder, pause) for pause in (0.0, 0.002, 0.0))
            await until(
                lambda: all(reader.is_confirmed and reader.run == name for reader in readers), "all subscriptions hold"
            )
            sent = await published(hub, events, readers[2].may_read)

            def have_all() -> bool:
                hub.remind()
                assert all(reader.is_reading for reader in readers)
                return all(reader.total(name) == events for reader in readers)

            await until(have_all, "all readers know of all events")
            shown = {status.sent_events + status.missed_events for status in hub.status()}
            assert shown == {events}
            await hub.close()
            return sent

        try:
            sent = asyncio.run(run("one", EVENTS * 3 // 4))
            sent += asyncio.run(run("two", EVENTS // 4))
        finally:
            for reader in readers:
                reader.close()
        assert sent.total() == EVENTS
        for reader in readers:
            assert reader.received + reader.missed == sent
        # The one that stopped has lost more than the workers dropped, or this proved nothing.
        assert readers[2].missed.total() > EVENTS // DROPPED_EVERY
