"""Batches as their readers see them: exact numbers, one order, bodies that can be cut apart."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.batches import (
    HEAD_VERSION,
    Batch,
    Batches,
    Interest,
    Numbers,
    Publisher,
    empty_batch,
    prefixes_of,
)
from rlpx.protocol.bus.events import AUTHENTICATED, CLOSED, DIAL_FAILED, ESTABLISHED, OPENED, Event, PeerMisconduct

WORKER = Publisher("4d2", 3)


class Reader:
    """A subscriber as the README describes one: what it misses is a subtraction."""

    def __init__(self) -> None:
        self.following = 0
        self.missed = 0
        self.payloads: list[bytes] = []

    def read(self, wire: bytes) -> None:
        _, head_frame, body = zmtp.decode(wire)
        head = orjson.loads(head_frame)
        assert head["first"] >= self.following
        self.missed += head["first"] - self.following
        self.following = head["first"] + len(head["events"])
        assert head["dropped"] == self.missed
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


def head_of(wire: bytes) -> dict[str, object]:
    """The second frame."""
    head = orjson.loads(zmtp.decode(wire)[1])
    assert isinstance(head, dict)
    return head


# -- numbers and frames -----------------------------------------------------------------------------------------------------


def test_a_batch_is_topic_head_and_body() -> None:
    batches = Batches(WORKER)
    batches.add_encoded("eth.Transactions", '{"session":7,"size":2}', b"\xc1\x80")
    batches.add_encoded("eth.Transactions", '{"session":8,"size":1}', b"\xc0")
    topic, head, body = zmtp.decode(only(batches).wire())
    assert topic == b"eth.Transactions"
    assert orjson.loads(head) == {
        "v": HEAD_VERSION,
        "run": "4d2",
        "worker": 3,
        "seq": 1,
        "first": 0,
        "dropped": 0,
        "events": [{"session": 7, "size": 2}, {"session": 8, "size": 1}],
    }
    assert body == b"\xc1\x80\xc0"


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_frames_of_any_length_are_zmtps(size: int) -> None:
    batches = Batches(WORKER)
    add(batches, "a", bytes(size))
    assert zmtp.decode(only(batches).wire())[2] == bytes(size)


def test_events_without_a_payload_have_an_empty_body_and_the_engine_has_no_number() -> None:
    batches = Batches(Publisher("4d2", None))
    batches.add("worker.lost", Event(1))
    wire = only(batches).wire()
    assert head_of(wire)["worker"] is None
    assert head_of(wire)["v"] == 2
    assert zmtp.decode(wire)[2] == b""


def test_each_topic_is_a_batch_of_its_own_with_its_own_numbers() -> None:
    batches = Batches(WORKER)
    add(batches, "a", b"1")
    add(batches, "b", b"2")
    add(batches, "a", b"3")
    waiting = batches.take()
    assert {batch.topic: zmtp.decode(batch.wire())[2] for batch in waiting} == {"a": b"13", "b": b"2"}
    for batch in waiting:
        batch.sent()
    add(batches, "a", b"4")
    only(batches).sent()
    add(batches, "a", b"5")
    add(batches, "b", b"6")
    heads = {batch.topic: head_of(batch.wire()) for batch in batches.take()}
    assert {topic: (head["seq"], head["first"]) for topic, head in heads.items()} == {"a": (3, 3), "b": (2, 1)}


def test_what_was_sent_is_not_sent_again() -> None:
    batches = Batches(WORKER)
    add(batches, "a", b"first")
    only(batches).sent()
    assert batches.take() == []
    add(batches, "a", b"second")
    assert zmtp.decode(only(batches).wire())[2] == b"second"


def test_a_refused_batch_is_lost_whole_and_its_events_keep_their_ordinals() -> None:
    batches = Batches(WORKER)
    add(batches, "a", b"1")
    only(batches).sent()
    add(batches, "a", b"2")
    add(batches, "a", b"3")
    assert only(batches).refused() == 2
    add(batches, "a", b"4")
    assert only(batches).refused() == 1
    add(batches, "a", b"5")
    batch = only(batches)
    head = head_of(batch.wire())
    assert (head["seq"], head["first"], head["dropped"]) == (2, 4, 3)
    batch.sent()
    assert batch.numbers == Numbers(2, 5, 3)


def test_a_loss_in_one_topic_is_not_told_in_another() -> None:
    batches = Batches(WORKER)
    add(batches, "a", b"1")
    only(batches).refused()
    add(batches, "b", b"2")
    assert head_of(only(batches).wire())["dropped"] == 0


def test_a_loss_is_owed_until_something_tells_of_it() -> None:
    batches = Batches(WORKER)
    add(batches, "a", b"1")
    only(batches).refused()
    [batch] = batches.owing()
    head = head_of(batch.reminder())
    assert (head["first"], head["dropped"], head["events"]) == (1, 1, [])
    add(batches, "a", b"2")
    only(batches).sent()
    assert batches.owing() == []


def test_who_replaces_another_goes_on_where_that_was() -> None:
    batches = Batches(WORKER, {"a": Numbers(4, 100, 7)})
    add(batches, "a", b"1")
    add(batches, "b", b"1")
    heads = {batch.topic: head_of(batch.wire()) for batch in batches.take()}
    assert [(head["seq"], head["first"], head["dropped"]) for head in heads.values()] == [(5, 100, 7), (1, 0, 0)]


def test_an_empty_batch_may_say_more() -> None:
    wire = empty_batch(b"session.", Publisher("4d2", None), Numbers(), '"next":[],')
    assert zmtp.decode(wire)[0] == b"session."
    assert head_of(wire)["next"] == []
    assert head_of(wire)["events"] == []


def test_what_waits_is_counted_in_bytes() -> None:
    batches = Batches(WORKER)
    assert batches.waiting_bytes == 0
    add(batches, "a", bytes(300))
    add(batches, "b", b"")
    assert batches.waiting_bytes == len('{"size":300}') + 300 + len('{"size":0}')
    batches.take()
    assert batches.waiting_bytes == 0


# -- order ------------------------------------------------------------------------------------------------------------------


@given(
    topics=st.lists(
        st.sampled_from([DIAL_FAILED, CLOSED, "eth.NewBlock", ESTABLISHED, "peer.breach", OPENED, AUTHENTICATED])
    )
)
def test_batches_leave_in_the_order_of_a_life(topics: list[str]) -> None:
    batches = Batches(WORKER)
    for topic in topics:
        batches.add(topic, Event(0))
    left = [batch.topic for batch in batches.take()]
    life = [OPENED, AUTHENTICATED, ESTABLISHED, "message", CLOSED, DIAL_FAILED]
    places = [life.index(topic if topic in life else "message") for topic in left]
    assert places == sorted(places)
    assert set(left) == set(topics)


def test_a_mark_without_an_event_is_a_batch_without_a_message() -> None:
    batches = Batches(WORKER)
    batches.mark(OPENED, 7)
    batch = only(batches)
    assert (batch.sessions, batch.wire(), batch.is_life) == ([7], b"", True)
    batch.sent()
    assert batch.numbers == Numbers()
    batches.mark(OPENED, 8)
    batches.mark(OPENED, 9)
    batches.add(OPENED, Event(9))
    batch = only(batches)
    assert batch.sessions == [8, 9]
    assert head_of(batch.wire())["events"] == [{"time_us": 9}]


# An event of a topic, or the moment at which all that waits goes out: to a pipe that takes it, or to one that is full.
steps = st.one_of(
    st.tuples(st.sampled_from(["eth.Transactions", "eth.NewBlock", "snap.ByteCodes"]), st.binary(max_size=5)),
    st.booleans(),
)


@given(history=st.lists(steps, max_size=60))
def test_a_reader_gets_every_event_once_in_order_or_knows_exactly_how_many_it_missed(
    history: list[tuple[str, bytes] | bool],
) -> None:
    batches = Batches(Publisher("4d2", 1))
    readers: dict[str, Reader] = {}
    expected: dict[str, list[bytes]] = {}
    entered: dict[str, int] = {}
    waiting: dict[str, list[bytes]] = {}
    for step in [*history, True]:
        if not isinstance(step, bool):
            topic, payload = step
            add(batches, topic, payload)
            waiting.setdefault(topic, []).append(payload)
            entered[topic] = entered.get(topic, 0) + 1
            continue
        for batch in batches.take():
            payloads = waiting.pop(batch.topic)
            if step:
                readers.setdefault(batch.topic, Reader()).read(batch.wire())
                batch.sent()
                expected.setdefault(batch.topic, []).extend(payloads)
            else:
                assert batch.refused() == len(payloads)
        assert waiting == {}
    for batch in batches.owing():
        readers.setdefault(batch.topic, Reader()).read(batch.reminder())
    for topic, reader in readers.items():
        assert reader.payloads == expected.get(topic, [])
        assert len(reader.payloads) + reader.missed == entered[topic]


@given(cause=st.text(st.characters(codec="utf-8"), max_size=5), number=st.integers(0, 2**63 - 1))
def test_the_fields_of_an_event_arrive_as_they_were(cause: str, number: int) -> None:
    batches = Batches(WORKER)
    batches.add("a", PeerMisconduct(1, number, None, cause, 2))
    fields = {"time_us": 1, "session": number, "peer": None, "cause": cause, "count": 2}
    assert head_of(only(batches).wire())["events"] == [fields]


# -- interest ---------------------------------------------------------------------------------------------------------------


def wanted(interest: Interest, *topics: str) -> list[str]:
    """Which of some topics anybody reads."""
    return [topic for topic in topics if interest[topic]]


def test_nobody_is_interested_before_somebody_subscribes() -> None:
    assert wanted(Interest(), "eth.Transactions", "") == []


def test_a_subscription_matches_every_topic_that_begins_with_it() -> None:
    interest = Interest()
    interest.change([b"eth.New"])
    topics = ("eth.NewBlock", "eth.NewBlockHashes", "eth.New", "eth.Ne", "snap.New", "")
    assert wanted(interest, *topics) == ["eth.NewBlock", "eth.NewBlockHashes", "eth.New"]


def test_the_empty_subscription_matches_everything() -> None:
    interest = Interest()
    interest.change([b""])
    assert wanted(interest, "eth.Transactions", "") == ["eth.Transactions", ""]


def test_a_topic_that_was_asked_for_already_follows_later_subscriptions() -> None:
    interest = Interest()
    topics = ("eth.Transactions", "eth.NewBlock")
    assert wanted(interest, *topics) == []
    interest.change([b"eth"])
    assert wanted(interest, *topics) == ["eth.Transactions", "eth.NewBlock"]
    interest.change([b"eth.Transactions"], [b"eth"])
    assert wanted(interest, *topics) == ["eth.Transactions"]
    interest.change([], [b"eth.Transactions"])
    assert wanted(interest, *topics) == []


def test_the_end_of_a_subscription_that_never_was_changes_nothing() -> None:
    interest = Interest()
    interest.change([b"eth"], [b"snap", b""])
    assert wanted(interest, "eth.Transactions") == ["eth.Transactions"]


prefixes = st.sampled_from([b"", b"e", b"eth", b"eth.", b"eth.Transactions", b"s", b"session.closed"])


@given(changes=st.lists(st.tuples(st.booleans(), prefixes), max_size=20))
def test_interest_is_zeromqs_prefix_match_after_any_changes(changes: list[tuple[bool, bytes]]) -> None:
    interest = Interest()
    subscribed: set[bytes] = set()
    topics = ("eth.Transactions", "eth.NewBlock", "session.closed", "worker.started")
    for is_begin, prefix in changes:
        interest.change([prefix] if is_begin else [], [] if is_begin else [prefix])
        subscribed = subscribed | {prefix} if is_begin else subscribed - {prefix}
        matching = [topic for topic in topics if any(topic.encode()[: len(known)] == known for known in subscribed)]
        assert wanted(interest, *topics) == matching


def test_what_we_send_is_for_those_who_name_it() -> None:
    topics = ("tap.eth.Transactions", "eth.Transactions", "tape.0")
    everything, named, some = Interest(), Interest(), Interest()
    everything.change([b"", b"ta"])
    assert wanted(everything, *topics) == ["eth.Transactions", "tape.0"]
    named.change([b"tap"])
    assert wanted(named, *topics) == ["tap.eth.Transactions", "tape.0"]
    some.change([b"tap.eth.Transactions"])
    assert wanted(some, *topics) == ["tap.eth.Transactions"]


def test_every_subscription_to_a_topic_is_one_of_its_beginnings() -> None:
    assert prefixes_of("ab") == [b"", b"a", b"ab"]
    assert prefixes_of("tap.a") == [b"tap", b"tap.", b"tap.a"]
