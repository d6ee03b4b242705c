"""Merged announcements say what each of them said, in order, within 4096 hashes; the typed decoder is the judge."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.eth.announcements import MAX_HASHES, merge
from rlpx.protocol.eth.messages import (
    NewPooledTransactionHashes66,
    NewPooledTransactionHashes68,
    NewPooledTransactionHashes72,
    decode,
    encode,
)

ANNOUNCEMENT = 8
hashes = st.lists(st.binary(min_size=32, max_size=32), max_size=5, unique=True)
Entry = tuple[int, int, bytes]
entries = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 1 << 20), st.binary(min_size=32, max_size=32)),
    max_size=5,
    unique_by=lambda entry: entry[2],
)
MASK = b"\x0f" * 16


def once(items: Iterable[Entry]) -> list[Entry]:
    """Each entry whose hash no earlier one has."""
    first: dict[bytes, Entry] = {}
    for item in items:
        first.setdefault(item[2], item)
    return list(first.values())


def typed(items: list[Entry]) -> NewPooledTransactionHashes68:
    """An announcement of types, sizes and hashes."""
    types, sizes, names = zip(*items, strict=True) if items else ((), (), ())
    return NewPooledTransactionHashes68(bytes(types), tuple(sizes), tuple(names))


@given(version=st.sampled_from([66, 67]), announced=st.lists(hashes, min_size=1, max_size=6))
def test_hashes_alone_are_put_one_behind_the_other(version: int, announced: list[list[bytes]]) -> None:
    payloads = [encode(version, NewPooledTransactionHashes66(tuple(items))) for items in announced]
    payload, taken = merge(version, payloads)
    assert taken == len(payloads)
    assert decode(version, ANNOUNCEMENT, payload) == NewPooledTransactionHashes66(tuple(dict.fromkeys(chain(*announced))))


@given(version=st.sampled_from([68, 69, 70, 71]), announced=st.lists(entries, min_size=1, max_size=6))
def test_types_and_sizes_stay_with_their_hashes(version: int, announced: list[list[Entry]]) -> None:
    payload, taken = merge(version, [encode(version, typed(items)) for items in announced])
    assert taken == len(announced)
    assert decode(version, ANNOUNCEMENT, payload) == typed(once(chain(*announced)))


def masked(items: list[Entry], mask: bytes | None) -> bytes:
    """The payload of an eth/72 announcement."""
    message = typed(items)
    return encode(72, NewPooledTransactionHashes72(message.types, message.sizes, message.hashes, mask))


@given(first=entries, second=entries, mask=st.sampled_from([MASK, bytes(16), None]))
def test_equal_masks_are_kept(first: list[Entry], second: list[Entry], mask: bytes) -> None:
    payload, taken = merge(72, [masked(first, mask), masked(second, mask)])
    assert (payload, taken) == (masked(once(first + second), mask), 2)


def test_masks_that_differ_are_not_merged() -> None:
    one, other = masked([(3, 1, bytes(32))], MASK), masked([(3, 2, bytes(32))], bytes(16))
    assert merge(72, [one, other, other]) == (one, 1)


@pytest.mark.parametrize("version", [66, 68, 72])
def test_no_more_are_merged_than_one_message_may_have(version: int) -> None:
    def half(first: int) -> bytes:
        items = [(2, 100, number.to_bytes(32, "big")) for number in range(first, first + MAX_HASHES // 2)]
        if version == 66:
            return encode(66, NewPooledTransactionHashes66(tuple(item[2] for item in items)))
        return encode(68, typed(items)) if version == 68 else masked(items, MASK)

    payload, taken = merge(version, [half(0), half(MAX_HASHES), half(0)])
    assert taken == 2
    decoded = decode(version, ANNOUNCEMENT, payload)
    assert isinstance(decoded, NewPooledTransactionHashes66 | NewPooledTransactionHashes68 | NewPooledTransactionHashes72)
    assert len(decoded.hashes) == MAX_HASHES
    assert merge(version, [payload, half(0)]) == (payload, 1)


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


def test_a_hash_is_named_once_as_it_was_first() -> None:
    a, b, c = (bytes([value]) * 32 for value in (0xA, 0xB, 0xC))
    first, second = [(2, 300, a), (3, 40, b)], [(1, 5, b), (0, 60_000, c), (7, 7, a), (1, 1, c)]
    kept = [(2, 300, a), (3, 40, b), (0, 60_000, c)]
    payload, taken = merge(68, [encode(68, typed(first)), encode(68, typed(second))])
    assert (taken, decode(68, ANNOUNCEMENT, payload)) == (2, typed(kept))
    payload, taken = merge(72, [masked(first, MASK), masked(second, MASK)])
    assert (taken, payload) == (2, masked(kept, MASK))
    alone = [encode(66, NewPooledTransactionHashes66((a, b))), encode(66, NewPooledTransactionHashes66((b, c, a)))]
    payload, taken = merge(66, alone)
    assert (taken, decode(66, ANNOUNCEMENT, payload)) == (2, NewPooledTransactionHashes66((a, b, c)))


@given(
    announced=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1 << 20), st.integers(0, 9)), max_size=6),
        min_size=2,
        max_size=5,
    )
)
def test_repeated_hashes_keep_their_first_type_and_size(announced: list[list[tuple[int, int, int]]]) -> None:
    named = [[(kind, size, bytes([name]) * 32) for kind, size, name in items] for items in announced]
    payload, _ = merge(70, [encode(70, typed(items)) for items in named])
    assert decode(70, ANNOUNCEMENT, payload) == typed(once(chain(*named)))


@pytest.mark.parametrize("sizes", [[], [1], [1, 2, 3], [1, [2]]])
def test_sizes_that_do_not_stand_beside_their_hashes_stop_the_merge(sizes: list[object]) -> None:
    hashes_of_two = [b"\x01" * 32, b"\x02" * 32]
    bad = oracle.encode([b"\x02\x02", sizes, hashes_of_two])
    good = encode(68, typed([(0, 1, b"\x03" * 32)]))
    assert merge(68, [good, bad]) == (good, 1)
    assert merge(68, [bad, good]) == (bad, 1)
