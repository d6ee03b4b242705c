"""The arguments of a command, made from the struct of its parameters.

A required parameter is a positional argument, any other an option, and a boolean an option without a value: `--raw` if the
default is false, `--no-static` if it is true. Help and placeholder come from the parameter's `Meta`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from rlpx.engine.cli.terminal import Arguments, typed
from rlpx.protocol.bus.commands import Parameters

# The function that reads the text of an argument, by the title of its parameter's type.
Readers = Mapping[str, Callable[[str], Any]]


class Described(NamedTuple):
    """The contents of a type's `Meta`."""

    description: str = ""
    title: str = ""
    metavar: str = ""
    # Whether it concerns the frames of a request, and so programs alone.
    is_for_programs: bool = False


def add_parameters(arguments: Arguments, parameters: type[Parameters], readers: Readers) -> None:
    """Add one argument for each parameter."""
    for item in msgspec.structs.fields(parameters):
        _add_parameter(arguments, item, readers)


def option_of(parameter: str) -> str:
    """The name of the option for a parameter: `timeout_s` is `timeout`, `max_pending_inbound` is `max-pending-inbound`."""
    return parameter.removesuffix("_s").replace("_", "-")


def _add_parameter(arguments: Arguments, item: msgspec.structs.FieldInfo, readers: Readers) -> None:
    described = described_by(item.type)
    if described.is_for_programs:
        return
    name = item.encode_name
    option = option_of(name)
    text = _in_a_sentence(described.description)
    if item.default is True:
        arguments.add_argument(f"--no-{option}", dest=name, action="store_false", default=None, help=f"do not {text}")
        return
    if item.default is False:
        arguments.add_argument(f"--{option}", dest=name, action="store_true", default=None, help=text)
        return
    metavar = described.metavar or option.upper()
    read = readers.get(described.title, typed(item.type))
    if item.required:
        arguments.add_argument(name, metavar=metavar, type=read, help=text or None)
        return
    if isinstance(item.default, int | float) and item.default:
        text += f" (default: {item.default:g})"
    arguments.add_argument(f"--{option}", dest=name, metavar=metavar, type=read, help=text or None)


def described_by(kind: Any) -> Described:  # noqa: ANN401 - any type
    """The contents of a type's `Meta`; for `X | None`, that of `X`."""
    metas: tuple[msgspec.Meta, ...] = getattr(kind, "__metadata__", ())
    if not metas:
        inner = next((part for part in get_args(kind) if hasattr(part, "__metadata__")), None)
        return Described() if inner is None else described_by(inner)
    found = Described()
    for meta in metas:
        found = Described(
            meta.description or found.description,
            meta.title or found.title,
            (meta.extra or {}).get("metavar", found.metavar),
            (meta.extra or {}).get("for_programs", found.is_for_programs),
        )
    return found


def _in_a_sentence(description: str) -> str:
    """The description without its final dot, and with a small first letter unless it begins with an abbreviation."""
    text = description.rstrip(".")
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
