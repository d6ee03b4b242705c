"""Traffic events on their way out: only what is wanted, in numbered batches, and every refusal counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import zmq

from engine.client import Event, Gap, GapTracker
from protocol.control import OutboxConfig, WorkerId
from workers.outbox import Outbox

ENDPOINT = "inproc://traffic"
CONFIG = OutboxConfig(ENDPOINT, batch_seconds=0.002, batch_bytes=100, queue_batches=1000)


class Scene:
    """An outbox that has one pipe, to the `reader`; what it asks the loop for is in `timers`."""

    def __init__(self, config: OutboxConfig = CONFIG) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.reader = self.context.socket(zmq.SUB)
        # With the outbox's own bound this is the whole pipe: inside a process there are no buffers between.
        self.reader.setsockopt(zmq.RCVHWM, 1)
        self.reader.setsockopt(zmq.RCVTIMEO, 10_000)
        self.reader.bind(ENDPOINT)
        self.outbox = Outbox(WorkerId(3), config, self.context, self.later)
        self.is_closed = False

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Keep it until a test lets it come."""
        self.timers.append((seconds, callback))

    def fire(self) -> None:
        """All timers come."""
        timers, self.timers = self.timers, []
        for _, callback in timers:
            callback()

    def subscribe(self, prefix: str) -> None:
        """Read a prefix from now on."""
        self.reader.setsockopt_string(zmq.SUBSCRIBE, prefix)
        for _ in range(1000):
            self.outbox.read_subscriptions()
            if self.outbox.interest[prefix]:
                return
            self.reader.poll(1)
        pytest.fail("the subscription never came")

    def batch(self) -> tuple[str, dict[str, Any], bytes]:
        """The next batch."""
        topic, head, body = self.reader.recv_multipart()
        return topic.decode(), orjson.loads(head), body

    def has_batch(self) -> bool:
        """Whether another one is there."""
        return bool(self.reader.poll(0))

    def close(self) -> None:
        """Let go of everything."""
        if not self.is_closed:
            self.is_closed = True
            self.outbox.close()
            self.reader.close()
            self.context.term()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def add(scene: Scene, number: int, payload: bytes = b"", topic: str = "eth.Transactions") -> None:
    """Enter one event."""
    scene.outbox.add(topic, f'{{"n":{number},"size":{len(payload)}}}', payload)


def test_it_knows_what_somebody_reads(scene: Scene) -> None:
    wanted = [scene.outbox.interest["eth.Transactions"]]
    scene.subscribe("eth.")
    wanted.append(scene.outbox.interest["eth.Transactions"])
    assert wanted == [False, True]
    assert not scene.outbox.interest["snap.GetAccountRange"]


def test_its_descriptor_can_be_watched(scene: Scene) -> None:
    assert scene.outbox.fileno() > 0


def test_events_wait_for_company_and_leave_in_one_batch(scene: Scene) -> None:
    scene.subscribe("eth.")
    add(scene, 1, b"ab")
    add(scene, 2, b"c")
    assert not scene.has_batch()
    assert [seconds for seconds, _ in scene.timers] == [0.002]
    scene.fire()
    topic, head, body = scene.batch()
    assert (topic, body) == ("eth.Transactions", b"abc")
    assert head.pop("since_us") > 0
    assert head == {"v": 1, "worker": 3, "seq": 1, "dropped": 0, "events": [{"n": 1, "size": 2}, {"n": 2, "size": 1}]}
    assert not scene.has_batch()


def test_the_next_event_waits_anew(scene: Scene) -> None:
    scene.subscribe("eth.")
    add(scene, 1)
    scene.fire()
    add(scene, 2)
    assert len(scene.timers) == 1
    scene.fire()
    assert [scene.batch()[1]["seq"] for _ in range(2)] == [1, 2]


def test_each_topic_has_batches_of_its_own(scene: Scene) -> None:
    scene.subscribe("")
    add(scene, 1, b"a", "eth.Transactions")
    add(scene, 2, b"b", "snap.GetAccountRange")
    add(scene, 3, b"c", "eth.Transactions")
    scene.fire()
    assert [(topic, head["seq"], body) for topic, head, body in (scene.batch(), scene.batch())] == [
        ("eth.Transactions", 1, b"ac"),
        ("snap.GetAccountRange", 1, b"b"),
    ]


def test_enough_bytes_leave_at_once(scene: Scene) -> None:
    scene.subscribe("eth.")
    add(scene, 1, bytes(99))
    assert not scene.has_batch()
    add(scene, 2, bytes(1))
    assert len(scene.batch()[1]["events"]) == 2


def test_a_timer_that_comes_when_all_has_left_does_nothing(scene: Scene) -> None:
    scene.subscribe("eth.")
    add(scene, 1)
    add(scene, 2, bytes(100))
    scene.batch()
    scene.fire()
    assert not scene.has_batch()


def test_what_the_pipe_refuses_is_dropped_whole_and_counted() -> None:
    scene = Scene(OutboxConfig(ENDPOINT, batch_seconds=0.002, batch_bytes=1 << 20, queue_batches=1))
    try:
        scene.subscribe("eth.")
        sent = 0
        while scene.outbox.dropped_events == 0:
            add(scene, sent, b"x")
            add(scene, sent, b"y")
            scene.fire()
            sent += 1
            assert sent < 100
        assert scene.outbox.dropped_events == 2
        add(scene, sent)
        scene.fire()
        assert scene.outbox.dropped_events == 3
        tracker = GapTracker()
        arrived: list[Event | Gap] = []
        while scene.has_batch():
            arrived += tracker.read(*scene.batch())
        assert len(arrived) == 2 * (sent - 1)
        assert not any(isinstance(event, Gap) for event in arrived)
        # ZeroMQ takes a moment to see that there is room again; what it refuses until then counts as well.
        for _ in range(1000):
            refused = scene.outbox.dropped_events
            add(scene, 1000)
            scene.fire()
            if scene.outbox.dropped_events == refused:
                break
            scene.reader.poll(1)
        gap, event = tracker.read(*scene.batch())
        assert gap == Gap("eth.Transactions", 3, refused)
        assert isinstance(event, Event)
        assert event.fields["n"] == 1000
    finally:
        scene.close()


def test_what_nobody_reads_any_more_is_no_loss(scene: Scene) -> None:
    scene.subscribe("eth.")
    add(scene, 1)
    scene.reader.setsockopt_string(zmq.UNSUBSCRIBE, "eth.")
    scene.fire()
    assert scene.outbox.dropped_events == 0


def test_sending_does_not_swallow_a_subscription(scene: Scene) -> None:
    """The descriptor tells of it on an edge; a send may take that."""
    scene.subscribe("eth.")
    scene.reader.setsockopt_string(zmq.SUBSCRIBE, "snap.")
    for number in range(1000):
        add(scene, number)
        scene.fire()
        scene.reader.recv_multipart()
        if scene.outbox.interest["snap.GetAccountRange"]:
            return
    pytest.fail("the subscription never came")


def test_what_waits_leaves_at_the_end(scene: Scene) -> None:
    scene.subscribe("eth.")
    add(scene, 1, b"last")
    scene.outbox.close()
    assert scene.batch()[2] == b"last"


def test_a_timer_that_comes_after_the_end_is_harmless(scene: Scene) -> None:
    scene.subscribe("eth.")
    add(scene, 1)
    scene.outbox.close()
    scene.fire()


def test_a_look_for_subscriptions_after_the_end_is_harmless(scene: Scene) -> None:
    """The worker's loop turns on until its last reports are written."""
    scene.outbox.close()
    scene.outbox.read_subscriptions()
