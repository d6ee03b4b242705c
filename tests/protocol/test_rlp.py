"""Only canonical and bounded RLP passes; the `rlp` library says what is canonical."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rlp as library
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol import rlp
from rlpx.protocol.errors import RlpError
from rlpx.protocol.native import NATIVE
from rlpx.protocol.rlp import MAX_DEPTH, MAX_ITEMS, Item
from tests.generated import examples
from tests.twins import WAYS, run_by


@pytest.fixture(scope="module", params=WAYS, autouse=True)
def made_by(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file is run with both decoders, which give the same."""
    yield from run_by(request.param, rlp, "bounds", "read")


strings = st.binary(max_size=70)
items = st.recursive(strings, lambda inner: st.lists(inner, max_size=6), max_leaves=20)
# Bytes near the borders of the five kinds, so that arbitrary input is often nearly right.
borders = st.sampled_from(
    [0x00, 0x01, 0x7F, 0x80, 0x81, 0x82, 0xB7, 0xB8, 0xB9, 0xBF, 0xC0, 0xC1, 0xC2, 0xC3, 0xF7, 0xF8, 0xFF]
)
nearly_right = st.lists(borders, max_size=12).map(bytes)

# Yellow Paper, appendix B, and the examples of the Ethereum wiki.
EXAMPLES: list[tuple[Any, str]] = [
    (b"", "80"),
    (b"\x00", "00"),
    (b"\x7f", "7f"),
    (b"\x80", "8180"),
    (b"dog", "83646f67"),
    ([b"cat", b"dog"], "c88363617483646f67"),
    ([], "c0"),
    ([[], [[]], [[], [[]]]], "c7c0c1c0c3c0c1c0"),
    (b"a" * 55, "b7" + "61" * 55),
    (b"a" * 56, "b838" + "61" * 56),
    (b"a" * 255, "b8ff" + "61" * 255),
    (b"a" * 256, "b90100" + "61" * 256),
    ([b"a"] * 55, "f7" + "61" * 55),
    ([b"a"] * 56, "f838" + "61" * 56),
]


def depth_of(item: Item) -> int:
    """How many lists stand around the deepest list, itself counted."""
    return 0 if isinstance(item, bytes) else 1 + max([depth_of(element) for element in item], default=0)


def nested(depth: int) -> bytes:
    """An empty list inside lists, `depth` of them in all."""
    encoding = b""
    for _ in range(depth):
        encoding = library.codec.length_prefix(len(encoding), 0xC0) + encoding
    return encoding


def agree(data: bytes) -> Item | None:
    """Both decoders take `data` for the same item, or both refuse it. Returns the item."""
    try:
        expected: Item = library.decode(data, strict=True)
    except library.exceptions.DecodingError:
        with pytest.raises(RlpError):
            rlp.decode(data)
        return None
    # The recursion of the library ends far above our depth: what it takes and we do not is too deep.
    if depth_of(expected) > MAX_DEPTH:
        with pytest.raises(RlpError, match="too deep"):
            rlp.decode(data)
        return None
    assert rlp.decode(data) == expected
    return expected


# --- encoding


@pytest.mark.parametrize(("item", "encoding"), EXAMPLES, ids=[encoding[:16] for _, encoding in EXAMPLES])
def test_the_examples_of_the_yellow_paper(item: Item, encoding: str) -> None:
    assert rlp.encode(item).hex() == encoding
    assert rlp.decode(bytes.fromhex(encoding)) == item


@given(item=items)
def test_an_item_is_encoded_as_the_library_does_and_comes_back(item: Item) -> None:
    encoding = rlp.encode(item)
    assert encoding == library.encode(item)
    assert rlp.decode(encoding) == library.decode(encoding, strict=True) == item


@given(number=st.integers(0, 2**300))
def test_an_integer_is_encoded_as_the_library_does_and_comes_back(number: int) -> None:
    encoding = rlp.encode(number)
    assert encoding == library.encode(number)
    assert rlp.as_uint(rlp.decode(encoding), max_bytes=38) == number


def test_tuples_and_integers_may_stand_inside_lists() -> None:
    assert rlp.encode((1, [b"\x80", (0, 256)])).hex() == "c901" + "c78180" + "c480820100"
    assert rlp.encode(()) == b"\xc0"


def test_a_negative_integer_has_no_encoding() -> None:
    with pytest.raises(OverflowError):
        rlp.encode(-1)


@pytest.mark.parametrize("length", [2**8 - 1, 2**8, 2**16 - 1, 2**16])
def test_long_payloads_have_the_shortest_length_of_length(length: int) -> None:
    for item in (b"x" * length, [b"x"] * length):
        encoding = rlp.encode(item)
        assert encoding == library.encode(item)
        assert rlp.decode(encoding, max_items=length + 1) == item


# --- what is refused


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ("", "ends early"),
        ("8100", "byte that is not written in its shortest form"),
        ("817f", "byte that is not written in its shortest form"),
        ("c2817f", "byte that is not written in its shortest form"),
        ("b800", "length that is not written"),
        ("b801ff", "length that is not written"),
        ("b837" + "61" * 55, "length that is not written"),
        ("b90038" + "61" * 56, "length that is not written"),
        ("b900ff" + "61" * 255, "length that is not written"),
        ("f800", "length that is not written"),
        ("f837" + "61" * 55, "length that is not written"),
        ("f90038" + "61" * 56, "length that is not written"),
        ("81", "ends early"),
        ("8261", "ends early"),
        ("b8", "ends early"),
        ("b838" + "61" * 55, "ends early"),
        ("b9ff", "ends early"),
        ("bf" + "ff" * 8, "ends early"),
        ("bf" + "ff" * 7, "ends early"),
        ("c1", "ends early"),
        ("f8", "ends early"),
        ("ff" + "ff" * 8, "ends early"),
        ("f838" + "61" * 55, "ends early"),
        # The inner item is longer than its list, though not than the input.
        ("c18261" + "62", "ends early"),
        ("c281" + "80" + "80", "bytes after"),
        ("c1b8" + "38" + "61" * 56, "ends early"),
        ("c3c36161" + "61", "ends early"),
        ("c000", "bytes after"),
        ("8000", "bytes after"),
        ("0000", "bytes after"),
        ("c0c0", "bytes after"),
    ],
)
def test_what_is_not_canonical_or_not_whole_is_refused(data: str, cause: str) -> None:
    with pytest.raises(RlpError, match=cause):
        rlp.decode(bytes.fromhex(data))
    with pytest.raises(library.exceptions.DecodingError):
        library.decode(bytes.fromhex(data), strict=True)


def test_every_input_of_two_bytes_is_judged_as_the_library_does() -> None:
    accepted = [pair for pair in itertools.product(range(256), repeat=2) if agree(bytes(pair)) is not None]
    # 81 and a byte from 80 on; c1 and any one-byte item: 00..7f, 80, c0.
    assert len(accepted) == 128 + 130


@given(data=st.binary(max_size=100) | nearly_right)
def test_arbitrary_bytes_are_judged_as_the_library_does(data: bytes) -> None:
    agree(data)


@given(item=items, change=st.tuples(st.integers(0), borders | st.integers(0, 255)))
def test_an_encoding_with_one_byte_changed_is_judged_as_the_library_does(item: Item, change: tuple[int, int]) -> None:
    encoding = bytearray(rlp.encode(item))
    at, value = change
    encoding[at % len(encoding)] = value
    agree(bytes(encoding))


@given(data=nearly_right)
def test_what_is_accepted_is_the_only_way_to_write_it(data: bytes) -> None:
    try:
        item, end = rlp.decode_prefix(data)
    except RlpError:
        return
    assert rlp.encode(item) == data[:end]


@given(item=items)
def test_every_truncation_is_refused(item: Item) -> None:
    encoding = rlp.encode(item)
    for end in range(len(encoding)):
        for decode in (rlp.decode, rlp.decode_prefix, rlp.decode_list):
            with pytest.raises(RlpError):
                decode(encoding[:end])


# --- prefixes


@given(item=items, rest=strings)
def test_a_prefix_ends_where_its_item_ends(item: Item, rest: bytes) -> None:
    encoding = rlp.encode(item)
    assert rlp.decode_prefix(encoding + rest) == (item, len(encoding))
    if rest:
        with pytest.raises(RlpError, match="bytes after"):
            rlp.decode(encoding + rest)


@given(content=st.lists(items, max_size=5), rest=strings)
def test_bytes_after_a_list_are_ignored(content: list[Item], rest: bytes) -> None:
    assert rlp.decode_list(rlp.encode(content) + rest) == content


def test_a_string_is_not_taken_for_a_list() -> None:
    with pytest.raises(RlpError, match="string where a list"):
        rlp.decode_list(b"\x83dog")


# --- bounds


def test_lists_may_nest_as_deep_as_the_bound_and_no_deeper() -> None:
    assert depth_of(rlp.decode(nested(MAX_DEPTH))) == MAX_DEPTH == 16
    with pytest.raises(RlpError, match="too deep"):
        rlp.decode(nested(MAX_DEPTH + 1))


def test_a_string_may_stand_in_the_deepest_list() -> None:
    item: Item = b"bottom"
    for _ in range(MAX_DEPTH):
        item = [item]
    assert rlp.decode(rlp.encode(item)) == item


def test_lists_far_too_deep_do_not_reach_pythons_recursion_limit() -> None:
    with pytest.raises(RlpError, match="too deep"):
        rlp.decode(nested(5000))


def test_siblings_do_not_add_to_the_depth() -> None:
    inner = rlp.decode(nested(MAX_DEPTH - 1))
    assert rlp.decode(rlp.encode([inner] * 40)) == [inner] * 40


@pytest.mark.parametrize("element", [b"", b"a", []], ids=["empty string", "byte", "empty list"])
def test_the_item_budget_counts_the_list_and_all_in_it(element: Item) -> None:
    encoding = rlp.encode([[element] * 4, [element] * 3])
    assert rlp.decode(encoding, max_items=10) == [[element] * 4, [element] * 3]
    for decode in (rlp.decode, rlp.decode_list, rlp.decode_prefix):
        decode(encoding, max_items=10)
        for budget in (0, 1, 9):
            with pytest.raises(RlpError, match="more RLP items"):
                decode(encoding, max_items=budget)


def test_the_budget_of_a_message_fits_4096_announced_hashes() -> None:
    assert MAX_ITEMS == 12_352
    hashes: list[Item] = [b"\x11" * 32] * 4096
    sizes: list[Item] = [b"\x02\x00"] * 4096
    types: list[Item] = [b"\x02"] * 4096
    assert rlp.decode(rlp.encode([types, sizes, hashes])) == [types, sizes, hashes]


def test_a_mebibyte_of_empty_lists_is_refused_when_its_budget_is_spent() -> None:
    flood = b"\xfa\x10\x00\x00" + b"\xc0" * 2**20
    with pytest.raises(RlpError, match="more RLP items"):
        rlp.decode(flood)
    # Nothing beyond the budget is looked at: b800 is not canonical, and it shows only where an item is still due.
    after = 4 + MAX_ITEMS - 1
    for at, cause in ((after, "more RLP items"), (after - 1, "length that is not written")):
        broken = bytearray(flood)
        broken[at : at + 2] = b"\xb8\x00"
        with pytest.raises(RlpError, match=cause):
            rlp.decode(bytes(broken))


# --- what a place insists on


def test_a_list_is_told_from_a_string() -> None:
    assert rlp.as_list([b"a", []]) == [b"a", []]
    with pytest.raises(RlpError, match="a string where a list belongs"):
        rlp.as_list(b"")
    assert rlp.as_bytes(b"ab") == b"ab"
    with pytest.raises(RlpError, match="a list where a string belongs"):
        rlp.as_bytes([])


@pytest.mark.parametrize("length", [0, 1, 32])
def test_a_string_has_the_length_of_its_place(length: int) -> None:
    assert rlp.as_bytes(b"x" * length, length) == b"x" * length
    with pytest.raises(RlpError, match=f"{length + 1} bytes where {length} belong"):
        rlp.as_bytes(b"x" * (length + 1), length)


def test_an_empty_string_is_not_taken_where_bytes_belong() -> None:
    with pytest.raises(RlpError, match="0 bytes where 32 belong"):
        rlp.as_bytes(b"", 32)


@given(number=st.integers(0, 2**64 - 1))
def test_an_integer_of_up_to_eight_bytes_is_taken(number: int) -> None:
    data = number.to_bytes(8, "big").lstrip(b"\0")
    assert rlp.as_uint(data) == library.sedes.big_endian_int.deserialize(data) == number


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x01", bytes(8), bytes(9)])
def test_an_integer_with_leading_zeros_is_refused(data: bytes) -> None:
    with pytest.raises(RlpError, match="leading zeros"):
        rlp.as_uint(data)
    with pytest.raises(library.exceptions.DeserializationError):
        library.sedes.big_endian_int.deserialize(data)


def test_an_integer_of_nine_bytes_is_refused_where_eight_fit() -> None:
    with pytest.raises(RlpError, match="9 bytes where 8 fit"):
        rlp.as_uint(b"\x01" + bytes(8))
    assert rlp.as_uint(b"\x01" + bytes(8), max_bytes=9) == 2**64
    with pytest.raises(RlpError, match="2 bytes where 1 fit"):
        rlp.as_uint(b"\x01\x00", max_bytes=1)


def test_a_list_is_no_integer() -> None:
    with pytest.raises(RlpError, match="a list where a string belongs"):
        rlp.as_uint([])


# --- request ids


@given(number=st.integers(0, 2**64 - 1), rest=st.lists(items, max_size=4), after=strings)
def test_the_request_id_is_read_without_decoding_the_rest(number: int, rest: list[Item], after: bytes) -> None:
    assert rlp.first_uint(bytes(library.encode([number, *rest])) + after) == number


def test_what_follows_the_request_id_is_not_looked_at() -> None:
    # The second element, 8100, is not canonical.
    assert rlp.first_uint(b"\xc3\x05\x81\x00") == 5


BROKEN_IDS = [
    ("", "ends early"),
    ("05", "a string where a list belongs"),
    ("80", "a string where a list belongs"),
    ("c0", "ends early"),
    ("c1c0", "a list where an integer belongs"),
    ("c100", "leading zeros"),
    ("c3820001", "leading zeros"),
    ("c28105", "shortest form"),
    ("ca89" + "01" * 9, "9 bytes where 8 fit"),
    ("c18205", "ends early"),
    ("c1820505", "ends early"),
    ("c205", "ends early"),
    ("f8", "ends early"),
    ("f80105", "shortest form"),
]


@pytest.mark.parametrize(("data", "cause"), BROKEN_IDS)
def test_a_broken_request_id_is_refused(data: str, cause: str) -> None:
    with pytest.raises(RlpError, match=cause):
        rlp.first_uint(bytes.fromhex(data))


@given(data=st.binary(max_size=40) | nearly_right)
def test_the_request_id_is_the_first_integer_of_the_decoded_list(data: bytes) -> None:
    try:
        number = rlp.first_uint(data)
    except RlpError:
        with pytest.raises(RlpError):
            rlp.as_uint([*rlp.decode_list(data), []][0])
        return
    try:
        fields = rlp.decode_list(data)
    except RlpError:
        return  # Something behind the id is broken.
    assert rlp.as_uint(fields[0]) == number


@given(old=items, number=st.integers(0, 2**64 - 1), rest=st.lists(items, max_size=4), after=strings)
def test_another_request_id_changes_nothing_else(old: Item, number: int, rest: list[Item], after: bytes) -> None:
    assert rlp.with_first(rlp.encode([old, *rest]) + after, number) == library.encode([number, *rest])


@pytest.mark.parametrize("length", [52, 53, 54, 55, 252, 253, 254, 255])
def test_another_request_id_may_need_a_longer_length(length: int) -> None:
    rest = [b"a"] * length
    for number in (0, 2**16, 2**64 - 1):
        changed = rlp.with_first(rlp.encode([2**32, *rest]), number)
        assert changed == library.encode([number, *rest])
        assert rlp.with_first(changed, 2**32) == rlp.encode([2**32, *rest])


def test_what_follows_a_replaced_request_id_is_not_looked_at() -> None:
    assert rlp.with_first(b"\xc3\x05\x81\x00", 6) == b"\xc3\x06\x81\x00"


BROKEN_FIRSTS = [
    (data, cause)
    for data, cause in BROKEN_IDS
    if "integer" not in cause and cause not in {"leading zeros", "9 bytes where 8 fit"}
]


@pytest.mark.parametrize(("data", "cause"), BROKEN_FIRSTS)
def test_a_broken_list_gets_no_other_request_id(data: str, cause: str) -> None:
    with pytest.raises(RlpError, match=cause):
        rlp.with_first(bytes.fromhex(data), 1)


# -- spans ----------------------------------------------------------------------------------------------------------------


def test_the_first_elements_are_found_without_decoding_them() -> None:
    data = rlp.encode([b"\x05", [b"abc", []], b"wxyz", b"more"])
    found = rlp.spans(data, 3)
    assert [is_list for is_list, _, _ in found] == [False, True, False]
    assert [data[start:end] for _, start, end in found] == [b"\x05", rlp.encode([b"abc", []])[1:], b"wxyz"]


@pytest.mark.parametrize("data", [rlp.encode([b"\x05"]), b"\x80", b"", rlp.encode([b"abc", b"def"])[:-1]])
def test_fewer_elements_than_asked_for_are_an_error(data: bytes) -> None:
    with pytest.raises(RlpError):
        rlp.spans(data, 2)


@given(item=st.lists(st.binary(max_size=80), max_size=8))
def test_joined_items_are_a_list(item: list[bytes]) -> None:
    assert rlp.join([library.encode(element) for element in item]) == library.encode(item)


@pytest.mark.parametrize("length", [0, 55, 56, 255, 256, 65535, 65536])
def test_the_length_of_a_list_is_written_in_its_shortest_form(length: int) -> None:
    assert rlp.join([b"\x01"] * length) == library.encode([b"\x01"] * length)


@given(item=st.lists(items, max_size=6), most=st.integers(0, 7))
def test_elements_are_given_as_they_are_encoded(item: list[Any], most: int) -> None:
    assert rlp.raw_elements(library.encode(item), most) == [library.encode(element) for element in item[:most]]


def test_what_follows_the_elements_is_not_looked_at() -> None:
    assert rlp.raw_elements(bytes.fromhex("c30181ff") + b"rest", 1) == [b"\x01"]


@pytest.mark.parametrize("data", [b"", b"\x80", bytes.fromhex("c281"), bytes.fromhex("c18100")])
def test_elements_of_no_list_or_a_broken_one_are_an_error(data: bytes) -> None:
    with pytest.raises(RlpError):
        rlp.raw_elements(data, 3)


# --- the two decoders side by side


def outcome_of(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except RlpError as error:
        return repr(error)


@examples(500)
@given(
    data=st.one_of(nearly_right, st.binary(max_size=80), items.map(rlp.encode)),
    most=st.integers(0, 8),
    start=st.integers(0, 9),
)
def test_whatever_comes_both_say_the_same(data: bytes, most: int, start: int) -> None:
    assert outcome_of(rlp.read, data, most) == outcome_of(rlp.python_read, data, most)
    for limit in range(len(data) + 1):
        assert outcome_of(rlp.bounds, data, start, limit) == outcome_of(rlp.python_bounds, data, start, limit)


@pytest.mark.parametrize("size", ["bf" + "ff" * 8, "ff" + "ff" * 8, "bf7fffffffffffffff", "ff8000000000000000"])
def test_a_length_beyond_every_machine_is_only_too_long(size: str) -> None:
    data = bytes.fromhex(size) + b"text"
    assert outcome_of(rlp.read, data, 9) == outcome_of(rlp.python_read, data, 9) == "RlpError('the RLP ends early')"


@pytest.mark.parametrize(
    "arguments", [(b"ab", 0, 3), (b"ab", -1, 2), (memoryview(b"ab"), 0, 2), (b"ab", 0), (b"ab", "0", 2)]
)
def test_compiled_code_looks_at_what_it_is_given(arguments: tuple[Any, ...]) -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    with pytest.raises((TypeError, IndexError)):
        NATIVE.rlp_bounds(*arguments)
    with pytest.raises(TypeError):
        NATIVE.rlp_read("text", 1)
    with pytest.raises(TypeError):
        NATIVE.rlp_read(b"")
