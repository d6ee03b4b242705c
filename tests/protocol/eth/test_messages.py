"""Every eth message of every version: the published vectors, the `rlp` library as a second opinion, and what is refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import MessageError, RlpError, UsageError
from rlpx.protocol.eth import eth, messages
from rlpx.protocol.eth.chain import Block, BlockBody, BloomReceipt, Header, Log, Receipt, Withdrawal
from rlpx.protocol.eth.forkid import ForkId
from rlpx.protocol.eth.messages import EthMessage
from rlpx.protocol.eth.status import Status
from rlpx.protocol.eth.table import MAX_MESSAGE_BYTES, MessageRole
from tests.generated import examples
from tests.protocol.layouts import Fields, Growing, RawString, listed, raw, wrongs
from tests.vectors import load

VECTORS = load("eth_messages")
HASHES = tuple(bytes.fromhex(text) for text in VECTORS["hashes_used"])
MASK = bytes(range(16))

# What each version has on the wire, by id: written out by hand from `eth.md` and its history.
FIRST: dict[int, type] = {
    0x00: Status,
    0x01: messages.NewBlockHashes,
    0x02: messages.Transactions,
    0x03: messages.GetBlockHeaders,
    0x04: messages.BlockHeaders,
    0x05: messages.GetBlockBodies,
    0x06: messages.BlockBodies,
    0x07: messages.NewBlock,
    0x08: messages.NewPooledTransactionHashes66,
    0x09: messages.GetPooledTransactions,
    0x0A: messages.PooledTransactions,
    0x0F: messages.GetReceipts,
    0x10: messages.Receipts,
}
TYPED = FIRST | {0x08: messages.NewPooledTransactionHashes68}
RANGED = TYPED | {0x10: messages.Receipts69, 0x11: messages.BlockRangeUpdate}
PARTIAL = RANGED | {0x0F: messages.GetReceipts70, 0x10: messages.Receipts70}
LISTED = PARTIAL | {0x12: messages.GetBlockAccessLists, 0x13: messages.BlockAccessLists}
CELLED = LISTED | {0x08: messages.NewPooledTransactionHashes72, 0x14: messages.GetCells, 0x15: messages.Cells}
EXPECTED: dict[int, dict[int, type]] = {
    66: FIRST | {0x0D: messages.GetNodeData, 0x0E: messages.NodeData},
    67: FIRST,
    68: TYPED,
    69: RANGED,
    70: PARTIAL,
    71: LISTED,
    72: CELLED,
}


# -- an independent layout of each message ----------------------------------------------------------------------------------


def header_item(header: Header) -> Growing:
    return Growing(value for value in msgspec.structs.astuple(header) if value is not None)


def body_items(body: BlockBody | Block) -> list[Any]:
    items: list[Any] = [[raw(item) for item in body.transactions], [header_item(header) for header in body.ommers]]
    if body.withdrawals is not None:
        items.append([Fields(msgspec.structs.astuple(item)) for item in body.withdrawals])
    return items


def outcome_item(outcome: bool | bytes) -> Any:  # noqa: FBT001 - a field of receipts
    return outcome if isinstance(outcome, bytes) else int(outcome)


def log_items(logs: tuple[Log, ...]) -> list[Any]:
    return [Fields([log.address, list(log.topics), log.data]) for log in logs]


def receipt_item(receipt: Receipt) -> Fields:
    return Fields([receipt.type, outcome_item(receipt.outcome), receipt.cumulative_gas, log_items(receipt.logs)])


def bloom_receipt_item(receipt: BloomReceipt) -> Any:
    fields = Fields([outcome_item(receipt.outcome), receipt.cumulative_gas, receipt.bloom, log_items(receipt.logs)])
    return RawString(bytes([receipt.type]) + oracle.encode(fields)) if receipt.type else fields


def status_item(status: Status) -> Fields:
    fork = Fields([status.fork_id.hash, status.fork_id.next])
    if status.earliest is None:
        difficulty = status.total_difficulty
        return Fields([status.version, status.network_id, difficulty, status.head, status.genesis, fork])
    return Fields([status.version, status.network_id, status.genesis, fork, status.earliest, status.latest, status.head])


def query_item(query: messages.HeadersQuery) -> Fields:
    return Fields([query.start, query.limit, query.skip, int(query.reverse)])


LAYOUTS: dict[type, Callable[[Any], Any]] = {
    Status: status_item,
    messages.NewBlockHashes: lambda m: [Fields([block.hash, block.number]) for block in m.blocks],
    messages.Transactions: lambda m: [raw(item) for item in m.transactions],
    messages.GetBlockHeaders: lambda m: Fields([m.request_id, query_item(m.query)]),
    messages.BlockHeaders: lambda m: Fields([m.request_id, [header_item(header) for header in m.headers]]),
    messages.GetBlockBodies: lambda m: Fields([m.request_id, list(m.hashes)]),
    messages.BlockBodies: lambda m: Fields([m.request_id, [Growing(body_items(body)) for body in m.bodies]]),
    messages.NewBlock: lambda m: Fields([Growing([header_item(m.block.header), *body_items(m.block)]), m.total_difficulty]),
    messages.NewPooledTransactionHashes66: lambda m: list(m.hashes),
    messages.NewPooledTransactionHashes68: lambda m: Fields([m.types, list(m.sizes), list(m.hashes)]),
    messages.NewPooledTransactionHashes72: lambda m: Fields([m.types, list(m.sizes), list(m.hashes), m.mask or b""]),
    messages.GetPooledTransactions: lambda m: Fields([m.request_id, list(m.hashes)]),
    messages.PooledTransactions: lambda m: Fields([m.request_id, [raw(item) for item in m.transactions]]),
    messages.GetNodeData: lambda m: Fields([m.request_id, list(m.hashes)]),
    messages.NodeData: lambda m: Fields([m.request_id, list(m.nodes)]),
    messages.GetReceipts: lambda m: Fields([m.request_id, list(m.hashes)]),
    messages.GetReceipts70: lambda m: Fields([m.request_id, m.first_index, list(m.hashes)]),
    messages.Receipts: lambda m: Fields([m.request_id, [[bloom_receipt_item(r) for r in block] for block in m.blocks]]),
    messages.Receipts69: lambda m: Fields([m.request_id, [[receipt_item(r) for r in block] for block in m.blocks]]),
    messages.Receipts70: lambda m: Fields(
        [m.request_id, int(m.last_block_incomplete), [[receipt_item(r) for r in block] for block in m.blocks]]
    ),
    messages.BlockRangeUpdate: lambda m: Fields([m.earliest, m.latest, m.latest_hash]),
    messages.GetBlockAccessLists: lambda m: Fields([m.request_id, list(m.hashes)]),
    messages.BlockAccessLists: lambda m: Fields([m.request_id, [raw(item) for item in m.access_lists]]),
    messages.GetCells: lambda m: Fields([m.request_id, list(m.hashes), m.mask]),
    messages.Cells: lambda m: Fields([m.request_id, list(m.hashes), [list(group) for group in m.cells], m.mask]),
}


def layout(message: EthMessage) -> Any:
    return LAYOUTS[type(message)](message)


# -- messages of every kind -------------------------------------------------------------------------------------------------

U64 = st.integers(0, 2**64 - 1)
WORD = st.integers(0, 2**256 - 1)


def fixed(length: int) -> st.SearchStrategy[bytes]:
    """Byte strings of one length: random where that is cheap, of one value where it is not."""
    if length > 32:
        return st.binary(min_size=1, max_size=1).map(lambda value: value * length)
    return st.binary(min_size=length, max_size=length)


def several(strategy: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=most).map(tuple)


HASH = fixed(32)
LEGACY_TRANSACTION = st.lists(st.binary(max_size=40), min_size=9, max_size=9).map(oracle.encode)
TYPED_TRANSACTION = st.builds(
    lambda kind, data: oracle.encode(bytes([kind]) + data), st.integers(0, 0x7F), st.binary(min_size=1, max_size=70)
)
TRANSACTIONS = several(LEGACY_TRANSACTION | TYPED_TRANSACTION)
ACCESS_LISTS = several(st.just(b"") | st.lists(st.lists(st.binary(max_size=40), max_size=3), max_size=3).map(oracle.encode))
OUTCOME = st.booleans() | HASH
LOGS = several(st.builds(Log, fixed(20), several(HASH, 4), st.binary(max_size=60)), 2)
BY_FORK = [WORD, HASH, U64, U64, HASH, HASH, HASH, U64]
HEADER = st.integers(0, len(BY_FORK)).flatmap(
    lambda added: st.builds(
        Header,
        *[HASH, HASH, fixed(20), HASH, HASH, HASH, fixed(256), WORD, U64, U64, U64, U64],
        *[st.binary(max_size=40), HASH, fixed(8)],
        *BY_FORK[:added],
    )
)
WITHDRAWALS = st.none() | several(st.builds(Withdrawal, U64, U64, fixed(20), U64))
RANGE = st.lists(U64, min_size=2, max_size=2).map(sorted)
NOT_ZERO = HASH.filter(any)
FORK_ID = st.builds(ForkId, fixed(4), U64)


def announcements(struct: Callable[..., Any], *more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    size = st.integers(0, 2**32 - 1)
    entries = st.lists(st.tuples(st.integers(0, 255), size, HASH), max_size=4)

    def build(entries: list[tuple[int, int, bytes]], *values: Any) -> Any:
        types, sizes, hashes = zip(*entries, strict=True) if entries else ((), (), ())
        return struct(bytes(types), tuple(sizes), tuple(hashes), *values)

    return st.builds(build, entries, *more)


def cells() -> st.SearchStrategy[messages.Cells]:
    pairs = st.lists(st.tuples(HASH, several(fixed(2048), 2)), max_size=2)
    return st.builds(
        lambda request_id, pairs, mask: messages.Cells(
            request_id, tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs), mask
        ),
        *[U64, pairs, fixed(16)],
    )


ASKED = several(HASH, 5)
STRATEGIES: dict[type, st.SearchStrategy[Any]] = {
    messages.NewBlockHashes: st.builds(messages.NewBlockHashes, several(st.builds(messages.BlockHash, HASH, U64))),
    messages.Transactions: st.builds(messages.Transactions, TRANSACTIONS),
    messages.GetBlockHeaders: st.builds(
        messages.GetBlockHeaders, U64, st.builds(messages.HeadersQuery, U64 | HASH, U64, U64, st.booleans())
    ),
    messages.BlockHeaders: st.builds(messages.BlockHeaders, U64, several(HEADER)),
    messages.GetBlockBodies: st.builds(messages.GetBlockBodies, U64, ASKED),
    messages.BlockBodies: st.builds(
        messages.BlockBodies, U64, several(st.builds(BlockBody, TRANSACTIONS, several(HEADER, 2), WITHDRAWALS), 2)
    ),
    messages.NewBlock: st.builds(
        messages.NewBlock, st.builds(Block, HEADER, TRANSACTIONS, several(HEADER, 2), WITHDRAWALS), WORD
    ),
    messages.NewPooledTransactionHashes66: st.builds(messages.NewPooledTransactionHashes66, ASKED),
    messages.NewPooledTransactionHashes68: announcements(messages.NewPooledTransactionHashes68),
    messages.NewPooledTransactionHashes72: announcements(messages.NewPooledTransactionHashes72, st.none() | fixed(16)),
    messages.GetPooledTransactions: st.builds(messages.GetPooledTransactions, U64, ASKED),
    messages.PooledTransactions: st.builds(messages.PooledTransactions, U64, TRANSACTIONS),
    messages.GetNodeData: st.builds(messages.GetNodeData, U64, ASKED),
    messages.NodeData: st.builds(messages.NodeData, U64, several(st.binary(max_size=70))),
    messages.GetReceipts: st.builds(messages.GetReceipts, U64, ASKED),
    messages.GetReceipts70: st.builds(messages.GetReceipts70, U64, U64, ASKED),
    messages.Receipts: st.builds(
        messages.Receipts,
        U64,
        several(several(st.builds(BloomReceipt, OUTCOME, U64, fixed(256), LOGS, st.integers(0, 0x7F)), 2), 2),
    ),
    messages.Receipts69: st.builds(
        messages.Receipts69, U64, several(several(st.builds(Receipt, st.integers(0, 0x7F), OUTCOME, U64, LOGS)))
    ),
    messages.Receipts70: st.builds(
        messages.Receipts70,
        *[U64, st.booleans(), several(several(st.builds(Receipt, st.integers(0, 0x7F), OUTCOME, U64, LOGS)))],
    ),
    messages.BlockRangeUpdate: st.builds(
        lambda bounds, latest: messages.BlockRangeUpdate(bounds[0], bounds[1], latest), RANGE, NOT_ZERO
    ),
    messages.GetBlockAccessLists: st.builds(messages.GetBlockAccessLists, U64, ASKED),
    messages.BlockAccessLists: st.builds(messages.BlockAccessLists, U64, ACCESS_LISTS),
    messages.GetCells: st.builds(messages.GetCells, U64, ASKED, fixed(16)),
    messages.Cells: cells(),
}


def statuses(version: int) -> st.SearchStrategy[Status]:
    """Statuses in the form of a version."""
    if version < 69:
        return st.builds(Status, st.just(version), U64, HASH, FORK_ID, HASH, total_difficulty=WORD)
    return st.builds(Status, st.just(version), U64, HASH, FORK_ID, HASH, earliest=U64, latest=U64)


def strategy_of(version: int, struct: type) -> st.SearchStrategy[Any]:
    return statuses(version) if struct is Status else STRATEGIES[struct]


KINDS = [(version, number, struct) for version, table in EXPECTED.items() for number, struct in table.items()]
KIND_NAMES = [f"eth{version}-{struct.__name__}" for version, _, struct in KINDS]
every_kind = pytest.mark.parametrize(("version", "number", "struct"), KINDS, ids=KIND_NAMES)
# Each Struct in the last version that has it, and a Status of both forms.
LAST = {(struct, struct is Status and version < 69): (version, number, struct) for version, number, struct in KINDS}
every_struct = pytest.mark.parametrize(
    ("version", "number", "struct"), LAST.values(), ids=[f"eth{row[0]}-{row[2].__name__}" for row in LAST.values()]
)

LEGACY = bytes.fromhex(VECTORS["transactions_used"][0])
TYPED_ONE = oracle.encode(b"\x02\xc0")
LOG = Log(b"\x33" * 20, HASHES, b"data of a log")
[HEADERS] = [case for case in VECTORS["go_ethereum_TestMessages"] if case["name"] == "BlockHeadersPacket"]
OLD_HEADER = messages.decode(69, 4, bytes.fromhex(HEADERS["rlp"])).headers[0]  # type: ignore[union-attr]  # BlockHeaders
NEW_HEADER = msgspec.structs.replace(
    OLD_HEADER,
    base_fee=7,
    withdrawals_root=HASHES[0],
    blob_gas_used=131072,
    excess_blob_gas=9,
    parent_beacon_root=HASHES[0],
    requests_hash=HASHES[0],
    block_access_list_hash=HASHES[0],
    slot_number=77,
)
BODY = ((LEGACY, TYPED_ONE), (OLD_HEADER,), (Withdrawal(1, 2, b"\x55" * 20, 3),))
ROOTED = Receipt(0, HASHES[0], 21000, (LOG,))
PASSED = Receipt(2, outcome=True, cumulative_gas=42000, logs=())
ANNOUNCED = (b"\x00\x03", (100, 2**32 - 1), HASHES)
FORK = ForkId(b"\x01\x02\x03\x04", 9)

# One of each, with everything in it. No byte string of a free length has the length of a fixed one.
SAMPLES: list[EthMessage] = [
    messages.NewBlockHashes((messages.BlockHash(HASHES[0], 5), messages.BlockHash(HASHES[1], 6))),
    messages.Transactions((LEGACY, TYPED_ONE)),
    messages.GetBlockHeaders(1111, messages.HeadersQuery(HASHES[0], 5, 2**64 - 1, reverse=True)),
    messages.BlockHeaders(1111, (OLD_HEADER, NEW_HEADER)),
    messages.GetBlockBodies(1111, HASHES),
    messages.BlockBodies(1111, (BlockBody(*BODY), BlockBody(()))),
    messages.NewBlock(Block(NEW_HEADER, *BODY), 2**200),
    messages.NewPooledTransactionHashes66(HASHES),
    messages.NewPooledTransactionHashes68(*ANNOUNCED),
    messages.NewPooledTransactionHashes72(*ANNOUNCED, MASK),
    messages.GetPooledTransactions(1111, HASHES),
    messages.PooledTransactions(1111, (TYPED_ONE, LEGACY)),
    messages.GetNodeData(1111, HASHES),
    messages.NodeData(1111, (b"a node", b"")),
    messages.GetReceipts(1111, HASHES),
    messages.GetReceipts70(1111, 7, HASHES),
    messages.Receipts(
        1111,
        (
            (
                BloomReceipt(HASHES[0], 21000, b"\x44" * 256, (LOG,)),
                BloomReceipt(outcome=False, cumulative_gas=9, bloom=b"\x44" * 256, logs=(LOG,), type=3),
            ),
            (),
        ),
    ),
    messages.Receipts69(1111, ((ROOTED, PASSED), ())),
    messages.Receipts70(1111, last_block_incomplete=True, blocks=((ROOTED, PASSED), ())),
    messages.BlockRangeUpdate(590, 600, HASHES[0]),
    messages.GetBlockAccessLists(1111, HASHES),
    messages.BlockAccessLists(1111, (b"", b"\xc0", oracle.encode([[b"\x55" * 20, [], []]]))),
    messages.GetCells(1111, HASHES, MASK),
    messages.Cells(1111, HASHES, ((b"\x66" * 2048, b"\x77" * 2048), ()), MASK),
]


def sample(version: int, struct: type) -> EthMessage:
    if struct is not Status:
        [message] = [message for message in SAMPLES if type(message) is struct]
        return message
    if version < 69:
        return Status(version, 300, HASHES[0], FORK, HASHES[1], total_difficulty=2**100)
    return Status(version, 300, HASHES[0], FORK, HASHES[1], earliest=5, latest=500)


def refuses(version: int, number: int, payload: bytes, why: str | None = None) -> None:
    with pytest.raises((RlpError, MessageError), match=why):
        messages.decode(version, number, payload)


# -- the table --------------------------------------------------------------------------------------------------------------


def test_each_version_has_the_messages_of_its_specification_and_no_other() -> None:
    assert {version: dict(table) for version, table in messages.MESSAGES.items()} == EXPECTED
    for version, table in EXPECTED.items():
        for number in {*range(0x20), 0xFF, -1} - set(table):
            refuses(version, number, b"\xc0", f"eth/{version} has no message")


@every_kind
def test_a_message_knows_its_id_and_only_its_versions_write_it(version: int, number: int, struct: type) -> None:
    message = sample(version, struct)
    assert messages.id_of(version, message) == number
    for other in set(EXPECTED) - {version}:
        if struct in EXPECTED[other].values():
            assert messages.id_of(other, message) == number
        else:
            with pytest.raises(UsageError, match=f"eth/{other} has no {struct.__name__}"):
                messages.encode(other, message)


@pytest.mark.parametrize("version", [0, 65, 73])
def test_a_version_that_nobody_speaks_is_our_own_mistake(version: int) -> None:
    with pytest.raises(UsageError, match="not spoken here"):
        messages.decode(version, 0, b"\xc0")
    with pytest.raises(UsageError, match="not spoken here"):
        messages.encode(version, SAMPLES[0])


def test_requests_and_responses_carry_an_id_and_announcements_do_not() -> None:
    for row in eth.MESSAGES:
        for version in filter(row.is_in, eth.VERSIONS):
            fields = EXPECTED[version][row.id].__struct_fields__  # type: ignore[attr-defined]  # a Struct
            assert (fields[0] == "request_id") is (row.role is not MessageRole.ANNOUNCEMENT)


# -- published vectors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [69, 70, 71, 72])
@pytest.mark.parametrize("case", VECTORS["go_ethereum_TestMessages"], ids=lambda case: case["name"])
def test_go_ethereums_messages_are_read_and_written_byte_for_byte(case: dict[str, Any], version: int) -> None:
    payload = bytes.fromhex(case["rlp"])
    if case["code"] in {0x0F, 0x10} and version > 69:
        refuses(version, case["code"], payload)
        return
    message = messages.decode(version, case["code"], payload)
    assert messages.encode(version, message) == payload
    assert message.request_id == case["request_id"]  # type: ignore[union-attr]  # all of these have one
    assert payload == oracle.encode(layout(message))


def test_the_content_of_go_ethereums_messages() -> None:
    payloads = {case["name"]: bytes.fromhex(case["rlp"]) for case in VECTORS["go_ethereum_TestMessages"]}
    transactions = tuple(bytes.fromhex(text) for text in VECTORS["transactions_used"])
    assert messages.decode(72, 3, payloads["GetBlockHeadersPacket"]) == messages.GetBlockHeaders(
        1111, messages.HeadersQuery(9999, 5, 5)
    )
    assert messages.decode(72, 5, payloads["GetBlockBodiesPacket"]) == messages.GetBlockBodies(1111, HASHES)
    assert messages.decode(72, 10, payloads["PooledTransactionsPacket"]) == messages.PooledTransactions(1111, transactions)
    bodies = messages.decode(72, 6, payloads["BlockBodiesPacket"])
    assert bodies == messages.BlockBodies(1111, (BlockBody(transactions, (OLD_HEADER,)),))
    receipts = messages.decode(69, 16, payloads["ReceiptsPacket69"])
    assert isinstance(receipts, messages.Receipts69)
    first, second = receipts.blocks[0]
    assert (first.type, first.outcome, first.cumulative_gas) == (0, False, 333)
    assert (second.type, second.outcome, second.cumulative_gas) == (1, True, 444)
    assert first.logs[0].topics == (bytes(30) + b"\xde\xad", bytes(30) + b"\xbe\xef")


EMPTY: list[EthMessage] = [
    messages.GetBlockBodies(1111, ()),
    messages.BlockBodies(1111),
    messages.GetReceipts(1111, ()),
    messages.Receipts69(1111),
    messages.GetPooledTransactions(1111, ()),
    messages.PooledTransactions(1111),
    messages.BlockHeaders(1111),
]


@pytest.mark.parametrize("message", EMPTY, ids=lambda message: type(message).__name__)
def test_go_ethereums_empty_messages(message: EthMessage) -> None:
    vector = VECTORS["go_ethereum_TestEmptyMessages"]
    names = " ".join(vector["messages"])
    assert type(message).__name__.removesuffix("69") in names
    payload = bytes.fromhex(vector["rlp"])
    assert messages.encode(69, message) == payload
    assert messages.decode(69, messages.id_of(69, message), payload) == message


def test_a_query_for_headers_without_its_fields_is_refused() -> None:
    refuses(69, 3, bytes.fromhex(VECTORS["go_ethereum_TestEmptyMessages"]["rlp"]))


@pytest.mark.parametrize("case", VECTORS["get_block_headers_origin"][:4], ids=lambda case: case["rlp_query"][:8])
def test_a_query_starts_at_a_hash_or_a_number(case: dict[str, Any]) -> None:
    start = bytes.fromhex(case["hash"]) if "hash" in case else case["number"]
    query = messages.HeadersQuery(start, case.get("amount", 0), case.get("skip", 0), case.get("reverse", False))
    message = messages.GetBlockHeaders(1, query)
    payload = oracle.encode([1, oracle.decode(bytes.fromhex(case["rlp_query"]))])
    assert messages.encode(72, message) == payload
    assert messages.decode(72, 3, payload) == message


@pytest.mark.parametrize("case", VECTORS["reth_status"], ids=lambda case: f"eth{case['version']}-{case['network_id']}")
def test_reths_statuses(case: dict[str, Any]) -> None:
    payload, version = bytes.fromhex(case["rlp"]), case["version"]
    status = messages.decode(version, 0, payload)
    assert isinstance(status, Status)
    assert (status.version, status.network_id, status.genesis.hex()) == (version, case["network_id"], case["genesis"])
    assert messages.encode(version, status) == payload
    with pytest.raises(UsageError, match="not of eth/"):
        messages.encode(68 if version == 69 else 69, status)
    refuses(68 if version == 69 else 69, 0, payload)


@pytest.mark.parametrize("version", [68, 69, 70, 71])
@pytest.mark.parametrize("case", VECTORS["reth_new_pooled_transaction_hashes_eth68"], ids=lambda case: case["rlp"][:16])
def test_reths_announcements_of_eth68(case: dict[str, Any], version: int) -> None:
    payload = bytes.fromhex(case["rlp"])
    hashes = tuple(bytes.fromhex(text) for text in case["hashes"])
    message = messages.NewPooledTransactionHashes68(bytes(case["types"]), tuple(case["sizes"]), hashes)
    assert messages.decode(version, 8, payload) == message
    assert messages.encode(version, message) == payload
    refuses(72, 8, payload)


@pytest.mark.parametrize("case", VECTORS["reth_new_pooled_transaction_hashes_eth72"], ids=lambda case: case["rlp"])
def test_reths_announcements_of_eth72(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["rlp"])
    if "error" in case:
        refuses(72, 8, payload, "ends early")
        return
    mask = case["cell_mask"]
    message = messages.NewPooledTransactionHashes72(b"", (), (), None if mask is None else bytes.fromhex(mask))
    assert messages.decode(72, 8, payload) == message
    assert messages.encode(72, message) == payload


def test_reths_receipts_of_eth69() -> None:
    case = VECTORS["reth_receipts_eth69"]
    payload = bytes.fromhex(case["rlp"])
    message = messages.decode(69, 16, payload)
    assert isinstance(message, messages.Receipts69)
    assert (message.request_id, len(message.blocks)) == (case["request_id"], case["blocks"])
    seen = [[r.type, r.outcome, r.cumulative_gas, len(r.logs)] for r in message.blocks[0]]
    assert seen == case["receipts_type_status_cumulative_nlogs"]
    assert messages.encode(69, message) == payload


# EIP-2481's receipts, as reth tests them: with a bloom of zeros.
RECEIPTS_OF_EIP_2481 = bytes.fromhex(
    "f90172820457f9016cf90169f901668001b90100" + "00" * 256 + "f85ff85d940000000000000000000000000000000000000011f842"
    "a0000000000000000000000000000000000000000000000000000000000000deada0000000000000000000000000000000000000000000000000"
    "000000000000beef830100ff"
)


@pytest.mark.parametrize("version", [66, 67, 68])
def test_the_receipts_of_eip_2481(version: int) -> None:
    topics = (bytes(30) + b"\xde\xad", bytes(30) + b"\xbe\xef")
    log = Log(bytes(19) + b"\x11", topics, b"\x01\x00\xff")
    receipt = BloomReceipt(outcome=False, cumulative_gas=1, bloom=bytes(256), logs=(log,))
    message = messages.Receipts(1111, ((receipt,),))
    assert messages.decode(version, 16, RECEIPTS_OF_EIP_2481) == message
    assert messages.encode(version, message) == RECEIPTS_OF_EIP_2481


def test_reths_request_pair() -> None:
    good, bad = VECTORS["reth_request_pair"]
    payload = bytes.fromhex(good["rlp"])
    message = messages.NodeData(good["request_id"], tuple(bytes([value]) for value in good["bytes_list"]))
    assert messages.decode(66, 14, payload) == message
    assert messages.encode(66, message) == payload
    refuses(66, 14, bytes.fromhex(bad["rlp"]), "ends early")


@pytest.mark.parametrize("case", VECTORS["reth_decode_errors"], ids=lambda case: case["wire"])
def test_what_reth_cannot_decode(case: dict[str, Any]) -> None:
    wire = bytes.fromhex(case["wire"])
    for version in EXPECTED:
        refuses(version, wire[0], wire[1:])


RECEIPT = Receipt(0, outcome=False, cumulative_gas=0, logs=())
LATEST = bytes.fromhex("44e3809c9a3cda717f00aea3a9da336d149612c8d5657fbc0028176ef8d94d2a")
EXAMPLES: dict[str, tuple[int, EthMessage | None]] = {
    "GetReceipts eth/70 id 1111 first index 0": (70, messages.GetReceipts70(1111, 0, HASHES)),
    "GetReceipts eth/70 id 66 first index 55": (70, messages.GetReceipts70(66, 55, HASHES[:1])),
    "Receipts eth/70 id 7 incomplete, one empty-ish receipt": (
        70,
        messages.Receipts70(7, last_block_incomplete=True, blocks=((RECEIPT,),)),
    ),
    "Receipts eth/70 id 7 complete, none": (70, messages.Receipts70(7)),
    "BlockRangeUpdate 590..600": (69, messages.BlockRangeUpdate(590, 600, LATEST)),
    "BlockRangeUpdate invalid 10..8": (69, None),
    "GetBlockAccessLists eth/71 id 42 two hashes": (71, messages.GetBlockAccessLists(42, HASHES)),
    "BlockAccessLists eth/71 id 42 two missing": (71, messages.BlockAccessLists(42, (b"", b""))),
    "NewPooledTransactionHashes eth/72 zero mask (16 zero bytes)": (72, messages.NewPooledTransactionHashes72(b"", (), ())),
}


@pytest.mark.parametrize("case", VECTORS["computed_layout_examples"], ids=lambda case: case["name"])
def test_the_computed_layouts_of_later_versions(case: dict[str, Any]) -> None:
    since, message = EXAMPLES[case["name"]]
    payload = bytes.fromhex(case["rlp"])
    for version in range(since, 73):
        if message is None:
            refuses(version, case["code"], payload, "from 10 back to 8")
        else:
            assert messages.decode(version, case["code"], payload) == message
            assert messages.encode(version, message) == payload


# -- a second opinion -------------------------------------------------------------------------------------------------------


@every_struct
@examples(40)
@given(data=st.data())
def test_a_message_is_written_as_the_library_encodes_its_layout(
    version: int, number: int, struct: type, data: st.DataObject
) -> None:
    message = data.draw(strategy_of(version, struct))
    payload = oracle.encode(layout(message))
    assert messages.encode(version, message) == payload
    assert messages.decode(version, number, payload) == message
    behind = data.draw(st.binary(max_size=3))
    assert messages.decode(version, number, payload + behind) == message


@every_struct
def test_a_message_cut_off_at_any_byte_is_refused(version: int, number: int, struct: type) -> None:
    payload = messages.encode(version, sample(version, struct))
    for length in range(len(payload)):
        refuses(version, number, payload[:length])


@every_struct
def test_a_message_with_anything_of_the_wrong_shape_in_it_is_refused(version: int, number: int, struct: type) -> None:
    message = sample(version, struct)
    assert messages.decode(version, number, oracle.encode(layout(message))) == message
    count = 0
    for wrong in wrongs(layout(message)):
        refuses(version, number, oracle.encode(wrong))
        count += 1
    assert count > 1


@every_struct
@examples(40)
@given(data=st.data())
def test_a_message_with_some_bytes_changed_is_refused_or_is_another_of_the_same_bytes(
    version: int, number: int, struct: type, data: st.DataObject
) -> None:
    payload = bytearray(messages.encode(version, sample(version, struct)))
    for _ in range(data.draw(st.integers(1, 3))):
        # Lengths and ids are at the beginning.
        at = data.draw(st.integers(0, 12) | st.integers(0, len(payload) - 1))
        payload[min(at, len(payload) - 1)] = data.draw(st.integers(0, 255))
    same_or_refused(version, number, bytes(payload))


@given(version=st.sampled_from(sorted(EXPECTED)), number=st.integers(0, 0x16), payload=st.binary(max_size=60))
def test_any_bytes_are_refused_or_are_a_message_of_these_bytes(version: int, number: int, payload: bytes) -> None:
    same_or_refused(version, number, payload)


def same_or_refused(version: int, number: int, payload: bytes) -> None:
    try:
        message = messages.decode(version, number, payload)
    except (RlpError, MessageError):
        return
    assert payload.startswith(messages.encode(version, message))


# -- fields that belong together --------------------------------------------------------------------------------------------

ANNOUNCEMENTS: list[tuple[int, Callable[..., Any]]] = [
    (68, messages.NewPooledTransactionHashes68),
    (71, messages.NewPooledTransactionHashes68),
    (72, messages.NewPooledTransactionHashes72),
]


@pytest.mark.parametrize(("version", "struct"), ANNOUNCEMENTS)
@pytest.mark.parametrize("counts", [(1, 2, 2), (2, 1, 2), (2, 2, 1), (0, 0, 1), (3, 2, 1)])
def test_types_sizes_and_hashes_are_as_many(version: int, struct: Callable[..., Any], counts: tuple[int, int, int]) -> None:
    types, sizes, hashes = counts
    message = struct(b"\x02" * types, (100,) * sizes, HASHES[:1] * hashes)
    words = f"{types} types, {sizes} sizes and {hashes} hashes"
    refuses(version, 8, oracle.encode(layout(message)), words)
    with pytest.raises(UsageError, match=words):
        messages.encode(version, message)


def test_a_mask_is_sixteen_bytes_or_nothing() -> None:
    for length in (1, 15, 17, 32):
        refuses(72, 8, oracle.encode([b"", [], [], b"\x01" * length]))
    for length in (0, 15, 17):
        refuses(72, 20, oracle.encode([1, [], b"\x01" * length]))
        refuses(72, 21, oracle.encode([1, [], [], b"\x01" * length]))


def test_cells_come_in_a_group_for_each_hash() -> None:
    message = messages.Cells(1, HASHES, ((),), MASK)
    refuses(72, 21, oracle.encode(layout(message)), "1 transactions for 2 hashes")
    with pytest.raises(UsageError, match="1 transactions for 2 hashes"):
        messages.encode(72, message)


@pytest.mark.parametrize("message", [messages.BlockRangeUpdate(2, 1, HASHES[0]), messages.BlockRangeUpdate(1, 2, bytes(32))])
def test_a_range_is_not_reversed_and_its_hash_not_zero(message: messages.BlockRangeUpdate) -> None:
    refuses(69, 17, oracle.encode(layout(message)), "a block range")
    with pytest.raises(UsageError, match="a block range"):
        messages.encode(69, message)


def test_a_status_with_a_fork_id_of_other_fields_is_malformed() -> None:
    refuses(69, 0, oracle.encode([69, 1, HASHES[0], [b"\x01\x02\x03\x04"], 1, 2, HASHES[0]]), "a fork id of 1 fields")


def test_half_a_range_is_no_status_that_can_be_written() -> None:
    status = Status(69, 1, HASHES[0], FORK, HASHES[0], earliest=1)
    with pytest.raises(UsageError, match="not of eth/69's form"):
        messages.encode(69, status)


def test_the_flag_of_receipts_is_0_or_1() -> None:
    for flag in (2, b"\x00", 255, b"\x01\x00"):
        refuses(70, 16, oracle.encode([7, flag, []]), "neither 0 nor 1")


# -- bounds -----------------------------------------------------------------------------------------------------------------

MANY = b"\xa0" + HASHES[0]


@pytest.mark.parametrize(
    ("version", "number", "before", "item", "most"),
    [
        (66, 0x08, None, MANY, messages.MAX_ANNOUNCED_HASHES),
        (72, 0x02, None, TYPED_ONE, messages.MAX_TRANSACTIONS),
        (72, 0x01, None, listed(MANY + b"\x05"), messages.MAX_ASKED_HASHES),
        (72, 0x05, b"\x01", MANY, messages.MAX_ASKED_HASHES),
        (72, 0x09, b"\x01", MANY, messages.MAX_ASKED_HASHES),
        (72, 0x12, b"\x01", MANY, messages.MAX_ASKED_HASHES),
        (72, 0x0F, b"\x01\x80", MANY, messages.MAX_ASKED_HASHES),
        (72, 0x06, b"\x01", b"\xc2\xc0\xc0", messages.MAX_ANSWERED_ITEMS),
        (72, 0x0A, b"\x01", TYPED_ONE, messages.MAX_TRANSACTIONS),
        (72, 0x10, b"\x01\x80", b"\xc0", messages.MAX_ANSWERED_ITEMS),
        (72, 0x13, b"\x01", b"\x80", messages.MAX_ANSWERED_ITEMS),
        (66, 0x0E, b"\x01", b"\x80", messages.MAX_ANSWERED_ITEMS),
    ],
)
def test_a_list_has_its_most(version: int, number: int, before: bytes | None, item: bytes, most: int) -> None:
    for count in (most, most + 1):
        payload = listed(item * count) if before is None else listed(before + listed(item * count))
        if count == most:
            message = messages.decode(version, number, payload)
            assert messages.encode(version, message) == payload
        else:
            refuses(version, number, payload, "may stand")


def test_the_lists_of_a_message_share_one_budget() -> None:
    # Each body is within its own limits; together they have an element too many.
    per_body = messages.MAX_ELEMENTS // 4 - 1
    body = listed(listed(TYPED_ONE * per_body) + b"\xc0")
    decoded = messages.decode(72, 6, listed(b"\x01" + listed(body * 4)))
    assert isinstance(decoded, messages.BlockBodies)
    assert len(decoded.bodies) == 4
    refuses(72, 6, listed(b"\x01" + listed(body * 4 + b"\xc2\xc0\xc0")), "more list elements than fit the message")


def test_two_mebibytes_of_the_smallest_real_receipts_are_a_message() -> None:
    receipts = listed(oracle.encode([2, 1, 21000 * 50, []]) * 256) * 1024
    decoded = messages.decode(69, 16, listed(b"\x01" + listed(receipts)))
    assert isinstance(decoded, messages.Receipts69)
    assert sum(map(len, decoded.blocks)) == 1 << 18


def test_more_than_ten_mebibytes_are_refused_unread() -> None:
    refuses(72, 2, bytes(MAX_MESSAGE_BYTES + 1), "a message of 10485761 bytes")


SPACE = MAX_MESSAGE_BYTES - 64
SMALLEST = listed(b"\x80" * 9)
JUNK: dict[str, tuple[int, bytes]] = {
    "zeros": (2, bytes(SPACE)),
    "a deep nest": (2, b"\xc1" * SPACE),
    "lists for transactions": (2, listed(b"\xc0" * SPACE)),
    "the smallest transactions": (2, listed(SMALLEST * (SPACE // 10))),
    "lists for headers": (4, listed(b"\x01" + listed(b"\xc0" * SPACE))),
    "hashes": (5, listed(b"\x01" + listed(MANY * (SPACE // 33)))),
    "bytes for hashes": (5, listed(b"\x01" + listed(b"\x01" * SPACE))),
    "empty bodies": (6, listed(b"\x01" + listed(b"\xc2\xc0\xc0" * (SPACE // 3)))),
    "bodies of the smallest transactions": (
        6,
        listed(b"\x01" + listed(listed(listed(SMALLEST * 400) + b"\xc0") * (SPACE // 4007))),
    ),
    "sizes": (8, listed(b"\x80" + listed(b"\x01" * SPACE) + b"\xc0\x80")),
    "types": (8, listed(oracle.encode(b"\x02" * SPACE) + b"\xc0\xc0\x80")),
    "empty receipts": (16, listed(b"\x01\x80" + listed(b"\xc0" * SPACE))),
    "bytes for receipts": (16, listed(b"\x01\x80" + listed(listed(b"\x01" * SPACE)))),
    "absent access lists": (19, listed(b"\x01" + listed(b"\x80" * SPACE))),
    "empty groups of cells": (21, listed(b"\x01\xc0" + listed(b"\xc0" * SPACE))),
    "fields": (5, listed(b"\x01\xc0" * (SPACE // 2))),
}


@pytest.mark.parametrize("kind", JUNK)
def test_ten_mebibytes_of_junk_are_refused_before_much_is_built(kind: str) -> None:
    number, payload = JUNK[kind]
    assert len(payload) > SPACE - 8192
    tracemalloc.start()
    try:
        refuses(72, number, payload)
        # The payload's own bytes may be copied once, as a string or for a list's check; of elements little is kept.
        assert tracemalloc.get_traced_memory()[1] < 2 * SPACE
    finally:
        tracemalloc.stop()


def test_ten_mebibytes_of_the_smallest_receipts_are_refused() -> None:
    block = listed(b"\xc4\x80\x80\x80\xc0" * 65536)
    refuses(72, 16, listed(b"\x01\x80" + listed(block * 31)), "more list elements than fit the message")
