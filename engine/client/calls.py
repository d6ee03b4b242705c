"""Commands over a wire: many in flight, each with its own time. What the program cancels is cancelled at the other end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from math import isnan
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from rlpx.engine.client.errors import EngineSilentError, answered_error, own_error
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.wire import Wire
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.rlpx.bounds import MAX_PAYLOAD_BYTES
from rlpx.protocol.wording import Expected, wrong

CALL_TIMEOUT_SECONDS: Final = 30.0
# The engine reads nothing more of a program with 64 requests in progress, so further calls wait here. Places are left
# over so that a cancellation is read even if all calls are in progress.
CALLS_IN_FLIGHT: Final = 60

T = TypeVar("T")
# The largest head that workers take (`workers/data_endpoint.py`): one that leaves 10,000 sessions out of a broadcast.
HEAD_MAX_BYTES: Final = 256 * 1024
# JSON-RPC 2.0: an error that is neither of the request nor of the method.
INTERNAL_ERROR: Final = -32603
_SECONDS: Final = Expected("a number of seconds", "5")


class Failure(msgspec.Struct, frozen=True):
    """The error of a JSON-RPC reply."""

    code: int
    message: str
    data: dict[str, Any] = {}

    def raised(self) -> EngineError:
        """The error to raise."""
        return answered_error(str(self.data.get("name", "")), self.message, self.code)


class Reply(msgspec.Struct, frozen=True):
    """A JSON-RPC reply; the result is decoded by its command's type."""

    id: int | None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None


class Answer(NamedTuple):
    """A result in JSON, and the frame after it if there is one."""

    result: msgspec.Raw
    attachment: bytes | None


class PeerAnswer(msgspec.Struct, frozen=True):
    """The response of a peer to the command `request`: its name, and its RLP with the request id of the question."""

    message: str
    payload: bytes = b""


def within(seconds: float | None) -> asyncio.Timeout:
    """`asyncio.timeout` of a program's own number. Raises `ValueError` for NaN, which would disorder the loop's timers."""
    if seconds is not None and isnan(seconds):
        raise ValueError(f"timeout: {wrong(seconds, _SECONDS)}")
    return asyncio.timeout(seconds)


def check_sizes(head: bytes, payload: bytes) -> None:
    """Refuse what would end the connection, with all that others do on it. Raises `InvalidParamsError`."""
    if len(head) > HEAD_MAX_BYTES:
        text = f"the parameters take {len(head)} bytes; {HEAD_MAX_BYTES} are allowed besides the payload"
        raise own_error(ErrorName.INVALID_PARAMS, text)
    if len(payload) > MAX_PAYLOAD_BYTES:
        text = f"payload: {len(payload)} bytes; a message to a peer has at most {MAX_PAYLOAD_BYTES}"
        raise own_error(ErrorName.INVALID_PARAMS, text)


class Calls:
    """The calls in flight on one wire. Give it the wire's messages by `on_message`, and its end by `fail`."""

    def __init__(self, timeout_seconds: float = CALL_TIMEOUT_SECONDS, places: int = CALLS_IN_FLIGHT) -> None:
        self._timeout_seconds = timeout_seconds
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._places = asyncio.Semaphore(places)

    async def call(
        self,
        wire: Wire,
        method: str,
        parameters: Mapping[str, object],
        *,
        attachment: bytes | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the engine must know of a cancellation, and so the call keeps its time
    ) -> Answer:
        """Carry out one command. Raises `EngineError` and its subclasses, `EngineUnavailableError`, `EngineSilentError`."""
        seconds = self._timeout_seconds if timeout is None else timeout
        try:
            async with within(seconds), self._places:
                return await self._call(wire, method, parameters, attachment)
        except TimeoutError as error:
            if isinstance(error, EngineError | EngineUnavailableError):
                raise  # the engine's own answer
            raise EngineSilentError(f"no answer from {wire.endpoint} within {seconds:g} s") from error

    def on_message(self, frames: list[bytes]) -> None:
        """Take a reply."""
        reply = msgspec.json.decode(frames[0], type=Reply)
        error = None if reply.error is None else reply.error.raised()
        if reply.id is None and error is not None:
            self.fail(error)  # it may be the answer to any of them
            return
        future = self._waiting.get(reply.id or 0)
        if future is None or future.done():
            return  # the answer to a call that was abandoned
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(Answer(reply.result, frames[1] if len(frames) > 1 else None))

    def fail(self, cause: Exception) -> None:
        """End all calls in flight with this error."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(cause)

    def cancel(self) -> None:
        """Cancel all calls in flight, here and at the other end."""
        for future in self._waiting.values():
            future.cancel()

    async def _call(self, wire: Wire, method: str, parameters: Mapping[str, object], attachment: bytes | None) -> Answer:
        number = next(self._ids)
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": parameters})
        check_sizes(body, attachment or b"")
        wire.send([body] if attachment is None else [body, attachment])
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            return await future
        except asyncio.CancelledError:
            if wire.is_open:
                cancel = {"jsonrpc": "2.0", "method": "cancel", "params": {"id": number}}
                wire.send([msgspec.json.encode(cancel)])
            raise
        finally:
            del self._waiting[number]


def decoded(answer: Answer, kind: type[T]) -> T:
    """The result as the struct of its command, whose `payload` is the frame after the JSON.

    Raises `EngineError` if it has another form, as an engine of another version may give.
    """
    try:
        result = msgspec.json.decode(answer.result, type=kind)
    except msgspec.DecodeError as error:
        raise EngineError("not_understood", f"the engine's answer is not understood: {error}", INTERNAL_ERROR) from error
    if answer.attachment is not None and isinstance(result, msgspec.Struct):
        return msgspec.structs.replace(result, payload=answer.attachment)
    return result
