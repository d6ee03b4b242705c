"""Framing: whatever the cut, the same messages arrive, and what is incomplete waits."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus.framing import LENGTH_BYTES, StreamDecoder, encode


class Note(msgspec.Struct, frozen=True):
    text: str


def test_a_message_has_its_length_in_front() -> None:
    framed = encode(Note("ab"))
    assert int.from_bytes(framed[:LENGTH_BYTES], "big") == len(framed) - LENGTH_BYTES
    assert msgspec.msgpack.decode(framed[LENGTH_BYTES:], type=Note) == Note("ab")


@given(texts=st.lists(st.text(max_size=20), max_size=5), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_cutting_the_stream_changes_nothing(texts: list[str], cuts: list[int]) -> None:
    notes = [Note(text) for text in texts]
    stream = b"".join(map(encode, notes))
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    decoder = StreamDecoder(Note)
    found = [note for start, end in itertools.pairwise(places) for note in decoder.feed(stream[start:end])]
    assert found == notes


def test_what_is_none_of_the_messages_is_a_fault_of_ours() -> None:
    with pytest.raises(msgspec.DecodeError):
        StreamDecoder(Note).feed(encode(Note(""))[:LENGTH_BYTES] + b"\xc0" * 10)
