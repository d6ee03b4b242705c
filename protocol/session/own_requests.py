"""Our requests to one peer and their outcomes: an answer, a failure, or misconduct of the peer."""

from __future__ import annotations

from rlpx.protocol import rlp
from rlpx.protocol.errors import ErrorName, QueueFullError, RlpError, UsageError
from rlpx.protocol.eth.kinds import MessageKind
from rlpx.protocol.lifecycle import Conduct
from rlpx.protocol.session.events import Answered, Event, Misconduct, RequestFailed
from rlpx.protocol.session.requests import BREACH_SECONDS, RequestId, Requests, is_answer


class OwnRequests:
    """See the module. `book` has the requests by our ids. It is made with the first one, as most sessions have none."""

    __slots__ = ("_raw_requests", "book")

    def __init__(self) -> None:
        self.book: Requests | None = None
        # Requests that users sent as raw messages: we do not know their ids, and their answers are legal.
        self._raw_requests = 0

    def count_raw(self) -> None:
        """Note that a request was sent as a raw message."""
        self._raw_requests += 1

    def begin(self, kind: MessageKind, payload: bytes, *, now: float) -> tuple[RequestId, bytes]:
        """Book a request that is sent now; returns our id, and the payload with it in place of the caller's.

        Raises `UsageError` if this is no request, `QueueFullError` if too many are in flight.
        """
        if kind.answer is None:
            raise UsageError(f"{kind.topic} is no request")
        if self.book is None:
            self.book = Requests()
        if self.book.is_full:
            raise QueueFullError(f"{len(self.book)} requests to this peer are in flight")
        try:
            original_id = rlp.first_uint(payload)
        except RlpError as error:
            raise UsageError(f"payload: {error}") from error
        request_id = self.book.begin(kind, original_id, now=now)
        return request_id, rlp.with_first(payload, request_id)

    def forget(self, request_id: RequestId) -> None:
        """Remove a request that could not be sent."""
        if self.book is not None:
            self.book.forget(request_id)

    def cancel(self, request_id: RequestId) -> None:
        """Give up a request whose caller has gone: no event follows, and a late answer is not misconduct."""
        if self.book is not None:
            self.book.cancel(request_id)

    def on_response(self, kind: MessageKind, response: tuple[int, bytes], events: list[Event], *, now: float) -> None:
        """Take a response: its request id and its payload."""
        request_id, payload = response
        book = self.book
        request = None if book is None else book.answered(request_id, kind, now=now)
        if request is None:
            if book is None or not book.is_of_evicted(request_id):
                self.on_unasked(kind, events)
        elif request.has_timed_out:
            return  # Its failure has been reported, and a late answer is not misconduct.
        elif is_answer(request.kind, kind):
            events.append(Answered(request.id, kind, rlp.with_first(payload, request.original_id)))
        else:
            text = f"{kind.topic} as the answer to {request.kind.topic}"
            events.append(RequestFailed(request.id, ErrorName.BAD_RESPONSE, text))
            events.append(Misconduct(Conduct.BAD_MESSAGE, text))

    def on_unasked(self, kind: MessageKind, events: list[Event]) -> None:
        """Take a response that matches none of our requests: it answers a raw one if any is open, else it is misconduct."""
        if self._raw_requests:
            self._raw_requests -= 1
            return
        events.append(Misconduct(Conduct.BAD_MESSAGE, f"{kind.topic} that nobody asked for"))

    def expire(self, events: list[Event], *, now: float) -> None:
        """Report each request that has timed out by now, once, and a peer that answers none."""
        if self.book is None:
            return
        expired, is_breach = self.book.expire(now=now)
        for request in expired:
            text = f"no answer to {request.kind.topic} within {now - request.sent_at:.1f} s"
            events.append(RequestFailed(request.id, ErrorName.TIMED_OUT, text))
        if is_breach:
            events.append(Misconduct(Conduct.BREACH, f"no answer to a request for {BREACH_SECONDS:g} s"))

    def abandon(self, cause: str, events: list[Event]) -> None:
        """Report the requests that still wait for an answer, as failed: the session has ended."""
        book, self.book = self.book, None
        if book is not None:
            events += [RequestFailed(request.id, ErrorName.SESSION_ENDED, cause) for request in book.abandon()]
