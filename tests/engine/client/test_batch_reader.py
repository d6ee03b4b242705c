"""The reader of batches: every event once, every loss exactly, restarts noticed, and no input raises an exception."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.engine.client.batch_reader import BatchReader, Event, Gap, Item, Malformed
from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.batches import Batches, Publisher


def frames(
    first: int, *, topic: str = "t", worker: int | None = 0, sizes: tuple[int | None, ...] = (None,), **changes: Any
) -> list[bytes]:
    """A batch with one event for each size."""
    events = [{"n": first + index} | ({} if size is None else {"size": size}) for index, size in enumerate(sizes)]
    head = {"v": 2, "run": "r", "worker": worker, "seq": 1, "first": first, "dropped": 0, "events": events, **changes}
    return [topic.encode(), orjson.dumps(head), bytes(max(0, sum(size or 0 for size in sizes)))]


def confirmation(prefix: str, *positions: tuple[str, int | None, int], run: str = "r") -> list[bytes]:
    """The engine's confirmation that a subscription holds everywhere."""
    return frames(0, topic=prefix, worker=None, sizes=(), next=positions, started_us=5, run=run)


def shown(items: list[Item]) -> list[Any]:
    """The items in short: events by their numbers, gaps by the missing numbers."""
    return [item.fields.get("n", item.topic) if isinstance(item, Event) else item for item in items]


def test_where_nothing_is_missing_there_is_no_gap() -> None:
    reader = BatchReader()
    read = [shown(reader.read(frames(first, sizes=(None, None)))) for first in (0, 2, 4)]
    assert read == [[0, 1], [2, 3], [4, 5]]


def test_who_comes_later_has_missed_nothing() -> None:
    reader = BatchReader()
    assert shown(reader.read(frames(17))) == [17]
    assert shown(reader.read(frames(18))) == [18]


def test_a_gap_is_exactly_what_is_missing() -> None:
    reader = BatchReader()
    reader.read(frames(0))
    assert shown(reader.read(frames(1350))) == [Gap("t", 0, 1349, 1), 1350]


def test_an_empty_batch_tells_what_was_lost_at_the_end() -> None:
    reader = BatchReader()
    reader.read(frames(0))
    assert reader.read(frames(5, sizes=())) == [Gap("t", 0, 4, 1)]
    assert reader.read(frames(5, sizes=())) == []


def test_workers_and_topics_are_counted_apart() -> None:
    reader = BatchReader()
    for topic, worker in (("a", 0), ("a", 1), ("a", None), ("b", 0)):
        assert shown(reader.read(frames(0, topic=topic, worker=worker))) == [0]
    assert shown(reader.read(frames(2, topic="a", worker=1))) == [Gap("a", 1, 1, 1), 2]
    assert shown(reader.read(frames(1, topic="a", worker=None))) == [1]


def test_from_a_confirmation_on_the_first_of_everything_is_known() -> None:
    reader = BatchReader()
    assert reader.read(confirmation("eth.", ("eth.A", 0, 7))) == []
    assert reader.confirmed == {b"eth."}
    assert shown(reader.read(frames(9, topic="eth.A"))) == [Gap("eth.A", 0, 2, 7), 9]
    # A topic that had no event at that time begins with its first one.
    assert shown(reader.read(frames(3, topic="eth.B"))) == [Gap("eth.B", 0, 3, 0), 3]
    # A topic without confirmation may have had events for long.
    assert shown(reader.read(frames(3, topic="snap.A"))) == [3]


def test_who_reads_everything_has_not_asked_for_what_we_send() -> None:
    reader = BatchReader()
    reader.read(confirmation(""))
    assert shown(reader.read(frames(50, topic="tap.eth.A"))) == [50]
    assert shown(reader.read(frames(50, topic="eth.A"))) == [Gap("eth.A", 0, 50, 0), 50]


def test_a_confirmation_shows_what_was_lost_before_it() -> None:
    reader = BatchReader()
    reader.read(frames(0, topic="eth.A"))
    assert reader.read(confirmation("eth.", ("eth.A", 0, 4))) == [Gap("eth.A", 0, 3, 1)]


def test_a_restart_is_seen_by_whatever_comes_first_and_told_once() -> None:
    reader = BatchReader()
    reader.read(frames(70))
    [started, event] = reader.read(frames(0, run="s"))
    assert isinstance(started, Event)
    assert (started.topic, started.worker, started.fields["run"]) == ("engine.started", None, "s")
    assert started.fields["time_us"] > 0
    assert shown([event]) == [0]
    assert reader.read(frames(0, topic="engine.started", worker=None, run="s")) == []
    assert reader.run == "s"


def test_of_a_run_that_follows_another_all_is_awaited_from_its_first_event_on() -> None:
    """Until it has connected again, a reader misses events that others get."""
    reader = BatchReader()
    reader.read(confirmation("", ("eth.A", 0, 7)))
    _, gap = reader.read(frames(3, topic="eth.A", run="s"))[:2]
    assert gap == Gap("eth.A", 0, 3, 0)
    assert reader.read(confirmation("", ("eth.A", 0, 4), ("eth.B", 1, 5), run="s")) == [Gap("eth.B", 1, 5, 0)]


def test_who_connects_again_knows_what_began_meanwhile() -> None:
    reader = BatchReader()
    reader.read(confirmation("eth."))
    assert reader.read(confirmation("eth.", ("eth.A", 0, 4))) == [Gap("eth.A", 0, 4, 0)]


def test_a_restart_that_its_own_event_tells_is_told_once() -> None:
    reader = BatchReader()
    assert shown(reader.read(frames(0, topic="engine.started", worker=None))) == [0]
    [started] = reader.read(frames(0, topic="engine.started", worker=None, run="s"))
    assert isinstance(started, Event)
    assert started.topic == "engine.started"


def test_a_restart_that_a_confirmation_tells_has_the_time_of_the_start() -> None:
    reader = BatchReader()
    reader.read(confirmation("eth.", ("eth.A", 0, 7)))
    [started] = reader.read(confirmation("eth.", run="s"))
    assert isinstance(started, Event)
    assert started.fields["time_us"] == 5


def test_payloads_are_cut_by_their_sizes() -> None:
    name, head, _ = frames(0, sizes=(0, 3, 1))
    read = BatchReader().read([name, head, b"abcd"])
    assert [event.payload for event in read if isinstance(event, Event)] == [b"", b"abc", b"d"]


def test_a_size_is_no_payload_where_there_is_no_body() -> None:
    """In a topic without payload, `size` may be an ordinary field."""
    name, head, _ = frames(0, sizes=(10,))
    [event] = BatchReader().read([name, head, b""])
    assert isinstance(event, Event)
    assert event.payload == b""


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ([], "not enough values"),
        ([b"t"], "not enough values"),
        ([b"t", b"{}", b"", b""], "too many values"),
        ([b"\xff", b"{}", b""], "the topic is not UTF-8"),
        ([b"t", b"", b""], "truncated"),
        ([b"t", b"\xff", b""], "malformed"),
        ([b"t", b"[]", b""], "Expected `object`"),
        (frames(0, v=1), "version 1"),
        (frames(0, events="x"), "Expected `array`"),
        (frames(0, events=[7]), "Expected `object`"),
        (frames(0, seq=None), "Expected `int`"),
        (frames(0, run=7), "Expected `str`"),
        ([*frames(0, sizes=(3,))[:2], b"ab"], "the body has 2"),
        ([*frames(0, sizes=(3,))[:2], b"abcd"], "the body has 4"),
        ([*frames(0, sizes=(-1,))[:2], b"x"], "no number of bytes"),
        ([*frames(0, events=[{"size": "1"}])[:2], b"x"], "no number of bytes"),
    ],
)
def test_what_is_malformed_is_said_and_reading_goes_on(message: list[bytes], words: str) -> None:
    reader = BatchReader()
    reader.read(frames(0))
    [item] = reader.read(message)
    assert isinstance(item, Malformed)
    assert words in item.cause
    # The events in that batch are missing.
    assert shown(reader.read(frames(2))) == [Gap("t", 0, 1, 1), 2]


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_message_makes_it_raise(message: list[bytes]) -> None:
    BatchReader().read(message)


# Each step of a publisher: a batch of this many events arrives, is lost on the way, or is refused by the pipe.
fates = st.lists(st.tuples(st.sampled_from(["arrives", "is lost", "is refused"]), st.integers(1, 3)), max_size=30)


@given(fates)
def test_received_and_missed_are_what_was_sent(steps: list[tuple[str, int]]) -> None:
    batches, reader = Batches(Publisher("r", 3)), BatchReader()
    reader.read(confirmation("t"))
    sent = received = missed = 0
    items: list[Item] = []
    for fate, count in steps:
        for number in range(count):
            batches.add_encoded("t", f'{{"n":{sent + number},"size":1}}', b"x")
        sent += count
        [batch] = batches.take()
        if fate == "is refused":
            batch.refused()
            continue
        wire = batch.wire()
        batch.sent()
        if fate == "arrives":
            items += reader.read(zmtp.decode(wire))
    batches.add_encoded("t", f'{{"n":{sent}}}')
    [batch] = batches.take()
    items += reader.read(zmtp.decode(batch.wire()))
    for item in items:
        if isinstance(item, Gap):
            assert item.first == received + missed
            missed += item.missed
        else:
            assert isinstance(item, Event)
            assert item.fields["n"] == item.ordinal == received + missed
            received += 1
    assert received + missed == sent + 1
