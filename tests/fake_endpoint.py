"""A loop, sockets and transports that a test plays, and an endpoint on them with an owner that records what it hears."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.endpoint import Endpoint
from rlpx.protocol.bus.link import Limits, Link
from rlpx.protocol.bus.zmtp import Kind


def greeting(mechanism: bytes = b"NULL", *, major: int = 3) -> bytes:
    """What a client says first."""
    return (b"\xff" + bytes(8) + b"\x7f" + bytes((major, 1)) + mechanism.ljust(20, b"\0")).ljust(64, b"\0")


def ready(socket_type: bytes) -> bytes:
    """The whole handshake of a client with NULL."""
    return zmtp.command(b"READY", zmtp.metadata({"Socket-Type": socket_type, "Identity": b"me"}))


def events_of(connection: zmtp.ServerConnection, data: bytes) -> list[zmtp.Event]:
    """All that the server's side makes of some bytes."""
    connection.receive(data)
    events = []
    while not connection.is_starved:
        event = connection.step()
        if event is not None:
            events.append(event)
    return events


class FakeTransport:
    """Writes into a list; what it holds back is `queued`."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.written: list[bytes] = []
        self.is_blocked = False
        self.queued = 0
        self.reading = True
        self.closing = False
        self.aborted = False
        self.high = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.is_blocked:
            was, self.queued = self.queued, self.queued + len(data)
            if was <= self.high < self.queued:
                self.link.pause_writing()

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.write(b"".join(parts))

    def drain(self) -> None:
        """The user reads all."""
        was, self.queued = self.queued, 0
        if was > self.high:
            self.link.resume_writing()

    def is_reading(self) -> bool:
        return self.reading

    def get_write_buffer_size(self) -> int:
        return self.queued

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert low == 0
        self.high = high

    def pause_reading(self) -> None:
        assert not self.closing
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.closing
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True


class FakeSocket:
    """A listening socket and what it accepts."""

    def __init__(self, *accepts: Any) -> None:
        self.accepts: deque[Any] = deque(accepts)
        self.is_closed = False
        self.problem: OSError | None = None

    def accept(self) -> tuple[Any, Any]:
        if not self.accepts:
            raise BlockingIOError
        item = self.accepts.popleft()
        if isinstance(item, OSError):
            raise item
        return FakeSocket(), item

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - a socket's own signature
        assert flag is False

    def fileno(self) -> int:
        return id(self)

    def close(self) -> None:
        self.is_closed = True


class FakeTimer:
    """A timer that a test fires."""

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due, self.callback, self.is_cancelled = due, callback, False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeTask:
    """A coroutine that runs to its end at once."""

    def __init__(self, coro: Coroutine[Any, Any, None]) -> None:
        try:
            coro.send(None)
        except StopIteration:
            return
        raise AssertionError("it should not wait")

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        callback(self)


class FakeLoop:
    """The part of a loop that an endpoint uses. Tasks run at once, or when told."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], object]] = {}
        self.soon: list[Callable[[], object]] = []
        self.timers: list[FakeTimer] = []
        self.transports: list[FakeTransport] = []
        self.problem: OSError | None = None
        self.now = 0.0
        self.is_slow = False
        self.later: list[Coroutine[Any, Any, None]] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> None:
        self.readers[fd] = lambda: callback(*args)

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def create_task(self, coro: Coroutine[Any, Any, None]) -> Any:
        if self.is_slow:
            self.later.append(coro)
            coro = _nothing()
        return FakeTask(coro)

    async def connect_accepted_socket(self, protocol_factory: Callable[[], Any], _sock: Any) -> None:
        if self.problem is not None:
            raise self.problem
        link = protocol_factory()
        transport = FakeTransport(link)
        self.transports.append(transport)
        link.connection_made(transport)

    def turn(self) -> None:
        """One turn of the loop."""
        callbacks, self.soon = self.soon, []
        for callback in callbacks:
            callback()

    def advance(self, seconds: float) -> None:
        """Time passes, and timers fire."""
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.due <= self.now]:
            self.timers.remove(timer)
            if not timer.is_cancelled:
                timer.callback()


async def _nothing() -> None:
    pass


LIMITS = Limits(
    links=3,
    queue_bytes=100_000,
    total_queue_bytes=250_000,
    total_received_bytes=5000,
    zmtp=zmtp.Limits(message_bytes=4000, dropped_bytes=1000),
)


class RecordingOwner:
    """An owner that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.on_each: Callable[[Link], object] = lambda _: None

    def on_ready(self, link: Link) -> None:
        self.told.append(("ready", link.number, link.socket_type))

    def on_subscribed(self, link: Link, prefix: bytes) -> None:
        self.told.append(("subscribed", link.number, prefix))

    def on_cancelled(self, link: Link, prefix: bytes) -> None:
        self.told.append(("cancelled", link.number, prefix))

    def on_message(self, link: Link, frames: list[bytes]) -> None:
        self.told.append(("message", link.number, frames))
        self.on_each(link)

    def on_room(self, link: Link) -> None:
        self.told.append(("room", link.number))

    def on_gone(self, link: Link) -> None:
        self.told.append(("gone", link.number, link.cause))

    def on_refused(self, remote: str, cause: str, times: int) -> None:
        self.told.append(("refused", remote, cause, *([times] if times > 1 else [])))

    def take(self) -> list[tuple[Any, ...]]:
        """What was told since."""
        told, self.told = self.told, []
        return told


class EndpointHarness:
    """An endpoint in a world that a test plays."""

    def __init__(self, kind: Kind = Kind.ROUTER, limits: Limits = LIMITS) -> None:
        self.loop = FakeLoop()
        self.owner = RecordingOwner()
        self.has_room = True
        self.seconds = 0.0
        self.step_seconds = 0.0
        self.endpoint = Endpoint(kind, self.owner, limits, Clockwork(self.loop, self.clock, lambda: self.has_room))
        self.sock = FakeSocket()
        self.endpoint.listen(self.sock, "tcp")

    def clock(self) -> float:
        self.seconds += self.step_seconds
        return self.seconds

    def arrive(self, *accepts: Any) -> None:
        """Somebody connects, or an accept fails."""
        self.sock.accepts.extend(accepts)
        self.loop.readers[self.sock.fileno()]()

    def connected(self) -> FakeTransport:
        """A connection that has not said anything."""
        self.arrive(("10.0.0.1", 4000))
        return self.loop.transports[-1]

    def user(self, socket_type: bytes = b"DEALER") -> FakeTransport:
        """A connection after its handshake."""
        transport = self.connected()
        transport.link.data_received(greeting() + ready(socket_type))
        assert self.owner.take() == [("ready", transport.link.number, socket_type.decode())]
        transport.written.clear()
        return transport


def lost(transport: FakeTransport) -> None:
    """The transport has closed."""
    transport.closing = True
    transport.link.connection_lost(None)
