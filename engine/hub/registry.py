"""JSON-RPC 2.0: one request in, exactly one reply out; and the OpenRPC document of all commands.

It knows the protocol, not the engine: `rlpx.protocol.bus.commands` declares the commands, and the given handlers carry
them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from rlpx.protocol.bus import events
from rlpx.protocol.bus.commands import COMMANDS, Command, DiscoverParameters, Parameters
from rlpx.protocol.bus.error_codes import ERROR_CODES
from rlpx.protocol.bus.json_rpc import (
    REFUSALS,
    Attached,
    Identifier,
    find_command,
    read_parameters,
    read_request,
    refused,
    succeeded,
)

OPENRPC_VERSION: Final = "1.3.2"

TITLE: Final = "rlpx-engine"
_REFERENCE: Final = "#/components/schemas/{name}"

# It takes the parameters and, if the command has one, the payload.
Handler: TypeAlias = Callable[..., Awaitable[Any]]


class Reply(NamedTuple):
    """The text of a reply, and the payload of its result if that is a second frame."""

    body: bytes
    payload: bytes | None = None


class Registry:
    """The commands with their handlers. `call` never raises: the reply contains the error.

    A command's handler is the method with its name of one of the `handlers`. Raises `TypeError` if there is not exactly one.
    `calls` counts the calls of each command.
    """

    def __init__(self, version: str, handlers: Iterable[object], commands: Mapping[str, Command] = COMMANDS) -> None:
        self._version = version
        self._commands = commands
        self.calls: Counter[str] = Counter()
        # Told of each command that was carried out, with its parameters.
        self.on_done: Callable[[str, Parameters], None] | None = None
        owners = (self, *handlers)
        self._handlers = {name: _handler(command, owners) for name, command in commands.items()}

    async def call(self, body: bytes, attachments: list[bytes]) -> Reply:
        """Carry out one request and return its reply. A second frame takes the place of the `payload` parameter."""
        request_id: Identifier = None
        try:
            request = read_request(body)
            request_id = request.id
            command = find_command(request.method, self._commands)
            parameters, payload = read_parameters(command, request, attachments)
            handler = self._handlers[command.name]
            self.calls[command.name] += 1
            result = await (handler(parameters) if payload is None else handler(parameters, payload))
        except REFUSALS as error:
            return Reply(refused(request_id, error))
        if self.on_done is not None:
            self.on_done(command.name, parameters)
        if isinstance(result, Attached):
            return Reply(succeeded(request_id, result.result), result.payload)
        return Reply(succeeded(request_id, result))

    async def discover(self, parameters: DiscoverParameters) -> dict[str, Any]:
        """The handler of the command that describes all commands, or all events."""
        return events.schema() if parameters.events else self.document()

    def document(self) -> dict[str, Any]:
        """The OpenRPC document of all commands."""
        types = [kind for command in self._commands.values() for kind in (command.parameters, command.result)]
        _, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
        return {
            "openrpc": OPENRPC_VERSION,
            "info": {"title": TITLE, "version": self._version},
            "methods": [_described(command, components) for command in self._commands.values()],
            "components": {"schemas": components},
        }


def _handler(command: Command, owners: Iterable[object]) -> Handler:
    found: list[Handler] = [getattr(owner, command.handler_name) for owner in owners if hasattr(owner, command.handler_name)]
    if len(found) != 1:
        raise TypeError(f"{command.name} has {len(found)} handlers named {command.handler_name}")
    return found[0]


def _described(command: Command, components: dict[str, Any]) -> dict[str, Any]:
    schema = components[command.parameters.__name__]
    required = schema.get("required", [])
    parameters = [
        {"name": name, "required": name in required, "schema": described}
        for name, described in schema.get("properties", {}).items()
    ]
    (result,), _ = msgspec.json.schema_components([command.result], ref_template=_REFERENCE)
    return {
        "name": command.name,
        "summary": command.summary,
        "description": command.text,
        "paramStructure": "by-name",
        "params": parameters,
        "result": {"name": "result", "schema": result},
        "errors": [{"code": ERROR_CODES[name], "message": name, "data": {"name": name}} for name in command.all_errors],
    }
