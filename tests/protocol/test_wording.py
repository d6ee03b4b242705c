"""What a person is told of a wrong value: its place, what is allowed, an example, and what was given."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from rlpx.engine.settings.settings import Settings
from rlpx.protocol.wording import Expected, WrongValueError, convert, expected_of, nearest, shortened, wrong

Few = Annotated[int, Meta(ge=1, le=3)]


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    few: Few = 2
    name: Annotated[str, Meta(pattern="^[a-z]+$", title="a name in lower case", examples=["ab"])] | None = None
    items: tuple[Few, ...] = ()


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    way: Literal["in", "out"] = "in"
    which: Annotated[str, Meta(min_length=1)] | Annotated[int, Meta(ge=0, le=127)] = 0


@pytest.mark.parametrize(
    ("value", "place", "words"),
    [
        ({"inner": {"few": 9}}, "inner.few", "expected a whole number from 1 to 3, for example 2; got 9"),
        ({"inner": {"few": None}}, "inner.few", "expected a whole number from 1 to 3, for example 2; got nothing"),
        ({"inner": {"few": [1]}}, "inner.few", "expected a whole number from 1 to 3, for example 2; got a list"),
        ({"inner": {"name": "A"}}, "inner.name", "expected a name in lower case, for example ab; got 'A'"),
        ({"inner": {"items": [1, {}]}}, "inner.items[1]", "expected a whole number from 1 to 3, for example 1; got a table"),
        ({"inner": {"items": 5}}, "inner.items", "expected a list, each a whole number from 1 to 3, for example 1; got 5"),
        ({"inner": {}, "way": "up"}, "way", "expected one of in, out, for example in; got 'up'"),
        (
            {"inner": {}, "which": -1},
            "which",
            "expected text of at least 1 character or a whole number from 0 to 127, for example 0; got -1",
        ),
        ({"inner": {"fw": 1}}, "inner.fw", "no such setting; did you mean few?"),
        ({"inner": 5}, "inner", "expected a table of settings; got 5"),
        ({}, "inner", "is missing: a table"),
        (5, "", "expected a table of settings; got 5"),
    ],
)
def test_the_place_is_named_and_what_belongs_there(value: Any, place: str, words: str) -> None:
    with pytest.raises(WrongValueError) as caught:
        convert(value, Outer)
    assert (caught.value.place, caught.value.reason) == (place, words)
    assert str(caught.value) == (f"{place}: {words}" if place else words)


def test_what_fits_is_converted() -> None:
    assert convert({"inner": {"few": 3, "items": [1]}}, Outer) == Outer(Inner(3, None, (1,)))
    assert convert("3", Few, strict=False) == 3


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (str, "text"),
        (Annotated[int, Meta(ge=1)], "a whole number, 1 or more"),
        (Annotated[float, Meta(gt=0)], "a number above 0"),
        (Annotated[float, Meta(gt=0, le=25)], "a number above 0 and up to 25"),
        (Annotated[int, Meta(ge=1024, le=1 << 32)], "a whole number from 1024 to 4294967296"),
        (Annotated[str, Meta(min_length=1, max_length=64)], "text of 1 to 64 characters"),
        (tuple[int, ...], "a list, each a whole number"),
        (list[str], "a list, each text"),
    ],
)
def test_a_type_in_words(kind: Any, words: str) -> None:
    assert expected_of(kind).text == words


def test_the_default_is_the_example() -> None:
    assert expected_of(tuple[int, ...], (68, 69)).example == "68,69"
    assert expected_of(bool, False).example == "false"
    assert expected_of(int, 0).example == "0"


def test_why_it_is_wrong_comes_last() -> None:
    words = wrong("x", Expected("a port", "1"), "it is no number")
    assert words == "expected a port, for example 1; got 'x' (it is no number)"


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text())))
def test_whatever_was_given_is_shown_short_and_on_one_line(value: object) -> None:
    words = wrong(value, Expected("x"))
    assert words.isprintable()
    assert len(words) < 1000


def test_a_number_of_many_digits_is_not_written_out() -> None:
    assert wrong(10**100_000, Expected("x")) == "expected x; got a much larger number"


def test_no_words_of_msgspec_reach_a_person() -> None:
    values: tuple[Any, ...] = (
        {"workers": "x"},
        {"log": {"level": 1}},
        {"protocols": {"extra": ["X"]}},
        {"limits": []},
        {"x": 1},
    )
    for value in values:
        with pytest.raises(WrongValueError) as caught:
            convert(value, Settings)
        assert not any(word in str(caught.value) for word in ("`", "regex", "Expected", "Object", "enum", "int,", "str,"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("statu", "; did you mean status?"),
        ("sess", "; did you mean session or sessions?"),
        ("disconect", "; did you mean disconnect?"),
        ("qqqq", ""),
        ("", ""),
    ],
)
def test_the_nearest_names_are_offered(name: str, hint: str) -> None:
    assert nearest(name, ["status", "session", "sessions", "disconnect", "dial"]) == hint


def test_what_is_cut_says_so() -> None:
    assert shortened("a" * 9, 4) == "aaaa..."
    assert shortened("aaaa", 4) == "aaaa"


class Loose(msgspec.Struct):
    raw: msgspec.Raw
    switch: bool = False
    words: Annotated[list[str], Meta(max_length=1)] = []
    either: int | list[str] = 0


@pytest.mark.parametrize(
    ("value", "place", "words"),
    [
        ({"raw": {}, "switch": 5}, "switch", "expected true or false, for example false; got 5"),
        ({"raw": {}, "words": {}}, "words", "expected a list of 0 to 1 items, each text; got a table"),
        ({"raw": {}, "words": ["a", "b"]}, "words", "expected a list of 0 to 1 items, each text; got a list"),
        ({}, "raw", "is missing: a table"),
    ],
)
def test_a_struct_that_takes_other_fields_is_searched_for_its_own(value: Any, place: str, words: str) -> None:
    with pytest.raises(WrongValueError) as caught:
        convert({"unknown": 1, **value}, Loose)
    assert (caught.value.place, caught.value.reason) == (place, words)


class Needed(msgspec.Struct):
    """Fields of which nobody gives an example."""

    flags: list[bool]
    table: dict[str, int]

    def __post_init__(self) -> None:
        if not self.table:
            raise ValueError("the table is empty")


class Choices(msgspec.Struct):
    way: Literal["in", "out"]


class Either(msgspec.Struct):
    either: int | bool


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Choices, "way: is missing: one of in, out, for example in"),
        (Either, "either: is missing: a whole number or true or false, for example 1"),
    ],
)
def test_a_choice_that_is_missing_has_an_example(kind: type, text: str) -> None:
    with pytest.raises(WrongValueError) as caught:
        convert({}, kind)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"table": {"a": 1}}, "flags: is missing: a list, each true or false, for example true"),
        ({"flags": []}, "table: is missing: a table"),
        ({"flags": [], "table": {}}, "the table is empty"),
    ],
)
def test_what_is_needed_is_named_without_an_example_as_well(value: Any, text: str) -> None:
    with pytest.raises(WrongValueError) as caught:
        convert(value, Needed)
    assert str(caught.value) == text
