"""Events on their way to the engine: only what is wanted, in one order, bounded in bytes, and every loss counted exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from rlpx.engine.client.batch_reader import BatchReader, Event, Gap
from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.batches import Numbers, Publisher
from rlpx.protocol.bus.control import Begin, InterestSet, Report, SessionId
from rlpx.protocol.bus.events import CLOSED, OPENED
from rlpx.protocol.bus.events import Event as SomeEvent
from rlpx.protocol.bus.reports import Published, ReportReader
from rlpx.protocol.settings import EventSettings
from rlpx.workers.publisher import WRITE_AHEAD_BYTES, Outbox

SETTINGS = EventSettings(batch_ms=2, lifecycle_batch_ms=10, batch_bytes=100, worker_queue_bytes=1 << 20)
TOPIC = "eth.Transactions"
ONE = SessionId(1)


class Stream:
    """The engine's stream, which takes all at once, or nothing while it is `stuck`."""

    def __init__(self) -> None:
        self.waiting = bytearray()
        self.is_stuck = False
        self.is_gone = False
        self.read: list[Report | Published] = []
        self._decoder = ReportReader()

    def writelines(self, list_of_data: Sequence[zmtp.Wire], /) -> None:
        for data in list_of_data:
            self.waiting += data
        if not self.is_stuck:
            self.flow()

    def flow(self) -> None:
        """The engine reads what waits."""
        self.read += self._decoder.feed(bytes(self.waiting))
        self.waiting.clear()

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def is_closing(self) -> bool:
        return self.is_gone


class Timer:
    """A call that an outbox has asked the loop for."""

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self.seconds = seconds
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Harness:
    """An outbox that has begun; the calls that it asks the loop for are in `timers`."""

    def __init__(self, settings: EventSettings = SETTINGS, numbers: dict[str, Numbers] | None = None) -> None:
        self.timers: list[Timer] = []
        self.stream = Stream()
        self.befores = 0
        self.outbox = Outbox(Publisher("run", 3), settings, self.later, self.before)
        self.outbox.begin(self.stream, Begin(0, (b"eth.",), numbers or {}))

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(seconds, callback)
        self.timers.append(timer)
        return timer

    def before(self) -> None:
        self.befores += 1

    def fire(self) -> None:
        """The loop makes all calls that are due."""
        timers, self.timers = self.timers, []
        for timer in timers:
            if not timer.is_cancelled:
                timer.callback()

    @property
    def pending_seconds(self) -> list[float]:
        """After how many seconds the calls are due that nothing has cancelled."""
        return [timer.seconds for timer in self.timers if not timer.is_cancelled]

    def add(self, number: int, payload: bytes = b"", topic: str = TOPIC) -> None:
        """Enter one event."""
        self.outbox.add(topic, f'{{"n":{number},"size":{len(payload)}}}', payload)

    def taken(self) -> list[Published]:
        """The batches that the engine has read since it was last asked."""
        taken = [said for said in self.stream.read if isinstance(said, Published)]
        self.stream.read.clear()
        return taken

    def heads(self) -> list[dict[str, Any]]:
        """Their heads."""
        return [orjson.loads(zmtp.decode(published.wire)[1]) for published in self.taken()]


def test_it_knows_what_somebody_reads() -> None:
    harness = Harness()
    assert harness.outbox.interest[TOPIC]
    assert not harness.outbox.interest["snap.GetAccountRange"]


def test_events_wait_for_company_and_leave_in_one_batch() -> None:
    harness = Harness()
    harness.add(1, b"ab")
    harness.add(2, b"c")
    assert harness.taken() == []
    assert harness.pending_seconds == [0.002]
    harness.fire()
    [published] = harness.taken()
    assert (published.topic, published.first, published.count, published.numbers) == (TOPIC, 0, 2, Numbers(1, 2, 0))
    topic, head, body = zmtp.decode(published.wire)
    assert (topic, body) == (b"eth.Transactions", b"abc")
    assert orjson.loads(head) == {
        "v": 2,
        "run": "run",
        "worker": 3,
        "seq": 1,
        "first": 0,
        "dropped": 0,
        "events": [{"n": 1, "size": 2}, {"n": 2, "size": 1}],
    }


def test_the_next_event_waits_anew() -> None:
    harness = Harness()
    harness.add(1)
    harness.fire()
    harness.add(2)
    assert harness.pending_seconds == [0.002]
    harness.fire()
    assert [head["seq"] for head in harness.heads()] == [1, 2]


def test_enough_bytes_leave_at_once() -> None:
    harness = Harness()
    harness.add(1, bytes(60))
    assert harness.taken() == []
    harness.add(2, bytes(60))
    assert [published.count for published in harness.taken()] == [2]


def test_a_batch_that_was_full_takes_its_timers_along_so_that_the_next_one_waits_its_whole_time() -> None:
    harness = Harness()
    harness.outbox.add_lifecycle(OPENED, SomeEvent(1))
    harness.add(1)
    assert harness.pending_seconds == [0.01, 0.002]
    harness.add(2, bytes(100))
    assert harness.pending_seconds == []
    harness.add(3)
    assert harness.pending_seconds == [0.002]


def test_lives_wait_longer_and_leave_in_their_order() -> None:
    harness = Harness()
    harness.outbox.mark(CLOSED, ONE)
    harness.outbox.add_lifecycle(CLOSED, SomeEvent(1))
    harness.outbox.mark(OPENED, ONE)
    assert harness.pending_seconds == [0.01]
    harness.add(1)
    harness.fire()
    assert [(published.topic, published.sessions, published.count) for published in harness.taken()] == [
        (OPENED, (1,), 0),
        (TOPIC, (), 1),
        (CLOSED, (1,), 1),
    ]


def test_reports_of_what_batches_tell_leave_before_them() -> None:
    harness = Harness()
    harness.add(1)
    harness.fire()
    assert harness.befores == 1
    harness.outbox.write()
    assert harness.befores == 1


def test_a_report_in_order_comes_behind_what_was_entered_before() -> None:
    harness = Harness()
    harness.add(1)
    harness.outbox.report(InterestSet(7))
    published, report = harness.stream.read
    assert isinstance(published, Published)
    assert report == InterestSet(7)


def test_batches_follow_while_little_waits_in_the_stream() -> None:
    harness = Harness()
    harness.stream.is_stuck = True
    for number in range(10):
        harness.add(number, bytes(WRITE_AHEAD_BYTES // 4))
    assert WRITE_AHEAD_BYTES <= len(harness.stream.waiting) <= WRITE_AHEAD_BYTES * 5 // 4
    assert harness.outbox.queued_bytes > 0
    harness.stream.is_stuck = False
    harness.stream.flow()
    harness.outbox.write()
    assert harness.outbox.queued_bytes == 0
    assert [published.first for published in harness.taken()] == list(range(10))


def test_what_is_over_the_bound_is_dropped_whole_and_every_loss_is_exact() -> None:
    harness = Harness()
    harness.stream.is_stuck = True
    for number in range(100):
        harness.add(number, bytes(32 * 1024))
    assert harness.outbox.queued_bytes <= SETTINGS.worker_queue_bytes + 33 * 1024
    dropped = harness.outbox.dropped_events
    assert 0 < dropped < 100
    # The lives of sessions are not dropped.
    harness.outbox.mark(OPENED, ONE)
    harness.outbox.flush()
    harness.stream.is_stuck = False
    harness.stream.flow()
    harness.outbox.write()
    harness.add(100, bytes(100))
    taken = harness.taken()
    assert [published.sessions for published in taken if published.topic == OPENED] == [(1,)]
    reader = BatchReader()
    items = [item for published in taken if published.wire for item in reader.read(zmtp.decode(published.wire))]
    assert len([item for item in items if isinstance(item, Event)]) == 101 - dropped
    assert [item for item in items if isinstance(item, Gap)] == [Gap(TOPIC, 3, dropped, 100 - dropped)]
    assert orjson.loads(zmtp.decode(taken[-1].wire)[1])["dropped"] == dropped


def test_a_loss_behind_which_nothing_comes_is_told_by_an_empty_batch() -> None:
    harness = Harness()
    harness.stream.is_stuck = True
    while not harness.outbox.dropped_events:
        harness.add(1, bytes(32 * 1024))
    harness.stream.is_stuck = False
    harness.stream.flow()
    harness.outbox.write()
    last = harness.taken()[-1]
    harness.outbox.remind()
    [reminder] = harness.taken()
    assert (reminder.first, reminder.count) == (last.numbers.next + 1, 0)
    assert orjson.loads(zmtp.decode(reminder.wire)[1])["first"] == last.numbers.next + 1
    harness.outbox.remind()
    assert harness.taken() == []


def test_who_replaces_another_goes_on_with_its_numbers() -> None:
    harness = Harness(numbers={TOPIC: Numbers(5, 70, 2)})
    harness.add(1)
    harness.fire()
    [head] = harness.heads()
    assert (head["seq"], head["first"], head["dropped"]) == (6, 70, 2)


def test_what_waits_leaves_at_the_end() -> None:
    harness = Harness()
    harness.stream.is_stuck = True
    for number in range(12):
        harness.add(number, bytes(WRITE_AHEAD_BYTES // 4))
    harness.add(12)
    harness.outbox.close()
    harness.stream.flow()
    assert [published.first for published in harness.taken()] == list(range(13))
    assert harness.outbox.queued_bytes == 0


def test_what_is_done_after_the_end_of_the_stream_is_harmless() -> None:
    harness = Harness()
    harness.stream.is_gone = True
    harness.add(1)
    harness.fire()
    harness.outbox.close()
    harness.fire()
    assert harness.taken() == []
