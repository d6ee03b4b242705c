"""The users' ZeroMQ sockets: commands on a ROUTER, events through a proxy of XSUB and XPUB in a thread of its own.

Traffic events of the workers pass through libzmq's proxy and never through Python; the engine's own, lifecycle, enter it
beside them. A user that does not read loses its own events only, and the numbers show it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import time_ns
from typing import Final

import structlog
import zmq

from engine.config import RunDir
from engine.settings import ControlSettings, EventSettings
from protocol.batches import Batches, EventFields, Interest

# Plain integers: combining ZeroMQ's own flags, which are enumerations, takes longer than sending a frame.
_MORE: Final = int(zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_READABLE: Final = int(zmq.POLLIN)
# Requests taken in one turn of the loop.
REQUEST_BUDGET: Final = 256
# Replies that wait for one user before more are dropped: a user that never reads must not grow our memory.
REPLY_QUEUE: Final = 1000
# Requests that are being carried out: beyond either bound the others wait in their senders' queues.
MAX_OPEN_REQUESTS: Final = 4096
MAX_OPEN_REQUEST_BYTES: Final = 256 * 1024 * 1024
# A topic prefix is short.
SUBSCRIPTION_MAX_BYTES: Final = 1024
# The proxy takes this long at the end to pass on what is left.
LINGER_MILLISECONDS: Final = 300
_INPROC: Final = "inproc://engine-events"
_INPROC_EVENTS: Final = "inproc://events"
# Published when all else is.
LAST_TOPIC: Final = "engine.stopped"

log = structlog.get_logger()

Context = zmq.Context[zmq.Socket[bytes]]


class Envelope:
    """Where a reply goes: the ROUTER's identity frame, and the empty frame if the user's socket sent one."""

    __slots__ = ("frames", "request_bytes")

    def __init__(self, frames: list[bytes], request_bytes: int) -> None:
        self.frames = frames
        self.request_bytes = request_bytes


class Hub:
    """`on_request` gets each request's envelope, text and attached frames; answer it with `reply`, once."""

    def __init__(
        self,
        run_dir: RunDir,
        settings: tuple[ControlSettings, EventSettings],
        loop: asyncio.AbstractEventLoop,
        on_request: Callable[[Envelope, bytes, list[bytes]], None],
    ) -> None:
        self._loop = loop
        self._on_request = on_request
        self._run_dir = run_dir
        self._control, self._events = settings
        self._context: Context = zmq.Context()
        self._batches = Batches(None, time_ns() // 1000)
        self._is_due = False
        self._open_requests = 0
        self._open_bytes = 0
        self._interest = Interest()
        self._router = self._context.socket(zmq.ROUTER)
        self._publisher = self._context.socket(zmq.XPUB)
        self._xsub = self._context.socket(zmq.XSUB)
        self._xpub = self._context.socket(zmq.XPUB)
        # Our own subscriber, to the last event of all: when it has come through the proxy, so has all before it.
        self._last = self._context.socket(zmq.SUB)
        self._proxy = threading.Thread(target=self._run_proxy, name="event-proxy", daemon=True)

    @property
    def traffic_endpoint(self) -> str:
        """Where workers connect their XPUB."""
        return self._run_dir.endpoint("traffic")

    def start(self) -> None:
        """Bind everything. Raises `zmq.ZMQError` where an endpoint is taken."""
        queue = self._events.queue_batches
        self._xsub.setsockopt(zmq.RCVHWM, queue)
        self._xpub.setsockopt(zmq.SNDHWM, queue)
        # What a subscriber sends is passed to every worker.
        self._xpub.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_MAX_BYTES)
        self._xsub.bind(self.traffic_endpoint)
        self._xsub.bind(_INPROC)
        self._xpub.bind(_INPROC_EVENTS)
        self._last.setsockopt_string(zmq.SUBSCRIBE, LAST_TOPIC)
        self._last.connect(_INPROC_EVENTS)
        self._xpub.bind(self._run_dir.endpoint("events"))
        if self._events.endpoint:
            self._xpub.bind(self._events.endpoint)
        for sock in (self._router, self._publisher, self._xsub, self._xpub, self._last):
            sock.setsockopt(zmq.LINGER, LINGER_MILLISECONDS)
        self._publisher.setsockopt(zmq.XPUB_NODROP, 1)
        self._publisher.setsockopt(zmq.SNDHWM, 0)
        self._publisher.connect(_INPROC)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.SNDHWM, REPLY_QUEUE)
        self._router.setsockopt(zmq.MAXMSGSIZE, self._control.max_request_bytes)
        self._router.bind(self._run_dir.endpoint("control"))
        if self._control.endpoint:
            self._router.bind(self._control.endpoint)
        self._proxy.start()
        self._loop.add_reader(_descriptor(self._router), self._on_readable)
        self._loop.add_reader(_descriptor(self._publisher), self._read_subscriptions)
        self._loop.call_soon(self._on_readable)

    def close(self) -> None:
        """Send what waits, then let go of everything."""
        if self._proxy.is_alive():
            self.publish(LAST_TOPIC, {"time_us": time_ns() // 1000})
            self.flush()
            self._last.poll(LINGER_MILLISECONDS)
        self._last.close()
        self._loop.remove_reader(_descriptor(self._router))
        self._loop.remove_reader(_descriptor(self._publisher))
        self._router.close()
        self._publisher.close()
        if self._proxy.is_alive():
            # Terminating the context ends the proxy, which closes its two sockets.
            self._context.term()
            self._proxy.join()
        else:
            self._xsub.close()
            self._xpub.close()
            self._context.term()

    # -- events -------------------------------------------------------------------------------------------------------------

    def wants(self, topic: str) -> bool:
        """Whether anybody reads a topic: what nobody reads need not be made."""
        return self._interest[topic]

    def publish(self, topic: str, event: EventFields) -> None:
        """Publish one event of the engine's own; it leaves with its batch.

        Each send wakes the proxy's and libzmq's threads: with 2 ms instead of 10 a session cost a fourth more here.
        """
        self._batches.add(topic, event)
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(self._events.lifecycle_batch_ms / 1000, self.flush)

    def flush(self) -> None:
        """Send the engine's events that wait. This pipe is inside the process and never refuses."""
        self._is_due = False
        if self._publisher.closed:
            return
        for batch in self._batches.take():
            topic, head, body = batch.frames()
            self._publisher.send(topic, _MORE)
            self._publisher.send(head, _MORE)
            self._publisher.send(body)
            batch.sent()
        self._read_subscriptions()

    def _read_subscriptions(self) -> None:
        # Asking for events is cheaper than an exception, and it is asked after every flush.
        while int(self._publisher.getsockopt(_EVENTS)) & _READABLE:
            self._interest.change(self._publisher.recv(zmq.DONTWAIT))

    def _run_proxy(self) -> None:
        try:
            zmq.proxy(self._xsub, self._xpub)
        except zmq.ContextTerminated:
            pass
        finally:
            self._xsub.close()
            self._xpub.close()

    # -- commands -----------------------------------------------------------------------------------------------------------

    def reply(self, envelope: Envelope, body: bytes, attachment: bytes | None = None) -> None:
        """Answer a request. A user that has gone, or does not read, loses its reply."""
        self._open_requests -= 1
        self._open_bytes -= envelope.request_bytes
        frames = [*envelope.frames, body] if attachment is None else [*envelope.frames, body, attachment]
        try:
            self._router.send_multipart(frames, zmq.DONTWAIT)
        except zmq.ZMQError as error:
            log.info("a reply found no reader", error=error.strerror)
        # Sending may have swallowed the edge that tells of the next request.
        self._loop.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        if self._router.closed:
            return
        for _ in range(REQUEST_BUDGET):
            if self._open_requests >= MAX_OPEN_REQUESTS or self._open_bytes >= MAX_OPEN_REQUEST_BYTES:
                return  # the next reply looks again
            try:
                frames = self._router.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            # A REQ socket puts an empty frame behind the identity, a DEALER need not.
            split = 2 if len(frames) > 1 and not frames[1] else 1
            body = frames[split : split + 1]
            envelope = Envelope(frames[:split], sum(map(len, frames)))
            self._open_requests += 1
            self._open_bytes += envelope.request_bytes
            self._on_request(envelope, body[0] if body else b"", frames[split + 1 :])
        self._loop.call_soon(self._on_readable)


def _descriptor(sock: zmq.Socket[bytes]) -> int:
    """The descriptor that tells, on an edge, that the socket may have something."""
    return int(sock.getsockopt(zmq.FD))
