"""Traffic events on their way out, on an XPUB that knows who listens to what.

What nobody subscribed to is never entered. What the one pipe to the engine's proxy refuses is dropped whole and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import Final

import zmq

from protocol.batches import Batches, Interest
from protocol.control import OutboxConfig, WorkerId

# Plain integers: combining ZeroMQ's own flags, which are enumerations, takes longer than sending a frame.
_LAST: Final = int(zmq.DONTWAIT)
_MORE: Final = int(zmq.DONTWAIT | zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_READABLE: Final = int(zmq.POLLIN)
# At the end the proxy has this long to take what is left.
LINGER_MILLISECONDS: Final = 500


class Outbox:
    """`add` an event; it leaves with its batch. `later` asks the loop for a call after so many seconds."""

    def __init__(
        self,
        worker: WorkerId,
        config: OutboxConfig,
        context: zmq.Context[zmq.Socket[bytes]],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.interest = Interest()
        self.dropped_events = 0
        self._batch_seconds = config.batch_seconds
        self._batch_bytes = config.batch_bytes
        self._later = later
        self._batches = Batches(worker, time_ns() // 1000)
        self._is_due = False
        self._socket = context.socket(zmq.XPUB)
        # With several pipes the slowest would starve the rest; there is one, to the proxy, and its refusals count.
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._socket.setsockopt(zmq.SNDHWM, config.queue_batches)
        self._socket.setsockopt(zmq.LINGER, LINGER_MILLISECONDS)
        self._socket.connect(config.endpoint)

    def fileno(self) -> int:
        """Readable when subscriptions may have come (edge-triggered, as ZeroMQ's are): call `read_subscriptions`."""
        return int(self._socket.getsockopt(zmq.FD))

    def read_subscriptions(self) -> None:
        """Take every subscription that has come."""
        # Asking for events is cheaper than an exception, and it is asked after every flush.
        while not self._socket.closed and int(self._socket.getsockopt(_EVENTS)) & _READABLE:
            self.interest.change(self._socket.recv(_LAST))

    def add(self, topic: str, event: str, payload: bytes) -> None:
        """Enter one event, a JSON object, with its payload, whose size it already states."""
        self._batches.add_encoded(topic, event, payload)
        if self._batches.waiting_bytes >= self._batch_bytes:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._later(self._batch_seconds, self.flush)

    def flush(self) -> None:
        """Send what waits."""
        self._is_due = False
        if self._socket.closed:
            return
        for batch in self._batches.take():
            try:
                topic, head, body = batch.frames()
                self._socket.send(topic, _MORE)
                self._socket.send(head, _MORE)
                self._socket.send(body, _LAST)
            except zmq.Again:
                self.dropped_events += batch.refused()
            else:
                batch.sent()
        # ZeroMQ's descriptor tells of subscriptions once: sending may have swallowed that.
        self.read_subscriptions()

    def close(self) -> None:
        """Send what waits and let go of the socket."""
        self.flush()
        self._socket.close()
