"""For programs that use an engine: `Client` calls its commands, `Subscriber` reads its events. Both are synchronous.

with Client.of(run_dir) as engine:
    engine.call("dial", enode="enode://…")
with Subscriber.of(run_dir, ["eth.Transactions"]) as events:
    for event in events: …

`Responder` answers what peers ask (`responder.py`), `typed_requests.py` asks them.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import orjson
import zmq

from engine.closing import Closing
from engine.config import run_dir_path
from engine.decoding import decode
from engine.responder import Request, Responder
from protocol.eth_messages import EthMessage
from protocol.snap_messages import SnapMessage

__all__ = [
    "CALL_TIMEOUT_SECONDS",
    "Client",
    "EngineError",
    "EngineUnavailableError",
    "Event",
    "Gap",
    "GapTracker",
    "Request",
    "Responder",
    "Subscriber",
]

CALL_TIMEOUT_SECONDS: Final = 30.0
# How long a probe of a TCP endpoint may take.
PROBE_SECONDS: Final = 2.0
# Batches that wait in our own socket while we are busy; what is over shows as a gap.
RECEIVE_QUEUE_BATCHES: Final = 10_000


class EngineError(Exception):
    """The engine answered with an error; `name` is for programs (`no_such_session`, `refused`, …)."""

    def __init__(self, name: str, message: str, code: int) -> None:
        super().__init__(message)
        self.name = name
        self.code = code


class EngineUnavailableError(Exception):
    """No engine answers at the endpoint."""


class Event(msgspec.Struct, frozen=True):
    """One event: its topic, the worker that saw it (`None`: the engine), its fields and its payload."""

    topic: str
    worker: int | None
    fields: dict[str, Any]
    payload: bytes

    def decode(self) -> EthMessage | SnapMessage:
        """The payload as the typed message of its topic, in the form of the negotiated version.

        Raises `PeerError` where the payload is malformed, `ValueError` where the topic is no message of eth or snap.
        """
        return decode(self.topic, self.fields.get("version"), self.payload)


class Gap(msgspec.Struct, frozen=True):
    """Events of a topic that were lost before this point: whole batches, or events that the worker dropped."""

    topic: str
    worker: int | None
    missed: int


class Client(Closing):
    """Calls commands, one at a time. Raises `EngineError` and `EngineUnavailableError`."""

    def __init__(self, endpoint: str, *, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> None:
        self.endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        _connect(self._socket, self._context, endpoint)
        self._ids = itertools.count(1)

    @classmethod
    def of(cls, run_dir: Path | str | None = None, *, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> Self:
        """The engine of a run directory, by default the usual one."""
        return cls(_endpoint(run_dir, "control"), timeout_seconds=timeout_seconds)

    def call(self, method: str, *, attachment: bytes | None = None, **parameters: Any) -> Any:  # noqa: ANN401 - JSON
        """Carry out one command; its result. `attachment` is a binary payload that travels as it is."""
        request_id = next(self._ids)
        body = orjson.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": parameters})
        frames = [body] if attachment is None else [body, attachment]
        if _is_missing(self.endpoint):
            raise EngineUnavailableError(f"no engine at {self.endpoint}")
        self._socket.send_multipart(frames)
        while self._socket.poll(int(self._timeout_seconds * 1000)):
            reply = orjson.loads(self._socket.recv_multipart()[0])
            if reply["id"] not in (request_id, None):
                continue  # the answer to an earlier call that we gave up
            if "error" in reply:
                error = reply["error"]
                raise EngineError(error["data"]["name"], error["message"], error["code"])
            return reply["result"]
        raise EngineUnavailableError(f"no answer from {self.endpoint} within {self._timeout_seconds:g} s")

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        self._context.term()


class Subscriber(Closing):
    """Reads the events of some topics; each topic is a prefix, the empty one is all. Losses come as `Gap`s."""

    def __init__(self, endpoint: str, topics: list[str]) -> None:
        self.endpoint = endpoint
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE_BATCHES)
        self._socket.setsockopt(zmq.LINGER, 0)
        for topic in topics:
            self._socket.setsockopt_string(zmq.SUBSCRIBE, topic)
        _connect(self._socket, self._context, endpoint)
        self._tracker = GapTracker()

    @classmethod
    def of(cls, run_dir: Path | str | None, topics: list[str]) -> Self:
        """The events of a run directory's engine."""
        return cls(_endpoint(run_dir, "events"), topics)

    @property
    def is_missing(self) -> bool:
        """Whether there is plainly no engine: nobody listens where it should be."""
        return _is_missing(self.endpoint)

    def poll(self, seconds: float) -> list[Event | Gap]:
        """The events of the next batch, or none within this time."""
        if not self._socket.poll(int(seconds * 1000)):
            return []
        topic, head, body = self._socket.recv_multipart()
        return self._tracker.read(topic.decode(), orjson.loads(head), body)

    def __iter__(self) -> Iterator[Event | Gap]:
        while True:
            yield from self.poll(1.0)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        self._context.term()


class GapTracker:
    """Turns batches into events, and what their numbers say is missing into gaps."""

    def __init__(self) -> None:
        # By topic and worker: when that worker started, and its last numbers.
        self._last: dict[tuple[str, int | None], tuple[int, int, int]] = {}

    def read(self, topic: str, head: dict[str, Any], body: bytes) -> list[Event | Gap]:
        """The events of one batch, a gap before them where something is missing.

        A batch that never came counts as one event at least: how many it held nobody knows.
        """
        worker = head["worker"]
        seq, dropped = head["seq"], head["dropped"]
        since, last_seq, last_dropped = self._last.get((topic, worker), (head["since_us"], seq - 1, dropped))
        self._last[topic, worker] = head["since_us"], seq, dropped
        found: list[Event | Gap] = []
        if since != head["since_us"]:
            # A worker that was replaced counts from one again.
            last_seq = last_dropped = 0
        missed = (seq - last_seq - 1) + (dropped - last_dropped)
        if missed > 0:
            found.append(Gap(topic, worker, missed))
        offset = 0
        for fields in head["events"]:
            size = fields.get("size", 0) if body else 0
            found.append(Event(topic, worker, fields, body[offset : offset + size]))
            offset += size
        return found


def _endpoint(run_dir: Path | str | None, name: str) -> str:
    folder = run_dir_path(str(run_dir or ""), os.environ)
    return f"ipc://{folder.absolute() / name}.ipc"


def _connect(sock: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
    try:
        sock.connect(endpoint)
    except zmq.ZMQError as error:
        sock.close()
        context.term()
        raise EngineUnavailableError(f"{endpoint} is no endpoint: {error.strerror}") from error


def _is_missing(endpoint: str) -> bool:
    """Whether nobody listens there: ZeroMQ itself would wait for somebody to come."""
    scheme, _, place = endpoint.partition("://")
    try:
        if scheme == "ipc":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(place)
        else:
            host, _, port = place.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except (OSError, ValueError):
        return True
    return False
