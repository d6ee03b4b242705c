"""What a tally takes it has checked and counted; Python and compiled code take the same."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.rlpx.p2p import deflate
from rlpx.protocol.rlpx.tally import CODES, PythonTally, Tally
from tests.generated import examples

CODE = 0x12
FRAME_LIMIT_BYTES = 100
LIMIT_BYTES = 300


class Made:
    """Which of the two tallies the tests of this file are run with; they are run with each."""

    by: type[PythonTally] = PythonTally


@pytest.fixture(scope="module", params=[PythonTally, Tally], ids=["python", "compiled"], autouse=True)
def made_by(request: pytest.FixtureRequest) -> type[PythonTally]:
    """Both do the same, word for word."""
    Made.by = request.param
    return Made.by


def zeros(count: int = 2 * CODES) -> array[int]:
    return array("Q", bytes(8 * count))


def counted(counters: array[int]) -> dict[int, tuple[int, int]]:
    """Messages and bytes by code."""
    return {code: (counters[code], counters[CODES + code]) for code in range(CODES) if counters[code]}


def test_what_it_takes_is_counted_by_code() -> None:
    counters = zeros()
    tally = Made.by(counters)
    tally.skip(CODE, FRAME_LIMIT_BYTES, LIMIT_BYTES)
    tally.skip(0xFF, FRAME_LIMIT_BYTES, LIMIT_BYTES)
    short, long = deflate(bytes(5)), deflate(bytes(300))
    assert tally.takes(bytes([CODE]) + short)
    assert tally.takes(bytes([CODE]) + long)
    assert tally.takes(b"\xff" + short)
    assert counted(counters) == {CODE: (2, 2 + len(short) + len(long)), 0xFF: (1, 1 + len(short))}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x13\x05",
        bytes([CODE]),
        bytes([CODE]) + b"\xad\x02",
        bytes([CODE]) + b"\xff" * 9,
        bytes([CODE]) + b"\xff\xff\xff\xff\x0f",
        bytes([CODE]) + b"\x80" * 5 + b"\x01",
        bytes([CODE]) + b"\x80" * 3,
        bytes([CODE]) + b"\x05" * FRAME_LIMIT_BYTES,
    ],
    ids=[
        "empty",
        "of another code",
        "without a length",
        "that inflates to one byte more",
        "whose length does not end",
        "that inflates to 4 GiB",
        "whose length has six bytes",
        "whose length is cut",
        "of one byte more",
    ],
)
def test_a_receiver_must_look_at_a_content(content: bytes) -> None:
    counters = zeros()
    tally = Made.by(counters)
    tally.skip(CODE, FRAME_LIMIT_BYTES, LIMIT_BYTES)
    assert not tally.takes(content)
    assert counted(counters) == {}


@pytest.mark.parametrize(
    "content",
    [
        bytes([CODE]) + b"\xac\x02",
        bytes([CODE]) + b"\x80\x80\x80\x80\x00",
        bytes([CODE]) + b"\x05" * (FRAME_LIMIT_BYTES - 1),
    ],
    ids=["that inflates to all that is allowed", "whose length has five bytes", "of all bytes that are allowed"],
)
def test_nobody_needs_to_look_at_a_content(content: bytes) -> None:
    counters = zeros()
    tally = Made.by(counters)
    tally.skip(CODE, FRAME_LIMIT_BYTES, LIMIT_BYTES)
    assert tally.takes(content)
    assert counted(counters) == {CODE: (1, len(content))}


def test_it_takes_nothing_before_it_is_told_nor_after_that_is_taken_back() -> None:
    tally = Made.by(zeros())
    content = bytes([CODE]) + deflate(bytes(5))
    assert not tally.takes(content)
    tally.skip(CODE, FRAME_LIMIT_BYTES, LIMIT_BYTES)
    assert tally.takes(content)
    tally.skip_nothing()
    assert not tally.takes(content)
    tally.skip(CODE, len(content) - 1, LIMIT_BYTES)
    assert not tally.takes(content)


def test_a_bound_may_have_32_bits() -> None:
    tally = Made.by(zeros())
    tally.skip(CODE, 0xFFFF_FFFF, 0xFFFF_FFFF)
    assert tally.takes(bytes([CODE]) + b"\xff\xff\xff\xff\x0f")
    assert not tally.takes(bytes([CODE]) + b"\xff\xff\xff\xff\x1f")


@pytest.mark.parametrize(
    "numbers", [(-1, 1, 1), (256, 1, 1), (1, -1, 1), (1, 1, 1 << 32), (1 << 70, 1, 1), (1, -(1 << 70), 1)]
)
def test_a_number_out_of_its_range_is_refused(numbers: tuple[int, int, int]) -> None:
    tally = Made.by(zeros())
    with pytest.raises(ValueError, match="a code is one byte, and a bound has 32 bits"):
        tally.skip(*numbers)


@pytest.mark.parametrize(
    "counters", [zeros(2 * CODES - 1), array("L", bytes(8 * 2 * CODES)), array("q", bytes(8 * 2 * CODES))]
)
def test_counters_of_another_form_are_refused(counters: array[int]) -> None:
    with pytest.raises(ValueError, match="the counters are 64-bit integers, two for each code"):
        Made.by(counters)


def test_compiled_code_takes_no_other_types() -> None:
    if Made.by is PythonTally:
        pytest.skip("the type checker looks after Python")
    unchecked: Any = Made.by
    tally = unchecked(zeros())
    calls: list[Callable[[], object]] = [
        partial(unchecked),
        partial(unchecked, 7),
        partial(unchecked, zeros(), more=1),
        partial(tally.skip, 1, 2),
        partial(tally.skip, "1", 2, 3),
        partial(tally.takes, bytearray(b"content")),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
    with pytest.raises(BufferError):
        unchecked(bytes(8 * 2 * CODES))


def test_counters_that_compiled_code_writes_to_stay_where_they_are() -> None:
    if Made.by is PythonTally:
        pytest.skip("Python looks them up each time")
    counters = zeros()
    tally = Made.by(counters)
    with pytest.raises(BufferError):
        counters.append(0)
    del tally
    counters.append(0)


@examples(400)
@given(
    bounds=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12), st.integers(0, 300)), max_size=6),
    contents=st.lists(st.builds(lambda code, rest: bytes([code]) + rest, st.integers(0, 6), st.binary(max_size=12))),
)
def test_whatever_comes_both_take_the_same(bounds: list[tuple[int, int, int]], contents: list[bytes]) -> None:
    counters = [zeros(), zeros()]
    tallies = [PythonTally(counters[0]), Tally(counters[1])]
    for tally in tallies:
        for bound in bounds:
            tally.skip(*bound)
    for content in contents:
        assert tallies[0].takes(content) is tallies[1].takes(content)
    assert counters[0] == counters[1]
