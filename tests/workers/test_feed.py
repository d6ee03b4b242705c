"""One feed: credit, a queue in bytes, exact losses, and connections that are held rather than events lost."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.feeds import OpenFeed
from rlpx.protocol.bus.link import HIGH_WATER_BYTES
from rlpx.protocol.settings import FeedSettings
from rlpx.workers.budget import Budget
from rlpx.workers.feed import APART_BYTES, LIFECYCLE_QUEUE_BYTES, Chunk, Feed, FeedBounds, FeedEvent, FeedTotals
from tests.fake_endpoint import EndpointHarness, FakeTransport

QUEUE_BYTES = 10_000


class FakeConnection:
    """A connection that knows which feeds hold it."""

    def __init__(self) -> None:
        self.holders: list[Feed] = []

    def hold(self, feed: Feed) -> None:
        assert feed not in self.holders
        self.holders.append(feed)

    def release(self, feed: Feed) -> None:
        self.holders.remove(feed)


class Harness:
    """Feeds of one worker, and what their program reads."""

    def __init__(self, total: int = 1 << 20) -> None:
        settings = FeedSettings(queue_bytes=QUEUE_BYTES, total_queue_bytes=total)
        self.totals = FeedTotals()
        self.budget = Budget(1 << 30)
        self.bounds = FeedBounds(settings, self.totals, self.budget)
        self.endpoint = EndpointHarness()
        self.transport = self.endpoint.user()
        self.events = 0

    def feed(self, credit: int = 1 << 30, *, lossless: bool = False, number: int = 1) -> Feed:
        opening = OpenFeed(feed=number, topics=("",), credit=credit, lossless=lossless)
        return Feed(self.transport.link, opening, self.bounds)

    def event(self, size: int = 0, *, is_life: bool = False) -> FeedEvent:
        self.events += 1
        return FeedEvent(f'{{"n":{self.events - 1}}}', bytes(size), is_life=is_life)

    def gives(self, feed: Feed, *events: FeedEvent) -> None:
        feed.take(Chunk(events), events)

    def read(self) -> list[tuple[int, int, list[int]]]:
        """What the program reads: first, dropped and the numbers of the events, of each message."""
        return [(head["first"], head["dropped"], [event["n"] for event in head["events"]]) for head in heads(self.transport)]


def heads(transport: FakeTransport) -> list[dict[str, Any]]:
    found = []
    for wire in transport.written:
        head, _body = zmtp.decode(wire)
        found.append(orjson.loads(head))
    transport.written.clear()
    return found


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_events_leave_at_once_while_there_is_credit_and_room(harness: Harness) -> None:
    feed = harness.feed()
    harness.gives(feed, harness.event(), harness.event())
    harness.gives(feed, harness.event())
    assert harness.read() == [(0, 0, [0, 1]), (2, 0, [2])]
    assert (feed.sent_events, feed.missed_events, feed.queued_bytes, feed.is_ready) == (3, 0, 0, False)


def test_a_message_costs_the_bytes_of_its_head_and_body(harness: Harness) -> None:
    feed = harness.feed(credit=5000)
    harness.gives(feed, harness.event(100))
    [wire] = harness.transport.written
    head, body = zmtp.decode(wire)
    assert feed.credit == 5000 - len(head) - len(body)


def test_the_last_message_may_take_more_than_the_credit_and_the_excess_is_owed(harness: Harness) -> None:
    feed = harness.feed(credit=1)
    harness.gives(feed, harness.event(1000))
    harness.gives(feed, harness.event())
    assert harness.read() == [(0, 0, [0])]
    owed = -feed.credit
    assert owed > 1000
    feed.credit += owed
    assert not feed.send_next()
    feed.credit += 1
    assert feed.send_next()
    assert harness.read() == [(1, 0, [1])]


def test_without_credit_a_queue_of_bytes_waits_and_beyond_it_messages_are_lost_exactly(harness: Harness) -> None:
    feed = harness.feed(credit=0)
    for _ in range(5):
        harness.gives(feed, harness.event(4000))
    assert (feed.missed_events, feed.queued_bytes) == (3, 2 * (4000 + 7))
    feed.credit = 1 << 20
    while feed.send_next():
        pass
    assert harness.read() == [(0, 0, [0]), (1, 0, [1]), (5, 3, [])]
    assert not feed.is_ready
    harness.gives(feed, harness.event())
    assert harness.read() == [(5, 3, [5])]
    assert (harness.totals.sent_events, harness.totals.missed_events, harness.totals.queued_bytes) == (3, 3, 0)


def test_an_empty_queue_takes_any_one_chunk(harness: Harness) -> None:
    feed = harness.feed(credit=0)
    harness.gives(feed, harness.event(QUEUE_BYTES * 3))
    assert feed.missed_events == 0
    harness.gives(feed, harness.event())
    assert feed.missed_events == 1


def test_lives_may_wait_where_messages_may_not(harness: Harness) -> None:
    feed = harness.feed(credit=0)
    harness.gives(feed, harness.event(QUEUE_BYTES))
    harness.gives(feed, *(harness.event(int(not is_life), is_life=is_life) for is_life in (True, True, False, True, False)))
    assert feed.missed_events == 2
    feed.credit = 1 << 20
    while feed.send_next():
        pass
    assert harness.read() == [(0, 0, [0]), (1, 0, [1, 2]), (4, 1, [4]), (6, 2, [])]


def test_lives_are_lost_where_even_their_room_is_full(harness: Harness) -> None:
    feed = harness.feed(credit=0)
    harness.gives(feed, FeedEvent("x" * (QUEUE_BYTES + LIFECYCLE_QUEUE_BYTES), b"", is_life=True))
    harness.gives(feed, harness.event(is_life=True))
    assert (feed.next, feed.missed_events) == (2, 1)


def test_all_queues_together_are_bounded_and_those_below_their_share_have_room() -> None:
    harness = Harness(total=12_000)
    full, other = harness.feed(credit=0), harness.feed(credit=0, number=2)
    for _ in range(3):
        harness.gives(full, harness.event(4500))
    assert full.missed_events == 1
    harness.gives(other, harness.event(5500))
    harness.gives(other, harness.event(4500))
    assert other.missed_events == 1
    full.close()
    harness.gives(other, harness.event(4000))
    assert other.missed_events == 1


def test_while_its_connection_is_full_a_feed_waits(harness: Harness) -> None:
    feed = harness.feed()
    harness.transport.is_blocked = True
    harness.gives(feed, harness.event(HIGH_WATER_BYTES))
    harness.gives(feed, harness.event(100))
    assert [found[2] for found in harness.read()] == [[0]]
    assert not feed.is_ready
    assert not feed.send_next()
    harness.transport.drain()
    assert feed.send_next()
    assert [found[2] for found in harness.read()] == [[1]]


def test_what_the_connection_does_not_take_waits(harness: Harness) -> None:
    feed = harness.feed()
    harness.transport.is_blocked = True
    # The queue of the connection is short of its high water, but has no room for as much as this.
    harness.transport.link.offer(bytes(HIGH_WATER_BYTES - 1))
    harness.transport.written.clear()
    harness.gives(feed, harness.event(50_000))
    assert harness.read() == []
    assert (feed.missed_events, feed.is_ready, feed.send_next()) == (0, True, False)
    harness.transport.drain()
    assert feed.send_next()


def test_a_lossless_feed_holds_connections_and_loses_nothing(harness: Harness) -> None:
    feed = harness.feed(credit=0, lossless=True)
    quiet, loud, also = FakeConnection(), FakeConnection(), FakeConnection()
    feed.hold_if_full(quiet, QUEUE_BYTES - 1)
    for _ in range(6):
        harness.gives(feed, harness.event(2000))
        feed.hold_if_full(loud, 0)
    feed.hold_if_full(also, 0)
    assert (quiet.holders, loud.holders, also.holders) == ([], [feed], [feed])
    assert (feed.missed_events, feed.booked_bytes, harness.budget.used_bytes) == (0, feed.queued_bytes, feed.queued_bytes)
    feed.credit = 1 << 20
    for _ in range(3):
        assert feed.send_next()
        assert loud.holders == [feed]
    assert feed.send_next()
    assert (loud.holders, also.holders, feed.held) == ([], [], {})
    while feed.send_next():
        pass
    assert [numbers for _, _, numbers in harness.read()] == [[number] for number in range(6)]
    assert (harness.budget.used_bytes, harness.totals.queued_bytes) == (0, 0)


def test_a_feed_that_ends_keeps_nothing_and_counts_what_waited_as_missed(harness: Harness) -> None:
    for is_lossless in (True, False):
        feed = harness.feed(credit=0, lossless=is_lossless)
        held = FakeConnection()
        harness.gives(feed, harness.event(), harness.event(QUEUE_BYTES))
        if is_lossless:
            feed.hold_if_full(held, 0)
        feed.close()
        feed.close()
        assert (held.holders, feed.missed_events, feed.queued_bytes, feed.next) == ([], 2, 0, 2)
    assert (harness.budget.used_bytes, harness.totals.queued_bytes, harness.totals.lossy) == (0, 0, 0)


def test_bodies_are_as_long_as_the_payloads_whatever_is_joined(harness: Harness) -> None:
    sizes = [0, 5, APART_BYTES, 3, 4, APART_BYTES + 1, 0, 9]
    payloads = [bytes([index]) * size for index, size in enumerate(sizes)]
    chunk = Chunk([FeedEvent("{}", payload, is_life=False) for payload in payloads])
    assert b"".join(chunk.bodies) == b"".join(payloads)
    assert len(chunk.bodies) == 5
    # The large ones are not copied.
    assert any(body is payloads[2] for body in chunk.bodies)
    assert harness.totals.lossy == 0


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("events"), st.lists(st.tuples(st.integers(0, 6000), st.booleans()), min_size=1, max_size=4)),
            st.tuples(st.just("credit"), st.integers(0, 20_000)),
            st.tuples(st.just("send"), st.integers(0, 3)),
        ),
        max_size=40,
    )
)
def test_received_and_missed_are_what_was_sent_whatever_happens(steps: list[tuple[str, Any]]) -> None:
    harness = Harness(total=15_000)
    feed = harness.feed(credit=0)
    granted = 0
    read: list[tuple[int, int, list[int]]] = []
    cost = 0
    largest = 0

    def reads() -> None:
        nonlocal cost, largest
        for wire in harness.transport.written:
            size = sum(map(len, zmtp.decode(wire)))
            cost += size
            largest = max(largest, size)
        read.extend(harness.read())

    for what, value in steps:
        if what == "events":
            harness.gives(feed, *(harness.event(size, is_life=is_life) for size, is_life in value))
        elif what == "credit":
            feed.credit += value
            granted += value
        else:
            for _ in range(value):
                feed.send_next()
        reads()
        assert cost <= granted + largest
        assert feed.queued_bytes <= max(QUEUE_BYTES + LIFECYCLE_QUEUE_BYTES, 24_100)
    feed.credit = 1 << 30
    while feed.send_next():
        reads()
    expected = missed = 0
    for first, dropped, numbers in read:
        missed += first - expected
        assert dropped == missed
        # The events are where their ordinals say.
        assert numbers == list(range(first, first + len(numbers)))
        expected = first + len(numbers)
    assert expected == feed.next == harness.events
    assert missed == feed.missed_events == harness.events - feed.sent_events
