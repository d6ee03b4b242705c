"""`Responding`: a program's answers to peers' requests, at all workers; `workers/responders.py` is the other end.

A connection has one registration, so all handlers of a program share it: their topics together, and the sum of the requests
that they take at a time.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, Union

import msgspec

from rlpx.engine.client.calls import check_sizes
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.topics import checked_prefixes, warn_of_no_request
from rlpx.engine.client.worker_links import WorkerLink, WorkerLinks
from rlpx.protocol.bus.data_heads import RefusedMessage
from rlpx.protocol.bus.responders import MAX_CREDIT, OfferedRequest, read_worker_message
from rlpx.protocol.errors import MessageError, PeerError
from rlpx.protocol.wording import Expected, wrong

if TYPE_CHECKING:
    from rlpx.protocol.eth.messages import EthMessage
    from rlpx.protocol.eth.snap_messages import SnapMessage

# Errors about refused answers that are kept, to help find a mistake.
REFUSED_KEPT: Final = 100


M = TypeVar("M")


class Request(msgspec.Struct, frozen=True):
    """A request of a peer. `payload` is its message as it was received, with its own request id."""

    topic: str
    session: int
    peer: str
    version: int
    request_id: int
    payload: bytes

    def decode(self) -> EthMessage | SnapMessage:
        """The payload as the typed message of its topic, in the form of the negotiated version.

        Raises `PeerError` if the payload is malformed; if a handler lets the error pass, the peer gets the empty answer.
        """
        from rlpx.engine.client.decoding import decode  # noqa: PLC0415 - loads every message, for those who decode

        return decode(self.topic, self.version, self.payload)

    def decode_as(self, kind: type[M]) -> M:
        """The payload as a message of this kind. Raises `MessageError` if it is another one, else as `decode`."""
        message = self.decode()
        if not isinstance(message, kind):
            raise MessageError(f"{type(message).__name__} where {kind.__name__} was expected")
        return message


# A typed message is sent in the form of the request's version; bytes are sent as they are, `None` is the empty answer.
Response: TypeAlias = Union["EthMessage", "SnapMessage", bytes, None]
Handler: TypeAlias = Callable[[Request], Response | Awaitable[Response]]


class Responder:
    """One handler and the requests that it is answering. `close` ends it; so does the end of the connection.

    `answered` counts its answers. `refused` has the last errors of workers about answers of this program, `error` is why
    the engine cannot be reached any more.
    """

    def __init__(self, responding: Responding, topics: tuple[str, ...], handler: Handler, at_a_time: int) -> None:
        self.topics = topics
        self.at_a_time = at_a_time
        self.answered = 0
        self.refused: deque[str] = responding.refused
        self.error: EngineUnavailableError | EngineError | None = None
        self.ended = asyncio.Event()
        self.handler = handler
        # Workers know the sum over all handlers of a program; each handler's own number is kept here.
        self.room = asyncio.Semaphore(at_a_time)
        self._responding = responding

    async def registered(self) -> None:
        """Wait until every worker that there is knows of it. Raises `EngineUnavailableError`, `EngineError`."""
        await self._responding.complete()

    def close(self) -> None:
        """Take no more requests."""
        self._responding.remove(self)

    async def wait(self) -> None:
        """Wait until it is closed. Raises `EngineUnavailableError` if there was no engine for ten seconds."""
        await self.ended.wait()
        if self.error is not None:
            raise self.error


class Responding:
    """See the module."""

    def __init__(self, links: WorkerLinks) -> None:
        self._links = links
        self._responders: dict[str, Responder] = {}
        self._at: dict[WorkerLink, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused: deque[str] = deque(maxlen=REFUSED_KEPT)

    def add(self, topics: Iterable[str], handler: Handler, at_a_time: int) -> Responder:
        """Answer requests of these topics. Raises `ValueError` or `TypeError` for what cannot be served."""
        served = tuple(dict.fromkeys(topics))
        taken = sum(responder.at_a_time for responder in self._each())
        if not 1 <= at_a_time <= MAX_CREDIT - taken:
            expected = Expected(f"a whole number from 1 to {MAX_CREDIT - taken}", "64")
            raise ValueError(f"at_a_time: {wrong(at_a_time, expected)}")
        for topic in served:
            if topic in self._responders:
                raise ValueError(f"topics: {topic} has a handler in this program already")
        responder = Responder(self, served, handler, at_a_time)
        is_first = not self._responders
        self._responders.update(dict.fromkeys(served, responder))
        if is_first:
            self._links.add(self)
        else:
            self._register_everywhere()
        return responder

    async def complete(self) -> None:
        """Wait until every worker is connected, and so has our registration."""
        await self._links.complete()

    def remove(self, responder: Responder) -> None:
        """Take no more requests for it; a second time is harmless."""
        for topic in responder.topics:
            if self._responders.get(topic) is responder:
                del self._responders[topic]
        self._register_everywhere()
        responder.ended.set()
        if not self._responders:
            self._links.remove(self)
            self._at.clear()

    def close(self) -> None:
        """End all handlers and what they are doing."""
        for responder in self._each():
            self.remove(responder)
        for task in self._tasks:
            task.cancel()

    # -- a user of connections to workers -----------------------------------------------------------------------------------

    def on_worker(self, link: WorkerLink) -> None:
        """Register there."""
        self._at[link] = None
        self._register(link)

    def on_worker_gone(self, link: WorkerLink, cause: EngineUnavailableError) -> None:  # noqa: ARG002 - of `User`
        """Its requests are void; answers to them go nowhere."""
        self._at.pop(link, None)

    def on_failure(self, error: EngineUnavailableError | EngineError) -> None:
        """There is no engine."""
        for responder in self._each():
            responder.error = error
            self.remove(responder)

    def on_message(self, link: WorkerLink, frames: list[bytes]) -> None:
        """A request of a peer, or the refusal of an answer."""
        offered = read_worker_message(frames[0])
        if isinstance(offered, RefusedMessage):
            self.refused.append(offered.error)
            return
        responder = self._responders.get(offered.topic)
        if responder is None:
            # It crossed our registration without this topic.
            self._answer(link, offered.token, None)
            return
        task = asyncio.get_running_loop().create_task(self._serve(link, responder, offered, frames[1]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _each(self) -> list[Responder]:
        return list(dict.fromkeys(self._responders.values()))

    def _register_everywhere(self) -> None:
        for link in self._at:
            self._register(link)

    def _register(self, link: WorkerLink) -> None:
        credit = sum(responder.at_a_time for responder in self._each())
        with suppress(EngineUnavailableError):
            link.send({"register": list(self._responders), "credit": credit})

    async def _serve(self, link: WorkerLink, responder: Responder, offered: OfferedRequest, payload: bytes) -> None:
        request = Request(
            topic=offered.topic,
            session=offered.session,
            peer=offered.peer or "",
            version=offered.version,
            request_id=offered.request_id or 0,
            payload=payload,
        )
        answer: bytes | None = None
        try:
            async with responder.room:
                answer = await answer_of(responder.handler, request)
        finally:
            # In any case: a request that is never answered keeps its place at the worker.
            responder.answered += 1
            self._answer(link, offered.token, answer)

    def _answer(self, link: WorkerLink, token: int, answer: bytes | None) -> None:
        with suppress(EngineUnavailableError):  # the worker has ended, and its sessions with it
            link.send({"token": token}, *([] if answer is None else [answer]))


async def answer_of(handler: Handler, request: Request) -> bytes | None:
    """What a handler answers, as a payload. A fault of the program goes to the loop, and the peer gets the empty answer."""
    try:
        response = handler(request)
        if inspect.isawaitable(response):
            response = await response
        encoded = _encoded(request, response)
        check_sizes(b"", encoded or b"")
    except PeerError:
        return None  # a peer's malformed request gets the empty answer
    except Exception as error:  # noqa: BLE001 - a fault of the program, which the loop reports
        context = {"message": f"the handler of {request.topic} failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
        return None
    return encoded


def requests_of(topics: str | Iterable[str]) -> list[str]:
    """The topics that a handler is for. It warns of those that are no requests, in the caller of its caller."""
    served = checked_prefixes([topics] if isinstance(topics, str) else topics)
    warn_of_no_request(served, stacklevel=3)
    return served


def _encoded(request: Request, response: Response) -> bytes | None:
    """The payload of an answer. A typed message takes the form of the request's version. Raises `UsageError`."""
    if response is None or isinstance(response, bytes):
        return response
    from rlpx.engine.client.forms import encode_for  # noqa: PLC0415 - loads every message, for those who use them

    return encode_for(request.topic.partition(".")[0], request.version, response)
