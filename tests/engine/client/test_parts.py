"""What is too long for one message leaves as several: in order, nothing twice, nothing left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.engine.client.forms import Announcement
from rlpx.engine.client.parts import MAX_TRANSACTIONS_BYTES, in_parts
from rlpx.protocol.eth.announcements import MAX_HASHES
from rlpx.protocol.eth.messages import (
    BlockRangeUpdate,
    NewPooledTransactionHashes66,
    NewPooledTransactionHashes68,
    NewPooledTransactionHashes72,
    PooledTransactions,
    Transactions,
)

MASK = b"\x01" * 16
COUNT = 2 * MAX_HASHES + 1
HASHES = tuple(number.to_bytes(32, "big") for number in range(COUNT))
TYPES = bytes(number % 4 for number in range(COUNT))
SIZES = tuple(range(COUNT))
SIZES_WITHOUT = tuple(range(1, COUNT + 1))


@pytest.mark.parametrize(
    "whole",
    [
        NewPooledTransactionHashes66(HASHES),
        NewPooledTransactionHashes68(TYPES, SIZES, HASHES),
        NewPooledTransactionHashes72(TYPES, SIZES, HASHES, MASK),
        Announcement(HASHES, TYPES, SIZES, SIZES_WITHOUT, MASK),
    ],
)
def test_an_announcement_is_split_at_the_limit_of_the_specification(whole: Any) -> None:
    parts: list[Any] = list(in_parts(whole))
    assert [len(part.hashes) for part in parts] == [MAX_HASHES, MAX_HASHES, 1]
    for name in set(whole.__struct_fields__) - {"mask"}:
        assert [entry for part in parts for entry in getattr(part, name)] == list(getattr(whole, name))
    assert {getattr(part, "mask", MASK) for part in parts} == {MASK}


@given(sizes=st.lists(st.integers(1, MAX_TRANSACTIONS_BYTES + 1000), max_size=12))
def test_transactions_are_packed_up_to_the_limit(sizes: list[int]) -> None:
    transactions = tuple(bytes([index]) * size for index, size in enumerate(sizes))
    packs: list[Any] = list(in_parts(Transactions(transactions)))
    assert sum((pack.transactions for pack in packs), ()) == transactions
    totals = [sum(map(len, pack.transactions)) for pack in packs]
    for pack, total in zip(packs, totals, strict=True):
        assert total <= MAX_TRANSACTIONS_BYTES or len(pack.transactions) == 1
    # No pack could have had the next one's first transaction as well.
    for total, after in zip(totals, packs[1:], strict=False):
        assert total + len(after.transactions[0]) > MAX_TRANSACTIONS_BYTES


@pytest.mark.parametrize(
    "message",
    [
        NewPooledTransactionHashes66(()),
        NewPooledTransactionHashes68(TYPES, SIZES[1:], HASHES),
        Transactions(()),
        # An answer is one message, however long.
        PooledTransactions(7, (bytes(MAX_TRANSACTIONS_BYTES), b"\x01")),
        BlockRangeUpdate(1, 2, bytes(32)),
    ],
)
def test_everything_else_is_one_message(message: Any) -> None:
    assert in_parts(message) == [message]
