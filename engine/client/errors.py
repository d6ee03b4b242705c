"""The errors of commands as classes, one for each name that the engine gives; and one for an answer that does not come."""

from __future__ import annotations

from typing import Final

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.protocol.bus.error_codes import ERROR_CODES
from rlpx.protocol.errors import ErrorName


class NoSuchSessionError(EngineError):
    """No session has this number, or it has ended."""


class NoSuchPeerError(EngineError):
    """No static or trusted peer has this id."""


class WorkerLostError(EngineError):
    """The worker of the session has ended, or ended before it answered."""


class QueueFullError(EngineError):
    """Too many bytes wait to be sent."""


class NotSharedError(EngineError):
    """The capability, its version or the message is not shared with this peer, or the session is not active."""


class TimedOutError(EngineError, TimeoutError):
    """The peer, or a worker, did not answer in time."""


class RefusedError(EngineError):
    """The engine or the peer refuses."""


class BadResponseError(EngineError):
    """The peer's answer is malformed, or does not fit the question."""


class SessionEndedError(EngineError):
    """The session ended before the peer answered."""


class CallCancelledError(EngineError):
    """The call was cancelled by its caller."""


class BusyError(EngineError):
    """The engine is changing its workers already."""


class InvalidParamsError(EngineError):
    """A parameter is not allowed; the message says which one and why."""


class NatsMissingError(EngineUnavailableError, ImportError):
    """The program names a fleet, and the library nats-py is not installed."""


class EngineSilentError(EngineUnavailableError, TimeoutError):
    """The engine did not answer in the time that the program gave it."""


BY_NAME: Final[dict[ErrorName, type[EngineError]]] = {
    ErrorName.NO_SUCH_SESSION: NoSuchSessionError,
    ErrorName.NO_SUCH_PEER: NoSuchPeerError,
    ErrorName.WORKER_LOST: WorkerLostError,
    ErrorName.QUEUE_FULL: QueueFullError,
    ErrorName.NOT_SHARED: NotSharedError,
    ErrorName.TIMED_OUT: TimedOutError,
    ErrorName.REFUSED: RefusedError,
    ErrorName.BAD_RESPONSE: BadResponseError,
    ErrorName.SESSION_ENDED: SessionEndedError,
    ErrorName.CANCELLED: CallCancelledError,
    ErrorName.BUSY: BusyError,
    ErrorName.INVALID_PARAMS: InvalidParamsError,
}


def answered_error(name: str, message: str, code: int) -> EngineError:
    """The error of the engine with this name; one that has no class of its own is an `EngineError`."""
    kind = BY_NAME[ErrorName(name)] if name in ERROR_CODES else EngineError
    return kind(name, message, code)


def own_error(name: ErrorName, message: str) -> EngineError:
    """An error that the engine would give as well, found before anything was sent or in what came back."""
    return BY_NAME[name](name, message, ERROR_CODES[name])
