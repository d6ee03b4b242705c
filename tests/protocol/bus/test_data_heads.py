"""A key of a head tells what a program's message is about; anything else is an error that names the keys."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus.data_heads import KEYS, NotUnderstoodError, Use, read_use


@pytest.mark.parametrize(("key", "use"), KEYS.items())
@pytest.mark.parametrize("value", ["1", "null", '"x"', "[]", '{"register": 1}'])
def test_a_key_tells_whatever_its_value(key: str, use: Use, value: str) -> None:
    assert read_use(f'{{"more": [1, {{"feed": 2}}], "{key}": {value}}}'.encode()) is use


def test_both_keys_of_one_use_are_one_use() -> None:
    assert read_use(b'{"register": [], "token": 5}') is Use.RESPONDER


@pytest.mark.parametrize(
    "head", [b"", b"[]", b"7", b"{}", b'{"credit": 1}', b'{"feed": 1, "token": 2}', b'{"feed": 1', b"\xff", b"[" * 5000]
)
def test_anything_else_is_an_error_that_names_the_keys(head: bytes) -> None:
    with pytest.raises(NotUnderstoodError, match="one of the keys register, token, feed, jsonrpc; got ") as caught:
        read_use(head)
    assert len(str(caught.value)) < 700


@given(head=st.binary(max_size=60))
def test_no_bytes_raise_anything_else(head: bytes) -> None:
    with suppress(NotUnderstoodError):
        read_use(head)
