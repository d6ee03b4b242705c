"""`Responder` answers what peers ask of us, on each worker's own socket; `workers/responder.py` is the other end."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, time_ns
from typing import Final

import msgspec
import orjson
import zmq

from engine.closing import Closing
from engine.config import run_dir_path
from engine.decoding import decode
from protocol.errors import PeerError
from protocol.eth_messages import EthMessage
from protocol.snap_messages import SnapMessage

# How often a responder says that it is there, so that a replaced worker learns of it.
REGISTER_SECONDS: Final = 1.0
# How soon it tries again where a worker is not there yet.
RECONNECT_SECONDS: Final = 0.1
# Refused answers that are remembered, for whoever looks for a mistake.
REFUSED_KEPT: Final = 100


class Request(msgspec.Struct, frozen=True):
    """What a peer asks: `payload` is its message as it came, with its own request id."""

    topic: str
    session: int
    peer: str
    version: int
    request_id: int
    payload: bytes

    def decode(self) -> EthMessage | SnapMessage:
        """The payload as the typed message of its topic, in the form of the negotiated version.

        Raises `PeerError` where the payload is malformed: where `answer` lets it pass, the peer gets the empty answer.
        """
        return decode(self.topic, self.version, self.payload)


class Responder(Closing):
    """Answers peers' requests of some topics, over all workers, and again after one was replaced.

    `answer` gets each request and gives the payload of the response (its request id may be any), or `None` for the empty
    answer. It has a few seconds (`responders.answer_s`); after that the peer has had the empty answer.
    """

    def __init__(
        self,
        run_dir: Path | str | None,
        topics: list[str],
        answer: Callable[[Request], bytes | None],
        *,
        at_a_time: int = 64,
    ) -> None:
        self._folder = run_dir_path(str(run_dir or ""), os.environ)
        self._word = orjson.dumps({"register": topics, "credit": at_a_time, "start": time_ns()})
        self._answer = answer
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._sockets: dict[Path, zmq.Socket[bytes]] = {}
        self._registers_at = 0.0
        self.answered = 0
        # The last answers that a worker did not take, in its words.
        self.refused: deque[str] = deque(maxlen=REFUSED_KEPT)

    def serve(self, seconds: float) -> int:
        """Answer what comes for so long; how many requests it were."""
        before, ends_at = self.answered, monotonic() + seconds
        while (now := monotonic()) < ends_at:
            if now >= self._registers_at:
                self._registers_at = now + (REGISTER_SECONDS if self._register() else RECONNECT_SECONDS)
            wait = max(0.0, min(self._registers_at, ends_at) - monotonic())
            for sock, _ in self._poller.poll(int(wait * 1000) + 1):
                self._take(sock)
        return self.answered - before

    def close(self) -> None:
        """Let go of the sockets."""
        for sock in self._sockets.values():
            sock.close()
        self._context.term()

    def _register(self) -> bool:
        """Tell every worker, those that are new as well; whether all have heard. Saying it again changes nothing."""
        for path in sorted(self._folder.glob("worker-*.ipc")):
            if path not in self._sockets:
                sock = self._sockets[path] = self._context.socket(zmq.DEALER)
                sock.setsockopt(zmq.LINGER, 0)
                sock.setsockopt(zmq.IMMEDIATE, 1)
                sock.connect(f"ipc://{path.absolute()}")
                self._poller.register(sock, zmq.POLLIN)
        has_told_all = bool(self._sockets)
        for sock in self._sockets.values():
            try:
                sock.send(self._word, zmq.DONTWAIT)
            except zmq.Again:  # not connected yet, or no worker there just now
                has_told_all = False
        return has_told_all

    def _take(self, sock: zmq.Socket[bytes]) -> None:
        head, *payload = sock.recv_multipart()
        fields = orjson.loads(head)
        if "error" in fields:
            self.refused.append(fields["error"])
            return
        frames = [orjson.dumps({"token": fields.pop("token")})]
        fields.pop("deadline_ms")
        try:
            answer = self._answer(Request(payload=payload[0], **fields))
            if answer is not None:
                frames.append(answer)
        except PeerError:
            pass  # a peer's malformed request gets the empty answer
        finally:
            # In any case: a request that is never answered keeps its place for ever.
            self.answered += 1
            with suppress(zmq.Again):  # the worker has gone meanwhile, and its peers with it
                sock.send_multipart(frames, zmq.DONTWAIT)
