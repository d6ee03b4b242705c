"""Batches as their readers see them: numbers without a hole, losses that are told, bodies that can be cut apart."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.batches import HEAD_VERSION, Batch, Batches, EventFields, Interest

repeatable = settings(derandomize=True, deadline=None)


class Reader:
    """A subscriber as the README describes one: it checks the numbers of one topic and cuts its bodies."""

    def __init__(self) -> None:
        self.seq = 0
        self.dropped = 0
        self.payloads: list[bytes] = []

    def read(self, frames: tuple[bytes, bytes, bytes]) -> None:
        head = orjson.loads(frames[1])
        assert head["seq"] == self.seq + 1
        assert head["dropped"] >= self.dropped
        self.seq, self.dropped = head["seq"], head["dropped"]
        body = frames[2]
        for event in head["events"]:
            self.payloads.append(body[: event["size"]])
            body = body[event["size"] :]
        assert body == b""


def add(batches: Batches, topic: str, payload: bytes) -> None:
    """An event that states the size of its payload."""
    batches.add_encoded(topic, f'{{"size":{len(payload)}}}', payload)


def only(batches: Batches) -> Batch:
    """The one batch that waits."""
    (batch,) = batches.take()
    return batch


# -- numbers and frames -----------------------------------------------------------------------------------------------------


def test_a_batch_is_topic_head_and_body() -> None:
    batches = Batches(3, 7)
    batches.add_encoded("eth.Transactions", '{"session":7,"size":2}', b"\xc1\x80")
    batches.add_encoded("eth.Transactions", '{"session":8,"size":1}', b"\xc0")
    topic, head, body = only(batches).frames()
    assert topic == b"eth.Transactions"
    assert orjson.loads(head) == {
        "v": HEAD_VERSION,
        "worker": 3,
        "since_us": 7,
        "seq": 1,
        "dropped": 0,
        "events": [{"session": 7, "size": 2}, {"session": 8, "size": 1}],
    }
    assert body == b"\xc1\x80\xc0"


def test_events_without_a_payload_have_an_empty_body_and_the_engine_has_no_number() -> None:
    batches = Batches(None, 7)
    batches.add("session.closed", {"session": 1})
    _, head, body = only(batches).frames()
    assert orjson.loads(head)["worker"] is None
    assert orjson.loads(head)["v"] == 1
    assert body == b""


def test_each_topic_is_a_batch_of_its_own_with_its_own_numbers() -> None:
    batches = Batches(0, 7)
    add(batches, "a", b"1")
    add(batches, "b", b"2")
    add(batches, "a", b"3")
    waiting = batches.take()
    assert {batch.topic: batch.frames()[2] for batch in waiting} == {"a": b"13", "b": b"2"}
    for batch in waiting:
        batch.sent()
    add(batches, "a", b"4")
    only(batches).sent()
    add(batches, "a", b"5")
    add(batches, "b", b"6")
    assert {batch.topic: orjson.loads(batch.frames()[1])["seq"] for batch in batches.take()} == {"a": 3, "b": 2}


def test_what_was_sent_is_not_sent_again() -> None:
    batches = Batches(0, 7)
    add(batches, "a", b"first")
    only(batches).sent()
    assert batches.take() == []
    add(batches, "a", b"second")
    assert only(batches).frames()[2] == b"second"


def test_a_refused_batch_is_lost_whole_and_the_next_one_says_so() -> None:
    batches = Batches(0, 7)
    add(batches, "a", b"1")
    only(batches).sent()
    add(batches, "a", b"2")
    add(batches, "a", b"3")
    assert only(batches).refused() == 2
    add(batches, "a", b"4")
    assert only(batches).refused() == 1
    add(batches, "a", b"5")
    batch = only(batches)
    _, head, body = batch.frames()
    assert orjson.loads(head) == {"v": 1, "worker": 0, "since_us": 7, "seq": 2, "dropped": 3, "events": [{"size": 1}]}
    assert body == b"5"
    batch.sent()
    add(batches, "a", b"6")
    assert orjson.loads(only(batches).frames()[1])["dropped"] == 3


def test_a_loss_in_one_topic_is_not_told_in_another() -> None:
    batches = Batches(0, 7)
    add(batches, "a", b"1")
    only(batches).refused()
    add(batches, "b", b"2")
    assert orjson.loads(only(batches).frames()[1])["dropped"] == 0


def test_what_waits_is_counted_in_bytes_of_payload() -> None:
    batches = Batches(0, 7)
    assert batches.waiting_bytes == 0
    add(batches, "a", bytes(300))
    add(batches, "b", bytes(20))
    add(batches, "b", b"")
    assert batches.waiting_bytes == 320
    batches.take()
    assert batches.waiting_bytes == 0
    add(batches, "a", bytes(5))
    assert batches.waiting_bytes == 5


# An event of a topic, or the moment at which all that waits goes out: to a socket that takes it, or to one that is full.
steps = st.one_of(
    st.tuples(st.sampled_from(["eth.Transactions", "eth.NewBlock", "snap.ByteCodes"]), st.binary(max_size=5)),
    st.booleans(),
)


@repeatable
@given(history=st.lists(steps, max_size=60))
def test_a_reader_gets_every_event_once_in_order_or_is_told_how_many_it_missed(
    history: list[tuple[str, bytes] | bool],
) -> None:
    batches = Batches(1, 7)
    readers: dict[str, Reader] = {}
    expected: dict[str, list[bytes]] = {}
    lost: dict[str, int] = {}
    waiting: dict[str, list[bytes]] = {}
    for step in [*history, True]:
        if not isinstance(step, bool):
            topic, payload = step
            add(batches, topic, payload)
            waiting.setdefault(topic, []).append(payload)
            assert batches.waiting_bytes == sum(len(payload) for payloads in waiting.values() for payload in payloads)
            continue
        for batch in batches.take():
            payloads = waiting.pop(batch.topic)
            if step:
                reader = readers.setdefault(batch.topic, Reader())
                reader.read(batch.frames())
                batch.sent()
                expected.setdefault(batch.topic, []).extend(payloads)
                assert reader.payloads == expected[batch.topic]
                assert reader.dropped == lost.get(batch.topic, 0)
            else:
                assert batch.refused() == len(payloads)
                lost[batch.topic] = lost.get(batch.topic, 0) + len(payloads)
        assert waiting == {}


@repeatable
@given(
    event=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=5), st.integers(0, 2**64 - 1) | st.none(), max_size=4
    )
)
def test_the_fields_of_an_event_arrive_as_they_were(event: EventFields) -> None:
    batches = Batches(0, 7)
    batches.add("a", event)
    assert orjson.loads(only(batches).frames()[1])["events"] == [event]


# -- interest ---------------------------------------------------------------------------------------------------------------


def wanted(interest: Interest, *topics: str) -> list[str]:
    """Which of some topics anybody reads."""
    return [topic for topic in topics if interest[topic]]


def test_nobody_is_interested_before_somebody_subscribes() -> None:
    assert wanted(Interest(), "eth.Transactions", "") == []


def test_a_subscription_matches_every_topic_that_begins_with_it() -> None:
    interest = Interest()
    interest.change(b"\x01eth.New")
    topics = ("eth.NewBlock", "eth.NewBlockHashes", "eth.New", "eth.Ne", "snap.New", "")
    assert wanted(interest, *topics) == ["eth.NewBlock", "eth.NewBlockHashes", "eth.New"]


def test_the_empty_subscription_matches_everything() -> None:
    interest = Interest()
    interest.change(b"\x01")
    assert wanted(interest, "eth.Transactions", "") == ["eth.Transactions", ""]


def test_a_topic_that_was_asked_for_already_follows_later_subscriptions() -> None:
    interest = Interest()
    topics = ("eth.Transactions", "eth.NewBlock")
    assert wanted(interest, *topics) == []
    interest.change(b"\x01eth")
    assert wanted(interest, *topics) == ["eth.Transactions", "eth.NewBlock"]
    interest.change(b"\x01eth.Transactions")
    interest.change(b"\x00eth")
    assert wanted(interest, *topics) == ["eth.Transactions"]
    interest.change(b"\x00eth.Transactions")
    assert wanted(interest, *topics) == []


def test_the_end_of_a_subscription_that_never_was_changes_nothing() -> None:
    interest = Interest()
    interest.change(b"\x01eth")
    interest.change(b"\x00snap")
    interest.change(b"\x00")
    assert wanted(interest, "eth.Transactions") == ["eth.Transactions"]


# An XPUB hands up what an XSUB sends beside subscriptions: any first byte but 0 and 1, or nothing at all.
@pytest.mark.parametrize("frame", [b"", b"\x02eth", b"eth", b"\xff"])
def test_a_message_that_is_no_subscription_takes_none_away(frame: bytes) -> None:
    interest = Interest()
    interest.change(b"\x01" + frame[1:])
    interest.change(frame)
    topic = frame[1:].decode() + ".Transactions"
    assert wanted(interest, topic) == [topic]


@pytest.mark.parametrize("frame", [b"", b"\x02eth", b"eth", b"\xff"])
def test_a_message_that_is_no_subscription_makes_none(frame: bytes) -> None:
    interest = Interest()
    interest.change(frame)
    assert wanted(interest, "eth.Transactions", "th", "") == []


prefixes = st.sampled_from([b"", b"e", b"eth", b"eth.", b"eth.Transactions", b"s", b"session.closed"])


@repeatable
@given(changes=st.lists(st.tuples(st.booleans(), prefixes), max_size=20))
def test_interest_is_zeromqs_prefix_match_after_any_changes(changes: list[tuple[bool, bytes]]) -> None:
    interest = Interest()
    subscribed: set[bytes] = set()
    topics = ("eth.Transactions", "eth.NewBlock", "session.closed", "worker.started")
    for is_begin, prefix in changes:
        interest.change(bytes([is_begin]) + prefix)
        subscribed = subscribed | {prefix} if is_begin else subscribed - {prefix}
        matching = [topic for topic in topics if any(topic.encode()[: len(known)] == known for known in subscribed)]
        assert wanted(interest, *topics) == matching


def test_what_we_send_is_for_those_who_name_it() -> None:
    topics = ("tap.eth.Transactions", "eth.Transactions", "tape.0")
    everything, named, some = Interest(), Interest(), Interest()
    everything.change(b"\x01")
    everything.change(b"\x01ta")
    assert wanted(everything, *topics) == ["eth.Transactions", "tape.0"]
    named.change(b"\x01tap")
    assert wanted(named, *topics) == ["tap.eth.Transactions", "tape.0"]
    some.change(b"\x01tap.eth.Transactions")
    assert wanted(some, *topics) == ["tap.eth.Transactions"]
