"""Messages about wrong values. Each names the place, the allowed values, an example, and the value given.

msgspec decides whether a value fits its type. This module makes the message from the type alone, so that users never see
a message of msgspec or a regular expression. A type can set its own text with `title` and `examples` of its `Meta`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, inspect

from rlpx.protocol.errors import printable

T = TypeVar("T")

# This much of a wrong value is enough to recognise it.
GIVEN_CHARACTERS: Final = 80
# The most names to suggest; more do not help.
_MAX_NAMES: Final = 3
# difflib's ratio, from 0 to 1. A name is suggested if its ratio is at least this, and not much below that of the best one.
_LEAST_LIKENESS: Final = 0.65
_LIKENESS_SPAN: Final = 0.05
# A larger upper bound is only the width of a field on the wire, and is not mentioned.
_PLAINLY_LARGE: Final = (1 << 63) - 1


class Expected(msgspec.Struct, frozen=True):
    """The allowed values, worded to follow "expected", and an example, which may be empty."""

    text: str
    example: str = ""


class WrongValueError(ValueError):
    """A value does not fit its type. `place` is the path to it: `limits.max_active_inbound`, `eth[0]`, or empty.

    `is_unknown`: no field has this name.
    """

    def __init__(self, place: str, reason: str, *, is_unknown: bool = False) -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.place = place
        self.reason = reason
        self.is_unknown = is_unknown


def convert(value: Any, kind: Any, *, strict: bool = True, thing: str = "setting") -> Any:  # noqa: ANN401 - any type
    """Convert a value to this type; `strict=False` reads numbers and booleans from text. Raises `WrongValueError`.

    `thing` is the word for a field of a table in messages.
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        fault = _Search(strict=strict, thing=thing).fault(value, kind, "")
        raise (fault or WrongValueError("", str(error).partition(" - at `")[0])) from error


def wrong(given: object, expected: Expected, why: str = "") -> str:
    """`expected …, for example …; got …`, followed by the reason if it is known."""
    example = f", for example {expected.example}" if expected.example else ""
    return f"expected {expected.text}{example}; got {_given(given)}" + (f" ({why})" if why else "")


def expected_of(kind: Any, default: object = None) -> Expected:  # noqa: ANN401 - any type
    """Return what a type allows. A default that is not empty is the example."""
    info, title, examples = _described(inspect.type_info(kind))
    example = default if default not in (None, "", ()) else next(iter(examples), None)
    return Expected(title or _text_of(info), as_text(example) if example is not None else _example(info))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` with the most similar names, or an empty text."""
    names = sorted(set(known))
    # difflib takes minutes for the megabytes that a message may have.
    name = name[:GIVEN_CHARACTERS]
    found = [other for other in names if name and other.startswith(name)]
    if not found:
        likeness = {other: SequenceMatcher(None, name, other).ratio() for other in names}
        least = max(_LEAST_LIKENESS, max(likeness.values(), default=0) - _LIKENESS_SPAN)
        found = sorted((other for other in names if likeness[other] >= least), key=lambda other: -likeness[other])
    return f"; did you mean {_either(found[:_MAX_NAMES])}?" if found else ""


def item_of(kind: Any) -> Any:  # noqa: ANN401 - any type
    """The type of a list's items; any other type is returned as it is."""
    bare = kind.__origin__ if hasattr(kind, "__metadata__") else kind
    return get_args(bare)[0] if get_origin(bare) in (tuple, list) else kind


def as_text(value: object) -> str:
    """Return a value as users write it in an argument or a variable: lists with commas, booleans in lower case."""
    if isinstance(value, list | tuple):
        return ",".join(map(as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- finding what is wrong --------------------------------------------------------------------------------------------------


class _Search:
    """Finds the first part of a value that does not fit its type."""

    def __init__(self, *, strict: bool, thing: str) -> None:
        self._strict = strict
        self._thing = thing

    def fault(
        self,
        value: Any,  # noqa: ANN401 - any value
        kind: Any,  # noqa: ANN401 - any type
        place: str,
        default: object = None,
    ) -> WrongValueError | None:
        """The first mistake, or `None` if the whole value fits."""
        kind = _without_none(kind)
        info, _, _ = _described(inspect.type_info(kind))
        if isinstance(info, inspect.StructType):
            return self._fault_in_struct(value, info.cls, place)
        if isinstance(info, inspect.VarTupleType | inspect.ListType) and isinstance(value, list | tuple):
            item_kind = item_of(kind)
            for index, item in enumerate(value):
                if not self._fits(item, item_kind):
                    return self.fault(item, item_kind, f"{place}[{index}]")
        return WrongValueError(place, wrong(value, expected_of(kind, default)))

    def _fault_in_struct(self, value: Any, struct: Any, place: str) -> WrongValueError | None:  # noqa: ANN401 - any
        if not isinstance(value, Mapping):
            return WrongValueError(place, wrong(value, Expected(f"a table of {self._thing}s")))
        dot = f"{place}." if place else ""
        fields = msgspec.structs.fields(struct)
        if struct.__struct_config__.forbid_unknown_fields:
            known = {item.encode_name for item in fields}
            for name in value:
                if name not in known:
                    reason = f"no such {self._thing}{nearest(str(name), known)}"
                    return WrongValueError(f"{dot}{shortened(str(name))}", reason, is_unknown=True)
        for item in fields:
            if item.encode_name not in value:
                if item.required:
                    return WrongValueError(f"{dot}{item.encode_name}", f"is missing: {_needed(item.type)}")
            elif not self._fits(value[item.encode_name], item.type):
                default = None if item.default is NODEFAULT else item.default
                return self.fault(value[item.encode_name], item.type, f"{dot}{item.encode_name}", default)
        return None

    def _fits(self, value: object, kind: Any) -> bool:  # noqa: ANN401 - any type
        if kind is msgspec.Raw:
            return True
        try:
            msgspec.convert(value, kind, strict=self._strict)
        except msgspec.ValidationError:
            return False
        return True


# -- describing types -------------------------------------------------------------------------------------------------------


def _without_none(kind: Any) -> Any:  # noqa: ANN401 - any type
    """Return X for `X | None`: if a value was given, the message need not say that it may be left out."""
    if get_origin(kind) is None or type(None) not in get_args(kind):
        return kind
    rest = [part for part in get_args(kind) if part is not type(None)]
    return rest[0] if len(rest) == 1 else kind


def _described(info: inspect.Type) -> tuple[inspect.Type, str, list[Any]]:
    """Return the bare type, and the title and examples of its `Meta`."""
    if not isinstance(info, inspect.Metadata):
        return info, "", []
    extra = info.extra_json_schema or {}
    return info.type, extra.get("title", ""), extra.get("examples", [])


def _needed(kind: Any) -> str:  # noqa: ANN401 - any type
    expected = expected_of(kind)
    return expected.text + (f", for example {expected.example}" if expected.example else "")


def _text_of(info: inspect.Type) -> str:
    match info:
        case inspect.BoolType():
            text = "true or false"
        case inspect.IntType():
            text = "a whole number" + _bounds(info)
        case inspect.FloatType():
            text = "a number" + _bounds(info)
        case inspect.StrType():
            text = "text" + _length(info.min_length, info.max_length, "character")
        case inspect.LiteralType() | inspect.EnumType():
            text = f"one of {', '.join(_names(info))}"
        case inspect.VarTupleType() | inspect.ListType():
            item, title, _ = _described(info.item_type)
            text = f"a list{_length(info.min_length, info.max_length, 'item')}, each {title or _text_of(item)}"
        case inspect.UnionType():
            parts = [_described(part) for part in info.types if not isinstance(part, inspect.NoneType)]
            text = _either([title or _text_of(part) for part, title, _ in parts])
        case _:
            text = "a table"
    return text


def _example(info: inspect.Type) -> str:
    match info:
        case inspect.BoolType():
            example = "true"
        case inspect.IntType() | inspect.FloatType():
            least = info.ge if info.ge is not None else info.gt
            example = str(max(1, int(least or 0)))
        case inspect.LiteralType() | inspect.EnumType():
            example = _names(info)[0]
        case inspect.VarTupleType() | inspect.ListType():
            item, _, examples = _described(info.item_type)
            example = as_text(examples[0]) if examples else _example(item)
        case inspect.UnionType():
            example = next((found for part in info.types if (found := _example(_described(part)[0]))), "")
        case _:
            example = ""
    return example


def _names(info: inspect.LiteralType | inspect.EnumType) -> list[str]:
    values = info.values if isinstance(info, inspect.LiteralType) else [item.value for item in info.cls]
    return [str(value) for value in values]


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    most = info.le if info.le is not None and info.le < _PLAINLY_LARGE else None
    if info.ge is not None:
        return f", {_plain(info.ge)} or more" if most is None else f" from {_plain(info.ge)} to {_plain(most)}"
    if info.gt is not None:
        return f" above {_plain(info.gt)}" + ("" if most is None else f" and up to {_plain(most)}")
    return ""


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _length(least: int | None, most: int | None, unit: str) -> str:
    if most is not None:
        return f" of {least or 0} to {most} {unit}s"
    if least:
        return f" of at least {least} {unit}{'s' if least > 1 else ''}"
    return ""


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _given(value: object) -> str:
    """Return the given value, short and printable; for a structure, only its kind."""
    if isinstance(value, str):
        return f"'{shortened(value)}'"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, int | float):
        # Python takes seconds to convert a number with thousands of digits to text, or refuses.
        is_short = not isinstance(value, int) or value.bit_length() < GIVEN_CHARACTERS
        return str(value) if is_short else "a much larger number"
    if isinstance(value, Mapping):
        return "a table"
    # TOML also has dates and times.
    return "a list" if isinstance(value, list | tuple) else shortened(str(value))


def shortened(text: str, max_characters: int = GIVEN_CHARACTERS) -> str:
    """Return the beginning of a text, printable, with dots if it was cut."""
    cut = printable(text, max_characters=max_characters)
    return cut + "..." if len(text) > max_characters else cut
