"""The lives that workers have published: if a worker is lost, the engine publishes exactly the rest."""

from __future__ import annotations

from rlpx.engine.hub.lives import Lives
from rlpx.protocol.bus import control
from rlpx.protocol.bus.batches import Numbers
from rlpx.protocol.bus.control import SessionId, SessionStats, WorkerId
from rlpx.protocol.bus.events import CLOSED, ESTABLISHED, OPENED, DialFailed, SessionClosed
from rlpx.protocol.bus.reports import Published
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage

ZERO, ONE = WorkerId(0), WorkerId(1)


def told(topic: str, *sessions: int) -> Published:
    """A batch of the openings or ends of these sessions, which nobody reads."""
    return Published(topic, 0, Numbers(), tuple(map(SessionId, sessions)), b"")


def end(session: int, worker: WorkerId = ZERO) -> SessionClosed:
    """The event of an end."""
    view = SessionView(SessionId(session), worker, Direction.INBOUND, "1.2.3.4:5", 1000, 0.0)
    return view.closed(control.SessionClosed(view.session, EndedBy.US, None, "words", Stage.ACTIVE, SessionStats()), 2000)


def test_a_session_is_open_from_the_telling_of_its_opening_to_that_of_its_end() -> None:
    lives = Lives()
    lives.on_published(told(OPENED, 1, 2))
    lives.on_published(told(ESTABLISHED, 3))
    assert [lives.is_open(SessionId(number)) for number in (1, 2, 3)] == [True, True, False]
    lives.on_published(told(CLOSED, 1))
    assert [lives.is_open(SessionId(number)) for number in (1, 2)] == [False, True]


def test_an_end_that_is_reported_is_untold_until_its_worker_tells_it() -> None:
    lives = Lives()
    lives.on_published(told(OPENED, 1, 2))
    lives.ended(end(1))
    lives.ended(end(2))
    lives.ended(end(3, ONE))
    lives.on_published(told(CLOSED, 1))
    assert lives.unpublished(ZERO) == [end(2)]
    assert lives.unpublished(ONE) == [end(3, ONE)]


def test_what_the_engine_has_told_is_told() -> None:
    lives = Lives()
    lives.on_published(told(OPENED, 1))
    lives.ended(end(1))
    lives.forget(SessionId(1))
    assert lives.unpublished(ZERO) == []
    assert not lives.is_open(SessionId(1))
    lives.forget(SessionId(1))


def test_a_failed_dial_is_told_once_with_its_end() -> None:
    lives = Lives()
    failure = DialFailed(2000, 1, None, None, None, "words", None, None)
    lives.await_end(failure)
    assert lives.take_failure(SessionId(2)) is None
    assert lives.take_failure(SessionId(1)) == failure
    assert lives.take_failure(SessionId(1)) is None
