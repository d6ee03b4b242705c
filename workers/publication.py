"""The events of sessions' lives on their way to all readers: subscribers, through the engine, and feeds."""

from __future__ import annotations

from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.events import Event
from rlpx.protocol.bus.sessions import SessionView
from rlpx.workers.connection import Connection
from rlpx.workers.feeds import Feeds
from rlpx.workers.publisher import Outbox


class Publication:
    """See the module. Callers ask `is_read` first, so that no event is built in vain."""

    def __init__(self, outbox: Outbox, feeds: Feeds) -> None:
        self._outbox = outbox
        self._feeds = feeds

    def is_read(self, topic: str) -> bool:
        """Whether anybody may read a topic."""
        return self._feeds.widest[topic] is not None

    def add(self, topic: str, view: SessionView, event: Event) -> None:
        """Publish an event of a session's life."""
        if self._outbox.interest[topic]:
            self._outbox.add_lifecycle(topic, event)
        self._feeds.add_lifecycle(topic, view, event)

    def mark(self, topic: str, session: SessionId) -> None:
        """Tell the engine that a session was opened or has ended, at this place among the batches."""
        self._outbox.mark(topic, session)

    def classify(self, connection: Connection) -> None:
        """A session is established: everything is known that filters ask."""
        self._feeds.classify(connection)

    def forget(self, connection: Connection) -> None:
        """A session has ended."""
        self._feeds.forget(connection)
