"""A program at the data endpoint of one worker, as any language could write it: a DEALER and JSON heads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import zmq

from rlpx.engine.client.door import use_key

PATIENCE_SECONDS: Final = 120.0


class NoAnswerError(Exception):
    """Nothing came in time."""


class DataProgram:
    """Messages that came while a reply was awaited are in `others`."""

    def __init__(self, sock: zmq.Socket[bytes]) -> None:
        self.socket = sock
        self.others: list[tuple[dict[str, Any], bytes | None]] = []
        self._ids = itertools.count(1)

    def send(self, head: dict[str, Any] | bytes, payload: bytes | None = None) -> None:
        """Send a message."""
        body = head if isinstance(head, bytes) else orjson.dumps(head)
        self.socket.send_multipart([body] if payload is None else [body, payload])

    def ask(self, method: str, payload: bytes | None = None, /, **params: Any) -> int:
        """Call a command; returns its id."""
        request_id = next(self._ids)
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}, payload)
        return request_id

    def hear(self, seconds: float = PATIENCE_SECONDS) -> tuple[dict[str, Any], bytes | None]:
        """The next message."""
        if not self.socket.poll(int(seconds * 1000)):
            raise NoAnswerError
        head, *payload = self.socket.recv_multipart()
        return orjson.loads(head), payload[0] if payload else None

    def reply(self, request_id: object, seconds: float = PATIENCE_SECONDS) -> tuple[dict[str, Any], bytes | None]:
        """The reply to a call."""
        while True:
            for found in self.others:
                if found[0].get("id") == request_id:
                    self.others.remove(found)
                    return found
            self.others.append(self.hear(seconds))

    def call(self, method: str, payload: bytes | None = None, /, **params: Any) -> tuple[Any, bytes | None]:
        """Call a command, and return its result or the name of its error, and its payload."""
        reply, answer = self.reply(self.ask(method, payload, **params))
        return (reply["result"] if "result" in reply else reply["error"]["data"]["name"]), answer


@contextmanager
def data_program(endpoint: str | Path, key: Path | None = None) -> Iterator[DataProgram]:
    """A program that is connected to this ZeroMQ endpoint, or to the socket of worker 0 in this run directory."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.SNDHWM, 0)
    if key is not None:
        use_key(sock, key)
    sock.connect(f"ipc://{endpoint / 'worker-0.ipc'}" if isinstance(endpoint, Path) else endpoint)
    try:
        yield DataProgram(sock)
    finally:
        sock.close()
        context.term()
