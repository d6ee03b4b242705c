"""One message in the form of each version."""

from __future__ import annotations

from typing import Any

import pytest
import rlp as oracle

from rlpx.engine.client.forms import Announcement, Forms, PooledTransaction, encode_for, in_version
from rlpx.protocol.errors import UsageError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.chain import BloomReceipt, Receipt
from rlpx.protocol.eth.messages import (
    BlockRangeUpdate,
    GetBlockBodies,
    GetReceipts,
    GetReceipts70,
    NewPooledTransactionHashes66,
    NewPooledTransactionHashes68,
    NewPooledTransactionHashes72,
    Receipts,
    Receipts69,
    Receipts70,
    Transactions,
)
from rlpx.protocol.eth.snap_messages import GetByteCodes
from tests.protocol.eth.test_chain import BARE_BLOB, BLOB_FIELDS, COMMITMENTS, VERSIONED

HASH = b"\x0a" * 32
LEGACY = oracle.encode([b""] * 9)
TYPED = oracle.encode(b"\x02" + oracle.encode([b""] * 12))
BLOOM = BloomReceipt(True, 21000, bytes(256), (), type=2)
BARE = Receipt(2, True, 21000, ())


def test_an_announcement_has_what_each_version_says() -> None:
    announcement = Announcement.of([LEGACY, TYPED])
    hashes = announcement.hashes
    sizes = (len(LEGACY), len(TYPED) - 1)
    assert announcement.in_version(66) == announcement.in_version(67) == NewPooledTransactionHashes66(hashes)
    assert announcement.in_version(71) == NewPooledTransactionHashes68(b"\x00\x02", sizes, hashes)
    assert announcement.in_version(72) == NewPooledTransactionHashes72(b"\x00\x02", sizes, hashes)
    forms = Forms.of(announcement)
    assert list(forms.payloads) == [f"eth/{version}" for version in eth.VERSIONS]
    assert eth_messages.decode(69, forms.message, forms.payloads["eth/69"]) == announcement.in_version(69)


# With its sidecar: a blob, its commitment, and the proof.
POOLED_BLOB = oracle.encode(b"\x03" + oracle.encode([BLOB_FIELDS, [bytes(1000)], COMMITMENTS, [bytes(48)]]))


def test_a_pooled_blob_transaction_has_two_sizes_and_the_hashes_of_its_blobs() -> None:
    pooled, bare = PooledTransaction(POOLED_BLOB), PooledTransaction(oracle.encode(BARE_BLOB))
    assert (pooled.type, pooled.hash) == (3, bare.hash)
    assert (bare.size, pooled.size_without_sidecar) == (len(BARE_BLOB), len(BARE_BLOB))
    assert pooled.size == len(oracle.decode(POOLED_BLOB))
    assert pooled.versioned_hashes == bare.versioned_hashes == pooled.sidecar_hashes == VERSIONED
    assert bare.sidecar_hashes is None
    assert (PooledTransaction(LEGACY).type, PooledTransaction(LEGACY).versioned_hashes) == (0, ())
    announcement = Announcement.of([POOLED_BLOB], mask=b"\xff" * 16)
    assert announcement.in_version(71) == NewPooledTransactionHashes68(b"\x03", (pooled.size,), (pooled.hash,))
    assert announcement.in_version(72) == NewPooledTransactionHashes72(
        b"\x03", (len(BARE_BLOB),), (pooled.hash,), b"\xff" * 16
    )


NEW68 = NewPooledTransactionHashes68(b"\x02", (100,), (HASH,))
NEW72 = NewPooledTransactionHashes72(b"\x02", (100,), (HASH,))
CUT = Receipts70(7, True, ((BARE,),))


@pytest.mark.parametrize(
    ("version", "message", "expected"),
    [
        (66, NEW68, NewPooledTransactionHashes66((HASH,))),
        (71, NEW68, NEW68),
        (72, NEW68, NEW72),
        (67, NEW72, NewPooledTransactionHashes66((HASH,))),
        (68, NEW72, NEW68),
        (72, NEW72, NEW72),
        (69, GetReceipts(7, (HASH,)), GetReceipts(7, (HASH,))),
        (70, GetReceipts(7, (HASH,)), GetReceipts70(7, 0, (HASH,))),
        (70, GetReceipts70(7, 3, (HASH,)), GetReceipts70(7, 3, (HASH,))),
        (69, GetReceipts70(7, 0, (HASH,)), GetReceipts(7, (HASH,))),
        (68, Receipts(7, ((BLOOM,),)), Receipts(7, ((BLOOM,),))),
        (69, Receipts(7, ((BLOOM,),)), Receipts69(7, ((BARE,),))),
        (72, Receipts(7, ((BLOOM,),)), Receipts70(7, False, ((BARE,),))),
        (70, Receipts69(7, ((BARE,),)), Receipts70(7, False, ((BARE,),))),
        (69, Receipts70(7, False, ((BARE,),)), Receipts69(7, ((BARE,),))),
        (70, CUT, CUT),
        (66, GetBlockBodies(7, (HASH,)), GetBlockBodies(7, (HASH,))),
        (2, GetByteCodes(7, (HASH,), 100), GetByteCodes(7, (HASH,), 100)),
    ],
)
def test_a_message_takes_the_form_of_the_version(version: int, message: Any, expected: Any) -> None:
    assert in_version(version, message) == expected
    capability = "snap" if isinstance(message, GetByteCodes) else "eth"
    assert encode_for(capability, version, message) == encode_for(capability, version, expected)


@pytest.mark.parametrize(
    ("version", "message", "words"),
    [
        (72, NewPooledTransactionHashes68(b"\x03", (100,), (HASH,)), "make an Announcement"),
        (68, NewPooledTransactionHashes72(b"\x03", (100,), (HASH,)), "make an Announcement"),
        (69, GetReceipts70(7, 3, (HASH,)), "no receipts from index 3 on"),
        (69, CUT, "no incomplete blocks"),
        (68, Receipts69(7, ((BARE,),)), "have blooms"),
    ],
)
def test_what_a_form_needs_and_a_message_lacks_is_not_invented(version: int, message: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        in_version(version, message)


def test_versions_without_a_message_are_left_out_and_those_with_another_form_are_not() -> None:
    head = BlockRangeUpdate(1, 2, HASH)
    assert list(Forms.of(head).payloads) == ["eth/69", "eth/70", "eth/71", "eth/72"]
    assert Forms.of(Transactions((LEGACY,))).payloads.keys() == {f"eth/{version}" for version in eth.VERSIONS}
    assert list(Forms.of(GetByteCodes(7, (HASH,), 100)).payloads) == ["snap/1", "snap/2"]
    with pytest.raises(UsageError, match="in the form of eth/68"):
        Forms.of(NewPooledTransactionHashes66((HASH,)))
