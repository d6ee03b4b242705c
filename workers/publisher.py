"""The queue of a worker's events for the engine: batched, numbered, bounded in bytes, and in one order with the reports.

Events that nobody subscribed to are never entered. Batches are written while the stream's buffer is short. When more than
`worker_queue_bytes` wait, batches of messages are dropped whole and counted. Lifecycle events are never dropped: the limits
of the engine's ledger bound them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from rlpx.protocol.bus import control
from rlpx.protocol.bus.batches import Batches, Interest, Publisher
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.events import Event
from rlpx.protocol.bus.reports import Published, encode_published
from rlpx.protocol.bus.zmtp import Wire
from rlpx.protocol.settings import EventSettings

# A report waits behind at most this much and one batch, which the engine reads in a few hundred microseconds.
WRITE_AHEAD_BYTES: Final = 256 * 1024


class Stream(Protocol):
    """The part of the transport to the engine that is used here."""

    def writelines(self, list_of_data: Sequence[Wire], /) -> None:
        """Write or buffer all parts."""

    def get_write_buffer_size(self) -> int:
        """The number of bytes buffered."""

    def is_closing(self) -> bool:
        """Whether the transport takes nothing more."""


class Timer(Protocol):
    """A scheduled call of the loop."""

    def cancel(self) -> None:
        """Cancel the call."""


class Outbox:
    """`add` enters a message's event, `add_lifecycle` one of a session's life; both leave with the batch of their topic.

    `later` asks the loop to call back after a number of seconds. `before` is called before each write: it writes the reports
    of everything that the batches contain, so that the engine reads the reports first.
    """

    def __init__(
        self,
        publisher: Publisher,
        settings: EventSettings,
        later: Callable[[float, Callable[[], None]], Timer],
        before: Callable[[], None],
    ) -> None:
        self.interest = Interest()
        self.dropped_events = 0
        self._publisher = publisher
        self._settings = settings
        self._batch_bytes = settings.batch_bytes
        self._later = later
        self._before = before
        self._batches = Batches(publisher)
        # Set while events wait for their batch.
        self._timer: Timer | None = None
        self._life_timer: Timer | None = None
        self._stream: Stream | None = None
        self._queue: deque[tuple[Wire, ...]] = deque()
        self._queued_bytes = 0

    def begin(self, stream: Stream, begin: control.Begin) -> None:
        """Start to publish. The numbers continue where the previous worker of this index stopped."""
        self._stream = stream
        self._batches = Batches(self._publisher, begin.numbers)
        self.interest.change(begin.prefixes)

    def add(self, topic: str, event: str, payload: bytes) -> None:
        """Enter one event, a JSON object that already states the size of its payload."""
        self._batches.add_encoded(topic, event, payload)
        if self._batches.waiting_bytes >= self._batch_bytes:
            self.flush()
        elif self._timer is None:
            self._timer = self._later(self._settings.batch_ms / 1000, self.flush)

    def add_lifecycle(self, topic: str, event: Event) -> None:
        """Enter one lifecycle event."""
        self._batches.add(topic, event)
        self._await_life()

    def mark(self, topic: str, session: SessionId) -> None:
        """Enter that a session was opened or has ended; the engine is told even if nobody subscribed to the topic."""
        self._batches.mark(topic, session)
        self._await_life()

    def report(self, report: control.Report) -> None:
        """Send a report at its place among the batches, behind the reminders of all events dropped so far."""
        self._enter()
        self._remind()
        self._push((control.encode(report),))
        self.write()

    def flush(self) -> None:
        """Send all events that wait."""
        # A timer that keeps running would cut the next batch short.
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._life_timer is not None:
            self._life_timer.cancel()
            self._life_timer = None
        self._enter()
        self.write()

    def remind(self) -> None:
        """Send an empty batch for each topic whose last events were dropped, so that readers see how many are missing."""
        self._remind()
        self.write()

    def write(self) -> None:
        """Write queued batches while the stream's buffer is short. Call it again when the stream has room."""
        stream = self._stream
        if not self._queue or stream is None or stream.is_closing():
            return
        self._before()
        while self._queue and stream.get_write_buffer_size() < WRITE_AHEAD_BYTES:
            parts = self._queue.popleft()
            self._queued_bytes -= sum(map(len, parts))
            stream.writelines(parts)

    def close(self) -> None:
        """Write everything that waits, whatever the length of the stream's buffer."""
        self._enter()
        stream = self._stream
        if stream is not None and not stream.is_closing():
            self._before()
            for parts in self._queue:
                stream.writelines(parts)
        self._queue.clear()
        self._queued_bytes = 0

    @property
    def queued_bytes(self) -> int:
        """The number of bytes that wait for room in the stream."""
        return self._queued_bytes

    def _await_life(self) -> None:
        if self._life_timer is None:
            self._life_timer = self._later(self._settings.lifecycle_batch_ms / 1000, self.flush)

    def _enter(self) -> None:
        for batch in self._batches.take():
            if not batch.is_life and self._queued_bytes >= self._settings.worker_queue_bytes:
                self.dropped_events += batch.refused()
                continue
            first, sessions, wire = batch.numbers.next, tuple(map(SessionId, batch.sessions)), batch.wire()
            batch.sent()
            self._push(encode_published(Published(batch.topic, first, batch.numbers, sessions, wire)))

    def _remind(self) -> None:
        # A reminder has a few bytes and there is one for each topic: it is queued regardless of the limit.
        for batch in self._batches.owing():
            batch.is_owing = False
            numbers = batch.numbers
            self._push(encode_published(Published(batch.topic, numbers.next, numbers, (), batch.reminder())))

    def _push(self, parts: tuple[Wire, ...]) -> None:
        self._queue.append(parts)
        self._queued_bytes += sum(map(len, parts))
