"""What comes up a worker's stream, in any cut: reports and batches in one order, large ones where they stay."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus import control
from rlpx.protocol.bus.batches import Numbers
from rlpx.protocol.bus.control import CallId, Report, SessionId
from rlpx.protocol.bus.reports import (
    LARGE_BYTES,
    MESSAGE_MAX_BYTES,
    PEEK_BYTES,
    SCRATCH_BYTES,
    Published,
    ReportReader,
    encode_published,
)


def batch(number: int, wire: bytes) -> Published:
    """The batch of this number, of one event."""
    return Published("eth.Transactions", number, Numbers(number + 1, number + 1, 0), (), wire)


@given(
    sizes=st.lists(st.one_of(st.none(), st.integers(0, 300)), max_size=20),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=30),
)
def test_batches_and_reports_arrive_in_one_order_however_the_stream_is_cut(sizes: list[int | None], cuts: list[int]) -> None:
    said: list[Report | Published] = [
        control.InterestSet(number) if size is None else batch(number, bytes(size)) for number, size in enumerate(sizes)
    ]
    stream = b"".join(
        b"".join(encode_published(item)) if isinstance(item, Published) else control.encode(item) for item in said
    )
    decoder = ReportReader()
    heard: list[Report | Published] = []
    for cut in cuts:
        heard += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert heard + decoder.feed(stream) == said


def test_a_batch_says_whose_openings_or_ends_it_tells() -> None:
    published = Published("session.opened", 5, Numbers(3, 7, 1), (SessionId(4), SessionId(9)), b"")
    [heard] = ReportReader().feed(b"".join(encode_published(published)))
    assert isinstance(heard, Published)
    assert (heard, heard.count) == (published, 2)


def encoded(*said: Report | Published) -> bytes:
    """As a worker writes them."""
    parts = [encode_published(item) if isinstance(item, Published) else (control.encode(item),) for item in said]
    return b"".join(b"".join(part) for part in parts)


@pytest.mark.parametrize("size", [LARGE_BYTES - 100, LARGE_BYTES, SCRATCH_BYTES - 100, SCRATCH_BYTES, 3 * SCRATCH_BYTES])
@pytest.mark.parametrize("cut", [4, 1000, LARGE_BYTES, 200_000])
def test_what_is_large_arrives_between_what_is_small(size: int, cut: int) -> None:
    wire = bytes(range(256)) * (size // 256)
    said: list[Report | Published] = [
        control.InterestSet(1),
        batch(0, wire),
        control.InterestSet(2),
        batch(1, wire),
        control.InterestSet(3),
    ]
    stream, reader = encoded(*said), ReportReader()
    heard: list[Report | Published] = []
    for start in range(0, len(stream), cut):
        heard += reader.feed(stream[start : start + cut])
    assert heard == said


def test_a_large_report_is_one_like_any_other() -> None:
    snapshot = control.Snapshot(CallId(1), tuple(b"x" * 1000 for _ in range(500)))
    stream, reader = encoded(snapshot, control.InterestSet(1)), ReportReader()
    assert [*reader.feed(stream[:5000]), *reader.feed(stream[5000:])] == [snapshot, control.InterestSet(1)]


def test_a_large_batch_is_passed_on_where_it_was_read() -> None:
    wire = bytes(SCRATCH_BYTES)
    stream, reader = encoded(batch(0, wire)), ReportReader()
    reader.feed(stream[:-1])
    target = reader.buffer()
    assert len(target) == 1
    target[:] = stream[-1:]
    [published] = reader.received(1)
    assert isinstance(published, Published)
    assert isinstance(published.wire, memoryview)
    assert published.wire.readonly
    assert published.wire.obj is target.obj


def test_what_is_read_next_does_not_change_what_was_passed_on() -> None:
    reader = ReportReader()
    [first] = reader.feed(encoded(batch(0, b"aaaa")))
    reader.feed(encoded(batch(1, b"bbbb")))
    assert isinstance(first, Published)
    assert first.wire == b"aaaa"


def test_of_a_large_message_that_follows_another_only_the_beginning_is_copied() -> None:
    reader = ReportReader()
    assert len(reader.buffer()) == SCRATCH_BYTES
    for number in range(3):
        stream = encoded(batch(number, bytes(100_000)))
        heard = reader.feed(stream[:PEEK_BYTES])
        # All of it that is not there yet is read to its place.
        assert len(reader.buffer()) == len(stream) - PEEK_BYTES
        heard += reader.feed(stream[PEEK_BYTES:])
        assert heard == [batch(number, bytes(100_000))]
        assert len(reader.buffer()) == PEEK_BYTES
    reader.feed(encoded(control.InterestSet(1)))
    assert len(reader.buffer()) == SCRATCH_BYTES


def test_a_length_that_no_message_has_is_a_fault() -> None:
    with pytest.raises(msgspec.DecodeError, match=f"a message of {MESSAGE_MAX_BYTES + 5} bytes"):
        ReportReader().feed((MESSAGE_MAX_BYTES + 1).to_bytes(4, "big"))
