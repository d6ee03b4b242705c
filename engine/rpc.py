"""JSON-RPC 2.0: one request in, exactly one reply out; methods with typed parameters, and the OpenRPC document of them.

It knows the protocol, not the engine: `commands.py` says what there is to call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

JSONRPC_VERSION: Final = "2.0"
OPENRPC_VERSION: Final = "1.3.2"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
# Implementation-defined codes, one a name; users should look at `data.name`.
ERROR_CODES: Final = {
    "no_such_session": -32001,
    "no_such_peer": -32002,
    "worker_lost": -32003,
    "queue_full": -32004,
    "not_shared": -32005,
    "timed_out": -32006,
    "refused": -32007,
    "bad_response": -32008,
    "session_ended": -32009,
    "invalid_params": INVALID_PARAMS,
}


_T = TypeVar("_T")


class CommandError(Exception):
    """A command that cannot be done: `name` is one of `ERROR_CODES`."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of a method; the docstring of a subclass is not shown, the method's is."""


class Method(msgspec.Struct, frozen=True):
    """One callable: its words are the handler's docstring. `errors` are names of `ERROR_CODES`."""

    name: str
    parameters: type[Parameters]
    result: Any
    errors: tuple[str, ...]
    handler: Callable[[Any], Awaitable[Any]]

    @property
    def summary(self) -> str:
        """The first paragraph of the handler's docstring."""
        return " ".join((self.handler.__doc__ or "").strip().split("\n\n")[0].split())


class Request(msgspec.Struct, frozen=True):
    """A JSON-RPC request as it came."""

    jsonrpc: str
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: int | float | str | None = None


class _InvalidRequestError(Exception):
    """What came is no request that could be carried out."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = name


class Registry:
    """The methods, by name. `call` never raises: whatever goes wrong is in the reply."""

    def __init__(self, title: str, version: str) -> None:
        self._title = title
        self._version = version
        self._methods: dict[str, Method] = {}

    def add(self, method: Method) -> None:
        """Offer a method."""
        self._methods[method.name] = method

    async def call(self, body: bytes, attachments: list[bytes]) -> bytes:
        """Carry out one request; the reply's text. A second frame stands for a missing `payload` parameter."""
        request_id: object = None
        try:
            request = _request(body)
            request_id = request.id
            method = self._method(request.method)
            result = await method.handler(_parameters(method.parameters, request.params, attachments))
        except _InvalidRequestError as error:
            return failed(request_id, error.code, str(error), error.name)
        except msgspec.ValidationError as error:
            return failed(request_id, INVALID_PARAMS, _words(error), "invalid_params")
        except CommandError as error:
            return failed(request_id, ERROR_CODES[error.name], str(error), error.name)
        return msgspec.json.encode({"jsonrpc": JSONRPC_VERSION, "id": request_id, "result": result})

    def _method(self, name: str) -> Method:
        method = self._methods.get(name)
        if method is None:
            known = ", ".join(sorted(self._methods))
            raise _InvalidRequestError(METHOD_NOT_FOUND, "no_such_method", f"no method {name!r}; there are {known}")
        return method

    def document(self) -> dict[str, Any]:
        """The OpenRPC document of all methods."""
        types = [kind for method in self._methods.values() for kind in (method.parameters, method.result)]
        _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
        return {
            "openrpc": OPENRPC_VERSION,
            "info": {"title": self._title, "version": self._version},
            "methods": [_described(method, components) for method in self._methods.values()],
            "components": {"schemas": components},
        }


def _request(body: bytes) -> Request:
    try:
        request = msgspec.json.decode(body.decode(), type=Request)
    except msgspec.ValidationError as error:
        raise _InvalidRequestError(INVALID_REQUEST, "invalid_request", f"not a JSON-RPC request: {_words(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _InvalidRequestError(PARSE_ERROR, "parse_error", f"not JSON: {error}") from error
    if request.jsonrpc != JSONRPC_VERSION:
        raise _InvalidRequestError(INVALID_REQUEST, "invalid_request", "jsonrpc must be '2.0'")
    return request


def _described(method: Method, components: dict[str, Any]) -> dict[str, Any]:
    schema = components[method.parameters.__name__]
    required = schema.get("required", [])
    parameters = [
        {"name": name, "required": name in required, "schema": described}
        for name, described in schema.get("properties", {}).items()
    ]
    (result,), _ = msgspec.json.schema_components([method.result], ref_template="#/components/schemas/{name}")
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": parameters,
        "result": {"name": "result", "schema": result},
        "errors": [{"code": ERROR_CODES[name], "message": name, "data": {"name": name}} for name in method.errors],
    }


def _parameters(kind: type[Parameters], raw: msgspec.Raw, attachments: list[bytes]) -> Parameters:
    if not attachments:
        return _decoded(raw, kind)
    values = _decoded(raw, dict[str, Any])
    values["payload"] = "0x" + attachments[0].hex()
    return msgspec.convert(values, kind)


def _decoded(raw: msgspec.Raw, kind: type[_T]) -> _T:
    """The parameters of a request that was scanned before, but not looked into."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except RecursionError as error:
        raise _InvalidRequestError(PARSE_ERROR, "parse_error", f"not JSON: {error}") from error


def _words(error: Exception) -> str:
    words, _, place = str(error).partition(" - at `")
    key = place.rstrip("`").removeprefix("$").lstrip(".")
    return f"{key}: {words}" if key else words


def failed(request_id: object, code: int, message: str, name: str) -> bytes:
    """An error reply; `name` is what programs look at."""
    error = {"code": code, "message": message, "data": {"name": name}}
    return msgspec.json.encode({"jsonrpc": JSONRPC_VERSION, "id": request_id, "error": error})
