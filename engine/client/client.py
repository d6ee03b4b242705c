"""`Client` calls the commands of an engine. It is synchronous.

with Client.of(run_dir) as engine:
    engine.call("dial", enode="enode://…")
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import zmq

from rlpx.engine.client.closing import Closing
from rlpx.engine.client.door import connect, run_dir_endpoint
from rlpx.engine.client.errors import answered_error
from rlpx.engine.client.presence import EngineUnavailableError, check_there

CALL_TIMEOUT_SECONDS: Final = 30.0


class Client(Closing):
    """Calls commands, one at a time. `key` is a key file for a TCP endpoint.

    Raises `EngineError` and `EngineUnavailableError`.
    """

    def __init__(
        self, endpoint: str, *, timeout_seconds: float = CALL_TIMEOUT_SECONDS, key: Path | str | None = None
    ) -> None:
        self.endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._door = connect(self._socket, self._context, endpoint, key)
        self._ids = itertools.count(1)

    @classmethod
    def of(cls, run_dir: Path | str | None = None, *, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> Self:
        """The engine of a run directory, by default the usual one."""
        return cls(run_dir_endpoint(run_dir, "control"), timeout_seconds=timeout_seconds)

    def call(self, method: str, *, attachment: bytes | None = None, **parameters: Any) -> Any:  # noqa: ANN401 - JSON
        """Carry out one command and return its result. `attachment` is a binary payload, sent as it is.

        With `binary=True`, the result of `request` has its `payload` as bytes.
        """
        request_id = next(self._ids)
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": parameters})
        frames = [body] if attachment is None else [body, attachment]
        check_there(self.endpoint)
        self._send(frames)
        while self._door.wait(int(self._timeout_seconds * 1000)):
            body, *payload = self._socket.recv_multipart()
            reply = msgspec.json.decode(body)
            if reply["id"] not in (request_id, None):
                continue  # the answer to an earlier call that was abandoned
            if "error" in reply:
                error = reply["error"]
                raise answered_error(error["data"]["name"], error["message"], error["code"])
            return {**reply["result"], "payload": payload[0]} if payload else reply["result"]
        raise self._silence

    def _send(self, frames: list[bytes]) -> None:
        while self._door.wait(int(self._timeout_seconds * 1000), zmq.PollEvent.POLLOUT):
            with suppress(zmq.Again):  # refused in the meantime
                self._socket.send_multipart(frames, zmq.DONTWAIT)
                return
        raise self._silence

    @property
    def _silence(self) -> EngineUnavailableError:
        return EngineUnavailableError(f"no answer from {self.endpoint} within {self._timeout_seconds:g} s")

    def close(self) -> None:
        """Close the socket."""
        self._door.close()
        self._socket.close()
        self._context.term()
