"""Shapes: each reads what the `rlp` library wrote for it and nothing else, and writes the same bytes."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import MessageError, RlpError, UsageError
from rlpx.protocol.eth import schema as shapes
from rlpx.protocol.eth.schema import Shape, Source

HASH = b"\x11" * 32
LEGACY = oracle.encode([b""] * 9)
TYPED = oracle.encode(b"\x02\xc0")


def read(shape: Shape, item: object, max_elements: int = 100) -> object:
    """What a shape makes of an item that the library encodes, with other bytes around it."""
    encoding = oracle.encode(item)
    value, end = shape.read(Source(b"\xff" + encoding + b"\xff", max_elements), 1, len(encoding) + 2)
    assert end == 1 + len(encoding)
    return value


class Pair(msgspec.Struct, frozen=True):
    number: shapes.Uint64
    words: Annotated[tuple[bytes, ...], shapes.list_of(shapes.byte_string(), 3)]
    note: str = "none"


class Grown(msgspec.Struct, frozen=True):
    first: shapes.Uint64
    second: Annotated[int | None, shapes.trailing(shapes.UINT64)] = None
    third: Annotated[int | None, shapes.trailing(shapes.UINT64)] = None


class Lone(msgspec.Struct, frozen=True):
    words: Annotated[tuple[bytes, ...], shapes.list_of(shapes.byte_string(), 3)]


PAIR = shapes.record(Pair)
GROWN = shapes.record(Grown)
LONE = shapes.bare(Lone)

# A shape, a value of it, and what the library must encode for the same bytes.
PAIRS: list[tuple[str, Shape, Any, Any]] = [
    ("zero", shapes.uint(8), 0, 0),
    ("the greatest u64", shapes.uint(8), 2**64 - 1, 2**64 - 1),
    ("the greatest word", shapes.uint(32), 2**256 - 1, 2**256 - 1),
    ("the most of a smaller range", shapes.uint(1, 0x7F), 0x7F, 0x7F),
    ("any string", shapes.byte_string(), b"any", b"any"),
    ("no string", shapes.byte_string(), b"", b""),
    ("a string of one length", shapes.byte_string(3), b"any", b"any"),
    ("a string of the other length", shapes.byte_string(0, 3), b"", b""),
    ("none", shapes.optional_byte_string(3), None, b""),
    ("some", shapes.optional_byte_string(3), b"any", b"any"),
    ("yes", shapes.flag(), True, 1),
    ("no", shapes.flag(), False, 0),
    ("a hash", shapes.hash_or(shapes.UINT64), HASH, HASH),
    ("no hash", shapes.hash_or(shapes.UINT64), 7, 7),
    ("neither, yet a list", shapes.hash_or(PAIR), Pair(1, ()), [1, []]),
    ("no hashes", shapes.hash_list(2), (), []),
    ("two hashes", shapes.hash_list(2), (HASH, HASH), [HASH, HASH]),
    ("an empty list", shapes.list_of(shapes.UINT64, 3), (), []),
    ("a full list", shapes.list_of(shapes.UINT64, 3), (1, 2, 300), [1, 2, 300]),
    ("a legacy transaction", shapes.raw_transaction(), LEGACY, [b""] * 9),
    ("a typed transaction", shapes.raw_transaction(), TYPED, b"\x02\xc0"),
    ("an access list", shapes.raw_access_list(), oracle.encode([[HASH]]), [[HASH]]),
    ("an empty access list", shapes.raw_access_list(), b"\xc0", []),
    ("no access list", shapes.raw_access_list(), b"", b""),
    ("a record", PAIR, Pair(7, (b"a", b"")), [7, [b"a", b""]]),
    ("a record without what was added", GROWN, Grown(1), [1]),
    ("a record with the first that was added", GROWN, Grown(1, 0), [1, 0]),
    ("a record with all that was added", GROWN, Grown(1, 0, 3), [1, 0, 3]),
    ("a lone field", LONE, Lone((b"a",)), [b"a"]),
]


@pytest.mark.parametrize(("shape", "value", "item"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_a_shape_reads_and_writes_what_the_library_encodes(shape: Shape, value: object, item: object) -> None:
    assert read(shape, item) == value
    assert shape.write(value) == oracle.encode(item)


REFUSED: list[tuple[str, Shape, Any, str]] = [
    ("an integer with leading zeros", shapes.uint(8), b"\x00\x01", "leading zeros"),
    ("zero as a byte", shapes.uint(8), b"\x00", "leading zeros"),
    ("an integer too wide", shapes.uint(8), 2**64, "9 bytes where 8 fit"),
    ("an integer over the most", shapes.uint(1, 0x7F), 0x80, "128 where at most 127"),
    ("a list for an integer", shapes.uint(8), [], "a list where a string"),
    ("a string too short", shapes.byte_string(3), b"an", "2 bytes where 3 belong"),
    ("a string too long", shapes.byte_string(0, 3), b"many", "4 bytes where 0 or 3 belong"),
    ("a list for a string", shapes.byte_string(), [], "a list where a string"),
    ("some of another length", shapes.optional_byte_string(3), b"an", "2 bytes"),
    ("a flag of two", shapes.flag(), 2, "neither 0 nor 1"),
    ("a flag of a zero byte", shapes.flag(), b"\x00", "neither 0 nor 1"),
    ("a list for a flag", shapes.flag(), [], "a list where a string"),
    ("no hash by a byte", shapes.hash_or(shapes.UINT64), HASH[1:], "31 bytes where 8 fit"),
    ("a list of the hash's length", shapes.hash_or(shapes.UINT64), [b"\x01"] * 32, "a list where a string"),
    ("one hash too many", shapes.hash_list(2), [HASH] * 3, "3 hashes where 2"),
    ("hashes too long by a byte", shapes.hash_list(99), [HASH + b"\x01"] * 33, "something else"),
    ("hashes too short by a byte", shapes.hash_list(99), [HASH[1:]] * 33, "something else"),
    ("a hash and a byte", shapes.hash_list(99), [HASH, b""], "something else"),
    ("lists for hashes", shapes.hash_list(99), [[b"\x01"] * 32] * 2, "something else"),
    ("a string for hashes", shapes.hash_list(99), HASH, "a string where a list"),
    ("one element too many", shapes.list_of(shapes.UINT64, 3), [1, 2, 3, 4], "more elements than the 3"),
    ("an element of another shape", shapes.list_of(shapes.UINT64, 3), [1, []], "a list where a string"),
    ("a string for a list", shapes.list_of(shapes.UINT64, 3), b"\x01", "a string where a list"),
    ("a transaction of too few fields", shapes.raw_transaction(), [b""] * 8, "too short for a transaction"),
    ("an empty list for a transaction", shapes.raw_transaction(), [], "too short for a transaction"),
    ("a transaction of nothing", shapes.raw_transaction(), b"", "no typed transaction"),
    ("a transaction of a type alone", shapes.raw_transaction(), b"\x02", "no typed transaction"),
    ("a transaction of no type", shapes.raw_transaction(), b"\x80\x00", "no typed transaction"),
    ("a list inside a string", shapes.raw_transaction(), LEGACY, "no typed transaction"),
    ("a string for an access list", shapes.raw_access_list(), b"\x01", "a string where a block access list"),
    ("an access list inside a string", shapes.raw_access_list(), b"\xc1\xc0", "a string where a block access list"),
    ("a record of a field less", PAIR, [7], "ends early"),
    ("a record of a field more", PAIR, [7, [], b""], "a Pair of more than 2 fields"),
    ("a record of no field", PAIR, [], "ends early"),
    ("a string for a record", PAIR, b"", "a string where a list"),
    ("more than what was added", GROWN, [1, 2, 3, 4], "a Grown of more than 3 fields"),
    ("less than what was there before", GROWN, [], "ends early"),
    ("a string for a lone field", LONE, b"", "a string where a list"),
]


@pytest.mark.parametrize(("shape", "item", "why"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_not_of_the_shape_is_refused(shape: Shape, item: object, why: str) -> None:
    with pytest.raises((RlpError, MessageError), match=why):
        read(shape, item)


UNWRITTEN: list[tuple[str, Shape, Any, str]] = [
    ("a negative integer", shapes.uint(8), -1, "from 0 to 18446744073709551615"),
    ("an integer too wide", shapes.uint(8), 2**64, "from 0 to"),
    ("an integer over the most", shapes.uint(1, 0x7F), 0x80, "from 0 to 127"),
    ("text for an integer", shapes.uint(8), "7", "not an integer"),
    ("a string too short", shapes.byte_string(3), b"an", "not a byte string of 3 bytes"),
    ("text for bytes", shapes.byte_string(), "any", "not a byte string of some bytes"),
    ("an empty string for none", shapes.optional_byte_string(3), b"", "None stands for it"),
    ("some of another length", shapes.optional_byte_string(3), b"an", "0 or 3 bytes"),
    ("an integer for a flag", shapes.flag(), 1, "not a boolean"),
    ("a hash too short", shapes.hash_or(shapes.UINT64), HASH[1:], "32 bytes"),
    ("one hash too many", shapes.hash_list(2), (HASH,) * 3, "up to 2 hashes"),
    ("hashes that are none", shapes.hash_list(2), (HASH, b""), "32-byte hashes"),
    ("hashes that are text", shapes.hash_list(2), ("1" * 32,), "32-byte hashes"),
    ("hashes in one string", shapes.hash_list(99), HASH, "up to 99 hashes"),
    ("one element too many", shapes.list_of(shapes.UINT64, 3), (1, 2, 3, 4), "up to 3 elements"),
    ("bytes for a list", shapes.list_of(shapes.UINT64, 3), b"\x01", "up to 3 elements"),
    ("text for a transaction", shapes.raw_transaction(), LEGACY.hex(), "not a byte string"),
    ("a transaction too short", shapes.raw_transaction(), LEGACY[:-1], "ends early"),
    ("a typed transaction without its string", shapes.raw_transaction(), b"\x02\xc0", "no typed transaction"),
    ("two transactions", shapes.raw_transaction(), LEGACY + TYPED, "exactly one item"),
    ("a string for an access list", shapes.raw_access_list(), b"\x01", "a string where"),
    ("an encoded empty string for no access list", shapes.raw_access_list(), b"\x80", "exactly one item"),
    ("another record", PAIR, Grown(1), "not a Pair"),
    ("a field that does not fit", PAIR, Pair(-1, ()), "Pair.number: not an integer"),
    ("a field after an absent one", GROWN, Grown(1, None, 3), "Grown.third without second"),
    ("a lone field that does not fit", LONE, Lone((b"",) * 4), "Lone.words: not a list of up to 3"),
]


@pytest.mark.parametrize(("shape", "value", "why"), [case[1:] for case in UNWRITTEN], ids=[case[0] for case in UNWRITTEN])
def test_what_does_not_fit_is_not_written(shape: Shape, value: object, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        shape.write(value)


def test_lists_are_written_as_they_are_read_from_tuples_and_lists_alike() -> None:
    assert shapes.hash_list(2).write([HASH]) == shapes.hash_list(2).write((HASH,))
    assert shapes.list_of(shapes.UINT64, 2).write([1]) == shapes.list_of(shapes.UINT64, 2).write((1,))


def test_a_field_without_a_shape_keeps_its_default() -> None:
    value = read(PAIR, [7, []])
    assert value == Pair(7, (), note="none")
    assert PAIR.write(Pair(7, (), note="some")) == oracle.encode([7, []])


def test_lists_on_all_levels_spend_one_budget() -> None:
    shape = shapes.list_of(shapes.list_of(shapes.UINT64, 9), 9)
    item = [[1, 2], [3], []]
    assert read(shape, item, max_elements=6) == ((1, 2), (3,), ())
    with pytest.raises(MessageError, match="more list elements than fit"):
        read(shape, item, max_elements=5)
    lists = shapes.list_of(shapes.hash_list(9), 9)
    assert read(lists, [[HASH], [HASH]], max_elements=4) == ((HASH,), (HASH,))
    with pytest.raises(MessageError, match="more list elements than fit"):
        read(lists, [[HASH], [HASH]], max_elements=3)


@given(data=st.binary(max_size=40), shape=st.sampled_from([pair[1] for pair in PAIRS]))
def test_any_bytes_are_either_refused_or_written_back_as_they_were(data: bytes, shape: Shape) -> None:
    try:
        value, end = shape.read(Source(data, 100), 0, len(data))
    except (RlpError, MessageError):
        return
    assert shape.write(value) == data[:end]
