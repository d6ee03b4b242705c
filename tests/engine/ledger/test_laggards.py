"""Which session makes room first: silent ones before those that have spoken, and among each the one that came first."""

from __future__ import annotations

from rlpx.engine.ledger.laggards import Laggards
from rlpx.protocol.bus.control import SessionId


def test_nobody_makes_room_where_nobody_is() -> None:
    laggards = Laggards()
    assert laggards.first(100.0) is None
    assert not laggards


def test_the_silent_one_that_is_there_longest_comes_first() -> None:
    laggards = Laggards()
    laggards.enter(SessionId(1), has_spoken=True, since=1.0)
    laggards.enter(SessionId(2), has_spoken=False, since=2.0)
    laggards.enter(SessionId(3), has_spoken=False, since=3.0)
    order = []
    while (first := laggards.first(3.0)) is not None:
        order.append(first)
        laggards.leave(first)
    assert order == [2, 3, 1]


def test_one_that_has_just_come_makes_no_room_yet() -> None:
    laggards = Laggards()
    laggards.enter(SessionId(1), has_spoken=True, since=1.0)
    laggards.enter(SessionId(2), has_spoken=False, since=2.0)
    assert laggards.first(0.9) is None
    assert laggards.first(1.0) == 1
    assert laggards.first(2.0) == 2


def test_one_that_has_said_more_meanwhile_stands_behind() -> None:
    laggards = Laggards()
    laggards.enter(SessionId(1), has_spoken=False, since=1.0)
    laggards.enter(SessionId(2), has_spoken=False, since=1.0)
    laggards.enter(SessionId(1), has_spoken=True, since=2.0)
    assert laggards.first(9.0) == 2
    assert len(laggards) == 2


def test_leaving_twice_is_harmless() -> None:
    laggards = Laggards()
    laggards.enter(SessionId(1), has_spoken=False, since=1.0)
    laggards.leave(SessionId(1))
    laggards.leave(SessionId(1))
    assert not laggards
