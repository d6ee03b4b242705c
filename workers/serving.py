"""Requests of peers: who answers them, in which order, and how many of one peer are worked on at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.records import Configure
from rlpx.protocol.errors import DisconnectReason, PeerError, Severity
from rlpx.protocol.eth.request_forms import check_request
from rlpx.protocol.session.events import Event, MessageReceived
from rlpx.workers.connection import Connection
from rlpx.workers.counters import EMPTY, MALFORMED, UNANSWERED, Requests
from rlpx.workers.peer_requests import PeerRequests
from rlpx.workers.responders import OFFERED_MAX_BYTES, ResponderHost, Responders

# If one peer has this many answers that it has not read, its next requests are parked (reth's number).
MAX_QUEUED_RESPONSES: Final = 4


class Serving(ResponderHost):
    """Answers each request by a responder, or with the valid empty answer.

    `connections` are those whose sessions live. `call_soon` asks the loop for a call in its next iteration.
    `meter` counts how requests end.
    """

    def __init__(
        self,
        configure: Configure,
        connections: Mapping[SessionId, Connection],
        call_soon: Callable[[Callable[[Connection], None], Connection], object],
        meter: Requests,
    ) -> None:
        self._connections = connections
        self._meter = meter
        self._call_soon = call_soon
        self._max_open = configure.settings.responders.max_open
        self._queue_bytes = configure.settings.queues.peer_write_bytes
        self.responders = Responders(configure.settings.responders, self)

    def on_request(self, connection: Connection, request: MessageReceived) -> list[Event]:
        """Have a request answered; returns the events of the session's end if the request is malformed."""
        if not connection.is_made:
            return []  # read after the peer has left: nobody awaits the answer
        if len(request.payload) > OFFERED_MAX_BYTES:
            # It is too large to be kept waiting, so no responder gets it.
            return self._answer_empty(connection, request)
        if self._has_room(connection):
            return self._serve(connection, request)
        requests = connection.requests = connection.requests or PeerRequests()
        requests.park(request)
        connection.update_reading()
        return []

    def on_room(self, connection: Connection) -> None:
        """Answers have left: look at the parked requests in the next loop iteration."""
        self._call_soon(self._serve_parked, connection)

    # -- what responders say ------------------------------------------------------------------------------------------------

    def on_answer(self, session: SessionId, request: MessageReceived, payload: bytes, asked_at: float) -> None:
        """Send a responder's answer to the peer that asked."""
        self._meter.answered(request.kind, monotonic() - asked_at)
        connection = self._connections.get(session)
        if connection is not None:
            connection.session.answer(request, payload)
            self._on_served(connection, request, [])

    def on_no_answer(self, session: SessionId, request: MessageReceived, *, is_late: bool) -> None:
        """Send the peer the answer of a node that has nothing."""
        connection = self._connections.get(session)
        if connection is not None:
            outcome = UNANSWERED if is_late else EMPTY
            self._on_served(connection, request, self._answer_empty(connection, request, outcome))

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _has_room(self, connection: Connection) -> bool:
        """Whether the peer's next request may be served: few enough are unanswered, and few enough answers unsent."""
        session, requests = connection.session, connection.requests
        return (
            (requests is None or requests.open < self._max_open)
            and session.queued_responses < MAX_QUEUED_RESPONSES
            and session.queued_bytes <= self._queue_bytes
        )

    def _serve(self, connection: Connection, request: MessageReceived) -> list[Event]:
        """Give a request to a responder, or answer it empty; returns the end if it is malformed."""
        if not self.responders.ask(connection.id, connection.peer_hex, request, now=monotonic()):
            return self._answer_empty(connection, request)
        requests = connection.requests = connection.requests or PeerRequests()
        requests.take(request)
        return []

    def _answer_empty(self, connection: Connection, request: MessageReceived, outcome: str = EMPTY) -> list[Event]:
        """Send the valid empty answer of the request's version and id; returns the end if the request is malformed."""
        try:
            check_request(request.kind, request.payload)
            payload = request.kind.empty_answer(request.request_id or 0, request.payload)
        except PeerError as error:
            self._meter.ended(request.kind, MALFORMED)
            return connection.session.disconnect(DisconnectReason.PROTOCOL_BREACH, str(error), severity=Severity.MEDIUM)
        self._meter.ended(request.kind, outcome)
        connection.session.answer(request, payload)
        return []

    def _on_served(self, connection: Connection, request: MessageReceived, events: list[Event]) -> None:
        """One request is no longer open, so a parked one may be served."""
        if connection.requests is not None:
            connection.requests.release(request)
        connection.drive(events)
        self._serve_parked(connection)

    def _serve_parked(self, connection: Connection) -> None:
        requests = connection.requests
        if requests is None:
            return
        requests.is_turn_due = False
        started = monotonic()
        events: list[Event] = []
        while requests.has_parked and not connection.session.is_closed and self._has_room(connection):
            events += self._serve(connection, requests.unpark())
        connection.update_reading()
        connection.book()
        if events or connection.session.has_data_to_send:
            connection.drive(events)
        # The peer pays for the requests as if they had been served at once.
        connection.allowance_seconds -= monotonic() - started
