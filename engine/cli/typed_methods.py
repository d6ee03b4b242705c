"""The methods of `rlpx.engine.client` for all commands, made from their declarations.

`python -m rlpx.engine.cli.reference engine/client/commands.py` renews the file; a test fails if it differs. The text has the
form that `ruff format` gives it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from rlpx.protocol.bus import values
from rlpx.protocol.bus.commands import COMMANDS, Command
from rlpx.protocol.cluster.addressing import OF_A_NAMED_HOST, OF_A_SESSION

LINE_CHARACTERS: Final = 125
# Literals that have a name, which an editor shows instead of a dozen texts.
_NAMED: Final = {getattr(values, name): name for name in ("Level", "ReasonName")}
_PLAIN: Final[dict[Any, str]] = {NoneType: "None", Any: "Any"}
# The parameter that travels as a frame, and the one that asks for a result with a frame, which the client always wants.
PAYLOAD: Final = "payload"
BINARY: Final = "binary"
_HEAD: Final = '''\
"""A method for every command, made from the declarations by `rlpx.engine.cli.typed_methods`: do not edit.

Each takes `timeout`, the seconds after which the program gives up and the engine is told to. They raise `EngineError` and
its subclasses (`errors.py`), and `EngineUnavailableError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal, TypeVar

from rlpx.engine.client.by_host import ByHost
from rlpx.engine.client.calls import PeerAnswer
from rlpx.protocol.bus import metrics, results
from rlpx.protocol.bus.values import Level, ReasonName

T = TypeVar("T")
# ruff: noqa: ASYNC109 - the engine must know of a timeout, and the blocking methods have the same parameters
# ruff: noqa: PLR0913 - a command may have many parameters, and each has a name here
# ruff: noqa: A002 - the parameters' names are those of the commands


class Commands(ABC):
    """The commands of an engine, for programs on asyncio."""

    @abstractmethod
    async def _command(
        self, name: str, parameters: Mapping[str, object], result: type[T], payload: bytes | None, timeout: float | None
    ) -> T:
        """Carry out one command."""
'''
_BLOCKING_HEAD: Final = '''\


class BlockingCommands(ABC):
    """The commands of an engine, for programs that wait for each."""

    _commands: Commands

    @abstractmethod
    def _wait(self, called: Coroutine[Any, Any, T]) -> T:
        """Wait until a call is done."""
'''


_FLEET_HEAD: Final = '''\


class FleetCommands(ABC):
    """The commands of a fleet: one host's where one has it, else those of all hosts. `host` names one of several."""

    @abstractmethod
    async def of_all(self, call: Callable[[Commands], Awaitable[T]]) -> ByHost[T]:
        """Call this at every host."""

    @abstractmethod
    async def of_session(self, session: int, host: str | None, call: Callable[[Commands], Awaitable[T]]) -> T:
        """Call this at the host that has the session."""

    @abstractmethod
    async def of_dialler(self, enode: str, host: str | None, call: Callable[[Commands], Awaitable[T]]) -> T:
        """Call this at the host that the peer belongs to."""
'''
_BLOCKING_FLEET_HEAD: Final = '''\


class BlockingFleetCommands(ABC):
    """The commands of a fleet, for programs that wait for each."""

    _fleet: FleetCommands

    @abstractmethod
    def _wait(self, called: Coroutine[Any, Any, T]) -> T:
        """Wait until a call is done."""
'''
# The parameter with the name of a host of a fleet.
HOST: Final = "host"


class Parameter(NamedTuple):
    """A parameter of a method: its name, that of the command, its annotation, and its default if it has one."""

    name: str
    sent_as: str
    annotation: str
    default: str | None

    @property
    def text(self) -> str:
        """The parameter in a signature."""
        return f"{self.name}: {self.annotation}" + ("" if self.default is None else f" = {self.default}")


def module_text() -> str:
    """The whole file."""
    methods = [text for command in COMMANDS.values() for text in _method(command)]
    blocking = [text for command in COMMANDS.values() for text in _blocking_method(command)]
    fleet = [text for command in COMMANDS.values() for text in _fleet_method(command)]
    waiting = [text for command in COMMANDS.values() for text in _blocking_fleet_method(command)]
    parts = (
        [_HEAD, *methods],
        [_BLOCKING_HEAD, *blocking],
        [_FLEET_HEAD, *fleet],
        [_BLOCKING_FLEET_HEAD, *waiting],
    )
    return "".join("\n".join(part).rstrip() + "\n" for part in parts)


def _method(command: Command) -> Iterator[str]:
    result = _result(command)
    sent = [f'"{item.sent_as}": {item.name}' for item in _parameters(command) if item.name != PAYLOAD]
    if _is_binary(command):
        sent.append(f'"{BINARY}": True')
    payload = PAYLOAD if PAYLOAD in command.parameters.__struct_fields__ else "None"
    parameters = "{" + ", ".join(sent) + "}"
    yield from _signature("async def", command, result)
    yield from _docstring(command.text)
    yield from _call("return await self._command", [f'"{command.name}"', parameters, result, payload, "timeout"])
    yield ""


def _blocking_method(command: Command) -> Iterator[str]:
    yield from _signature("def", command, _result(command))
    yield from _docstring(f"See `Commands.{command.handler_name}`.")
    inner = f"self._commands.{command.handler_name}({', '.join([*_given(command), 'timeout=timeout'])})"
    yield from _call("return self._wait", [inner])
    yield ""


def _fleet_method(command: Command) -> Iterator[str]:
    """A method of the fleet, unless the command must name its host."""
    if command.name in OF_A_NAMED_HOST:
        return
    given = _given(command)
    of_one = _of_one(command)
    where = {"session": "self.of_session", "enode": "self.of_dialler"}.get(of_one[0] if of_one else "", "self.of_all")
    result = _result(command)
    yield from _signature("async def", command, result if of_one else f"ByHost[{result}]", has_host=bool(of_one))
    yield from _docstring(f"See `Commands.{command.handler_name}`.")
    start, arguments = f"lambda at: at.{command.handler_name}(", [*given, "timeout=timeout"]
    if of_one:
        yield from _call(f"return await {where}", [*of_one, f"{start}{', '.join(arguments)})"])
    else:
        yield from _laid_out_lambda(f"        return await {where}(", start, arguments)
    yield ""


def _blocking_fleet_method(command: Command) -> Iterator[str]:
    """The same for programs that wait."""
    if command.name in OF_A_NAMED_HOST:
        return
    result, of_one = _result(command), _of_one(command)
    yield from _signature("def", command, result if of_one else f"ByHost[{result}]", has_host=bool(of_one))
    yield from _docstring(f"See `FleetCommands.{command.handler_name}`.")
    given = [*_given(command), *([f"{HOST}={HOST}"] if of_one else []), "timeout=timeout"]
    yield from _call("return self._wait", [f"self._fleet.{command.handler_name}({', '.join(given)})"])
    yield ""


def _of_one(command: Command) -> list[str]:
    """What finds the one host that a command concerns, and the name that may be given instead; nothing if all are."""
    if command.name in OF_A_SESSION:
        return ["session", HOST]
    return ["enode", HOST] if command.name == "dial" else []


def _given(command: Command) -> list[str]:
    """The arguments of a call that passes its own parameters on."""
    return [
        item.name if item.default is None else f"{item.name}={item.name}"
        for item in sorted(_parameters(command), key=lambda item: item.default is not None)
    ]


def _laid_out_lambda(start: str, called: str, items: Sequence[str]) -> Iterator[str]:
    """A call with a lambda alone, on one line, or with the lambda's arguments each on one."""
    together = ", ".join(items)
    if len(f"{start}{called}{together}))") <= LINE_CHARACTERS:
        yield f"{start}{called}{together}))"
        return
    yield start
    yield from _laid_out(f"            {called}", items, ")", 12)
    yield "        )"


def _signature(start: str, command: Command, result: str, *, has_host: bool = False) -> Iterator[str]:
    parameters = _parameters(command)
    items = ["self", *(item.text for item in parameters if item.default is None), "*"]
    items += [item.text for item in parameters if item.default is not None]
    if has_host:
        items.append(f"{HOST}: str | None = None")
    items.append("timeout: float | None = None")
    yield from _laid_out(f"    {start} {command.handler_name}(", items, f") -> {result}:", 4)


def _call(start: str, items: Sequence[str]) -> Iterator[str]:
    yield from _laid_out(f"        {start}(", items, ")", 8)


def _laid_out(start: str, items: Sequence[str], end: str, indent: int) -> Iterator[str]:
    """On one line, or the items on a line of their own, or each on one."""
    together = ", ".join(items)
    if len(start + together + end) <= LINE_CHARACTERS:
        yield start + together + end
        return
    yield start
    inner = " " * (indent + 4)
    if len(inner + together) <= LINE_CHARACTERS and len(items) > 1:
        yield inner + together
    elif len(items) == 1:
        # A call in a call: its arguments move to a line of their own.
        name, _, rest = items[0].partition("(")
        yield from _laid_out(f"{inner}{name}(", rest.removesuffix(")").split(", "), ")", indent + 4)
    else:
        for item in items:
            yield from _item(inner, item)
    yield " " * indent + end


def _item(inner: str, item: str) -> Iterator[str]:
    if len(f"{inner}{item},") <= LINE_CHARACTERS:
        yield f"{inner}{item},"
        return
    yield inner + "{"
    yield from (f"{inner}    {entry}," for entry in item.strip("{}").split(", "))
    yield inner + "},"


def _docstring(text: str) -> Iterator[str]:
    quoted = '"""'
    if len(f"        {quoted}{text}{quoted}") <= LINE_CHARACTERS:
        yield f"        {quoted}{text}{quoted}"
        return
    yield from textwrap.wrap(
        f"{quoted}{text}", LINE_CHARACTERS, initial_indent=" " * 8, subsequent_indent=" " * 8, break_on_hyphens=False
    )
    yield f"        {quoted}"


def _parameters(command: Command) -> list[Parameter]:
    hints = get_type_hints(command.parameters)
    return [
        Parameter(
            field.name,
            field.encode_name,
            "bytes" if field.name == PAYLOAD else _annotation(hints[field.name]),
            None if field.required else _default(field.default),
        )
        for field in msgspec.structs.fields(command.parameters)
        if field.name != BINARY
    ]


def _is_binary(command: Command) -> bool:
    return BINARY in command.parameters.__struct_fields__


def _result(command: Command) -> str:
    return "PeerAnswer" if _is_binary(command) else _annotation(command.result)


def _default(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _annotation(kind: Any) -> str:  # noqa: ANN401 - any type
    """The text of a type, without the bounds of its values."""
    if kind in _NAMED:
        return _NAMED[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"Literal[{', '.join(_default(value) for value in inner)}]"
    if origin in (Union, UnionType):
        return " | ".join(_once(map(_annotation, inner)))
    if origin is not None:
        return f"{_annotation(origin)}[{', '.join('...' if item is ... else _annotation(item) for item in inner)}]"
    if kind in _PLAIN:
        return _PLAIN[kind]
    return str(kind.__name__) if kind.__module__ == "builtins" else f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
