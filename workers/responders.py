"""Programs of users that answer the requests of peers. Without one, a peer gets the answer of a node that has nothing.

A responder is a DEALER on the worker's own `worker-<i>.ipc`. It registers topics and its credit, the number of requests that
it takes at a time. Each request has a deadline. A request that no responder takes, or answers in time, gets the valid
empty answer, so that real clients stay connected. If a responder disconnects, its requests go to another one at once, or get
the empty answer. Messages both ways are a JSON head and, if there is a payload, its bytes in a second frame.

    {"register": ["eth.GetBlockHeaders"], "credit": 16}                               from the responder
    {"token", "session", "peer", "topic", "version", "request_id", "deadline_ms"} · request    to the responder
    {"token"} · answer                                                                from the responder

A responder may register repeatedly, for example every second, so that it reaches a worker that replaces another.
"""

from __future__ import annotations

from time import time_ns
from typing import Final, Protocol

import msgspec

from rlpx.protocol import rlp
from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.data_heads import NotUnderstoodError
from rlpx.protocol.bus.link import Link
from rlpx.protocol.bus.responders import OfferedRequest, read_responder_message
from rlpx.protocol.errors import PeerError
from rlpx.protocol.session.events import MessageReceived
from rlpx.protocol.settings import ResponderSettings

# The longest request of any client asks for 4096 hashes, which take 135 KiB. A longer one is not worth keeping.
OFFERED_MAX_BYTES: Final = 256 * 1024


class Responder:
    """One connected program: the topics that it serves, its credit, and the requests that it has."""

    __slots__ = ("credit", "link", "open", "topics")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.topics: frozenset[str] = frozenset()
        self.credit = 0
        # Tokens of its requests. A request whose deadline has passed counts until the responder answers it.
        self.open: set[int] = set()


class OpenRequest(msgspec.Struct):
    """A request that a responder has and has not answered."""

    session: SessionId
    peer: str | None
    message: MessageReceived
    responder: Responder
    deadline: float


class ResponderHost(Protocol):
    """What responders need of the worker."""

    def on_answer(self, session: SessionId, request: MessageReceived, payload: bytes, asked_at: float) -> None:
        """Send the answer to the peer; the responder was asked at this time of the monotonic clock."""

    def on_no_answer(self, session: SessionId, request: MessageReceived, *, is_late: bool) -> None:
        """Nobody answers, or a responder `is_late`: send the valid empty answer."""


class Responders:
    """All responders of one worker. Drive it with `expire` as time passes."""

    def __init__(self, settings: ResponderSettings, host: ResponderHost) -> None:
        self._settings = settings
        self._host = host
        # By connection, the programs that have registered or answered.
        self._responders: dict[Link, Responder] = {}
        # The responders of each topic, the one that has been idle longest first.
        self._serving: dict[str, dict[Responder, None]] = {}
        # Open requests by token, in the order of their deadlines, as all have the same time limit.
        self._open: dict[int, OpenRequest] = {}
        # Tokens count from the clock's time, so that a worker never accepts an answer that its predecessor waited for. In
        # microseconds that is an integer which every JSON library reads exactly (RFC 8259, section 6).
        self._next_token = time_ns() // 1000
        # The number of requests that a responder took and did not answer in time.
        self.unanswered = 0

    def ask(self, session: SessionId, peer: str | None, message: MessageReceived, *, now: float) -> bool:
        """Give a request to the responder that has been idle longest; returns whether one takes it."""
        if len(message.payload) > OFFERED_MAX_BYTES:
            return False
        responder = self._give(self._next_token, session, peer, message)
        if responder is None:
            return False
        self._open[self._next_token] = OpenRequest(session, peer, message, responder, now + self._settings.answer_s)
        self._next_token += 1
        return True

    @property
    def count(self) -> int:
        """The number of connected responders."""
        return len(self._responders)

    def expire(self, *, now: float) -> None:
        """Answer overdue requests with nothing. Each still counts against the credit of its responder until that answers."""
        while self._open:
            token, asked = next(iter(self._open.items()))
            if asked.deadline > now:
                return
            del self._open[token]
            self.unanswered += 1
            self._host.on_no_answer(asked.session, asked.message, is_late=True)

    # -- the data endpoint ----------------------------------------------------------------------------------------------

    def on_message(self, link: Link, frames: list[bytes]) -> str | None:
        """A program registers or answers; returns what is wrong with its message, if anything is."""
        responder = self._responders.get(link)
        if responder is None:
            responder = self._responders[link] = Responder(link)
        return self._take(responder, frames)

    def on_gone(self, link: Link) -> None:
        """A program has disconnected: its requests go to other responders, or get the empty answer."""
        responder = self._responders.pop(link, None)
        if responder is None:
            return
        self._register(responder, frozenset())
        for token in sorted(responder.open):
            asked = self._open.get(token)
            if asked is None:
                continue
            other = self._give(token, asked.session, asked.peer, asked.message)
            if other is not None:
                asked.responder = other
                continue
            del self._open[token]
            self._host.on_no_answer(asked.session, asked.message, is_late=False)

    def refuse(self, link: Link, frames: list[bytes], text: str) -> str:  # noqa: ARG002 - all messages are refused alike
        """Refuse a message of a program that has not the right to answer."""
        return text

    def on_room(self, link: Link) -> None:
        """Do nothing: no request waits for this program, and the next one is offered to it as usual."""

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _give(self, token: int, session: SessionId, peer: str | None, message: MessageReceived) -> Responder | None:
        """Give a request to the first responder that serves its topic and has room; returns that responder."""
        serving = self._serving.get(message.kind.topic, {})
        wire = b""
        for responder in serving:
            if len(responder.open) >= responder.credit:
                continue
            wire = wire or self._request(token, session, peer, message)
            if not responder.link.offer(wire):
                continue
            responder.open.add(token)
            # The next request is offered to the others first.
            del serving[responder]
            serving[responder] = None
            return responder
        return None

    def _request(self, token: int, session: SessionId, peer: str | None, message: MessageReceived) -> bytes:
        head = OfferedRequest(
            token=token,
            session=session,
            peer=peer,
            topic=message.kind.topic,
            version=message.kind.capability.version,
            request_id=message.request_id,
            deadline_ms=int(self._settings.answer_s * 1000),
        )
        return zmtp.encode([msgspec.json.encode(head), message.payload])

    def _register(self, responder: Responder, topics: frozenset[str]) -> None:
        for topic in responder.topics - topics:
            del self._serving[topic][responder]
            if not self._serving[topic]:
                del self._serving[topic]
        for topic in topics - responder.topics:
            self._serving.setdefault(topic, {})[responder] = None
        responder.topics = topics

    def _take(self, responder: Responder, frames: list[bytes]) -> str | None:
        """Take one message of a responder; returns what is wrong with it, if anything is."""
        try:
            message = read_responder_message(frames[0])
        except NotUnderstoodError as error:
            return str(error)
        if message.token is None:
            self._register(responder, frozenset(message.register))
            responder.credit = message.credit
            return None
        responder.open.discard(message.token)
        return self._on_answer(responder, message.token, frames[1] if len(frames) > 1 else None)

    def _on_answer(self, responder: Responder, token: int, payload: bytes | None) -> str | None:
        asked = self._open.get(token)
        if asked is None or asked.responder is not responder:
            return None  # late: the peer has got its answer
        del self._open[token]
        if payload is None:
            self._host.on_no_answer(asked.session, asked.message, is_late=False)
            return None
        try:
            answer = rlp.with_first(payload, asked.message.request_id or 0)
        except PeerError as error:
            self._host.on_no_answer(asked.session, asked.message, is_late=False)
            return f"token {token}: {error}"
        self._host.on_answer(asked.session, asked.message, answer, asked.deadline - self._settings.answer_s)
        return None
