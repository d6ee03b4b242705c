"""Shapes: the RLP form of a message's fields, and how to read and write them within bounds. Messages are defined elsewhere.

A message is a Struct with shapes in its annotations, by which `record` reads and writes it. Reading follows the schema: it
goes no deeper, stops at the first item that does not belong there, and spends a budget of list elements. So legality bounds
the objects that are built, whatever the peer sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

import msgspec

from rlpx.protocol import rlp
from rlpx.protocol.errors import MessageError, PeerError, RlpError, UsageError, reading

HASH_BYTES: Final = 32
ADDRESS_BYTES: Final = 20
# The EVM's width of integers: a difficulty, a balance, a fee.
UINT256_BYTES: Final = 32
# The largest type of a transaction or receipt, its first byte (EIP-2718). From 0xc0 on the byte begins a list.
MAX_TYPE: Final = 0x7F
# Nine fields of at least one byte each, and the prefix of their list. geth accepts no shorter transaction either.
MIN_LEGACY_TRANSACTION_BYTES: Final = 10

# A hash in a list is always 0xa0 and 32 bytes.
_HASH_PREFIX: Final = b"\xa0"
_HASH_ITEM_BYTES: Final = len(_HASH_PREFIX) + HASH_BYTES


class Source:
    """The bytes of one message, and what is left of the budget for the elements of all its lists."""

    __slots__ = ("_left", "data")

    def __init__(self, data: bytes, max_elements: int) -> None:
        self.data = data
        self._left = max_elements

    def spend(self, elements: int) -> None:
        """Take elements off the budget. Raises `MessageError` if it is exceeded."""
        self._left -= elements
        if self._left < 0:
            raise MessageError("more list elements than fit the message")

    def string(self, start: int, stop: int) -> tuple[bytes, int]:
        """Return the string at `start`, and its end. Raises `RlpError`."""
        is_list, payload, end = rlp.bounds(self.data, start, stop)
        if is_list:
            raise RlpError("a list where a string belongs")
        return self.data[payload:end], end

    def elements(self, start: int, stop: int) -> tuple[int, int]:
        """Return where the elements of the list at `start` begin, and where they end. Raises `RlpError`."""
        is_list, payload, end = rlp.bounds(self.data, start, stop)
        if not is_list:
            raise RlpError("a string where a list belongs")
        return payload, end


# Takes the start of an item and its latest end; returns its value and its end. Raises `RlpError`, `MessageError`.
Read: TypeAlias = Callable[[Source, int, int], tuple[Any, int]]
# Returns the encoding of a value. Raises `UsageError` if the value does not have the shape.
Write: TypeAlias = Callable[[Any], bytes]


class Shape(NamedTuple):
    """The shape of one field. If `is_trailing`, the field may be absent at the end of its list and is then None."""

    read: Read
    write: Write
    is_trailing: bool = False


def uint(max_bytes: int, max_value: int | None = None) -> Shape:
    """Return the shape of an unsigned integer of at most `max_bytes` bytes, and at most `max_value` if given."""
    limit = (1 << 8 * max_bytes) - 1 if max_value is None else max_value

    def read(source: Source, start: int, stop: int) -> tuple[int, int]:
        data, end = source.string(start, stop)
        value = rlp.as_uint(data, max_bytes)
        if value > limit:
            raise MessageError(f"{value} where at most {limit} may stand")
        return value, end

    def write(value: object) -> bytes:
        if not isinstance(value, int) or not 0 <= value <= limit:
            raise UsageError(f"not an integer from 0 to {limit}")
        return rlp.encode(int(value))

    return Shape(read, write)


def byte_string(*lengths: int) -> Shape:
    """Return the shape of a byte string, of one of these lengths if any are given."""
    expected = " or ".join(map(str, lengths))

    def read(source: Source, start: int, stop: int) -> tuple[bytes, int]:
        data, end = source.string(start, stop)
        if lengths and len(data) not in lengths:
            raise RlpError(f"a string of {len(data)} bytes where {expected} belong")
        return data, end

    def write(value: object) -> bytes:
        if not isinstance(value, bytes) or (lengths and len(value) not in lengths):
            raise UsageError(f"not a byte string of {expected or 'some'} bytes")
        return rlp.encode(value)

    return Shape(read, write)


def optional_byte_string(length: int) -> Shape:
    """Return the shape of a byte string of one length, or None, which is encoded as the empty string."""
    shape = byte_string(0, length)

    def read(source: Source, start: int, stop: int) -> tuple[bytes | None, int]:
        data, end = shape.read(source, start, stop)
        return data or None, end

    def write(value: object) -> bytes:
        if value == b"":
            raise UsageError("an empty byte string, where None stands for it")
        return shape.write(b"" if value is None else value)

    return Shape(read, write)


def flag() -> Shape:
    """Return the shape of a boolean, encoded as 0 or 1."""

    def read(source: Source, start: int, stop: int) -> tuple[bool, int]:
        data, end = source.string(start, stop)
        if data not in {b"", b"\x01"}:
            raise MessageError("a flag that is neither 0 nor 1")
        return bool(data), end

    def write(value: object) -> bytes:
        if not isinstance(value, bool):
            raise UsageError("not a boolean")
        return rlp.encode(int(value))

    return Shape(read, write)


def hash_or(other: Shape) -> Shape:
    """Return the shape of a 32-byte hash, or else of a value in the other shape."""
    of_hash = byte_string(HASH_BYTES)

    def read(source: Source, start: int, stop: int) -> tuple[object, int]:
        is_list, payload, end = rlp.bounds(source.data, start, stop)
        is_hash = not is_list and end - payload == HASH_BYTES
        return (of_hash if is_hash else other).read(source, start, stop)

    def write(value: object) -> bytes:
        return (of_hash if isinstance(value, bytes) else other).write(value)

    return Shape(read, write)


def hash_list(max_count: int) -> Shape:
    """Return the shape of a list of 32-byte hashes. As all have one length, it is enough to check every 33rd byte."""

    def read(source: Source, start: int, stop: int) -> tuple[tuple[bytes, ...], int]:
        begin, end = source.elements(start, stop)
        count, rest = divmod(end - begin, _HASH_ITEM_BYTES)
        if count > max_count:
            raise MessageError(f"{count} hashes where {max_count} may stand")
        data = source.data
        if rest or data[begin:end:_HASH_ITEM_BYTES] != _HASH_PREFIX * count:
            raise RlpError("a list of something else than 32-byte hashes")
        source.spend(count)
        return tuple([data[at + 1 : at + _HASH_ITEM_BYTES] for at in range(begin, end, _HASH_ITEM_BYTES)]), end

    def write(value: object) -> bytes:
        if not isinstance(value, tuple | list) or len(value) > max_count:
            raise UsageError(f"not a list of up to {max_count} hashes")
        if any(not isinstance(item, bytes) or len(item) != HASH_BYTES for item in value):
            raise UsageError("not a list of 32-byte hashes")
        return rlp.join([_HASH_PREFIX + item for item in value])

    return Shape(read, write)


def list_of(shape: Shape, max_count: int) -> Shape:
    """Return the shape of a list of at most `max_count` items of one shape."""

    def read(source: Source, start: int, stop: int) -> tuple[tuple[object, ...], int]:
        position, end = source.elements(start, stop)
        values: list[object] = []
        while position < end:
            if len(values) == max_count:
                raise MessageError(f"a list of more elements than the {max_count} that may stand in it")
            source.spend(1)
            try:
                value, position = shape.read(source, position, end)
            except PeerError as error:
                error.inside(f"[{len(values)}]")
                raise
            values.append(value)
        return tuple(values), end

    def write(value: object) -> bytes:
        if not isinstance(value, tuple | list) or len(value) > max_count:
            raise UsageError(f"not a list of up to {max_count} elements")
        return rlp.join([shape.write(item) for item in value])

    return Shape(read, write)


def raw_transaction() -> Shape:
    """Return the shape of a transaction, left encoded and unchecked: a list if legacy, a string if typed (EIP-2718)."""

    def read(source: Source, start: int, stop: int) -> tuple[bytes, int]:
        data = source.data
        is_list, payload, end = rlp.bounds(data, start, stop)
        if is_list:
            if end - start < MIN_LEGACY_TRANSACTION_BYTES:
                raise MessageError("a list too short for a transaction")
        elif end - payload < len(("type", "data")) or data[payload] > MAX_TYPE:
            raise MessageError("a string that is no typed transaction")
        return data[start:end], end

    return Shape(read, _write_raw(read))


def raw_access_list() -> Shape:
    """Return the shape of a block access list, left encoded; `b""`, the empty string on the wire, if not available."""

    def read(source: Source, start: int, stop: int) -> tuple[bytes, int]:
        is_list, payload, end = rlp.bounds(source.data, start, stop)
        if is_list:
            return source.data[start:end], end
        if payload != end:
            raise MessageError("a string where a block access list belongs")
        return b"", end

    write_list = _write_raw(read)

    def write(value: object) -> bytes:
        return rlp.encode(b"") if value == b"" else write_list(value)

    return Shape(read, write)


def _write_raw(read: Read) -> Write:
    """Return a function that writes an already encoded item if `read` accepts it."""

    def write(value: object) -> bytes:
        if not isinstance(value, bytes):
            raise UsageError("not a byte string")
        try:
            raw, end = read(Source(value, 0), 0, len(value))
        except PeerError as error:
            raise UsageError(str(error)) from error
        if end != len(value) or raw != value:
            raise UsageError("not exactly one item")
        return value

    return write


def trailing(shape: Shape) -> Shape:
    """Return the shape of a field that was added at the end of a list. If absent, it is None, as are all fields after it."""
    return shape._replace(is_trailing=True)


def record(struct: type[msgspec.Struct]) -> Shape:
    """Return the shape of a list with the fields of a Struct: exactly these, no fewer and no more.

    Fields without a shape are not in the list; they come last and have defaults.
    """
    shapes = shapes_of(struct)

    def write(value: object) -> bytes:
        if type(value) is not struct:
            raise UsageError(f"not a {struct.__name__}")
        items = []
        absent = ""
        for name, shape in shapes:
            field = getattr(value, name)
            if field is None and shape.is_trailing:
                absent = absent or name
            elif absent:
                raise UsageError(f"{struct.__name__}.{name} without {absent}, which stands before it")
            else:
                items.append(_write_field(struct, name, shape, field))
        return rlp.join(items)

    return Shape(_read_fields(struct, shapes), write)


def _read_fields(struct: type[msgspec.Struct], shapes: list[tuple[str, Shape]]) -> Read:
    def read(source: Source, start: int, stop: int) -> tuple[msgspec.Struct, int]:
        position, end = source.elements(start, stop)
        values: list[object] = []
        for name, (read_field, _, is_trailing) in shapes:
            if position == end and is_trailing:
                break
            try:
                value, position = read_field(source, position, end)
            except PeerError as error:
                error.inside(name)
                raise
            values.append(value)
        if position != end:
            raise MessageError(f"a {struct.__name__} of more than {len(shapes)} fields")
        return struct(*values), end

    return read


def bare(struct: type[msgspec.Struct]) -> Shape:
    """Return the shape of a message that is its only field, without a list around it."""
    [(name, shape)] = shapes_of(struct)

    def read(source: Source, start: int, stop: int) -> tuple[msgspec.Struct, int]:
        with reading(name):
            value, end = shape.read(source, start, stop)
        return struct(value), end

    def write(value: object) -> bytes:
        return _write_field(struct, name, shape, getattr(value, name))

    return Shape(read, write)


def shapes_of(struct: type[msgspec.Struct]) -> list[tuple[str, Shape]]:
    """Return the names and shapes of the fields of a Struct that have a shape."""
    hints = get_type_hints(struct, include_extras=True)
    annotations = [
        (name, get_args(hints[name])) for name in struct.__struct_fields__ if get_origin(hints[name]) is Annotated
    ]
    return [(name, shape) for name, (_, shape, *_) in annotations]


def _write_field(struct: type[msgspec.Struct], name: str, shape: Shape, field: object) -> bytes:
    try:
        return shape.write(field)
    except UsageError as error:
        raise UsageError(f"{struct.__name__}.{name}: {error}") from error


UINT64: Final = uint(rlp.U64_BYTES)

Flag = Annotated[bool, flag()]
Uint64 = Annotated[int, UINT64]
Uint256 = Annotated[int, uint(UINT256_BYTES)]
Hash = Annotated[bytes, byte_string(HASH_BYTES)]
Address = Annotated[bytes, byte_string(ADDRESS_BYTES)]
ByteString = Annotated[bytes, byte_string()]
