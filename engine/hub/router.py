"""The users' commands: requests on a ROUTER, and exactly one reply to each.

Callers take turns: in each loop iteration at most one request of each is started, and the number in progress is bounded.
A caller that does not read its replies is not read either, so that no reply has to be dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from rlpx.engine.hub.endpoints import bind_endpoint, bind_ipc, close_endpoint
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.settings.settings import ControlSettings
from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.endpoint import Endpoint, Security
from rlpx.protocol.bus.link import HIGH_WATER_BYTES, Limits, Link
from rlpx.protocol.bus.zmtp import Kind
from rlpx.protocol.mistakes import bind_error

# Requests of one caller that are in progress, such as dials that wait. Its next ones wait in its own socket.
MAX_OPEN_REQUESTS_PER_CALLER: Final = 64
MAX_OPEN_REQUEST_BYTES_PER_CALLER: Final = 64 * 1024 * 1024
# The same for all callers together.
MAX_OPEN_REQUESTS: Final = 4096
MAX_OPEN_REQUEST_BYTES: Final = 256 * 1024 * 1024
# Replies that wait for one caller. The largest are lists of sessions, 1 KB each.
REPLY_QUEUE_BYTES: Final = 32 * 1024 * 1024
REPLY_QUEUES_BYTES: Final = 128 * 1024 * 1024
# Frames of one request: the delimiter, the text and the attachment are few. The command, not the wire, refuses more.
REQUEST_FRAMES: Final = 64
# The time that replies may take to leave when the engine ends.
LINGER_SECONDS: Final = 0.3

log = structlog.get_logger()


class Caller:
    """The requests in progress of one connected program."""

    __slots__ = ("open_bytes", "open_requests")

    def __init__(self) -> None:
        self.open_requests = 0
        self.open_bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether the caller may have another request in progress."""
        return self.open_requests < MAX_OPEN_REQUESTS_PER_CALLER and self.open_bytes < MAX_OPEN_REQUEST_BYTES_PER_CALLER


class Envelope:
    """Where a reply goes, and its first frames: those that stood before the request's text."""

    __slots__ = ("frames", "link", "request_bytes")

    def __init__(self, link: Link, frames: list[bytes], request_bytes: int) -> None:
        self.link = link
        self.frames = frames
        self.request_bytes = request_bytes


class Hub:
    """The users' ROUTER. `on_request` gets each request's envelope, text and attached frames; `reply` answers it,
    once, or `settle` ends it without a reply.
    """

    def __init__(
        self,
        run_dir: RunDir,
        settings: ControlSettings,
        clockwork: Clockwork,
        on_request: Callable[[Envelope, bytes, list[bytes]], None],
    ) -> None:
        self._clockwork = clockwork
        self._on_request = on_request
        self._run_dir = run_dir
        self._settings = settings
        self._open_requests = 0
        self._open_bytes = 0
        limits = Limits(
            links=settings.max_connections,
            queue_bytes=REPLY_QUEUE_BYTES,
            total_queue_bytes=REPLY_QUEUES_BYTES,
            total_received_bytes=MAX_OPEN_REQUEST_BYTES,
            zmtp=zmtp.Limits(message_bytes=settings.max_request_bytes, message_frames=REQUEST_FRAMES),
        )
        self.endpoint = Endpoint(Kind.ROUTER, self, limits, clockwork)
        # Callers that are not read for now, the one that has waited longest first.
        self._held: dict[Link, None] = {}
        self._is_due = False

    def start(self, security: Security = zmtp.Null) -> None:
        """Listen, on TCP with this security. Raises `ConfigError` if an endpoint is taken."""
        try:
            self.endpoint.listen(bind_ipc(self._run_dir.socket("control")), "ipc")
            if self._settings.endpoint:
                self.endpoint.listen(bind_endpoint(self._settings.endpoint), "tcp", security)
        except OSError as error:
            place = self._settings.endpoint or self._run_dir.endpoint("control")
            raise bind_error(f"control.endpoint: {place}", error) from error

    async def close(self) -> None:
        """Let the waiting replies leave, then close all connections."""
        await close_endpoint(self.endpoint, LINGER_SECONDS)

    def reply(self, envelope: Envelope, body: bytes, attachment: bytes | None = None) -> None:
        """Answer a request. The reply is dropped if the caller has disconnected."""
        frames = [*envelope.frames, body] if attachment is None else [*envelope.frames, body, attachment]
        has_reader = envelope.link.offer(zmtp.encode(frames))
        self.settle(envelope)
        if not has_reader:
            log.info("a reply found no reader", remote=envelope.link.remote, bytes=len(body))

    def settle(self, envelope: Envelope) -> None:
        """A notification, which has no reply, is done with."""
        caller: Caller = envelope.link.owner_state
        caller.open_requests -= 1
        caller.open_bytes -= envelope.request_bytes
        self._open_requests -= 1
        self._open_bytes -= envelope.request_bytes
        self._release_soon()

    # -- the endpoint's owner -----------------------------------------------------------------------------------------------

    def on_ready(self, link: Link) -> None:
        """A caller has connected."""
        link.owner_state = Caller()

    def on_message(self, link: Link, frames: list[bytes]) -> None:
        """A request has arrived."""
        split = _envelope_frames(link.socket_type, frames)
        envelope = Envelope(link, frames[:split], sum(map(len, frames)))
        caller: Caller = link.owner_state
        caller.open_requests += 1
        caller.open_bytes += envelope.request_bytes
        self._open_requests += 1
        self._open_bytes += envelope.request_bytes
        link.hold()
        self._held[link] = None
        self._release_soon()
        body = frames[split] if split < len(frames) else b""
        self._on_request(envelope, body, frames[split + 1 :])

    def on_room(self, link: Link) -> None:  # noqa: ARG002 - all callers are looked at
        """All replies of a caller have left."""
        self._release_soon()

    def on_gone(self, link: Link) -> None:
        """A caller has disconnected. Its requests continue, and their replies are dropped."""
        self._held.pop(link, None)

    def on_refused(self, remote: str, cause: str, times: int) -> None:
        """A connection was refused."""
        log.warning("a caller was refused", remote=remote, cause=cause, times=times)

    def on_subscribed(self, link: Link, prefix: bytes) -> None:
        """Nobody subscribes to a ROUTER."""

    def on_cancelled(self, link: Link, prefix: bytes) -> None:
        """Nobody subscribes to a ROUTER."""

    # -- turns --------------------------------------------------------------------------------------------------------------

    def _release_soon(self) -> None:
        if self._held and not self._is_due:
            self._is_due = True
            self._clockwork.loop.call_soon(self._release)

    def _release(self) -> None:
        """In the next loop iteration, read those callers again that have room."""
        self._is_due = False
        if self._open_requests >= MAX_OPEN_REQUESTS or self._open_bytes >= MAX_OPEN_REQUEST_BYTES:
            return  # the next reply tries again
        for link in [link for link in self._held if _has_room(link)]:
            del self._held[link]
            link.release()


def _has_room(link: Link) -> bool:
    caller: Caller = link.owner_state
    return caller.has_room and link.queued_bytes <= HIGH_WATER_BYTES


def _envelope_frames(socket_type: str, frames: list[bytes]) -> int:
    """The number of frames before the text. A REQ socket ends them with an empty frame; a DEALER need not send any."""
    if socket_type == "REQ" and b"" in frames:
        return frames.index(b"") + 1
    return int(not frames[0])
