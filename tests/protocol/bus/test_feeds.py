"""Heads of feeds: what a program may say, what it is told of anything else, and what it gets."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus import feeds
from rlpx.protocol.bus.batches import Publisher
from rlpx.protocol.bus.data_heads import NotUnderstoodError
from rlpx.protocol.bus.feeds import CloseFeed, FeedError, GrantCredit, OpenFeed, Where, read_feed_message
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.lifecycle import Direction


def read(head: Any) -> feeds.FeedMessage:
    return read_feed_message(orjson.dumps(head))


def mistake(**fields: Any) -> str:
    with pytest.raises(FeedError) as caught:
        read({"feed": 5, **fields})
    assert (caught.value.feed, caught.value.name) == (5, ErrorName.INVALID_PARAMS)
    return str(caught.value)


def test_a_feed_needs_a_number_and_topics_alone() -> None:
    assert read({"feed": 1, "topics": ["session."]}) == OpenFeed(feed=1, topics=("session.",))


def test_everything_that_a_feed_may_have() -> None:
    where = {
        "session": [1, 2],
        "peer": "d860",
        "client": "Geth",
        "shared": "eth/69",
        "direction": "inbound",
        "types": [0, 3],
        "min_size": 10,
        "max_size": 10,
        "sample": 7,
    }
    head = {"feed": 9, "topics": ["", "tap."], "where": where, "credit": 1 << 40, "lossless": True, "snapshot": True}
    opened = read(head)
    assert opened == OpenFeed(
        feed=9,
        topics=("", "tap."),
        where=Where(
            session=(1, 2),
            peer="d860",
            client="Geth",
            shared="eth/69",
            direction=Direction.INBOUND,
            types=(0, 3),
            min_size=10,
            max_size=10,
            sample=7,
        ),
        credit=1 << 40,
        lossless=True,
        snapshot=True,
    )


def test_more_credit_and_the_end() -> None:
    assert read({"feed": 1, "credit": 100}) == GrantCredit(feed=1, credit=100)
    assert read({"feed": 1, "close": True}) == CloseFeed(feed=1, close=True)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, 'expected {"feed": N, "topics": [TOPIC, ...]} with '),
        ({"credit": 5, "where": {}}, 'expected {"feed": N, "topics": [TOPIC, ...]} with '),
        ({"close": False}, "close: expected"),
        ({"credit": -1}, "credit: expected a whole number from 0 to 9007199254740991"),
        ({"topics": []}, "topics: expected a list of 1 to 64 items, each the beginning of a topic"),
        ({"topics": ["x" * 65]}, "topics[0]: expected the beginning of a topic, up to 64 characters, for example eth.Trans"),
        ({"topics": ["x"] * 65}, "topics: expected a list of 1 to 64 items"),
        ({"topics": ["x"], "where": {"sessions": [1]}}, "where.sessions: no such field; did you mean session?"),
        ({"topics": ["x"], "where": {"session": []}}, "where.session: expected a list of 1 to 1024 items"),
        ({"topics": ["x"], "where": {"peer": "D8"}}, "where.peer: expected the beginning of a peer id in lower-case hex"),
        ({"topics": ["x"], "where": {"client": ""}}, "where.client: expected text of 1 to 128 characters"),
        (
            {"topics": ["x"], "where": {"shared": "eth/"}},
            "where.shared: expected a capability, or its name for every version",
        ),
        ({"topics": ["x"], "where": {"direction": "up"}}, "where.direction: expected one of inbound, outbound"),
        ({"topics": ["x"], "where": {"types": [128]}}, "where.types[0]: expected a whole number from 0 to 127"),
        ({"topics": ["x"], "where": {"min_size": -1}}, "where.min_size: expected a whole number, 0 or more"),
        ({"topics": ["x"], "where": {"min_size": 5, "max_size": 4}}, "where.max_size: expected min_size (5) or more; got 4"),
        ({"topics": ["x"], "where": {"sample": 0}}, "where.sample: expected a whole number from 1 to 1000000000"),
        ({"topics": ["x"], "lossles": True}, "lossles: no such field; did you mean lossless?"),
        ({"topics": ["x"], "lossless": 1}, "lossless: expected true or false"),
        ({"topics": ["x"], "credit": 1 << 70}, "credit: expected a whole number from 0 to 9007199254740991"),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(fields: dict[str, Any], told: str) -> None:
    head = msgspec.json.encode({"feed": 5, **fields})
    with pytest.raises(FeedError) as caught:
        read_feed_message(head)
    assert told in str(caught.value)
    assert (caught.value.feed, caught.value.name) == (5, ErrorName.INVALID_PARAMS)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"[]",
        b"{}",
        b'{"feed": 0}',
        b'{"feed": "1"}',
        b'{"feed": true}',
        b'{"feed": -3, "close": true}',
        b"\xff",
        b"[" * 9999,
    ],
)
def test_without_a_number_there_is_no_feed_to_tell_of(head: bytes) -> None:
    with pytest.raises(NotUnderstoodError, match="to open a feed"):
        read_feed_message(head)


def test_a_head_is_bounded() -> None:
    with pytest.raises(NotUnderstoodError, match="70000 bytes, over 65536"):
        read_feed_message(b" " * 70_000)


@given(
    head=st.one_of(
        st.binary(max_size=80),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["feed", "topics", "where", "credit", "close", "session", "types"]), inner, max_size=4
                )
            ),
            max_leaves=12,
        ).map(msgspec.json.encode),
    )
)
def test_no_bytes_raise_anything_else(head: bytes) -> None:
    with suppress(FeedError, NotUnderstoodError):
        read_feed_message(head)


def test_a_confirmation_lists_sessions() -> None:
    head = feeds.confirmation(3, Publisher("run", 1), [b'{"session":1}', b'{"session":2}'])
    assert orjson.loads(head) == {"feed": 3, "run": "run", "worker": 1, "sessions": [{"session": 1}, {"session": 2}]}
    assert orjson.loads(feeds.confirmation(3, Publisher("run", 1), []))["sessions"] == []


def test_events_have_their_topics_between_the_ends_of_a_head() -> None:
    event = feeds.with_topic("eth.Transactions", '{"time_us":1}')
    head = feeds.batch_start(3, 17, 4) + event.encode() + feeds.BATCH_END
    assert orjson.loads(head) == {
        "feed": 3,
        "first": 17,
        "dropped": 4,
        "events": [{"topic": "eth.Transactions", "time_us": 1}],
    }


def test_the_last_words() -> None:
    assert orjson.loads(feeds.closed(3, "over", 9, 2)) == {"feed": 3, "closed": "over", "first": 9, "dropped": 2}
    error = FeedError(3, ErrorName.REFUSED, "no more")
    assert orjson.loads(feeds.refused(error)) == {"feed": 3, "error": {"name": "refused", "message": "no more"}}


def test_a_choice_of_events_has_one_name_whatever_the_order_of_its_topics() -> None:
    name = feeds.key_of(["eth.", "snap."], Where(client="Geth"))
    assert len(name) == 32
    assert name == feeds.key_of(["snap.", "eth.", "eth."], Where(client="Geth", sample=1))
    assert name != feeds.key_of(["snap.", "eth."], Where(client="Geth", sample=2))
