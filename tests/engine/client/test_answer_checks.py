"""An answer that does not fit its question is refused, and the error names the mistake."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import pytest
import rlp as oracle

from rlpx.engine.client.answer_checks import check_answer
from rlpx.protocol.errors import MessageError
from rlpx.protocol.eth import snap_messages
from rlpx.protocol.eth.chain import BlockBody, Header, Receipt, transaction_hash
from rlpx.protocol.eth.messages import (
    BlockAccessLists,
    BlockBodies,
    BlockHeaders,
    Cells,
    GetBlockAccessLists,
    GetBlockBodies,
    GetBlockHeaders,
    GetCells,
    GetNodeData,
    GetPooledTransactions,
    GetReceipts,
    GetReceipts70,
    HeadersQuery,
    NodeData,
    PooledTransactions,
    Receipts69,
    Receipts70,
)

A, B, C = (bytes([value]) * 32 for value in (0xA, 0xB, 0xC))
CELL = bytes(2048)


def chain(length: int) -> list[Header]:
    """Headers, each the child of the one before."""
    found: list[Header] = []
    parent = A
    for number in range(length):
        header = Header(
            parent, B, bytes(20), B, B, B, bytes(256), 0, number, 30_000_000, 0, number, b"", B, bytes(8), base_fee=7
        )
        found.append(header)
        parent = header.hash
    return found


CHAIN = chain(12)
FORKED = msgspec.structs.replace(CHAIN[4], extra_data=b"fork")


def headers(query: HeadersQuery, *numbers: int) -> tuple[GetBlockHeaders, BlockHeaders]:
    """A question, and the answer with these headers."""
    return GetBlockHeaders(7, query), BlockHeaders(7, tuple(CHAIN[number] for number in numbers))


def receipts(*gas: int) -> tuple[Receipt, ...]:
    """Receipts with these cumulative amounts of gas."""
    return tuple(Receipt(2, outcome=True, cumulative_gas=value, logs=()) for value in gas)


def mask(*cells: int) -> bytes:
    """The mask of these cells."""
    return sum(1 << cell for cell in cells).to_bytes(16, "little")


COMMITMENT = b"\xc0" * 48
VERSIONED = b"\x01" + sha256(COMMITMENT).digest()[1:]
FIELDS: list[Any] = [1, 0, 1, 2, 21000, bytes(20), 0, b"", [], 1, [VERSIONED], 0, 1, 1]
TYPED = oracle.encode(b"\x02" + oracle.encode([1, 2, 3]))
BLOB = oracle.encode(b"\x03" + oracle.encode([FIELDS, [b"blob"], [COMMITMENT], [bytes(48)]]))
LYING = oracle.encode(b"\x03" + oracle.encode([FIELDS, [b"blob"], [bytes(48)], [bytes(48)]]))
NAMES = tuple(map(transaction_hash, (TYPED, BLOB)))

RIGHT: list[tuple[Any, Any]] = [
    headers(HeadersQuery(start=3, limit=4), 3, 4, 5, 6),
    headers(HeadersQuery(start=3, limit=4), 3),
    headers(HeadersQuery(start=3, limit=4)),
    headers(HeadersQuery(start=CHAIN[3].hash, limit=4), 3, 4),
    headers(HeadersQuery(start=CHAIN[9].hash, limit=4, reverse=True), 9, 8, 7),
    headers(HeadersQuery(start=1, limit=4, skip=2), 1, 4, 7),
    headers(HeadersQuery(start=9, limit=4, skip=3, reverse=True), 9, 5, 1),
    (GetBlockBodies(7, (A, B)), BlockBodies(7, (BlockBody(()),) * 2)),
    (GetPooledTransactions(7, NAMES), PooledTransactions(7, (TYPED, BLOB))),
    (GetPooledTransactions(7, (A, *NAMES, C)), PooledTransactions(7, (BLOB,))),
    (GetNodeData(7, (A,)), NodeData(7, (b"node",))),
    (GetReceipts(7, (A, B)), Receipts69(7, (receipts(5, 6), receipts(1)))),
    (GetReceipts(7, (A, B)), Receipts69(7, (receipts(5, 6), ()))),
    (GetReceipts70(7, 5, (A,)), Receipts70(7, True, (receipts(6),))),
    (GetBlockAccessLists(7, (A, B)), BlockAccessLists(7, (b"", b"\xc0"))),
    (GetCells(7, (A, B, C), mask(0, 5)), Cells(7, (A, C), ((CELL,) * 4, (CELL,) * 2), mask(0, 5))),
    (GetCells(7, (A,), mask(0, 5)), Cells(7, (A,), ((CELL,),), mask(5))),
    (GetCells(7, (A,), mask(0)), Cells(7, (A,), ((),), mask())),
    (
        snap_messages.GetAccountRange(7, A, B, C, 1000),
        snap_messages.AccountRange(
            7, tuple(snap_messages.AccountData(name, snap_messages.SlimAccount(0, 0)) for name in (B, C))
        ),
    ),
    (
        snap_messages.GetStorageRanges(7, A, (B,), b"", b"", 1000),
        snap_messages.StorageRanges(7, ((snap_messages.StorageData(A, b"1"), snap_messages.StorageData(B, b"2")),)),
    ),
    (snap_messages.GetByteCodes(7, (A,), 1000), snap_messages.ByteCodes(7, (b"code",))),
    (
        snap_messages.GetTrieNodes(7, A, ((b"\x00",), (b"\x00", b"\x01", b"\x02")), 9),
        snap_messages.TrieNodes(7, (b"1",) * 3),
    ),
    (snap_messages.GetBlockAccessLists(7, (A,), 1000), snap_messages.BlockAccessLists(7, (b"\xc0",))),
]


@pytest.mark.parametrize(("question", "answer"), RIGHT)
def test_an_answer_that_fits_passes(question: Any, answer: Any) -> None:
    check_answer(question, answer)


WRONG: list[tuple[tuple[Any, Any], str]] = [
    (headers(HeadersQuery(start=3, limit=2), 3, 4, 5), "3 headers where 2 were asked for"),
    (headers(HeadersQuery(start=3, limit=4), 4, 5), "header 4 where 3 was asked for"),
    (headers(HeadersQuery(start=CHAIN[3].hash, limit=4), 4), "where 0x"),
    (headers(HeadersQuery(start=3, limit=4), 3, 5), "header 5 after 3 where steps of 1"),
    (headers(HeadersQuery(start=3, limit=4, reverse=True), 3, 4), "header 4 after 3 where steps of -1"),
    (headers(HeadersQuery(start=3, limit=4, skip=1), 3, 4), "header 4 after 3 where steps of 2"),
    (
        (GetBlockHeaders(7, HeadersQuery(start=3, limit=4)), BlockHeaders(7, (CHAIN[3], FORKED, CHAIN[5]))),
        "header 5 is no child of the 4 beside it",
    ),
    (
        (GetBlockHeaders(7, HeadersQuery(5, 4, reverse=True)), BlockHeaders(7, (CHAIN[5], FORKED))),
        "header 5 is no child of the 4 beside it",
    ),
    ((GetBlockBodies(7, (A,)), BlockBodies(7, (BlockBody(()),) * 2)), "2 bodies where 1 were asked for"),
    ((GetPooledTransactions(7, (A,)), PooledTransactions(7, (TYPED,))), "which was not asked for"),
    ((GetPooledTransactions(7, NAMES), PooledTransactions(7, (BLOB, TYPED))), "or not in this order"),
    ((GetPooledTransactions(7, NAMES), PooledTransactions(7, (TYPED, TYPED))), "or not in this order"),
    ((GetPooledTransactions(7, (transaction_hash(LYING),)), PooledTransactions(7, (LYING,))), "other blobs than it names"),
    ((GetNodeData(7, ()), NodeData(7, (b"node",))), "1 nodes where 0"),
    ((GetReceipts(7, (A,)), Receipts69(7, (receipts(1), receipts(1)))), "2 blocks of receipts where 1 were asked for"),
    ((GetReceipts(7, (A, B)), Receipts69(7, (receipts(1), receipts(5, 5)))), "block 1: receipt 1: 5 gas so far, after 5"),
    ((GetReceipts70(7, 0, (A,)), Receipts70(7, False, (receipts(0),))), "block 0: receipt 0: 0 gas so far, after 0"),
    ((GetBlockAccessLists(7, (A,)), BlockAccessLists(7, (b"",) * 2)), "2 block access lists where 1"),
    ((GetCells(7, (A,), mask(1)), Cells(7, (B,), ((CELL,),), mask(1))), "which was not asked for"),
    ((GetCells(7, (A,), mask(1)), Cells(7, (A,), ((CELL,),), mask(2))), "cells that were not asked for"),
    ((GetCells(7, (A,), mask(1, 2)), Cells(7, (A,), ((CELL,),), mask(1, 2))), "1 cells of transaction 0x0a"),
    ((GetCells(7, (A,), mask(1)), Cells(7, (A,), ((CELL,),), mask())), "1 cells of transaction 0x0a"),
    (
        (
            snap_messages.GetAccountRange(7, A, B, C, 1000),
            snap_messages.AccountRange(7, (snap_messages.AccountData(A, snap_messages.SlimAccount(0, 0)),)),
        ),
        "an account before the range",
    ),
    (
        (
            snap_messages.GetStorageRanges(7, A, (B,), b"", b"", 1000),
            snap_messages.StorageRanges(7, ((snap_messages.StorageData(A, b"1"), snap_messages.StorageData(A, b"2")),)),
        ),
        "slots that do not ascend",
    ),
    (
        (snap_messages.GetStorageRanges(7, A, (B,), b"", b"", 9), snap_messages.StorageRanges(7, ((), ()))),
        "2 accounts' slots where 1",
    ),
    ((snap_messages.GetByteCodes(7, (), 9), snap_messages.ByteCodes(7, (b"code",))), "1 codes where 0"),
    ((snap_messages.GetTrieNodes(7, A, ((b"\x00",),), 9), snap_messages.TrieNodes(7, (b"1",) * 2)), "2 nodes where 1"),
]


@pytest.mark.parametrize(("pair", "words"), WRONG)
def test_an_answer_that_does_not_fit_is_refused_with_what_is_wrong(pair: tuple[Any, Any], words: str) -> None:
    with pytest.raises(MessageError) as caught:
        check_answer(*pair)
    assert words in str(caught.value)
