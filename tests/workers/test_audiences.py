"""Which feeds a session's messages are for, over sessions and feeds that come and go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus.batches import Interest
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.feeds import Where
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.session.session import Session
from rlpx.workers.audiences import Audiences
from rlpx.workers.connection import Connection
from rlpx.workers.feed_group import Group
from tests.pair import LISTENER
from tests.workers.fake_host import FakeHost

TOPIC = "eth.Transactions"


class World:
    """Sessions of clients, and the groups of feeds."""

    def __init__(self) -> None:
        self.subscribed = Interest()
        self.audiences = Audiences(self.subscribed)
        self.connections: dict[SessionId, Connection] = {}
        self.audiences.begin(self.connections)
        self.host = FakeHost()
        self.host.audience = self.audiences.widest

    def opens(self, number: int, client: str) -> Connection:
        """A session that is not established yet."""
        session_id = SessionId(number)
        connection = Connection(session_id, Session(LISTENER.setup(), now=0.0), self.host)
        connection.view = SessionView(session_id, WorkerId(0), Direction.INBOUND, "", 0, 0.0, client=client)
        self.connections[session_id] = connection
        return connection

    def established(self, number: int, client: str) -> Connection:
        connection = self.opens(number, client)
        self.audiences.classify(connection)
        return connection

    def ends(self, connection: Connection) -> None:
        del self.connections[connection.id]

    def group(self, **where: Any) -> Group:
        return self.audiences.group((frozenset({"eth."}), Where(**where)))

    def readers(self, connection: Connection, topic: str = TOPIC) -> set[Group]:
        readers = connection.audience[topic]
        return set() if readers is None else set(readers.groups)


@pytest.fixture
def world() -> World:
    return World()


def test_a_feed_without_a_filter_is_for_all_sessions_at_once(world: World) -> None:
    before, pending = world.established(1, "Geth"), world.opens(2, "reth")
    assert world.readers(before) == world.readers(pending) == set()
    group = world.group()
    assert world.readers(before) == world.readers(pending) == world.readers(world.established(3, "reth")) == {group}
    assert world.group() is group
    assert list(world.audiences) == [group]
    world.audiences.remove(group)
    assert world.readers(before) == world.readers(pending) == set()


def test_a_narrow_feed_is_for_the_sessions_that_match_alone(world: World) -> None:
    geth, reth = world.established(1, "Geth/1"), world.established(2, "reth/1")
    group = world.group(client="Geth")
    later = world.established(3, "Geth/2")
    assert world.readers(geth) == world.readers(later) == {group}
    assert world.readers(reth) == set()
    # As little is known of it, any feed may come to apply.
    pending = world.opens(4, "")
    assert world.readers(pending) == {group}
    world.ends(later)
    world.audiences.remove(group)
    assert world.readers(geth) == world.readers(reth) == world.readers(pending) == set()


def test_sessions_with_the_same_feeds_share_what_they_ask(world: World) -> None:
    world.group(client="Geth")
    sessions = [world.established(number, "Geth") for number in range(3)]
    assert len({id(connection.audience) for connection in sessions}) == 1


def test_an_engine_that_subscribes_is_told_to_all(world: World) -> None:
    connection = world.established(1, "Geth")
    assert connection.audience[TOPIC] is None
    world.subscribed.change([b"eth."])
    world.audiences.clear()
    readers = connection.audience[TOPIC]
    assert readers is not None
    assert readers.is_subscribed


def test_a_session_that_the_engine_refused_has_no_audience_of_its_own(world: World) -> None:
    connection = world.opens(1, "Geth")
    connection.view = None
    world.audiences.classify(connection)
    assert connection.audience is world.audiences.widest
    world.ends(connection)


def test_combinations_of_feeds_that_no_session_has_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.workers.audiences.MAX_KEPT", 3)
    groups = [world.group(client=letter) for letter in "abcd"]
    here = world.established(1, "ab")
    for number, client in enumerate(["a", "b", "c", "d", "ac", "bd", "abcd"], 2):
        world.ends(world.established(number, client))
    assert world.readers(here) == set(groups[:2])
    assert world.readers(world.established(99, "bd")) == {groups[1], groups[3]}


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("open"), st.sampled_from(["a", "b", "ab", "c"])),
            st.tuples(st.just("end"), st.integers(0, 5)),
            st.tuples(st.just("feed"), st.sampled_from(["", "a", "b", "c"])),
            st.tuples(st.just("close"), st.integers(0, 3)),
        ),
        max_size=30,
    )
)
def test_every_session_has_the_feeds_that_match_it_whatever_came_first(steps: list[tuple[str, Any]]) -> None:
    world = World()
    number = 0
    for what, value in steps:
        groups, sessions = list(world.audiences), list(world.connections.values())
        if what == "open":
            number += 1
            world.established(number, value)
        elif what == "end" and sessions:
            world.ends(sessions[value % len(sessions)])
        elif what == "feed":
            world.group(**({"client": value} if value else {}))
        elif what == "close" and groups:
            world.audiences.remove(groups[value % len(groups)])
        for connection in world.connections.values():
            view = connection.view
            assert view is not None
            assert world.readers(connection) == {group for group in world.audiences if group.matches(view)}


def test_feeds_that_end_together_change_each_session_once(world: World) -> None:
    changes: list[Connection] = []

    class Counted:
        def __init__(self, connection: Connection) -> None:
            self._connection = connection

        def read_for(self, *_: object) -> None:
            changes.append(self._connection)

    sessions = [world.established(number, "ab") for number in range(3)]
    groups = [world.group(client="a", sample=number) for number in range(1, 50)]
    for connection in sessions:
        connection.session = Counted(connection)  # type: ignore[assignment]  # all that audiences use
    world.audiences.remove(*groups)
    assert changes == sessions
    assert all(world.readers(connection) == set() for connection in sessions)
