"""One connection to one endpoint of an engine, on asyncio or uvloop: whole messages both ways, and its end.

A wire never reconnects: whatever was under way on it ends with it, and its owner makes another one. So a process that
replaced another one is never taken for the same.

It reads ZeroMQ's own file descriptor instead of using `zmq.asyncio`, where a message of 300 bytes took 18 µs, here 4, and
where the last messages of a connection and its end do not come in their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import zmq

from rlpx.engine.client.door import event_number, refusal, use_key
from rlpx.engine.client.errors import EngineSilentError
from rlpx.engine.client.presence import EndpointError, EngineUnavailableError, check_there
from rlpx.protocol.bus.places import check_endpoint
from rlpx.protocol.mistakes import ConfigError

# The time that a connection may take, handshake included. An engine that is there answers within milliseconds.
OPEN_SECONDS: Final = 10.0
# The time for which a closed socket still tries to send, such as the cancellation of calls.
LINGER_SECONDS: Final = 0.3
NEVER_MS: Final = 24 * 3600 * 1000
# Messages read in one iteration of the loop, before other tasks of the program have their turn.
READ_AT_ONCE: Final = 16
_REFUSED: Final = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_ENDED: Final = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_WATCHED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | _REFUSED | _ENDED


class Place(NamedTuple):
    """Where a wire leads to, with the program's key file if it is a TCP endpoint."""

    context: zmq.Context[zmq.Socket[bytes]]
    endpoint: str
    key: Path | str | None


class Wire:
    """See the module. With `topics` it subscribes to these, and gets what is published; otherwise it talks.

    `on_message` gets the frames of each message, `on_end` the reason why the connection has ended.

    `on_end` is called once, after the last message, and never if `close` was called first. Raises `EndpointError`, and
    `ConfigError` for a key file.
    """

    def __init__(
        self,
        place: Place,
        on_message: Callable[[list[bytes]], None],
        on_end: Callable[[EngineUnavailableError], None],
        topics: Sequence[str] = (),
    ) -> None:
        self.endpoint = endpoint = place.endpoint
        self._has_key = place.key is not None
        self._is_paused = False
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        # Why the connection has ended, or that it was closed.
        self._cause: EngineUnavailableError | None = None
        self._asks_why: asyncio.Task[None] | None = None
        self._socket = place.context.socket(zmq.SUB if topics else zmq.DEALER)
        try:
            check_endpoint(endpoint)
            self._configure(place.key, topics)
            self._monitor = self._socket.get_monitor_socket(_WATCHED)
            self._socket.connect(endpoint)
        except (ValueError, zmq.ZMQError, ConfigError) as error:
            self._socket.disable_monitor()
            self._socket.close(0)
            if isinstance(error, ConfigError):
                raise
            raise EndpointError(endpoint, str(error)) from error
        self._descriptors = (self._socket.FD, self._monitor.FD)
        self._loop.add_reader(self._descriptors[0], self._read)
        self._loop.add_reader(self._descriptors[1], self._watch)
        # ZeroMQ signals changes only, and one may have come before there was a reader.
        self._loop.call_soon(self._watch)

    async def open(self) -> None:
        """Wait until the engine has accepted the connection. Raises `EngineUnavailableError` and its subclasses."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await asyncio.shield(self._opened)
        except TimeoutError as error:
            self.close()
            text = f"{self.endpoint} did not accept the connection within {OPEN_SECONDS:g} s"
            raise EngineSilentError(text) from error
        except asyncio.CancelledError:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._cause is None and self._opened.done()

    def send(self, frames: list[bytes]) -> None:
        """Send a message. It waits in our own socket's queue, which its owners bound.

        Raises `EngineUnavailableError` if the connection is not open or has ended.
        """
        if not self.is_open:
            raise self._cause or EngineUnavailableError(f"{self.endpoint} has not accepted the connection yet")
        with suppress(zmq.Again):  # the connection has just ended, and `on_end` says so
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        self._look_again()

    def close(self) -> None:
        """End the connection. What was sent before may still leave, for a moment."""
        if self._cause is None:
            self._release(EngineUnavailableError(f"the connection to {self.endpoint} was closed"))

    def pause(self) -> None:
        """Read no more messages for now."""
        self._is_paused = True

    def resume(self) -> None:
        """Read on."""
        if self._is_paused:
            self._is_paused = False
            self._loop.call_soon(self._read)

    def _configure(self, key: Path | str | None, topics: Sequence[str]) -> None:
        if key is not None:
            use_key(self._socket, key)
        for topic in topics:
            self._socket.setsockopt_string(zmq.SUBSCRIBE, topic)
        # With ZMQ_IMMEDIATE, or if ZeroMQ is told never to reconnect, it drops what has come and is not read yet when the
        # connection ends. We close the socket long before this time.
        self._socket.setsockopt(zmq.RECONNECT_IVL, NEVER_MS)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        if not topics:
            # What may come is bounded by the credit of feeds and responders, and by the calls in flight. ZeroMQ's own bound
            # would lose what it has not read when the connection ends.
            self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, int(LINGER_SECONDS * 1000))
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, int(OPEN_SECONDS * 1000))

    def _read(self) -> None:
        """Take the messages that have come, a few at a time."""
        for _ in range(READ_AT_ONCE):
            if self._cause is not None or self._is_paused:
                return
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._on_message(frames)
        self._loop.call_soon(self._read)

    def _look_again(self) -> None:
        """Sending may have taken the signal of a message that has come (zmq_getsockopt(3), ZMQ_FD)."""
        if self._socket.poll(0):
            self._loop.call_soon(self._read)

    def _watch(self) -> None:
        """Take the events of the connection: accepted, refused, ended."""
        while self._cause is None and self._asks_why is None:
            try:
                event = event_number(self._monitor.recv_multipart(zmq.DONTWAIT))
            except zmq.Again:
                return
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                if not self._opened.done():
                    self._opened.set_result(None)
                self._loop.call_soon(self._read)
            elif event & _REFUSED:
                self._end(refusal(self.endpoint, event, has_key=self._has_key))
            elif self._opened.done():
                self._drain()
                self._end(EngineUnavailableError(f"{self.endpoint} has ended the connection"))
            else:
                self._asks_why = self._loop.create_task(self._end_unopened())

    def _drain(self) -> None:
        """Take what had come when the connection ended."""
        with suppress(zmq.Again):
            while self._cause is None:
                self._on_message(self._socket.recv_multipart(zmq.DONTWAIT))

    async def _end_unopened(self) -> None:
        """Find out why nobody accepted the connection, which ZeroMQ does not say."""
        try:
            await asyncio.to_thread(check_there, self.endpoint)
        except EngineUnavailableError as error:
            self._end(error)
        else:
            self._end(EngineUnavailableError(f"no engine at {self.endpoint}"))

    def _end(self, cause: EngineUnavailableError) -> None:
        if self._cause is not None:
            return
        was_opened = self._opened.done()
        self._release(cause)
        if was_opened:
            self._on_end(cause)

    def _release(self, cause: EngineUnavailableError) -> None:
        self._cause = cause
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        if not self._opened.done():
            self._opened.set_exception(cause)
            # Nobody may be waiting for it.
            self._opened.exception()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()
