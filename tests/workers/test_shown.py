"""Sessions are listed in one act, from objects that were written in turns."""

from __future__ import annotations

from typing import Final

import orjson
import pytest

from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.session.session import Session
from rlpx.workers.connection import Connection
from rlpx.workers.shown import SHOWN_AT_ONCE, SHOWN_SECONDS, ShownSessions, shown_json
from tests.pair import LISTENER
from tests.workers.fake_host import FakeHost

COUNT: Final = 2 * SHOWN_AT_ONCE + 5


class World:
    """Sessions, and a clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sessions = ShownSessions(lambda: self.now)
        self.connections = [self.session(number) for number in range(COUNT)]

    def session(self, number: int) -> Connection:
        connection = Connection(SessionId(number), Session(LISTENER.setup(), now=0.0), FakeHost())
        view = connection.view = SessionView(SessionId(number), WorkerId(0), Direction.INBOUND, "", 0, 0.0)
        view.local = "127.0.0.1:1"
        return connection

    def write(self, seconds: float = 0.0) -> bool:
        return self.sessions.write(self.connections, self.now + seconds)

    def received(self, connection: Connection) -> int:
        """The bytes that the list says a session has received."""
        number: int = orjson.loads(self.sessions.json(connection))["bytes_in"]
        return number


@pytest.fixture
def world() -> World:
    return World()


def test_sessions_are_written_a_few_at_a_time_until_all_are(world: World) -> None:
    assert [world.write() for _ in range(4)] == [False, False, True, True]
    assert world.write(1.0)


def test_what_was_written_lately_serves_again_and_what_is_old_does_not(world: World) -> None:
    assert world.write(1.0)
    [first, *_] = world.connections
    first.session.bytes_in = 7
    assert world.write()
    assert world.received(first) == 0
    world.now += SHOWN_SECONDS
    assert [world.write() for _ in range(3)] == [False, False, True]
    assert world.received(first) == 7


def test_a_list_that_takes_long_is_finished_before_it_is_too_old(world: World) -> None:
    for is_done in (False, False, True):
        assert world.write() is is_done
        world.now += 2 * SHOWN_SECONDS


def test_the_stage_is_that_of_now(world: World) -> None:
    [first, *_] = world.connections
    assert world.write(1.0)
    first.session.connection_lost("gone")
    assert orjson.loads(world.sessions.json(first))["stage"] == "closed"


def test_a_session_that_nobody_has_heard_of_is_not_listed(world: World) -> None:
    [first, second, *_] = world.connections
    assert first.view is not None
    first.view.local = None
    second.view = None
    assert world.sessions.json(first) == world.sessions.json(second) == b""
    # However many these are, a list is finished.
    for connection in world.connections:
        connection.view = None
    assert world.write()


def test_what_has_ended_or_is_old_is_not_kept(world: World) -> None:
    [first, *_] = world.connections
    assert world.write(1.0)
    first.session.bytes_in = 7
    world.sessions.expire()
    assert world.received(first) == 0
    world.sessions.forget(first)
    assert world.received(first) == 7
    first.session.bytes_in = 8
    world.now += SHOWN_SECONDS
    world.sessions.expire()
    world.sessions.expire()
    assert world.received(first) == 8


def test_a_session_object_is_as_users_see_it(world: World) -> None:
    [first, *_] = world.connections
    assert first.view is not None
    shown = orjson.loads(shown_json(first, first.view))
    assert (shown["session"], shown["phase"], shown["direction"]) == (0, "pending", "inbound")
