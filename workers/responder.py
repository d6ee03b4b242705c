"""Answers to what peers ask of us: by programs of the user's, each on its own socket, else by a node that has nothing.

A responder is a DEALER on the worker's own `worker-<i>.ipc`. It registers topics, and how many requests it takes at a time;
each must be answered within a time. What nobody serves, or nobody serves in time, gets the valid empty answer, so
that real clients stay. Frames, both ways: a JSON head, and where there is a payload its bytes.

    {"register": ["eth.GetBlockHeaders"], "credit": 16}                               from the responder
    {"token", "session", "peer", "topic", "version", "request_id", "deadline_ms"} · request    to the responder
    {"token"} · answer                                                                from the responder

Registering again changes nothing, so that it may be said every second and reaches a worker that was replaced. A responder
with a ZeroMQ identity of its own adds a `start` that differs each time it starts.
"""

from __future__ import annotations

from collections import OrderedDict
from time import time_ns
from typing import Annotated, Final, Protocol

import msgspec
import orjson
import zmq

from protocol import rlp
from protocol.control import SessionId
from protocol.errors import PeerError
from protocol.events import MessageReceived

# Messages of responders taken in one turn of the loop.
BUDGET: Final = 256
# A responder's largest message is an answer, and no eth message is larger.
ANSWER_MAX_BYTES: Final = 11 * 1024 * 1024
# The longest request that any client sends asks for 4096 hashes, which takes 135 KiB; a longer one is not worth keeping.
OFFERED_MAX_BYTES: Final = 256 * 1024
# Credit that one responder may have: what it has open is memory here and there.
CREDIT_MOST: Final = 1024
LINGER_MILLISECONDS: Final = 100


class Word(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a responder says: it registers, or it answers."""

    register: tuple[str, ...] = ()
    credit: Annotated[int, msgspec.Meta(ge=0, le=CREDIT_MOST)] = 0
    token: int | None = None
    start: int = 0


class Responder(msgspec.Struct):
    """One program that answers: what it serves, how many requests it takes at a time, and how many it has."""

    identity: bytes
    topics: frozenset[str] = frozenset()
    credit: int = 0
    start: int = 0
    # Tokens that it has; one that was too late is its own until it answers.
    open: set[int] = msgspec.field(default_factory=set)


class Asked(msgspec.Struct):
    """One request that a responder has."""

    session: SessionId
    message: MessageReceived
    responder: bytes
    deadline: float


class Answers(Protocol):
    """What takes the answers: the worker."""

    def on_answer(self, session: SessionId, request: MessageReceived, payload: bytes) -> None:
        """Send the answer to the peer."""

    def on_no_answer(self, session: SessionId, request: MessageReceived) -> None:
        """Nobody answers: send what a node sends that has nothing."""


class Responders:
    """All responders of one worker. Drive it with `read` when `fileno` is readable and with `expire` as time passes."""

    def __init__(self, endpoint: str, seconds: float, context: zmq.Context[zmq.Socket[bytes]], answers: Answers) -> None:
        self._seconds = seconds
        self._answers = answers
        self._responders: OrderedDict[bytes, Responder] = OrderedDict()
        self._asked: dict[int, Asked] = {}
        # A worker that was replaced must not take an answer that its predecessor waited for.
        self._next_token = time_ns()
        # Requests that a responder took and did not answer in time.
        self.unanswered = 0
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.LINGER, LINGER_MILLISECONDS)
        self._socket.setsockopt(zmq.SNDHWM, CREDIT_MOST)
        self._socket.setsockopt(zmq.MAXMSGSIZE, ANSWER_MAX_BYTES)
        self._socket.bind(endpoint)

    def fileno(self) -> int:
        """Readable when a responder may have said something (edge-triggered, as ZeroMQ's are)."""
        return int(self._socket.getsockopt(zmq.FD))

    def ask(self, session: SessionId, peer: str | None, message: MessageReceived, *, now: float) -> bool:
        """Give a request to the responder that was idle longest; `False` where nobody takes it."""
        topic = message.kind.topic
        if len(message.payload) > OFFERED_MAX_BYTES:
            return False
        for responder in list(self._responders.values()):
            if (
                topic in responder.topics
                and len(responder.open) < responder.credit
                and self._give(responder, session, peer, message, now)
            ):
                return True
        return False

    def expire(self, *, now: float) -> None:
        """What was not answered in time is answered with nothing; it counts against the responder until that answers."""
        late = [token for token, asked in self._asked.items() if asked.deadline <= now]
        for token in late:
            asked = self._asked.pop(token)
            self.unanswered += 1
            self._answers.on_no_answer(asked.session, asked.message)

    def read(self) -> bool:
        """Take what responders say; whether there may be more."""
        for _ in range(BUDGET):
            if self._socket.closed or not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return False
            identity, *frames = self._socket.recv_multipart(zmq.DONTWAIT)
            problem = self._on_word(identity, frames)
            if problem:
                self._tell(identity, [orjson.dumps({"error": problem})])
        return True

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _give(
        self, responder: Responder, session: SessionId, peer: str | None, message: MessageReceived, now: float
    ) -> bool:
        token = self._next_token
        head = {
            "token": token,
            "session": session,
            "peer": peer,
            "topic": message.kind.topic,
            "version": message.kind.capability.version,
            "request_id": message.request_id,
            "deadline_ms": int(self._seconds * 1000),
        }
        if not self._tell(responder.identity, [orjson.dumps(head), message.payload]):
            return False
        self._next_token += 1
        responder.open.add(token)
        self._asked[token] = Asked(session, message, responder.identity, now + self._seconds)
        # The next request goes to another one first.
        self._responders.move_to_end(responder.identity)
        return True

    def _on_word(self, identity: bytes, frames: list[bytes]) -> str | None:
        """Take one message of a responder; the words of what is wrong with it."""
        try:
            word = msgspec.json.decode(frames[0] if frames else b"", type=Word)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f"not understood: {error}"
        if word.token is None:
            responder = self._responders.setdefault(identity, Responder(identity))
            if responder.start != word.start:
                # It has started again under its old name, and knows nothing of what it had.
                responder.start = word.start
                responder.open.clear()
            responder.topics, responder.credit = frozenset(word.register), word.credit
            return None
        if identity in self._responders:
            self._responders[identity].open.discard(word.token)
        return self._on_answer(identity, word.token, frames[1] if len(frames) > 1 else None)

    def _on_answer(self, identity: bytes, token: int, payload: bytes | None) -> str | None:
        asked = self._asked.get(token)
        if asked is None or asked.responder != identity:
            return None  # late: the peer has had its answer
        del self._asked[token]
        if payload is None:
            self._answers.on_no_answer(asked.session, asked.message)
            return None
        try:
            answer = rlp.with_first(payload, asked.message.request_id or 0)
        except PeerError as error:
            self._answers.on_no_answer(asked.session, asked.message)
            return f"token {token}: {error}"
        self._answers.on_answer(asked.session, asked.message, answer)
        return None

    def _tell(self, identity: bytes, frames: list[bytes]) -> bool:
        """Send to one responder; one that has gone is forgotten, and what it had is answered with nothing in time."""
        try:
            self._socket.send_multipart([identity, *frames], zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError:
            self._responders.pop(identity, None)
            return False
        return True
