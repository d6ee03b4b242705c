"""Publishes and logs what the engine does. Callers act first and announce last.

A worker publishes the lives of its own sessions. What it did not publish before it was lost is published here.
"""

from __future__ import annotations

from time import time_ns

from rlpx.engine.hub.events import EventsHub
from rlpx.engine.hub.lives import Lives
from rlpx.engine.hub.tally import Refused, Tally
from rlpx.engine.process.journal import Journal
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.events import (
    CLOSED,
    DIAL_FAILED,
    OPENED,
    REFUSED,
    DialFailed,
    Event,
    SessionClosed,
    SessionRefused,
    opened_of,
)
from rlpx.protocol.bus.reports import Published
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.lifecycle import Direction


class Announcer:
    """See the module. `logs_sessions` says whether the log has a line for each session, as at level `debug`."""

    def __init__(self, events: EventsHub, journal: Journal, tally: Tally, *, logs_sessions: bool) -> None:
        self.logs_sessions = logs_sessions
        self.tally = tally
        self._events = events
        self._journal = journal
        self._lives = Lives()

    def publish(self, topic: str, event: Event) -> None:
        """Publish an event, if anybody reads its topic."""
        if self._events.wants(topic):
            self._events.publish(topic, event)

    def refused(self, session: SessionId, remote: str, cause: str, why: Refused) -> None:
        """A connection was refused before its peer was known."""
        self.tally.refused[why.value] += 1
        if self._events.wants(REFUSED):
            self._events.publish(REFUSED, SessionRefused(time_ns() // 1000, session, None, remote, cause))
        self._journal.refused(cause)

    def peer_refused(self, reason: str) -> None:
        """A peer was refused by its id. Its session's end is published as any other; the log counts it."""
        self.tally.refused[reason] += 1
        self._journal.refused(reason)

    def established(self, view: SessionView) -> None:
        """A session is active, which its worker publishes."""
        self.tally.established(view)

    def opened(self, session: SessionId, direction: Direction, remote: str, worker: WorkerId) -> None:
        """A session has begun."""
        self.tally.dialled += direction is Direction.OUTBOUND
        if self.logs_sessions:
            self._journal.opened(session, direction, remote, worker)

    def worker_replaced(self, worker: WorkerId, pid: int) -> None:
        """A worker has taken the place of a lost one."""
        self._journal.replaced(worker, pid)

    # -- ends ---------------------------------------------------------------------------------------------------------------

    def ended(self, view: SessionView, event: SessionClosed, *, is_reported: bool) -> None:
        """A session has ended with this event. If its worker has reported the end, the worker publishes it as well."""
        self.tally.ended(view, event)
        if self.logs_sessions:
            self._journal.ended(view.client, event)
        if not view.is_connected:
            return  # a dial that never connected: readers only see that it failed
        if is_reported:
            self._lives.ended(event)
        else:
            self._publish_life(event)

    def dial_failed(self, view: SessionView, event: DialFailed) -> None:
        """A dial has failed. If it had connected, that is published after the end of its session."""
        self.tally.dials_failed += 1
        if view.is_connected:
            self._lives.await_end(event)
        else:
            self.publish(DIAL_FAILED, event)

    def on_published(self, worker: WorkerId, published: Published) -> None:
        """Pass a worker's batch on, at its place among the worker's reports."""
        if published.sessions:
            self._lives.on_published(published)
        self._events.on_published(worker, published)
        if published.topic == CLOSED:
            for session in published.sessions:
                self._publish_failure(session)

    def on_worker_lost(self, worker: WorkerId) -> None:
        """Publish the ends that a lost worker has reported but not published."""
        for event in self._lives.unpublished(worker):
            self._publish_life(event)

    def _publish_life(self, closed: SessionClosed) -> None:
        """Publish an end that its worker has not published, and the opening before it if that is missing too."""
        session = SessionId(closed.session)
        if not self._lives.is_open(session) and self._events.wants(OPENED):
            self._events.publish(OPENED, opened_of(closed))
        self._lives.forget(session)
        self.publish(CLOSED, closed)
        self._publish_failure(session)

    def _publish_failure(self, session: SessionId) -> None:
        failure = self._lives.take_failure(session)
        if failure is not None:
            self.publish(DIAL_FAILED, failure)
