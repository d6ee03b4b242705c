"""Headers, bodies, receipts: hashes that the world knows, each fork's fields, both forms of receipts."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import pytest
import rlp as oracle
from Crypto.Hash import keccak

from rlpx.protocol.errors import MessageError, RlpError, UsageError
from rlpx.protocol.eth.chain import (
    HEADER,
    BlockBody,
    BloomReceipt,
    Header,
    Log,
    Outcome,
    Receipt,
    Withdrawal,
    bloom_receipt,
    named_versioned_hashes,
    size_without_sidecar,
    transaction_envelope,
    transaction_hash,
    versioned_hashes,
    without_sidecar,
)
from rlpx.protocol.eth.schema import Shape, Source, record
from tests.vectors import load

VECTORS = load("eth_messages")
EMPTY_LIST_HASH = bytes.fromhex("1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347")
EMPTY_TRIE_HASH = bytes.fromhex("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421")
HASH = b"\x22" * 32

MAINNET_GENESIS = Header(
    parent_hash=bytes(32),
    ommers_hash=EMPTY_LIST_HASH,
    coinbase=bytes(20),
    state_root=bytes.fromhex("d7f8974fb5ac78d9ac099b9ad5018bedc2ce0a72dad1827a1709da30580f0544"),
    transactions_root=EMPTY_TRIE_HASH,
    receipts_root=EMPTY_TRIE_HASH,
    bloom=bytes(256),
    difficulty=0x400000000,
    number=0,
    gas_limit=5000,
    gas_used=0,
    time=0,
    extra_data=bytes.fromhex("11bbe8db4e347b4e8c937c1c8370e4b5ed33adb3db69cbdb7a38e1e50b1b82fa"),
    mix_digest=bytes(32),
    nonce=bytes.fromhex("0000000000000042"),
)
FORKS: dict[str, dict[str, Any]] = {
    "Frontier": {},
    "London": {"base_fee": 7},
    "Shanghai": {"withdrawals_root": HASH},
    "Cancun": {"blob_gas_used": 131072, "excess_blob_gas": 0, "parent_beacon_root": HASH},
    "Prague": {"requests_hash": HASH},
    "Amsterdam": {"block_access_list_hash": HASH, "slot_number": 2**64 - 1},
}
LOG = Log(b"\x33" * 20, (HASH, HASH), b"data")
LOG_ITEM = [b"\x33" * 20, [HASH, HASH], b"data"]
BLOOM = b"\x44" * 256

RECEIPT = record(Receipt)
BLOOM_RECEIPT = bloom_receipt()
BODY = record(BlockBody)


def read(shape: Shape, encoding: bytes) -> Any:
    """The value that fills the bytes."""
    value, end = shape.read(Source(encoding, 1000), 0, len(encoding))
    assert end == len(encoding)
    return value


def fields_of(header: Header) -> list[Any]:
    """The fields of a header as they stand in its list."""
    return [value for value in msgspec.structs.astuple(header) if value is not None]


def digest(data: bytes) -> bytes:
    """Keccak-256 by another library."""
    return keccak.new(digest_bits=256, data=data).digest()


# -- headers ----------------------------------------------------------------------------------------------------------------


def test_the_hash_of_mainnets_genesis_is_the_known_one() -> None:
    assert MAINNET_GENESIS.hash.hex() == "d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3"


def test_a_published_header_is_read_and_written_byte_for_byte() -> None:
    [vector] = [case for case in VECTORS["go_ethereum_TestMessages"] if case["name"] == "BlockHeadersPacket"]
    [item] = oracle.decode(bytes.fromhex(vector["rlp"]))[1]
    header = read(HEADER, oracle.encode(item))
    assert (header.difficulty, header.number, header.gas_limit, header.gas_used) == (2222, 3333, 4444, 5555)
    assert (header.time, header.extra_data, header.base_fee) == (6666, bytes.fromhex("7788"), None)
    assert header.hash == digest(oracle.encode(item))


def headers_by_fork() -> list[tuple[str, Header]]:
    headers, header = [], MAINNET_GENESIS
    for fork, added in FORKS.items():
        header = msgspec.structs.replace(header, **added)
        headers.append((fork, header))
    return headers


@pytest.mark.parametrize(("fork", "header"), headers_by_fork())
def test_each_fork_added_to_the_end_of_the_header(fork: str, header: Header) -> None:
    encoding = oracle.encode(fields_of(header))
    assert HEADER.write(header) == encoding
    assert read(HEADER, encoding) == header
    assert header.hash == digest(encoding)
    expected = {"Frontier": 15, "London": 16, "Shanghai": 17, "Cancun": 20, "Prague": 21, "Amsterdam": 23}
    assert len(fields_of(header)) == expected[fork]


def test_no_fork_has_more_fields_or_fewer_than_the_first() -> None:
    fields = fields_of(headers_by_fork()[-1][1])
    with pytest.raises(MessageError, match="a Header of more than 23 fields"):
        read(HEADER, oracle.encode([*fields, b""]))
    with pytest.raises(RlpError):
        read(HEADER, oracle.encode(fields[:14]))


def test_a_field_of_a_fork_without_those_before_it_is_not_written() -> None:
    with pytest.raises(UsageError, match="requests_hash without base_fee"):
        _ = msgspec.structs.replace(MAINNET_GENESIS, requests_hash=HASH).hash


# -- bodies -----------------------------------------------------------------------------------------------------------------


def test_a_body_from_before_shanghai_has_no_withdrawals_and_one_from_after_has_a_list() -> None:
    transaction = oracle.encode(b"\x02\xc0")
    assert read(BODY, oracle.encode([[b"\x02\xc0"], []])) == BlockBody((transaction,))
    assert read(BODY, oracle.encode([[], [], []])) == BlockBody((), (), ())
    withdrawal = [1, 2, b"\x55" * 20, 4]
    assert read(BODY, oracle.encode([[], [], [withdrawal]])) == BlockBody((), (), (Withdrawal(1, 2, b"\x55" * 20, 4),))


def test_a_body_has_two_ommers_at_most() -> None:
    header = fields_of(MAINNET_GENESIS)
    assert read(BODY, oracle.encode([[], [header] * 2])) == BlockBody((), (MAINNET_GENESIS,) * 2)
    with pytest.raises(MessageError, match="more elements than the 2"):
        read(BODY, oracle.encode([[], [header] * 3]))


# -- receipts ---------------------------------------------------------------------------------------------------------------

OUTCOMES: list[tuple[Outcome, bytes]] = [(True, b"\x01"), (False, b""), (HASH, HASH)]


@pytest.mark.parametrize(("outcome", "item"), OUTCOMES)
@pytest.mark.parametrize("kind", [0, 2, 0x7F])
def test_a_receipt_without_bloom_is_a_list_of_its_type_and_the_rest(kind: int, outcome: Outcome, item: bytes) -> None:
    receipt = Receipt(kind, outcome, 21000, (LOG,))
    encoding = oracle.encode([kind, item, 21000, [LOG_ITEM]])
    assert RECEIPT.write(receipt) == encoding
    assert read(RECEIPT, encoding) == receipt


@pytest.mark.parametrize(("outcome", "item"), OUTCOMES)
def test_a_receipt_with_bloom_is_a_list_and_behind_a_type_a_string(outcome: Outcome, item: bytes) -> None:
    body = [item, 21000, BLOOM, [LOG_ITEM]]
    legacy = BloomReceipt(outcome, 21000, BLOOM, (LOG,))
    assert BLOOM_RECEIPT.write(legacy) == oracle.encode(body)
    assert read(BLOOM_RECEIPT, oracle.encode(body)) == legacy
    typed = msgspec.structs.replace(legacy, type=0x7F)
    encoding = oracle.encode(b"\x7f" + oracle.encode(body))
    assert BLOOM_RECEIPT.write(typed) == encoding
    assert read(BLOOM_RECEIPT, encoding) == typed


@pytest.mark.parametrize("status", [b"\x02", b"\x00", HASH[1:], HASH + b"\x01", []])
def test_a_receipt_with_neither_status_nor_root_is_refused(status: Any) -> None:
    for shape, item in ((RECEIPT, [0, status, 21000, []]), (BLOOM_RECEIPT, [status, 21000, BLOOM, []])):
        with pytest.raises((RlpError, MessageError)):
            read(shape, oracle.encode(item))


def test_a_receipt_of_a_type_that_cannot_be_is_refused() -> None:
    with pytest.raises(MessageError, match="128 where at most 127"):
        read(RECEIPT, oracle.encode([0x80, 1, 21000, []]))
    with pytest.raises(UsageError, match=r"Receipt\.type"):
        RECEIPT.write(Receipt(0x80, outcome=True, cumulative_gas=1, logs=()))
    for kind in (0x80, -1):
        with pytest.raises(UsageError, match="a receipt of type"):
            BLOOM_RECEIPT.write(BloomReceipt(True, 1, BLOOM, (), type=kind))


BODY_OF_RECEIPT = oracle.encode([b"", 1, BLOOM, []])


@pytest.mark.parametrize(
    ("string", "why"),
    [
        (b"", "no typed receipt"),
        (b"\x00" + BODY_OF_RECEIPT, "no typed receipt"),
        (b"\x80" + BODY_OF_RECEIPT, "no typed receipt"),
        (BODY_OF_RECEIPT, "no typed receipt"),
        (b"\x02", "ends early"),
        (b"\x02" + BODY_OF_RECEIPT[:-1], "ends early"),
        (b"\x02" + BODY_OF_RECEIPT + b"\x00", "bytes after a receipt"),
    ],
)
def test_a_string_that_is_no_typed_receipt_is_refused(string: bytes, why: str) -> None:
    with pytest.raises((RlpError, MessageError), match=why):
        read(BLOOM_RECEIPT, oracle.encode(string))


def test_a_log_has_four_topics_at_most() -> None:
    assert read(RECEIPT, oracle.encode([0, 1, 1, [[bytes(20), [HASH] * 4, b""]]])).logs[0].topics == (HASH,) * 4
    with pytest.raises(MessageError, match="5 hashes where 4"):
        read(RECEIPT, oracle.encode([0, 1, 1, [[bytes(20), [HASH] * 5, b""]]]))


# -- transactions -----------------------------------------------------------------------------------------------------------

# Block 46147 holds the first transaction of mainnet.
FIRST_TRANSACTION = bytes.fromhex(
    "f86780862d79883d2000825208945df9b87991262f6ba471f09758cde1c0fc1de734827a69801ca0"
    "88ff6cf0fefd94db46111149ae4bfc179e9b94721fffd821d38d16464b3f71d0a045e0aff800961cfce805daef7016b9b675c137a6a41a548f7b60a3484c06a33a"
)


def test_the_hash_of_mainnets_first_transaction_is_the_known_one() -> None:
    expected = "5c504ed432cb51138bcf09aa5e8a410dd4a1e204ef84bfed1be16dfba1b22060"
    assert transaction_hash(FIRST_TRANSACTION).hex() == expected
    assert transaction_envelope(FIRST_TRANSACTION) == FIRST_TRANSACTION


@pytest.mark.parametrize("size", [2, 55, 56, 1000])
def test_a_typed_transaction_is_hashed_without_the_string_around_it(size: int) -> None:
    envelope = b"\x02" + b"\xc0" * (size - 1)
    assert transaction_envelope(oracle.encode(envelope)) == envelope
    assert transaction_hash(oracle.encode(envelope)) == digest(envelope)


COMMITMENTS = [b"\xc0" + bytes([value]) * 47 for value in (1, 2)]
VERSIONED = tuple(b"\x01" + sha256(commitment).digest()[1:] for commitment in COMMITMENTS)
BLOB_FIELDS: list[Any] = [1, 0, 1, 2, 21000, bytes(20), 0, b"", [], 1, list(VERSIONED), 0, 1, 1]
BARE_BLOB = b"\x03" + oracle.encode(BLOB_FIELDS)
# EIP-4844; EIP-7594; and as eth/72 has it, without the blobs.
SIDECARS = {
    "EIP-4844": [[bytes(131072)] * 2, COMMITMENTS, [bytes(48)] * 2],
    "EIP-7594": [1, [bytes(131072)] * 2, COMMITMENTS, [bytes(48)] * 256],
    "no blobs": [1, [], COMMITMENTS, [bytes(48)] * 256],
    "none at all": [[], [], []],
}


@pytest.mark.parametrize("sidecar", SIDECARS.values(), ids=SIDECARS)
def test_a_pooled_blob_transaction_is_hashed_without_its_sidecar(sidecar: list[Any]) -> None:
    pooled = oracle.encode(b"\x03" + oracle.encode([BLOB_FIELDS, *sidecar]))
    bare = oracle.encode(BARE_BLOB)
    assert transaction_hash(pooled) == transaction_hash(bare) == digest(BARE_BLOB)
    assert without_sidecar(pooled) == without_sidecar(bare) == BARE_BLOB
    assert size_without_sidecar(pooled) == size_without_sidecar(bare) == len(BARE_BLOB)
    assert named_versioned_hashes(pooled) == named_versioned_hashes(bare) == VERSIONED
    assert versioned_hashes(pooled) == (VERSIONED if COMMITMENTS in sidecar else ())
    assert versioned_hashes(bare) is None


def test_other_transactions_have_no_sidecar() -> None:
    for transaction in (FIRST_TRANSACTION, oracle.encode(b"\x02" + oracle.encode([[1], 2]))):
        assert versioned_hashes(transaction) is None
        assert named_versioned_hashes(transaction) == ()
        assert without_sidecar(transaction) == transaction_envelope(transaction)


@pytest.mark.parametrize(
    ("envelope", "words"),
    [
        (b"\x03\x80", "a string where a list belongs"),
        (b"\x03", "ends early"),
        (b"\x03" + oracle.encode([BLOB_FIELDS]), "a sidecar without commitments"),
        (b"\x03" + oracle.encode([BLOB_FIELDS, 1, [], []][:3]), "a sidecar without commitments"),
        (b"\x03" + oracle.encode([BLOB_FIELDS, [], b"", []]), "a string where a list belongs"),
        (b"\x03" + oracle.encode([BLOB_FIELDS, [], [bytes(47)], []]), "something else than 48 bytes"),
        (b"\x03" + oracle.encode([BLOB_FIELDS, [], [[bytes(48)]], []]), "something else than 48 bytes"),
    ],
)
def test_a_malformed_sidecar_is_refused(envelope: bytes, words: str) -> None:
    with pytest.raises(RlpError, match=words):
        versioned_hashes(oracle.encode(envelope))


def test_a_blob_transaction_that_names_no_blobs_is_refused() -> None:
    with pytest.raises(RlpError, match="without the hashes of its blobs"):
        named_versioned_hashes(oracle.encode(b"\x03" + oracle.encode([1, 2, 3])))


def test_half_a_transaction_has_no_hash() -> None:
    with pytest.raises(RlpError):
        transaction_hash(FIRST_TRANSACTION[:-1])
