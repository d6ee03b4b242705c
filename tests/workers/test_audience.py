"""Who reads a topic, and what becomes of the answer when that changes."""

from __future__ import annotations

from rlpx.protocol.bus.batches import Interest
from rlpx.protocol.eth.kinds import MessageTable
from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.protocol.session.tallies import Tallies
from rlpx.workers.audience import Audience
from rlpx.workers.feed_group import Group
from tests.workers.test_feed_group import group

TABLE = MessageTable((Shared(Capability("eth", 69), 0x10, 18),))
CONTENT = b"\x12\x05"


def test_a_topic_without_readers_has_none() -> None:
    interest = Interest()
    audience = Audience(interest, list)
    assert not audience["eth.Transactions"]
    interest.change([b"eth"])
    audience.clear()
    readers = audience["eth.Transactions"]
    assert readers is not None
    assert (readers.is_subscribed, readers.groups) == (True, ())


def test_messages_are_looked_at_again_when_readers_change() -> None:
    tallies = Tallies()
    audience = Audience(Interest(), list, tallies=tallies)
    tallies.of(TABLE).skip(0x12, 100, 100)
    assert tallies.of(TABLE).takes(CONTENT)
    audience.clear()
    assert not tallies.of(TABLE).takes(CONTENT)


def test_a_topic_has_the_readers_that_want_it() -> None:
    subscribed, groups = Interest(), [group("eth."), group("session.")]
    narrow = group("eth.Transactions", client="Geth", types=(3,))
    subscribed.change([b"eth.Tr"])
    audience = Audience(subscribed, lambda: groups, (narrow,))
    readers = audience["eth.Transactions"]
    assert readers is not None
    assert (readers.is_subscribed, readers.groups, readers.is_selective) == (True, (groups[0], narrow), True)
    readers = audience["session.closed"]
    assert readers is not None
    assert (readers.is_subscribed, readers.groups, readers.is_selective) == (False, (groups[1],), False)
    assert audience["snap.ByteCodes"] is None


def test_readers_are_worked_out_anew_when_they_change() -> None:
    subscribed = Interest()
    groups: list[Group] = []
    audience = Audience(subscribed, lambda: groups)
    assert not audience["eth.Transactions"]
    groups.append(group("eth."))
    assert not audience["eth.Transactions"]
    audience.clear()
    assert audience["eth.Transactions"]
    groups.clear()
    subscribed.change([b""])
    audience.clear()
    readers = audience["eth.Transactions"]
    assert readers is not None
    assert (readers.is_subscribed, readers.groups) == (True, ())
    assert audience["tap.eth.Transactions"] is None
