"""The ring of an endpoint: whose turn it is to be read, and for how long."""

from __future__ import annotations

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.link import FRAMES_AT_ONCE, SERVE_SECONDS
from rlpx.protocol.bus.turns import TURN_SECONDS
from tests.fake_endpoint import EndpointHarness


def test_one_that_says_much_waits_its_turn_and_is_not_read_meanwhile() -> None:
    harness = EndpointHarness()
    loud, quiet = harness.user(), harness.user()
    loud.link.data_received(zmtp.encode([b""]) * (2 * FRAMES_AT_ONCE + 1))
    assert len(harness.owner.take()) == FRAMES_AT_ONCE
    assert not loud.is_reading()
    quiet.link.data_received(zmtp.encode([b"hello"]))
    assert harness.owner.take() == []
    harness.loop.turn()
    told = harness.owner.take()
    assert told.count(("message", 1, [b""])) == FRAMES_AT_ONCE
    assert told.count(("message", 2, [b"hello"])) == 1
    assert quiet.is_reading()
    harness.loop.turn()
    assert harness.owner.take() == [("message", 1, [b""])]
    assert loud.is_reading()
    assert harness.loop.soon == []


def test_a_turn_has_a_budget_of_time() -> None:
    harness = EndpointHarness()
    users = [harness.user(), harness.user()]
    for user in users:
        user.link.data_received(zmtp.encode([b""]) * (FRAMES_AT_ONCE + 1))
    assert len(harness.owner.take()) == FRAMES_AT_ONCE
    # Each look at the clock takes a part of a turn: of several frames one is begun, and then the turn is over.
    harness.step_seconds = 0.6 * TURN_SECONDS
    harness.loop.turn()
    assert harness.owner.take() == [("message", 1, [b""])]
    harness.step_seconds = 0.0
    harness.loop.turn()
    assert len(harness.owner.take()) == FRAMES_AT_ONCE
    harness.loop.turn()
    assert harness.owner.take() == [("message", 2, [b""])]


def test_a_user_whose_messages_take_long_is_served_for_a_part_of_a_turn() -> None:
    harness = EndpointHarness()
    user = harness.user()
    harness.step_seconds = 1.1 * SERVE_SECONDS
    user.link.data_received(zmtp.encode([b""]) * 3)
    assert len(harness.owner.take()) == 1
    harness.loop.turn()
    assert len(harness.owner.take()) == 1


def test_those_that_are_served_at_once_share_the_time_of_an_iteration() -> None:
    harness = EndpointHarness()
    users = [harness.user() for _ in range(3)]
    # Each looks at the clock four times.
    harness.step_seconds = TURN_SECONDS / 4
    for user in users:
        user.link.data_received(zmtp.encode([b"hello"]))
    served = len(harness.owner.take())
    assert 0 < served < len(users)
    harness.step_seconds = 0.0
    harness.loop.turn()
    harness.loop.turn()
    assert served + len(harness.owner.take()) == len(users)
    users[0].link.data_received(zmtp.encode([b"hello"]))
    assert len(harness.owner.take()) == 1


def test_more_that_arrives_while_it_waits_waits_behind_it() -> None:
    harness = EndpointHarness()
    user = harness.user()
    user.link.data_received(zmtp.encode([b"1"]) * (FRAMES_AT_ONCE + 1))
    user.link.data_received(zmtp.encode([b"2"]))
    assert len(harness.owner.take()) == FRAMES_AT_ONCE
    harness.loop.turn()
    assert harness.owner.take() == [("message", 1, [b"1"]), ("message", 1, [b"2"])]
