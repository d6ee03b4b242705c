"""Merged announcements say what each of them said, in order, within 4096 hashes; the typed decoder is the judge."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.announcements import MAX_HASHES, merge
from protocol.eth_messages import (
    NewPooledTransactionHashes66,
    NewPooledTransactionHashes68,
    NewPooledTransactionHashes72,
    decode,
    encode,
)

repeatable = settings(derandomize=True, deadline=None)
ANNOUNCEMENT = 8
hashes = st.lists(st.binary(min_size=32, max_size=32), max_size=5)
Entry = tuple[int, int, bytes]
entries = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1 << 20), st.binary(min_size=32, max_size=32)), max_size=5)
MASK = b"\x0f" * 16


def typed(items: list[Entry]) -> NewPooledTransactionHashes68:
    """An announcement of types, sizes and hashes."""
    types, sizes, names = zip(*items, strict=True) if items else ((), (), ())
    return NewPooledTransactionHashes68(bytes(types), tuple(sizes), tuple(names))


@repeatable
@given(version=st.sampled_from([66, 67]), announced=st.lists(hashes, min_size=1, max_size=6))
def test_hashes_alone_are_put_one_behind_the_other(version: int, announced: list[list[bytes]]) -> None:
    payloads = [encode(version, NewPooledTransactionHashes66(tuple(items))) for items in announced]
    payload, taken = merge(version, payloads)
    assert taken == len(payloads)
    assert decode(version, ANNOUNCEMENT, payload) == NewPooledTransactionHashes66(tuple(chain(*announced)))


@repeatable
@given(version=st.sampled_from([68, 69, 70, 71]), announced=st.lists(entries, min_size=1, max_size=6))
def test_types_and_sizes_stay_with_their_hashes(version: int, announced: list[list[Entry]]) -> None:
    payload, taken = merge(version, [encode(version, typed(items)) for items in announced])
    assert taken == len(announced)
    assert decode(version, ANNOUNCEMENT, payload) == typed(list(chain(*announced)))


def masked(items: list[Entry], mask: bytes | None) -> bytes:
    """The payload of an eth/72 announcement."""
    message = typed(items)
    return encode(72, NewPooledTransactionHashes72(message.types, message.sizes, message.hashes, mask))


@repeatable
@given(first=entries, second=entries, mask=st.sampled_from([MASK, bytes(16), None]))
def test_equal_masks_are_kept(first: list[Entry], second: list[Entry], mask: bytes) -> None:
    payload, taken = merge(72, [masked(first, mask), masked(second, mask)])
    assert (payload, taken) == (masked(first + second, mask), 2)


def test_masks_that_differ_are_not_merged() -> None:
    one, other = masked([(3, 1, bytes(32))], MASK), masked([(3, 2, bytes(32))], bytes(16))
    assert merge(72, [one, other, other]) == (one, 1)


@pytest.mark.parametrize("version", [66, 68, 72])
def test_no_more_are_merged_than_one_message_may_have(version: int) -> None:
    items = [(2, 100, number.to_bytes(32, "big")) for number in range(MAX_HASHES // 2)]
    if version == 66:
        half = encode(66, NewPooledTransactionHashes66(tuple(item[2] for item in items)))
    else:
        half = encode(68, typed(items)) if version == 68 else masked(items, MASK)
    payload, taken = merge(version, [half, half, half])
    assert taken == 2
    decoded = decode(version, ANNOUNCEMENT, payload)
    assert isinstance(decoded, NewPooledTransactionHashes66 | NewPooledTransactionHashes68 | NewPooledTransactionHashes72)
    assert len(decoded.hashes) == MAX_HASHES
    assert merge(version, [payload, half]) == (payload, 1)


@pytest.mark.parametrize(
    ("version", "malformed"),
    [
        (66, b"\xc1\x01"),
        (66, b"\x80"),
        (68, b"\xc0"),
        (68, bytes.fromhex("c3c0c0c0")),
        (72, bytes.fromhex("c380c0c0")),
        (69, b""),
        # One type for two hashes, something behind the hashes, and a mask that is a list.
        (68, encode(68, typed([(2, 1, bytes(32))])).replace(b"\x02", b"\x80", 1)),
        (68, bytes.fromhex("c480c0c080")),
        (72, bytes.fromhex("c480c0c0c0")),
    ],
)
def test_what_is_malformed_is_left_as_it_is_and_stops_the_merge(version: int, malformed: bytes) -> None:
    good = {66: b"\xc0", 68: bytes.fromhex("c380c0c0"), 69: bytes.fromhex("c380c0c0"), 72: bytes.fromhex("c480c0c080")}
    assert merge(version, [malformed, good[version]]) == (malformed, 1)
    payload, taken = merge(version, [good[version], good[version], malformed])
    assert (payload, taken) == (good[version], 2)
