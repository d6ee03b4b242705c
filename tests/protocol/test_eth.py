"""Eth: Status in both forms, its checks in order, the table of messages, and answers that hold nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import msgspec
import pytest
import rlp as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import eth, rlp
from protocol.capabilities import SubProtocol
from protocol.errors import DisconnectReason, ForkIdError, MessageError, PeerError, RlpError, StatusError
from protocol.eth import Head, LocalChain, Role, Status
from protocol.forkid import Chain, ForkId, Forks
from protocol.p2p import Capability
from tests.vectors import load

repeatable = settings(derandomize=True, deadline=None)

VECTORS = load("eth_messages")
STATUSES = VECTORS["reth_status"]
EXAMPLES = {example["name"]: example for example in VECTORS["computed_layout_examples"]}
HASHES = [bytes.fromhex(text) for text in VECTORS["hashes_used"]]
U64 = st.integers(0, 2**64 - 1)
HASH = st.binary(min_size=32, max_size=32)

GENESIS = b"\xab" * 32
HEAD_HASH = b"\xcd" * 32
# Head 12 at second 150: one fork by block and one by time are passed, one by time is to come.
FORKS = Forks(Chain("mine", 1, GENESIS.hex(), fork_blocks=(10,), fork_times=(100, 200)))
CHAIN = LocalChain(7, GENESIS, FORKS, Head(12, HEAD_HASH, time=150, earliest=3, total_difficulty="123"))
# The clock is asked only where the head has no time of its own.
WALL_SECONDS = 10**9

ids_of_statuses = [f"eth{case['version']}-network{case['network_id']}" for case in STATUSES]


def status_of(case: dict[str, Any]) -> Status:
    """A Status as a vector describes it."""
    fork_id = ForkId(bytes.fromhex(case["fork_hash"]), case["fork_next"])
    genesis = bytes.fromhex(case["genesis"])
    if case["layout"] == "pre69":
        head = bytes.fromhex(case["head"])
        return Status(case["version"], case["network_id"], genesis, fork_id, head, int(case["total_difficulty"]))
    head = bytes.fromhex(case["latest_hash"])
    return Status(
        case["version"], case["network_id"], genesis, fork_id, head, earliest=case["earliest"], latest=case["latest"]
    )


# -- Status -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", STATUSES, ids=ids_of_statuses)
def test_a_published_status_is_read_and_written_byte_for_byte(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["rlp"])
    assert eth.decode_status(payload, case["version"]) == status_of(case)
    assert status_of(case).encode() == payload


@pytest.mark.parametrize("case", STATUSES, ids=ids_of_statuses)
def test_a_status_in_the_other_form_is_refused(case: dict[str, Any]) -> None:
    version = 69 if case["layout"] == "pre69" else 68
    with pytest.raises(MessageError, match=f"not eth/{version}'s form"):
        eth.decode_status(bytes.fromhex(case["rlp"]), version)


@pytest.mark.parametrize("case", STATUSES, ids=ids_of_statuses)
def test_bytes_after_a_status_are_ignored_and_elements_are_not(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["rlp"])
    assert eth.decode_status(payload + b"\xff\x00", case["version"]) == status_of(case)
    fields = oracle.decode(payload)
    for wrong in ([*fields, b""], fields[:-1], []):
        with pytest.raises(MessageError, match=f"a Status of {len(wrong)} fields"):
            eth.decode_status(oracle.encode(wrong), case["version"])


@pytest.mark.parametrize("case", STATUSES, ids=ids_of_statuses)
def test_a_status_cut_anywhere_is_refused(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["rlp"])
    for cut in range(len(payload)):
        with pytest.raises(RlpError):
            eth.decode_status(payload[:cut], case["version"])


@pytest.mark.parametrize("case", [STATUSES[0], STATUSES[1]], ids=ids_of_statuses[:2])
def test_a_status_with_a_field_of_the_wrong_kind_or_length_is_refused(case: dict[str, Any]) -> None:
    fields = oracle.decode(bytes.fromhex(case["rlp"]))
    for place, field in enumerate(fields):
        # A hash has 32 bytes and a difficulty up to 32, so that 33 fit no place; a fork id alone is a list.
        for wrong in ([b""] if isinstance(field, bytes) else b"", b"\x01" * 33, b"\x00" + b"\x01" * 8):
            with pytest.raises(PeerError):
                eth.decode_status(oracle.encode([*fields[:place], wrong, *fields[place + 1 :]]), case["version"])


@pytest.mark.parametrize("payload", ["", "80", "83010203", "c0", "c1c0"])
def test_what_is_no_status_at_all_is_refused(payload: str) -> None:
    for version in eth.VERSIONS:
        with pytest.raises((RlpError, MessageError)):
            eth.decode_status(bytes.fromhex(payload), version)


def test_a_status_of_a_thousand_items_is_not_even_built() -> None:
    with pytest.raises(RlpError, match="more RLP items"):
        eth.decode_status(b"\xf9\x03\xe8" + b"\xc0" * 1000, 69)


legacy_statuses = st.builds(
    Status, U64, U64, HASH, st.builds(ForkId, st.binary(min_size=4, max_size=4), U64), HASH, st.integers(0, 2**256 - 1)
)
range_statuses = st.builds(
    Status,
    U64,
    U64,
    HASH,
    st.builds(ForkId, st.binary(min_size=4, max_size=4), U64),
    HASH,
    earliest=U64,
    latest=U64,
)


@repeatable
@given(status=legacy_statuses, version=st.sampled_from([66, 67, 68]))
def test_a_status_before_eth_69_is_what_the_rlp_library_writes_and_reads_back(status: Status, version: int) -> None:
    fork_id = [status.fork_id.hash, status.fork_id.next]
    assert status.encode() == oracle.encode(
        [status.version, status.network_id, status.total_difficulty, status.head, status.genesis, fork_id]
    )
    assert eth.decode_status(status.encode(), version) == status


@repeatable
@given(status=range_statuses, version=st.sampled_from([69, 70, 71, 72]))
def test_a_status_from_eth_69_on_is_what_the_rlp_library_writes_and_reads_back(status: Status, version: int) -> None:
    fork_id = [status.fork_id.hash, status.fork_id.next]
    assert status.encode() == oracle.encode(
        [status.version, status.network_id, status.genesis, fork_id, status.earliest, status.latest, status.head]
    )
    assert eth.decode_status(status.encode(), version) == status


@pytest.mark.parametrize("version", [66, 67, 68])
def test_our_status_before_eth_69_tells_the_total_difficulty(version: int) -> None:
    status = eth.local_status(version, CHAIN, WALL_SECONDS)
    assert status == Status(version, 7, GENESIS, FORKS.at(12, 150), HEAD_HASH, 123)
    assert status.fork_id.next == 200


@pytest.mark.parametrize("version", [69, 70, 71, 72])
def test_our_status_from_eth_69_on_tells_the_block_range(version: int) -> None:
    status = eth.local_status(version, CHAIN, WALL_SECONDS)
    assert status == Status(version, 7, GENESIS, FORKS.at(12, 150), HEAD_HASH, earliest=3, latest=12)


@pytest.mark.parametrize("version", eth.VERSIONS)
def test_our_own_status_passes_our_own_checks_and_fits_its_limit(version: int) -> None:
    payload = eth.local_status(version, CHAIN, WALL_SECONDS).encode()
    assert len(payload) <= eth.MAX_STATUS_BYTES
    eth.check_status(eth.decode_status(payload, version), version, CHAIN, WALL_SECONDS)


def test_a_head_without_a_time_stands_behind_all_blocks_where_the_clock_is() -> None:
    chain = msgspec.structs.replace(CHAIN, head=Head(3, HEAD_HASH))
    assert chain.fork_head(150) == (10, 150)
    assert eth.local_status(69, chain, 150).fork_id == FORKS.at(10, 150)
    assert eth.local_status(69, chain, 250).fork_id == FORKS.at(10, 250)
    status = eth.local_status(69, chain, 150)
    assert (status.earliest, status.latest) == (0, 3)


def test_a_head_beyond_the_last_fork_keeps_its_number() -> None:
    assert msgspec.structs.replace(CHAIN, head=Head(99, HEAD_HASH)).fork_head(150) == (99, 150)
    assert CHAIN.fork_head(WALL_SECONDS) == (12, 150)


# -- checks of a Status, in order -------------------------------------------------------------------------------------------

Change = Callable[[Status], Status]


def changing(**changes: object) -> Change:
    """A peer that says something else."""
    return lambda status: msgspec.structs.replace(status, **changes)


# In the order in which they are looked at: the words of the error, its class, and what the peer got wrong.
MISTAKES: dict[str, tuple[type[PeerError], Change]] = {
    "another genesis": (StatusError, changing(genesis=b"\x01" * 32)),
    "a Status of eth/": (StatusError, lambda status: msgspec.structs.replace(status, version=status.version - 1)),
    "another network": (StatusError, changing(network_id=8)),
    "a total difficulty of 161 bits": (MessageError, changing(total_difficulty=1 << 160)),
    "fork id": (ForkIdError, changing(fork_id=ForkId(b"\x01\x02\x03\x04", 0))),
    "a block range from": (MessageError, changing(earliest=13)),
    "whose latest hash is zero": (MessageError, changing(head=bytes(32))),
}
LEGACY_MISTAKES = ["another genesis", "a Status of eth/", "another network", "a total difficulty of 161 bits", "fork id"]
RANGE_MISTAKES = [words for words in MISTAKES if words != "a total difficulty of 161 bits"]
FORMS = [(68, LEGACY_MISTAKES), (72, RANGE_MISTAKES)]


@pytest.mark.parametrize(("version", "words"), [(version, words) for version, all_words in FORMS for words in all_words])
def test_each_mistake_in_a_status_has_its_error(version: int, words: str) -> None:
    good = eth.local_status(version, CHAIN, WALL_SECONDS)
    kind, change = MISTAKES[words]
    with pytest.raises(PeerError, match=words) as caught:
        eth.check_status(change(good), version, CHAIN, WALL_SECONDS)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("version", "first", "second"),
    [(version, *pair) for version, all_words in FORMS for pair in combinations(all_words, 2)],
)
def test_of_two_mistakes_in_a_status_the_first_in_order_is_told(version: int, first: str, second: str) -> None:
    bad = eth.local_status(version, CHAIN, WALL_SECONDS)
    for words in (second, first):
        bad = MISTAKES[words][1](bad)
    with pytest.raises(PeerError, match=first) as caught:
        eth.check_status(bad, version, CHAIN, WALL_SECONDS)
    assert type(caught.value) is MISTAKES[first][0]


def test_a_peer_of_another_chain_is_not_told_that_it_broke_the_protocol() -> None:
    answers = {words: kind.reason for words, (kind, _) in MISTAKES.items()}
    assert {words for words, reason in answers.items() if reason is DisconnectReason.SUBPROTOCOL_ERROR} == {
        "another genesis",
        "a Status of eth/",
        "another network",
        "fork id",
    }


def test_a_total_difficulty_of_160_bits_is_fine() -> None:
    status = eth.local_status(68, CHAIN, WALL_SECONDS)
    eth.check_status(msgspec.structs.replace(status, total_difficulty=(1 << 160) - 1), 68, CHAIN, WALL_SECONDS)


def test_before_eth_69_nothing_is_asked_of_the_head() -> None:
    status = eth.local_status(68, CHAIN, WALL_SECONDS)
    eth.check_status(msgspec.structs.replace(status, head=bytes(32)), 68, CHAIN, WALL_SECONDS)


def test_a_stale_peer_and_one_of_another_fork_are_told_apart_in_words() -> None:
    status = eth.local_status(69, CHAIN, WALL_SECONDS)
    stale = msgspec.structs.replace(status, fork_id=ForkId(FORKS.at(0, 0).hash, 0))
    with pytest.raises(ForkIdError, match="remote stale"):
        eth.check_status(stale, 69, CHAIN, WALL_SECONDS)
    foreign = msgspec.structs.replace(status, fork_id=ForkId(b"\xde\xad\xbe\xef", 5))
    with pytest.raises(ForkIdError, match="fork id deadbeef/5: local incompatible or stale"):
        eth.check_status(foreign, 69, CHAIN, WALL_SECONDS)


def test_a_status_is_judged_where_the_clock_stands_if_we_have_no_head() -> None:
    chain = msgspec.structs.replace(CHAIN, head=Head(0, HEAD_HASH))
    ahead = eth.local_status(69, CHAIN, WALL_SECONDS)
    eth.check_status(ahead, 69, chain, 150)
    # The same peer, once we have passed the fork at 200 by the clock and it does not expect one any more.
    behind = msgspec.structs.replace(ahead, fork_id=ForkId(ahead.fork_id.hash, 0))
    eth.check_status(behind, 69, chain, 199)
    with pytest.raises(ForkIdError, match="remote stale"):
        eth.check_status(behind, 69, chain, 200)


# -- BlockRangeUpdate -------------------------------------------------------------------------------------------------------


def test_the_example_of_a_block_range_update_is_read() -> None:
    payload = bytes.fromhex(EXAMPLES["BlockRangeUpdate 590..600"]["rlp"])
    latest_hash = bytes.fromhex("44e3809c9a3cda717f00aea3a9da336d149612c8d5657fbc0028176ef8d94d2a")
    assert eth.decode_block_range(payload) == (590, 600, latest_hash)
    assert eth.decode_block_range(payload + b"\x01") == (590, 600, latest_hash)


def test_a_block_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(MessageError, match="from 10 back to 8"):
        eth.decode_block_range(bytes.fromhex(EXAMPLES["BlockRangeUpdate invalid 10..8"]["rlp"]))


def test_a_block_range_of_one_block_is_fine_and_one_without_a_hash_is_not() -> None:
    assert eth.decode_block_range(oracle.encode([8, 8, HEAD_HASH])) == (8, 8, HEAD_HASH)
    with pytest.raises(MessageError, match="hash is zero"):
        eth.decode_block_range(oracle.encode([8, 8, bytes(32)]))


@pytest.mark.parametrize("fields", [[], [1, 2], [1, 2, HEAD_HASH, 3]])
def test_a_block_range_update_of_another_number_of_fields_is_refused(fields: list[object]) -> None:
    with pytest.raises(MessageError, match=f"of {len(fields)} fields"):
        eth.decode_block_range(oracle.encode(fields))


@pytest.mark.parametrize(
    "fields",
    [
        b"abc",
        [[], 2, HEAD_HASH],
        [1, b"\x00\x02", HEAD_HASH],
        [1, b"\x01" * 9, HEAD_HASH],
        [1, 2, HEAD_HASH[1:]],
        [1, 2, HEAD_HASH + b"\x01"],
        [1, 2, [HEAD_HASH]],
    ],
)
def test_a_block_range_update_with_a_malformed_field_is_refused(fields: object) -> None:
    with pytest.raises(RlpError):
        eth.decode_block_range(oracle.encode(fields))


# -- the table of messages --------------------------------------------------------------------------------------------------

ALWAYS = {*range(0x0B), 0x0F, 0x10}
IDS = {
    66: ALWAYS | {0x0D, 0x0E},
    67: ALWAYS,
    68: ALWAYS,
    69: ALWAYS | {0x11},
    70: ALWAYS | {0x11},
    71: ALWAYS | {0x11, 0x12, 0x13},
    72: ALWAYS | {0x11, 0x12, 0x13, 0x14, 0x15},
}
NAMES = {
    0x00: "Status",
    0x01: "NewBlockHashes",
    0x02: "Transactions",
    0x03: "GetBlockHeaders",
    0x04: "BlockHeaders",
    0x05: "GetBlockBodies",
    0x06: "BlockBodies",
    0x07: "NewBlock",
    0x08: "NewPooledTransactionHashes",
    0x09: "GetPooledTransactions",
    0x0A: "PooledTransactions",
    0x0D: "GetNodeData",
    0x0E: "NodeData",
    0x0F: "GetReceipts",
    0x10: "Receipts",
    0x11: "BlockRangeUpdate",
    0x12: "GetBlockAccessLists",
    0x13: "BlockAccessLists",
    0x14: "GetCells",
    0x15: "Cells",
}


@pytest.mark.parametrize("version", eth.VERSIONS)
def test_each_version_has_the_messages_of_its_specification(version: int) -> None:
    rows = [row for row in eth.MESSAGES if row.since <= version <= row.until]
    assert {row.id for row in rows} == IDS[version]
    assert max(IDS[version]) < eth.MESSAGE_COUNTS[version]


def test_the_messages_have_the_names_of_the_specification() -> None:
    assert {row.id: row.name for row in eth.MESSAGES} == NAMES
    assert len(eth.MESSAGES) == len(NAMES)


def test_requests_are_the_messages_that_get_and_the_next_id_answers() -> None:
    rows = {row.id: row for row in eth.MESSAGES}
    requests = {row.id for row in eth.MESSAGES if row.role is Role.REQUEST}
    assert requests == {number for number, name in NAMES.items() if name.startswith("Get")}
    assert {row.id - 1 for row in eth.MESSAGES if row.role is Role.RESPONSE} == requests
    for number in requests:
        assert rows[number].name == "Get" + rows[number + 1].name
        assert (rows[number].since, rows[number].until) == (rows[number + 1].since, rows[number + 1].until)


def test_each_version_takes_its_number_of_codes() -> None:
    assert [eth.sub_protocol(version) for version in (66, 67, 68, 69, 70, 71, 72)] == [
        SubProtocol(Capability("eth", version), count, 10 << 20)
        for version, count in [(66, 17), (67, 17), (68, 17), (69, 18), (70, 18), (71, 20), (72, 22)]
    ]
    assert eth.VERSIONS == (66, 67, 68, 69, 70, 71, 72)


@pytest.mark.parametrize("case", VECTORS["go_ethereum_TestMessages"])
def test_the_request_id_of_each_published_message_is_its_first_element(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["rlp"])
    assert rlp.first_uint(payload) == case["request_id"] == 1111
    assert {row.id: row.role for row in eth.MESSAGES}[case["code"]] is not Role.ANNOUNCEMENT


@pytest.mark.parametrize(
    ("name", "request_id"),
    [
        ("GetReceipts eth/70 id 1111 first index 0", 1111),
        ("GetReceipts eth/70 id 66 first index 55", 66),
        ("Receipts eth/70 id 7 incomplete, one empty-ish receipt", 7),
        ("GetBlockAccessLists eth/71 id 42 two hashes", 42),
    ],
)
def test_the_request_id_of_later_versions_stands_in_the_same_place(name: str, request_id: int) -> None:
    assert rlp.first_uint(bytes.fromhex(EXAMPLES[name]["rlp"])) == request_id


# -- empty answers ----------------------------------------------------------------------------------------------------------

REQUEST_ID = 2001
MASK = bytes(range(16))
TWO_HASHES = oracle.encode([REQUEST_ID, HASHES])
CELLS = oracle.encode([REQUEST_ID, HASHES, MASK])
GET_RECEIPTS, GET_ACCESS_LISTS, GET_CELLS = 0x0F, 0x12, 0x14


@pytest.mark.parametrize("request_code", [0x03, 0x05, 0x09])
@pytest.mark.parametrize("version", eth.VERSIONS)
def test_headers_bodies_and_transactions_that_we_do_not_have_are_an_empty_list(version: int, request_code: int) -> None:
    assert eth.empty_answer(version, REQUEST_ID, request_code, TWO_HASHES).hex() == "c48207d1c0"


@pytest.mark.parametrize(
    ("version", "answer"),
    [(version, "c48207d1c0" if version <= 69 else "c58207d180c0") for version in eth.VERSIONS],
)
def test_receipts_that_we_do_not_have_are_a_complete_empty_list(version: int, answer: str) -> None:
    assert eth.empty_answer(version, REQUEST_ID, GET_RECEIPTS, TWO_HASHES).hex() == answer


def test_node_data_that_we_do_not_have_is_an_empty_list() -> None:
    assert eth.empty_answer(66, REQUEST_ID, 0x0D, TWO_HASHES).hex() == "c48207d1c0"


@pytest.mark.parametrize("version", [71, 72])
def test_each_access_list_that_we_do_not_have_is_an_empty_string(version: int) -> None:
    assert eth.empty_answer(version, REQUEST_ID, GET_ACCESS_LISTS, TWO_HASHES).hex() == "c68207d1c28080"
    assert eth.empty_answer(version, REQUEST_ID, GET_ACCESS_LISTS, oracle.encode([REQUEST_ID, []])).hex() == "c48207d1c0"


@pytest.mark.parametrize("mask", [MASK, bytes(16), b"\xff" * 16])
def test_cells_that_we_do_not_have_are_answered_with_the_mask_of_the_request(mask: bytes) -> None:
    answer = eth.empty_answer(72, REQUEST_ID, GET_CELLS, oracle.encode([REQUEST_ID, HASHES, mask]))
    assert answer.hex() == "d68207d1c0c090" + mask.hex()


def test_our_empty_answers_are_those_of_the_vectors() -> None:
    empty = VECTORS["go_ethereum_TestEmptyMessages"]
    for version, request_code in [(69, 0x03), (69, 0x05), (69, 0x09), (69, GET_RECEIPTS)]:
        assert eth.empty_answer(version, empty["request_id"], request_code, b"\xc0").hex() == empty["rlp"]
    none = EXAMPLES["Receipts eth/70 id 7 complete, none"]["rlp"]
    assert eth.empty_answer(70, 7, GET_RECEIPTS, b"\xc0").hex() == none
    request = bytes.fromhex(EXAMPLES["GetBlockAccessLists eth/71 id 42 two hashes"]["rlp"])
    missing = EXAMPLES["BlockAccessLists eth/71 id 42 two missing"]["rlp"]
    assert eth.empty_answer(71, 42, GET_ACCESS_LISTS, request).hex() == missing


@repeatable
@given(request_id=U64, version=st.sampled_from(eth.VERSIONS), hashes=st.lists(HASH, max_size=5))
def test_every_answer_carries_the_id_of_its_request(request_id: int, version: int, hashes: list[bytes]) -> None:
    payload = oracle.encode([request_id, hashes, MASK])
    for row in eth.MESSAGES:
        if row.role is Role.REQUEST and row.since <= version <= row.until:
            answer = eth.empty_answer(version, request_id, row.id, payload)
            assert rlp.first_uint(answer) == request_id
            assert oracle.encode(oracle.decode(answer)) == answer


@pytest.mark.parametrize(("asked", "answered"), [(1023, 1023), (1024, 1024), (1025, 1024), (4096, 1024)])
def test_no_more_than_1024_access_lists_are_answered(asked: int, answered: int) -> None:
    payload = oracle.encode([REQUEST_ID, [b"\x01" * 32] * asked])
    answer = oracle.decode(eth.empty_answer(71, REQUEST_ID, GET_ACCESS_LISTS, payload))
    assert answer == [b"\x07\xd1", [b""] * answered]


@pytest.mark.parametrize(
    ("request_code", "payload"),
    [
        (GET_ACCESS_LISTS, b""),
        (GET_ACCESS_LISTS, b"\x07"),
        (GET_ACCESS_LISTS, oracle.encode([])),
        (GET_ACCESS_LISTS, oracle.encode([REQUEST_ID])),
        (GET_ACCESS_LISTS, oracle.encode([REQUEST_ID, HASHES[0]])),
        (GET_ACCESS_LISTS, TWO_HASHES[:-1]),
        (GET_CELLS, b""),
        (GET_CELLS, oracle.encode([REQUEST_ID, HASHES])),
        (GET_CELLS, oracle.encode([REQUEST_ID, HASHES, MASK[1:]])),
        (GET_CELLS, oracle.encode([REQUEST_ID, HASHES, MASK + b"\x01"])),
        (GET_CELLS, oracle.encode([REQUEST_ID, HASHES, [MASK]])),
        (GET_CELLS, CELLS[:-1]),
    ],
)
def test_a_malformed_request_has_no_answer(request_code: int, payload: bytes) -> None:
    with pytest.raises(RlpError):
        eth.empty_answer(72, REQUEST_ID, request_code, payload)
