"""Events to subscribers: unchanged, confirmed, and with exact losses for each reader, whoever else reads or does not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, cast

import orjson
import pytest
import zmq

from rlpx.engine.client.batch_reader import BatchReader, Event, Gap, Item
from rlpx.engine.client.subscriber import RECEIVE_QUEUE_BATCHES, Subscriber
from rlpx.engine.hub.events import EventsHub
from rlpx.engine.settings.run_dir import RunDir
from rlpx.protocol.bus import control, zmtp
from rlpx.protocol.bus.batches import Batches, Publisher
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.control import SetInterest, WorkerId
from rlpx.protocol.bus.events import Event as SomeEvent
from rlpx.protocol.bus.link import Link
from rlpx.protocol.bus.reports import Published
from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.settings import EventSettings

# Nothing here takes long; a test that waits this long has failed.
PATIENCE_SECONDS = 60.0
ZERO, ONE = WorkerId(0), WorkerId(1)
TOPIC = "eth.Transactions"

Socket = zmq.Socket[bytes]


class Worker:
    """The batches of a worker, as the hub gets them."""

    def __init__(self, hub: EventsHub, index: WorkerId) -> None:
        self.hub = hub
        self.index = index
        self.batches = Batches(Publisher(hub.run, index), hub.begin(index).numbers)

    def publish(self, count: int = 1, topic: str = TOPIC, payload: bytes = b"") -> None:
        """Publish one batch of this many events."""
        for number in range(count):
            self.batches.add_encoded(topic, f'{{"n":{number},"size":{len(payload)}}}', payload)
        for batch in self.batches.take():
            first, wire = batch.numbers.next, batch.wire()
            batch.sent()
            self.hub.on_published(self.index, Published(batch.topic, first, batch.numbers, (), wire))

    def drop(self, count: int, topic: str = TOPIC) -> None:
        """Drop this many events, for which the worker's own queue has no room."""
        for _ in range(count):
            self.batches.add(topic, SomeEvent(0))
        for batch in self.batches.take():
            batch.refused()


class FakeLink:
    """A connection that accepts every message while it `has_room`."""

    def __init__(self, number: int) -> None:
        self.user: str | None = None
        self.number = number
        self.remote = "played"
        self.prefixes: set[bytes] = set()
        self.owner_state: object = None
        self.queued_bytes = 0
        self.has_room = True
        self.reader = BatchReader()
        self.items: list[Item] = []
        self.wires: list[bytes] = []

    def offer(self, wire: bytes) -> bool:
        if self.has_room:
            self.wires.append(wire)
            self.items += self.reader.read(zmtp.decode(wire))
        return self.has_room

    def append(self, wire: bytes) -> None:
        self.items += self.reader.read(zmtp.decode(wire))

    @property
    def received(self) -> int:
        return sum(isinstance(item, Event) for item in self.items)

    @property
    def missed(self) -> int:
        return sum(item.missed for item in self.items if isinstance(item, Gap))


class Harness:
    """A hub with the test's clock and fake links."""

    def __init__(self) -> None:
        self.told: list[SetInterest] = []
        self.timers: list[Callable[[], object]] = []
        clockwork = Clockwork(cast("Any", self), lambda: 0.0, lambda: True)
        self.hub = EventsHub("r", EventSettings(), clockwork, self.tell)
        self.links = 0

    def call_later(self, _delay: float, callback: Callable[[], object]) -> None:
        self.timers.append(callback)

    def tell(self, command: control.Command) -> None:
        assert isinstance(command, SetInterest)
        self.told.append(command)

    def fire(self) -> None:
        """Run all timers."""
        timers, self.timers = self.timers, []
        for callback in timers:
            callback()

    def link(self, *prefixes: bytes) -> FakeLink:
        """A reader with subscriptions that hold."""
        self.links += 1
        link = FakeLink(self.links)
        self.hub.on_ready(cast("Link", link))
        for prefix in prefixes:
            self.subscribe(link, prefix)
        self.fire()
        return link

    def subscribe(self, link: FakeLink, prefix: bytes) -> None:
        link.prefixes.add(prefix)
        self.hub.on_subscribed(cast("Link", link), prefix)

    def cancel(self, link: FakeLink, prefix: bytes) -> None:
        link.prefixes.remove(prefix)
        self.hub.on_cancelled(cast("Link", link), prefix)


# -- passing on -------------------------------------------------------------------------------------------------------------


def test_a_batch_reaches_all_who_read_its_topic_as_it_is_and_nobody_else() -> None:
    harness = Harness()
    worker = Worker(harness.hub, ZERO)
    one, both, other = harness.link(b"eth."), harness.link(b"", b"eth.Tr"), harness.link(b"snap.")
    worker.publish(3, payload=b"ab")
    assert (one.received, both.received, other.received) == (3, 3, 0)
    # The very bytes, not a copy.
    assert one.wires[-1] is both.wires[-1]


def test_who_reads_everything_does_not_get_what_another_asked_to_tap() -> None:
    harness = Harness()
    worker = Worker(harness.hub, ZERO)
    everything, tap = harness.link(b""), harness.link(b"tap.")
    worker.publish(topic="tap.eth.Transactions")
    assert (everything.received, tap.received) == (0, 1)


def test_the_engines_own_events_leave_in_batches_of_their_own() -> None:
    harness = Harness()
    link = harness.link(b"")
    assert harness.hub.wants("worker.lost")
    for number in range(3):
        harness.hub.publish("session.refused", SomeEvent(number))
    assert link.received == 0
    harness.fire()
    assert [item.fields["time_us"] for item in link.items if isinstance(item, Event)] == [0, 1, 2]
    assert len(link.wires) == 2


def test_what_one_readers_queue_refuses_is_its_loss_alone_and_exact() -> None:
    harness = Harness()
    worker = Worker(harness.hub, ZERO)
    lazy, eager = harness.link(b"eth."), harness.link(b"eth.")
    worker.publish(2)
    lazy.has_room = False
    for _ in range(10):
        worker.publish(7)
    lazy.has_room = True
    worker.publish(1)
    assert (eager.received, eager.missed) == (73, 0)
    assert (lazy.received, lazy.missed) == (3, 70)
    shown = {status.remote: status for status in harness.hub.status()[:1]}["played"]
    assert (shown.sent_events, shown.missed_events) == (3, 70)


def test_what_was_lost_at_the_end_shows_within_a_second() -> None:
    harness = Harness()
    link = harness.link(b"")
    workers = Worker(harness.hub, ZERO), Worker(harness.hub, ONE)
    link.has_room = False
    workers[0].publish(5)
    workers[1].publish(6)
    harness.hub.publish("worker.lost", SomeEvent(0))
    harness.fire()
    harness.hub.remind()
    assert link.missed == 0
    harness.hub.on_worker_lost(ONE)
    link.has_room = True
    harness.hub.remind()
    assert link.missed == 12
    wires = len(link.wires)
    harness.hub.remind()
    assert len(link.wires) == wires


def test_a_reader_that_has_room_again_is_told_at_once() -> None:
    harness = Harness()
    link = harness.link(b"")
    worker = Worker(harness.hub, ZERO)
    link.has_room = False
    worker.publish(5)
    link.has_room = True
    harness.hub.on_room(cast("Link", link))
    assert link.missed == 5


def test_a_loss_is_told_before_anything_that_follows_whatever_its_topic() -> None:
    """Otherwise a reader gets the end of a session before it knows that it has missed the opening."""
    harness = Harness()
    link = harness.link(b"session.")
    worker = Worker(harness.hub, ZERO)
    link.has_room = False
    worker.publish(2, "session.opened")
    link.has_room = True
    worker.publish(1, "session.closed")
    assert [(type(item), item.topic) for item in link.items] == [(Gap, "session.opened"), (Event, "session.closed")]
    worker.publish(1, "session.opened")
    assert (link.received, link.missed) == (2, 2)


def test_what_does_not_fit_behind_the_news_of_a_loss_is_lost_as_well() -> None:
    harness = Harness()
    link = harness.link(b"session.")
    worker = Worker(harness.hub, ZERO)
    link.has_room = False
    worker.publish(2, "session.opened")
    worker.publish(3, "session.closed")
    link.has_room = True
    harness.hub.remind()
    assert (link.received, link.missed) == (0, 5)


async def test_what_was_lost_before_the_engine_ends_is_told_though_nothing_has_room() -> None:
    harness = Harness()
    link = harness.link(b"")
    worker = Worker(harness.hub, ZERO)
    link.has_room = False
    worker.publish(5)
    harness.hub.say_stopped()
    await harness.hub.close()
    # The last topic is lost as well.
    assert (link.received, link.missed) == (0, 6)


def test_what_a_worker_dropped_itself_is_every_readers_loss() -> None:
    harness = Harness()
    worker = Worker(harness.hub, ZERO)
    link = harness.link(b"")
    worker.publish(1)
    worker.drop(9)
    worker.publish(1)
    assert (link.received, link.missed) == (2, 9)
    [status] = harness.hub.status()
    assert (status.sent_events, status.missed_events) == (2, 9)


def test_a_worker_that_replaces_another_leaves_no_gap_and_hides_none() -> None:
    harness = Harness()
    link = harness.link(b"")
    Worker(harness.hub, ZERO).publish(5)
    harness.hub.on_worker_lost(ZERO)
    replacement = Worker(harness.hub, ZERO)
    replacement.publish(2)
    replacement.drop(3)
    replacement.publish(1)
    assert (link.received, link.missed) == (8, 3)


# -- subscriptions ----------------------------------------------------------------------------------------------------------


def test_workers_hear_of_changes_in_sum_alone() -> None:
    harness = Harness()
    one, other = harness.link(b"eth."), harness.link(b"eth.", b"snap.")
    assert [(command.added, command.removed) for command in harness.told] == [((b"eth.",), ()), ((b"snap.",), ())]
    harness.cancel(one, b"eth.")
    harness.fire()
    assert len(harness.told) == 2
    harness.hub.on_gone(cast("Link", other))
    harness.fire()
    assert set(harness.told[2].removed) == {b"eth.", b"snap."}
    assert not harness.hub.wants(TOPIC)


def test_a_flood_of_subscriptions_and_cancels_costs_the_workers_one_command() -> None:
    harness = Harness()
    link = harness.link(b"eth.")
    for _ in range(1000):
        harness.subscribe(link, b"session.")
        harness.cancel(link, b"session.")
    assert len(harness.timers) == 1
    harness.fire()
    assert len(harness.told) == 1


def test_a_subscription_is_confirmed_when_every_worker_has_heard_of_it() -> None:
    harness = Harness()
    zero, one = Worker(harness.hub, ZERO), Worker(harness.hub, ONE)
    link = harness.link(b"eth.")
    assert link.reader.confirmed == set()
    zero.publish(4)
    harness.hub.on_interest_set(ZERO, 1)
    assert link.reader.confirmed == set()
    harness.hub.on_interest_set(ONE, 1)
    assert link.reader.confirmed == {b"eth."}
    head = orjson.loads(zmtp.decode(link.wires[-1])[1])
    assert (head["run"], head["worker"], head["events"]) == ("r", None, [])
    assert head["next"] == [[TOPIC, 0, 4]]
    assert head["started_us"] > 0
    # Another reader of the same: it holds already.
    assert harness.link(b"eth.").reader.confirmed == {b"eth."}
    one.publish(1)
    assert link.missed == 0


def test_a_worker_that_is_lost_or_begins_holds_up_no_confirmation() -> None:
    harness = Harness()
    Worker(harness.hub, ZERO)
    link = harness.link(b"eth.")
    assert link.reader.confirmed == set()
    harness.hub.on_worker_lost(ZERO)
    assert link.reader.confirmed == {b"eth."}
    begin = harness.hub.begin(ZERO)
    assert begin.prefixes == (b"eth.",)
    assert harness.link(b"eth.").reader.confirmed == {b"eth."}


def test_a_confirmation_that_finds_no_room_comes_later() -> None:
    harness = Harness()
    link = harness.link()
    link.has_room = False
    harness.subscribe(link, b"eth.")
    harness.fire()
    link.has_room = True
    harness.hub.remind()
    assert link.reader.confirmed == {b"eth."}


def test_what_is_cancelled_before_it_held_is_not_confirmed() -> None:
    harness = Harness()
    Worker(harness.hub, ZERO)
    link = harness.link(b"eth.")
    harness.cancel(link, b"eth.")
    harness.hub.on_interest_set(ZERO, 1)
    assert link.wires == []


def test_the_confirmation_of_a_prefix_that_is_no_text_says_so_in_its_topic() -> None:
    harness = Harness()
    link = harness.link(b"\xff")
    assert zmtp.decode(link.wires[-1])[0] == b"\xff"
    assert harness.hub.status()[0].prefixes == ["\\xff"]


def test_parts_of_the_engine_hear_the_topics_that_they_listen_to_at_the_time() -> None:
    hub, heard = Harness().hub, []
    worker = Worker(hub, ZERO)
    hub.listen(b"session.", lambda topic, _wire: heard.append(("early", topic)))
    worker.publish(topic="session.opened")
    hub.listen(b"session.o", lambda topic, _wire: heard.append(("late", topic)))
    worker.publish(topic="session.opened")
    worker.publish(topic="session.closed")
    hub.unlisten(b"session.")
    worker.publish(topic="session.opened")
    assert heard == [
        ("early", "session.opened"),
        ("early", "session.opened"),
        ("late", "session.opened"),
        ("early", "session.closed"),
        ("late", "session.opened"),
    ]


# -- with real sockets ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(folder: Path, settings: EventSettings | None = None) -> AsyncIterator[EventsHub]:
    """A hub that listens, and is closed at the end."""
    clockwork = Clockwork(asyncio.get_running_loop(), monotonic, lambda: True)
    hub = EventsHub("r", settings or EventSettings(), clockwork, lambda _: None)
    hub.start(RunDir(folder))
    try:
        yield hub
    finally:
        await hub.close()


async def received(sock: Socket) -> list[bytes]:
    """The next message of a user's socket."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not sock.poll(0):  # noqa: ASYNC110 - ZeroMQ sets no event
            await asyncio.sleep(0.001)
    return sock.recv_multipart()


@pytest.fixture
def context() -> Iterator[zmq.Context[Socket]]:
    made: zmq.Context[Socket] = zmq.Context()
    yield made
    made.term()


@pytest.mark.parametrize("is_tcp", [False, True])
async def test_a_plain_sub_socket_gets_its_confirmation_events_and_the_last_one_of_all(
    tmp_path: Path, context: zmq.Context[Socket], *, is_tcp: bool
) -> None:
    settings = EventSettings()
    if is_tcp:
        with socket.create_server(("127.0.0.1", 0)) as server:
            settings = EventSettings(endpoint=f"tcp://127.0.0.1:{server.getsockname()[1]}")

    with context.socket(zmq.SUB) as sock:
        async with served(tmp_path, settings) as hub:
            sock.connect(settings.endpoint or RunDir(tmp_path).endpoint("events"))
            sock.setsockopt_string(zmq.SUBSCRIBE, "engine.")
            topic, head, body = await received(sock)
            assert (topic, orjson.loads(head)["events"], body) == (b"engine.", [], b"")
            hub.publish("engine.reloaded", SomeEvent(1))
            topic, head, body = await received(sock)
            assert (topic, orjson.loads(head)["events"], body) == (b"engine.reloaded", [{"time_us": 1}], b"")
            hub.say_stopped()
        topic, head, _ = await received(sock)
        assert topic == b"engine.stopped"


async def test_a_subscriber_that_does_not_read_loses_its_own_events_only_and_its_queue_is_bounded(
    tmp_path: Path, context: zmq.Context[Socket]
) -> None:
    settings = EventSettings(queue_bytes=1 << 20, total_queue_bytes=4 << 20)

    with context.socket(zmq.SUB) as eager, socket.socket(socket.AF_UNIX) as lazy:
        async with served(tmp_path, settings) as hub:
            worker = Worker(hub, ZERO)
            # A ZMTP peer that subscribes and never reads.
            lazy.connect(str(tmp_path / "events.ipc"))
            greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + bytes(32)
            ready = zmtp.command(b"READY", zmtp.metadata({"Socket-Type": b"SUB"}))
            lazy.sendall(greeting + ready + zmtp.frame(0, b"\x01eth."))
            eager.setsockopt(zmq.RCVHWM, 0)
            eager.connect(RunDir(tmp_path).endpoint("events"))
            eager.setsockopt_string(zmq.SUBSCRIBE, "eth.")
            hub.on_interest_set(ZERO, 1)
            reader, items = BatchReader(), cast("list[Item]", [])
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(hub.status()) < 2 or not reader.confirmed:
                    await asyncio.sleep(0.001)
                    while eager.poll(0):
                        items += reader.read(eager.recv_multipart())
            for _ in range(300):
                worker.publish(1, payload=bytes(32 * 1024))
                items += reader.read(await received(eager))
            assert len(items) == 300
            assert all(isinstance(item, Event) for item in items)
            slow = hub.status()[0]
            assert slow.queued_bytes <= 1 << 20
            assert slow.missed_events > 200
            assert slow.sent_events + slow.missed_events == 300


async def test_what_our_own_subscriber_holds_unread_is_bounded_as_well(tmp_path: Path) -> None:
    settings = EventSettings(queue_bytes=1 << 20, total_queue_bytes=4 << 20)
    async with served(tmp_path, settings) as hub:
        with Subscriber(RunDir(tmp_path).endpoint("events"), ["eth."]) as unread:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not hub.wants(TOPIC):  # noqa: ASYNC110 - ZeroMQ sets no event
                    await asyncio.sleep(0.001)
            worker, waiting = Worker(hub, ZERO), 0
            for _ in range(200):
                worker.publish(1, payload=bytes(200_000))
                for _ in range(20):
                    # Its socket takes at once as much as it has room for.
                    await asyncio.sleep(0.001)
                    waiting = hub.status()[0].queued_bytes
                    if not waiting:
                        break
            assert waiting > 0
            received = missed = 0
            async with asyncio.timeout(PATIENCE_SECONDS):
                while received + missed < 200:
                    for item in unread.poll(0):
                        received += isinstance(item, Event)
                        missed += item.missed if isinstance(item, Gap) else 0
                    hub.remind()
                    await asyncio.sleep(0.001)
            # What its socket takes, what the kernel and the hub hold, and what follows while it is read.
            assert received < RECEIVE_QUEUE_BATCHES + 30


async def test_an_endpoint_that_is_taken_is_an_error_of_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        endpoint = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        clockwork = Clockwork(asyncio.get_running_loop(), monotonic, lambda: True)
        hub = EventsHub("r", EventSettings(endpoint=endpoint), clockwork, lambda _: None)
        with pytest.raises(ConfigError, match=r"events\.endpoint: .*Address already in use"):
            hub.start(RunDir(tmp_path))
        await hub.close()


async def test_closing_without_a_user_takes_no_time(tmp_path: Path) -> None:
    async with served(tmp_path):
        started = monotonic()
    assert monotonic() - started < 1.0
