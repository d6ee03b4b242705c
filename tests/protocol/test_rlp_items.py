"""Where an item lies in a buffer, for readers with a schema of their own: the `rlp` library says the same."""

from __future__ import annotations

import pytest
import rlp as library
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol import rlp
from rlpx.protocol.errors import RlpError

items = st.recursive(st.binary(max_size=70), lambda inner: st.lists(inner, max_size=6), max_leaves=20)


@given(item=items, before=st.binary(max_size=4), after=st.binary(max_size=4))
def test_an_item_is_found_where_it_lies(item: object, before: bytes, after: bytes) -> None:
    encoding = bytes(library.encode(item))
    _, kind, length, start = library.codec.consume_length_prefix(encoding, 0)
    data = before + encoding + after
    expected = (kind is list, len(before) + start, len(before) + start + length)
    assert rlp.bounds(data, len(before), len(before) + len(encoding)) == expected
    assert rlp.bounds(data, len(before), len(data)) == expected


@given(item=items, data=st.data())
def test_an_item_that_does_not_end_in_its_place_is_refused(item: object, data: st.DataObject) -> None:
    encoding = bytes(library.encode(item))
    stop = data.draw(st.integers(0, len(encoding) - 1))
    with pytest.raises(RlpError, match="ends early"):
        rlp.bounds(encoding, 0, stop)


@pytest.mark.parametrize(
    "data", ["8100", "817f", "b800", "b837", "b90038", "f800", "f837", "bf8000000000000000", "ff8000000000000000"]
)
def test_an_item_not_in_its_shortest_form_or_longer_than_the_data_is_refused(data: str) -> None:
    with pytest.raises(RlpError):
        rlp.bounds(bytes.fromhex(data) + bytes(60), 0, len(data) // 2 + 60)


def test_what_is_in_a_list_is_not_looked_at() -> None:
    assert rlp.bounds(bytes.fromhex("c28100"), 0, 3) == (True, 1, 3)
