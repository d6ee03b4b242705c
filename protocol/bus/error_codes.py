"""The JSON-RPC 2.0 codes of errors by name, and the exception that a command raises."""

from __future__ import annotations

from typing import Final

from rlpx.protocol.errors import ErrorName

INVALID_PARAMS: Final = -32602
# Implementation-defined codes, one for each name; users should look at `data.name`.
ERROR_CODES: Final = {
    ErrorName.NO_SUCH_SESSION: -32001,
    ErrorName.NO_SUCH_PEER: -32002,
    ErrorName.WORKER_LOST: -32003,
    ErrorName.QUEUE_FULL: -32004,
    ErrorName.NOT_SHARED: -32005,
    ErrorName.TIMED_OUT: -32006,
    ErrorName.REFUSED: -32007,
    ErrorName.BAD_RESPONSE: -32008,
    ErrorName.SESSION_ENDED: -32009,
    ErrorName.CANCELLED: -32010,
    ErrorName.BUSY: -32011,
    ErrorName.INVALID_PARAMS: INVALID_PARAMS,
}


class CommandError(Exception):
    """A command cannot be carried out. `name` gives the reason to programs, the message to people."""

    def __init__(self, name: ErrorName, message: str) -> None:
        super().__init__(message)
        self.name = name
