"""JSON-RPC 2.0, as programs speak it with the engine and with workers: reading one request, and the text of its reply.

A request is a JSON object; a second frame takes the place of its parameter `payload`. The declarations of `commands.py` say
what it may contain. Whoever carries it out answers with `succeeded` or `refused`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

import msgspec

from rlpx.protocol.bus.arguments import payload_of
from rlpx.protocol.bus.commands import PAYLOAD, Command, Parameters
from rlpx.protocol.bus.error_codes import ERROR_CODES, INVALID_PARAMS, CommandError
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.wording import WrongValueError, convert, shortened

VERSION: Final = "2.0"
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INTERNAL_ERROR: Final = -32603
_EMPTY_PAYLOAD: Final = "0x"

_T = TypeVar("_T")
# The id of a request, which its reply repeats.
Identifier: TypeAlias = int | float | str | None


class Request(msgspec.Struct, frozen=True):
    """A JSON-RPC request as it was received."""

    jsonrpc: str
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: Identifier = None


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of the notification that cancels a call: its id. It has no reply of its own."""

    METHOD: ClassVar[str] = "cancel"

    id: Identifier


class InvalidRequestError(Exception):
    """The received text is not a request that can be carried out. `name` is for programs, the message for people."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = name


# The errors that have a reply.
REFUSALS: Final = (InvalidRequestError, WrongValueError, CommandError)
Refusal: TypeAlias = InvalidRequestError | WrongValueError | CommandError


class Attached(msgspec.Struct, frozen=True):
    """A result whose payload is a second frame of the reply."""

    result: Any
    payload: bytes


def read_request(body: bytes) -> Request:
    """Read the text of a request; its parameters are scanned, not decoded. Raises `InvalidRequestError`."""
    try:
        request = msgspec.json.decode(body.decode(), type=Request)
    except msgspec.ValidationError as error:
        problem = _problem_with(body.decode(), Request, "member", error)
        raise InvalidRequestError(INVALID_REQUEST, "invalid_request", f"not a JSON-RPC request: {problem}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(PARSE_ERROR, "parse_error", f"not JSON: {error}") from error
    if request.jsonrpc != VERSION:
        raise InvalidRequestError(INVALID_REQUEST, "invalid_request", "jsonrpc must be '2.0'")
    return request


def identifier_of(body: bytes) -> Identifier:
    """The id of a request, or none if this is no request."""
    try:
        return read_request(body).id
    except InvalidRequestError:
        return None


def find_command(name: str, commands: Mapping[str, Command]) -> Command:
    """The command with this name. Raises `InvalidRequestError`."""
    command = commands.get(name)
    if command is None:
        known = ", ".join(sorted(commands))
        raise InvalidRequestError(METHOD_NOT_FOUND, "no_such_method", f"no method '{shortened(name)}'; there are {known}")
    return command


def read_parameters(command: Command, request: Request, frames: list[bytes]) -> tuple[Parameters, bytes | None]:
    """Decode the parameters of a request, and the payload if the command has one: the first of the frames, if there is one.

    The payload's own parameter is then empty. Raises one of `REFUSALS`.
    """
    kind = command.parameters
    if not frames:
        parameters = _decoded(request.params, kind)
        return parameters, payload_of(getattr(parameters, PAYLOAD)) if command.has_payload else None
    values = _decoded(request.params, dict[str, Any])
    values[PAYLOAD] = _EMPTY_PAYLOAD
    # A command that has no payload refuses it here.
    parameters = convert(values, kind, thing="parameter")
    return parameters, frames[0]


def read_cancel(request: Request) -> Identifier:
    """The id of the call that is to be cancelled. Raises one of `REFUSALS`."""
    return _decoded(request.params, Cancel).id


def succeeded(request_id: Identifier, result: object) -> bytes:
    """Return the reply with a result."""
    return msgspec.json.encode({"jsonrpc": VERSION, "id": request_id, "result": result})


def refused(request_id: Identifier, error: Refusal) -> bytes:
    """Return the reply for an error of reading or carrying out a request."""
    if isinstance(error, InvalidRequestError):
        return failed(request_id, error.code, str(error), error.name)
    if isinstance(error, WrongValueError):
        return failed(request_id, INVALID_PARAMS, str(error), ErrorName.INVALID_PARAMS)
    return failed(request_id, ERROR_CODES[error.name], str(error), error.name)


def failed(request_id: Identifier, code: int, message: str, name: str) -> bytes:
    """Return a reply with an error. `name` is for programs, `message` for people."""
    error = {"code": code, "message": message, "data": {"name": name}}
    return msgspec.json.encode({"jsonrpc": VERSION, "id": request_id, "error": error})


def _decoded(raw: msgspec.Raw, kind: type[_T]) -> _T:
    """Decode the parameters, which were scanned with the request but not decoded."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise WrongValueError("", _problem_with(raw, kind, "parameter", error)) from error
    except RecursionError as error:
        raise InvalidRequestError(PARSE_ERROR, "parse_error", f"not JSON: {error}") from error


def _problem_with(text: str | msgspec.Raw, kind: Any, thing: str, error: Exception) -> str:  # noqa: ANN401 - any type
    """Say what is wrong with JSON that is not of this type; `error` is that of its decoding."""
    try:
        values = msgspec.json.decode(text)
    except msgspec.ValidationError:
        place = str(error).partition(" - at `$")[2].rstrip("`").lstrip(".")
        return f"{place}: the number is out of range".removeprefix(": ")
    except (msgspec.DecodeError, RecursionError) as broken:
        raise InvalidRequestError(PARSE_ERROR, "parse_error", f"not JSON: {broken}") from broken
    try:
        convert(values, kind, thing=thing)
    except WrongValueError as wrong:
        return str(wrong)
    return "it does not have the expected form"
