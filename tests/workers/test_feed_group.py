"""Feeds with the same topics and the same filter share tests, encoding, and the order of events."""

from __future__ import annotations

from typing import Any

import rlp as oracle

from rlpx.protocol.bus.feed_filters import MessageFacts
from rlpx.protocol.bus.feeds import Where
from rlpx.protocol.eth.kinds import message_table
from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.workers.feed import Feed, FeedEvent
from rlpx.workers.feed_group import Group
from tests.workers.test_feed import FakeConnection, Harness

TABLE = message_table((Shared(Capability("eth", 69), 16, 18),))


def group(*topics: str, **where: Any) -> Group:
    return Group((frozenset(topics), Where(**where)))


def sent(content: object) -> MessageFacts:
    return MessageFacts(TABLE.find("eth", 2), bytes(oracle.encode(content)))


def add(to: Group, event: FeedEvent) -> None:
    to.add(event, None)


def test_topics_are_prefixes_and_taps_are_named() -> None:
    everything, some = group(""), group("session.", "tap.eth.")
    assert everything.topics["eth.Transactions"]
    assert not everything.topics["tap.eth.Transactions"]
    assert some.topics["session.closed"]
    assert some.topics["tap.eth.Transactions"]
    assert not some.topics["eth.Transactions"]


def test_a_group_knows_what_it_looks_at() -> None:
    assert (group("").is_narrow, group("").is_selective) == (False, False)
    assert (group("", client="Geth").is_narrow, group("", client="Geth").is_selective) == (True, False)
    assert (group("", types=(3,)).is_narrow, group("", types=(3,)).is_selective) == (False, True)
    assert group("", sample=2).is_selective


def test_of_the_messages_that_pass_the_first_of_each_sample_is_taken() -> None:
    sampling = group("", sample=3, types=(2,))
    other, wanted = sent([b"\x03x"]), sent([b"\x02x"])
    assert [sampling.passes(message) for message in (other, wanted, other, wanted, wanted, wanted, other, wanted)] == [
        False,
        True,
        False,
        False,
        False,
        True,
        False,
        False,
    ]


def test_all_feeds_get_what_came_after_they_joined() -> None:
    harness, feeds = Harness(), group("")
    one, two = harness.feed(number=1), harness.feed(number=2)
    feeds.join(one)
    add(feeds, harness.event(5))
    add(feeds, harness.event())
    feeds.flush()
    feeds.join(two)
    add(feeds, harness.event(5))
    feeds.flush()
    feeds.flush()
    feeds.leave(one)
    add(feeds, harness.event())
    feeds.flush()
    assert harness.read() == [(0, 0, [0, 1]), (2, 0, [2]), (0, 0, [2]), (1, 0, [3])]
    assert list(feeds.feeds) == [two]


def test_a_lossless_feed_holds_the_connection_whose_event_cannot_leave_and_no_other_feed_does() -> None:
    harness, feeds = Harness(), group("")
    lossless, plain = harness.feed(credit=0, lossless=True), harness.feed(credit=0)
    feeds.join(plain)
    feeds.join(lossless)
    first, second = FakeConnection(), FakeConnection()
    feeds.add(harness.event(6000), first)
    assert first.holders == []
    feeds.add(harness.event(6000), second)
    assert second.holders == [lossless]
    feeds.add(harness.event(is_life=True), None)
    feeds.flush()
    feeds.leave(lossless)
    lossless.close()
    feeds.add(harness.event(6000), first)
    holders: list[Feed] = first.holders + second.holders
    assert holders == []


def test_a_queue_that_has_grown_to_several_times_its_limit_asks_to_hold_everybody() -> None:
    harness, feeds = Harness(), group("")
    lossless, plain = harness.feed(credit=0, lossless=True), harness.feed(credit=0)
    feeds.join(plain)
    feeds.join(lossless)
    connections = [FakeConnection() for _ in range(5)]
    assert [feeds.add(harness.event(9000), connection) for connection in connections] == [False] * 4 + [True]
    quiet = FakeConnection()
    feeds.hold(quiet)
    feeds.hold(connections[-1])
    assert quiet.holders == connections[-1].holders == [lossless]
