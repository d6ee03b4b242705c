"""Status in both forms, its checks in order, and the block range."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import msgspec
import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import DisconnectReason, ForkIdError, MessageError, PeerError, RlpError, StatusError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.forkid import Chain, ForkId, Forks
from rlpx.protocol.eth.status import Head, LocalChain, Status, check_status, decode_block_range, decode_status, local_status
from tests.vectors import load

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
    assert decode_status(payload, case["version"]) == status_of(case)
    assert status_of(case).encode() == payload


@pytest.mark.parametrize("case", STATUSES, ids=ids_of_statuses)
def test_a_status_in_the_other_form_is_refused(case: dict[str, Any]) -> None:
    version = 69 if case["layout"] == "pre69" else 68
    with pytest.raises(MessageError, match=f"not eth/{version}'s form"):
        decode_status(bytes.fromhex(case["rlp"]), version)


@pytest.mark.parametrize("case", STATUSES, ids=ids_of_statuses)
def test_bytes_after_a_status_are_ignored_and_elements_are_not(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["rlp"])
    assert decode_status(payload + b"\xff\x00", case["version"]) == status_of(case)
    fields = oracle.decode(payload)
    for wrong in ([*fields, b""], fields[:-1], []):
        with pytest.raises(MessageError, match=f"Status: {len(wrong)} fields"):
            decode_status(oracle.encode(wrong), case["version"])


@pytest.mark.parametrize("case", STATUSES, ids=ids_of_statuses)
def test_a_status_cut_anywhere_is_refused(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["rlp"])
    for cut in range(len(payload)):
        with pytest.raises(RlpError):
            decode_status(payload[:cut], case["version"])


@pytest.mark.parametrize("case", [STATUSES[0], STATUSES[1]], ids=ids_of_statuses[:2])
def test_a_status_with_a_field_of_the_wrong_kind_or_length_is_refused(case: dict[str, Any]) -> None:
    fields = oracle.decode(bytes.fromhex(case["rlp"]))
    for place, field in enumerate(fields):
        # A hash has 32 bytes and a difficulty up to 32, so that 33 fit no place; a fork id alone is a list.
        for wrong in ([b""] if isinstance(field, bytes) else b"", b"\x01" * 33, b"\x00" + b"\x01" * 8):
            with pytest.raises(PeerError):
                decode_status(oracle.encode([*fields[:place], wrong, *fields[place + 1 :]]), case["version"])


@pytest.mark.parametrize("payload", ["", "80", "83010203", "c0", "c1c0"])
def test_what_is_no_status_at_all_is_refused(payload: str) -> None:
    for version in eth.VERSIONS:
        with pytest.raises((RlpError, MessageError)):
            decode_status(bytes.fromhex(payload), version)


def test_a_status_of_a_thousand_items_is_not_even_built() -> None:
    with pytest.raises(RlpError, match="more RLP items"):
        decode_status(b"\xf9\x03\xe8" + b"\xc0" * 1000, 69)


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


@given(status=legacy_statuses, version=st.sampled_from([66, 67, 68]))
def test_a_status_before_eth_69_is_what_the_rlp_library_writes_and_reads_back(status: Status, version: int) -> None:
    fork_id = [status.fork_id.hash, status.fork_id.next]
    assert status.encode() == oracle.encode(
        [status.version, status.network_id, status.total_difficulty, status.head, status.genesis, fork_id]
    )
    assert decode_status(status.encode(), version) == status


@given(status=range_statuses, version=st.sampled_from([69, 70, 71, 72]))
def test_a_status_from_eth_69_on_is_what_the_rlp_library_writes_and_reads_back(status: Status, version: int) -> None:
    fork_id = [status.fork_id.hash, status.fork_id.next]
    assert status.encode() == oracle.encode(
        [status.version, status.network_id, status.genesis, fork_id, status.earliest, status.latest, status.head]
    )
    assert decode_status(status.encode(), version) == status


@pytest.mark.parametrize("version", [66, 67, 68])
def test_our_status_before_eth_69_tells_the_total_difficulty(version: int) -> None:
    status = local_status(version, CHAIN, WALL_SECONDS)
    assert status == Status(version, 7, GENESIS, FORKS.at(12, 150), HEAD_HASH, 123)
    assert status.fork_id.next == 200


@pytest.mark.parametrize("version", [69, 70, 71, 72])
def test_our_status_from_eth_69_on_tells_the_block_range(version: int) -> None:
    status = local_status(version, CHAIN, WALL_SECONDS)
    assert status == Status(version, 7, GENESIS, FORKS.at(12, 150), HEAD_HASH, earliest=3, latest=12)


@pytest.mark.parametrize("version", eth.VERSIONS)
def test_our_own_status_passes_our_own_checks_and_fits_its_limit(version: int) -> None:
    payload = local_status(version, CHAIN, WALL_SECONDS).encode()
    assert len(payload) <= eth.MAX_STATUS_BYTES
    check_status(decode_status(payload, version), version, CHAIN, WALL_SECONDS)


def test_a_head_without_a_time_stands_behind_all_blocks_where_the_clock_is() -> None:
    chain = msgspec.structs.replace(CHAIN, head=Head(3, HEAD_HASH))
    assert chain.fork_head(150) == (10, 150)
    assert local_status(69, chain, 150).fork_id == FORKS.at(10, 150)
    assert local_status(69, chain, 250).fork_id == FORKS.at(10, 250)
    status = local_status(69, chain, 150)
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
    good = local_status(version, CHAIN, WALL_SECONDS)
    kind, change = MISTAKES[words]
    with pytest.raises(PeerError, match=words) as caught:
        check_status(change(good), version, CHAIN, WALL_SECONDS)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("version", "first", "second"),
    [(version, *pair) for version, all_words in FORMS for pair in combinations(all_words, 2)],
)
def test_of_two_mistakes_in_a_status_the_first_in_order_is_told(version: int, first: str, second: str) -> None:
    bad = local_status(version, CHAIN, WALL_SECONDS)
    for words in (second, first):
        bad = MISTAKES[words][1](bad)
    with pytest.raises(PeerError, match=first) as caught:
        check_status(bad, version, CHAIN, WALL_SECONDS)
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
    status = local_status(68, CHAIN, WALL_SECONDS)
    check_status(msgspec.structs.replace(status, total_difficulty=(1 << 160) - 1), 68, CHAIN, WALL_SECONDS)


def test_before_eth_69_nothing_is_asked_of_the_head() -> None:
    status = local_status(68, CHAIN, WALL_SECONDS)
    check_status(msgspec.structs.replace(status, head=bytes(32)), 68, CHAIN, WALL_SECONDS)


def test_a_stale_peer_and_one_of_another_fork_are_told_apart_in_words() -> None:
    status = local_status(69, CHAIN, WALL_SECONDS)
    stale = msgspec.structs.replace(status, fork_id=ForkId(FORKS.at(0, 0).hash, 0))
    with pytest.raises(ForkIdError, match="remote stale"):
        check_status(stale, 69, CHAIN, WALL_SECONDS)
    foreign = msgspec.structs.replace(status, fork_id=ForkId(b"\xde\xad\xbe\xef", 5))
    with pytest.raises(ForkIdError, match="fork id deadbeef/5: local incompatible or stale"):
        check_status(foreign, 69, CHAIN, WALL_SECONDS)


def test_a_status_is_judged_where_the_clock_stands_if_we_have_no_head() -> None:
    chain = msgspec.structs.replace(CHAIN, head=Head(0, HEAD_HASH))
    ahead = local_status(69, CHAIN, WALL_SECONDS)
    check_status(ahead, 69, chain, 150)
    # The same peer, once we have passed the fork at 200 by the clock and it does not expect one any more.
    behind = msgspec.structs.replace(ahead, fork_id=ForkId(ahead.fork_id.hash, 0))
    check_status(behind, 69, chain, 199)
    with pytest.raises(ForkIdError, match="remote stale"):
        check_status(behind, 69, chain, 200)


# -- BlockRangeUpdate -------------------------------------------------------------------------------------------------------


def test_the_example_of_a_block_range_update_is_read() -> None:
    payload = bytes.fromhex(EXAMPLES["BlockRangeUpdate 590..600"]["rlp"])
    latest_hash = bytes.fromhex("44e3809c9a3cda717f00aea3a9da336d149612c8d5657fbc0028176ef8d94d2a")
    assert decode_block_range(payload) == (590, 600, latest_hash)
    assert decode_block_range(payload + b"\x01") == (590, 600, latest_hash)


def test_a_block_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(MessageError, match="from 10 back to 8"):
        decode_block_range(bytes.fromhex(EXAMPLES["BlockRangeUpdate invalid 10..8"]["rlp"]))


def test_a_block_range_of_one_block_is_fine_and_one_without_a_hash_is_not() -> None:
    assert decode_block_range(oracle.encode([8, 8, HEAD_HASH])) == (8, 8, HEAD_HASH)
    with pytest.raises(MessageError, match="hash is zero"):
        decode_block_range(oracle.encode([8, 8, bytes(32)]))


@pytest.mark.parametrize("fields", [[], [1, 2], [1, 2, HEAD_HASH, 3]])
def test_a_block_range_update_of_another_number_of_fields_is_refused(fields: list[object]) -> None:
    with pytest.raises(MessageError, match=f"{len(fields)} fields where 3 belong"):
        decode_block_range(oracle.encode(fields))


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
        decode_block_range(oracle.encode(fields))
