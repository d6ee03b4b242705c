"""Which sessions' openings and ends the workers have published so far, so that a lost worker leaves nothing unpublished.

With each batch, a worker names the sessions whose openings and ends are in it, whether or not anybody reads them; its
reports come first. Between the report of an end and its publication the event is kept here.
"""

from __future__ import annotations

from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.events import CLOSED, OPENED, DialFailed, SessionClosed
from rlpx.protocol.bus.reports import Published


class Lives:
    """See the module."""

    def __init__(self) -> None:
        self._open: set[SessionId] = set()
        # The events of ends that are reported but not published yet.
        self._ends: dict[SessionId, SessionClosed] = {}
        # The events of failed dials, which follow the ends of their sessions.
        self._failures: dict[SessionId, DialFailed] = {}

    def on_published(self, published: Published) -> None:
        """A worker has published a batch of openings or of ends."""
        if published.topic == OPENED:
            self._open.update(published.sessions)
        elif published.topic == CLOSED:
            for session in published.sessions:
                self.forget(session)

    def ended(self, event: SessionClosed) -> None:
        """A worker has reported an end, and is about to publish it."""
        self._ends[SessionId(event.session)] = event

    def await_end(self, failure: DialFailed) -> None:
        """A dial that had connected has failed; its event is published after the end of its session."""
        if failure.session is not None:
            self._failures[SessionId(failure.session)] = failure

    def take_failure(self, session: SessionId) -> DialFailed | None:
        """The event of the failed dial whose end has been published now, if it was one."""
        return self._failures.pop(session, None)

    def is_open(self, session: SessionId) -> bool:
        """Whether the session's opening has been published and its end has not."""
        return session in self._open

    def forget(self, session: SessionId) -> None:
        """The session's end is published."""
        self._open.discard(session)
        self._ends.pop(session, None)

    def unpublished(self, worker: WorkerId) -> list[SessionClosed]:
        """The events of the ends that a lost worker has reported and not published."""
        return [event for event in self._ends.values() if event.worker == worker]
