"""Fork ids: every published case on chains built from the vectors, and the chains of `conf/`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol import rlp
from rlpx.protocol.errors import DisconnectReason, ForkIdError, RlpError
from rlpx.protocol.eth.forkid import FIRST_TIMESTAMP, Chain, ForkId, Forks, Verdict
from tests.vectors import load

CREATION = load("forkid_creation")
VALIDATION = load("forkid_validation")
ENCODING = load("forkid_encoding")
CONF = Path(__file__).parents[3] / "conf"
GENESIS = "ab" * 32

VERDICTS = {
    "ok": Verdict.OK,
    "remote_stale": Verdict.REMOTE_STALE,
    "local_incompatible_or_stale": Verdict.LOCAL_INCOMPATIBLE_OR_STALE,
}


def chain_of(config: dict[str, Any]) -> Chain:
    """A chain as a vector describes it."""
    return Chain(
        name="of a vector",
        network_id=config["chain_id"],
        genesis_hash=config["genesis"],
        genesis_time=config["genesis_time"],
        fork_blocks=tuple(config["blocks"]),
        fork_times=tuple(config["times"]),
    )


def chain_in_conf(name: str) -> Chain:
    """A chain file as the engine reads it."""
    return msgspec.convert(tomllib.loads((CONF / f"{name}.toml").read_text(encoding="utf-8")), Chain)


def last_fork_id(chain: Chain) -> ForkId:
    """The fork id after all forks."""
    return Forks(chain).at(2**62, 2**62)


CREATION_CASES = [
    pytest.param(test["network"], case, id=f"{test['network']}-{case['head']}-{case['time']}")
    for test in CREATION["tests"]
    for case in test["cases"]
]


@pytest.mark.parametrize(("network", "case"), CREATION_CASES)
def test_every_published_head_has_its_fork_id(network: str, case: dict[str, Any]) -> None:
    forks = Forks(chain_of(CREATION["networks"][network]))
    assert forks.at(case["head"], case["time"]) == ForkId(bytes.fromhex(case["hash"]), case["next"])


@pytest.mark.parametrize("network", CREATION["networks"])
def test_the_checksums_of_a_network_are_the_published_ones(network: str) -> None:
    config = CREATION["networks"][network]
    forks = Forks(chain_of(config))
    last_block = max(config["blocks"], default=0)
    heads = [(0, 0), *[(block, 0) for block in config["blocks"]], *[(last_block, time) for time in config["times"]]]
    assert [forks.at(*head).hash.hex() for head in heads] == config["all_sums"]
    assert forks.last_block == last_block


@pytest.mark.parametrize("case", VALIDATION["cases"])
def test_every_published_remote_fork_id_gets_its_verdict(case: dict[str, Any]) -> None:
    forks = Forks(chain_of(VALIDATION["configs"][case["config"]]))
    remote = ForkId(bytes.fromhex(case["remote_hash"]), int(case["remote_next"]))
    assert forks.check(remote, case["head"], case["time"]) is VERDICTS[case["expect"]]


def test_the_published_cases_are_all_there() -> None:
    assert len(CREATION_CASES) == 78
    assert len(VALIDATION["cases"]) == 45
    assert VALIDATION["timestamp_threshold"] == FIRST_TIMESTAMP


@pytest.mark.parametrize("case", ENCODING["cases"])
def test_a_fork_id_is_encoded_as_published(case: dict[str, str]) -> None:
    fork_id = ForkId(bytes.fromhex(case["hash"]), int(case["next"]))
    encoded = bytes.fromhex(case["rlp"])
    assert rlp.encode(fork_id.to_rlp()) == encoded
    assert ForkId.from_rlp(rlp.decode(encoded)) == fork_id


@pytest.mark.parametrize("case", ENCODING["time_fork_at_genesis"]["cases"])
def test_a_fork_not_after_the_genesis_is_part_of_it(case: dict[str, Any]) -> None:
    genesis_time = ENCODING["time_fork_at_genesis"]["genesis_time"]
    times = (genesis_time + case["shanghai_offset"], genesis_time + case["cancun_offset"])
    chain = Chain("young", 1, GENESIS, genesis_time, fork_times=times)
    genesis_alone = crc32(bytes.fromhex(GENESIS)).to_bytes(4, "big")
    assert Forks(chain).at(0, genesis_time) == ForkId(genesis_alone, genesis_time + case["next_offset"])


def test_the_chain_of_devp2ps_own_suite_has_its_sums() -> None:
    suite = ENCODING["devp2p_test_chain"]
    chain = Chain("suite", 1, suite["genesis"], fork_times=tuple(suite["time_forks"]))
    forks = Forks(chain)
    sums = [bytes.fromhex(checksum) for checksum in suite["sums"]]
    assert [forks.at(0, time) for time in (0, 59, 60, 119, 120)] == [
        ForkId(sums[0], 60),
        ForkId(sums[0], 60),
        ForkId(sums[1], 120),
        ForkId(sums[1], 120),
        ForkId(sums[2], 0),
    ]
    assert rlp.encode(forks.at(0, suite["head_time"]).to_rlp()).hex() == suite["rlp"]


# -- the chains that the engine knows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "last"),
    [("mainnet", "07c9462e"), ("sepolia", "6c1d9423"), ("hoodi", "23aa1351")],
)
def test_the_file_of_a_network_agrees_with_go_ethereum(name: str, last: str) -> None:
    config = CREATION["networks"][name]
    chain = chain_in_conf(name)
    assert chain.name == name
    assert chain.network_id == config["chain_id"]
    assert chain.genesis == bytes.fromhex(config["genesis"])
    assert chain.genesis_time == config["genesis_time"]
    assert list(chain.fork_blocks) == config["blocks"]
    assert list(chain.fork_times[: len(config["times"])]) == config["times"]
    assert last_fork_id(chain) == ForkId(bytes.fromhex(last), 0)


def test_only_sepolia_knows_a_fork_that_the_vectors_do_not() -> None:
    later = {
        name: chain_in_conf(name).fork_times[len(config["times"]) :]
        for name, config in CREATION["networks"].items()
        if name != "holesky"
    }
    assert later == {"mainnet": (), "sepolia": (1791294816,), "hoodi": ()}


def test_the_dev_chain_is_the_one_of_devp2ps_own_suite() -> None:
    suite = ENCODING["devp2p_test_chain"]
    chain = chain_in_conf("dev")
    assert chain.genesis == bytes.fromhex(suite["genesis"])
    assert chain.fork_blocks == ()
    assert list(chain.fork_times) == suite["time_forks"]
    assert last_fork_id(chain) == ForkId(bytes.fromhex(suite["sums"][-1]), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"genesis_hash": "0x" + "ab" * 31},
        {"genesis_hash": "0x" + "ab" * 33},
        {"genesis_hash": "0x" + "xy" * 32},
        {"network_id": -1},
        {"network_id": 1 << 63},
        {"network_id": "1"},
        {"genesis_time": -1},
        {"fork_blocks": [-1]},
        {"fork_times": [1 << 64]},
        {"fork_times": [1.5]},
        {"forks": []},
    ],
)
def test_a_chain_file_with_a_mistake_is_refused(changes: dict[str, object]) -> None:
    fields: dict[str, object] = {"name": "mine", "network_id": 1, "genesis_hash": GENESIS}
    assert msgspec.convert(fields, Chain).genesis == bytes.fromhex(GENESIS)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields | changes, Chain)


def test_a_genesis_may_be_written_with_or_without_0x() -> None:
    assert Chain("a", 1, "0x" + GENESIS).genesis == Chain("a", 1, GENESIS.upper()).genesis == b"\xab" * 32


# -- rules ------------------------------------------------------------------------------------------------------------------


def test_a_chain_without_forks_has_the_checksum_of_its_genesis() -> None:
    forks = Forks(Chain("plain", 1, GENESIS))
    assert forks.at(10**9, 2 * 10**9) == ForkId(crc32(bytes.fromhex(GENESIS)).to_bytes(4, "big"), 0)
    assert forks.last_block == 0


def test_a_chain_that_does_not_say_when_it_began_has_every_fork_by_time() -> None:
    assert Forks(Chain("a", 1, GENESIS, fork_times=(1, 2))).at(0, 0).next == 1


def test_the_order_of_forks_and_forks_at_one_place_change_nothing() -> None:
    tidy = Forks(Chain("a", 1, GENESIS, 100, (5, 9), (200, 300)))
    untidy = Forks(Chain("a", 1, GENESIS, 100, (9, 0, 5, 5, 9), (300, 100, 200, 50, 300)))
    heads = [(0, 0), (5, 0), (9, 0), (9, 200), (9, 300)]
    assert [untidy.at(*head) for head in heads] == [tidy.at(*head) for head in heads]
    assert len({tidy.at(*head) for head in heads}) == 5


def test_a_fork_by_time_is_not_passed_before_all_forks_by_block() -> None:
    forks = Forks(Chain("a", 1, GENESIS, 0, (5, 9), (200,)))
    assert forks.at(8, 10**10) == forks.at(8, 0)
    assert forks.at(8, 10**10).next == 9


@pytest.mark.parametrize("fields", [[], [b"\x01\x02\x03\x04"], [b"\x01\x02\x03\x04", b"", b""]])
def test_a_fork_id_of_another_number_of_fields_is_another_fork_id(fields: list[rlp.Item]) -> None:
    with pytest.raises(ForkIdError) as caught:
        ForkId.from_rlp(fields)
    assert caught.value.reason is DisconnectReason.SUBPROTOCOL_ERROR


@pytest.mark.parametrize(
    "item",
    [
        b"\x01\x02\x03\x04",
        [b"\x01\x02\x03", b""],
        [b"\x01\x02\x03\x04\x05", b""],
        [[], b""],
        [b"\x01\x02\x03\x04", []],
        [b"\x01\x02\x03\x04", b"\x00"],
        [b"\x01\x02\x03\x04", b"\x01" * 9],
    ],
)
def test_a_fork_id_with_a_malformed_field_is_refused(item: rlp.Item) -> None:
    with pytest.raises(RlpError):
        ForkId.from_rlp(item)


@given(checksum=st.binary(min_size=4, max_size=4), following=st.integers(0, 2**64 - 1))
def test_a_fork_id_is_written_as_the_rlp_library_writes_it_and_reads_back(checksum: bytes, following: int) -> None:
    fork_id = ForkId(checksum, following)
    encoded = rlp.encode(fork_id.to_rlp())
    assert encoded == oracle.encode([checksum, following])
    assert ForkId.from_rlp(rlp.decode(encoded)) == fork_id


# As go-ethereum 1.17.10 judges them: behind all forks by block, a `next` below the threshold is compared with the time.
@pytest.mark.parametrize(
    ("following", "number", "time", "expected"),
    [
        (0, 23_000_000, 1_760_000_000, "ok"),
        # Between the head's number and the time.
        (23_000_001, 23_000_000, 1_760_000_000, "local_incompatible_or_stale"),
        (FIRST_TIMESTAMP, 23_000_000, 1_760_000_000, "local_incompatible_or_stale"),
        (1_760_000_000, 23_000_000, 1_760_000_000, "local_incompatible_or_stale"),
        (1_760_000_001, 23_000_000, 1_760_000_000, "ok"),
        (2**64 - 1, 23_000_000, 1_760_000_000, "ok"),
    ],
)
def test_an_announced_fork_between_head_and_now_has_been_missed(
    following: int, number: int, time: int, expected: str
) -> None:
    forks = Forks(chain_in_conf("mainnet"))
    ours = forks.at(number, time)
    assert forks.check(ForkId(ours.hash, following), number, time) is VERDICTS[expected]


@pytest.mark.parametrize(("following", "expected"), [(1001, "ok"), (2000, "ok"), (1000, "local_incompatible_or_stale")])
def test_a_chain_without_forks_by_time_compares_a_small_next_with_the_number(following: int, expected: str) -> None:
    forks = Forks(Chain("plain", 1, GENESIS, fork_blocks=(5,)))
    ours = forks.at(1000, 5000)
    assert forks.check(ForkId(ours.hash, following), 1000, 5000) is VERDICTS[expected]


def test_before_the_last_fork_by_block_a_small_next_is_compared_with_the_number() -> None:
    forks = Forks(Chain("a", 1, GENESIS, 0, (5, 900), (2000,)))
    ours = forks.at(100, 5000)
    assert forks.check(ForkId(ours.hash, 101), 100, 5000) is Verdict.OK
    assert forks.check(ForkId(ours.hash, 100), 100, 5000) is Verdict.LOCAL_INCOMPATIBLE_OR_STALE


BLOCKS = st.integers(0, 50)
TIMES = st.integers(FIRST_TIMESTAMP, FIRST_TIMESTAMP + 50)
HEADS = st.tuples(BLOCKS, TIMES)
CHAINS = st.builds(
    Chain,
    name=st.just("any"),
    network_id=st.just(1),
    genesis_hash=st.just(GENESIS),
    genesis_time=st.just(FIRST_TIMESTAMP),
    fork_blocks=st.lists(BLOCKS, max_size=4).map(tuple),
    fork_times=st.lists(TIMES, max_size=4).map(tuple),
)


def plain_fork_ids(chain: Chain) -> list[ForkId]:
    """Every fork id that the chain can have, in order, each checksum made of the whole text that it stands for."""
    forks = [
        *sorted({block for block in chain.fork_blocks if block}),
        *sorted({time for time in chain.fork_times if time > chain.genesis_time}),
    ]
    texts = [chain.genesis + b"".join(fork.to_bytes(8, "big") for fork in forks[:count]) for count in range(len(forks) + 1)]
    return [ForkId(crc32(text).to_bytes(4, "big"), fork) for text, fork in zip(texts, [*forks, 0], strict=True)]


@given(chain=CHAINS, head=HEADS)
def test_a_head_has_the_first_fork_id_whose_next_it_has_not_reached(chain: Chain, head: tuple[int, int]) -> None:
    number, time = head
    expected = next(
        fork_id
        for fork_id in plain_fork_ids(chain)
        if not fork_id.next or fork_id.next > (number if fork_id.next < FIRST_TIMESTAMP else time)
    )
    assert Forks(chain).at(number, time) == expected


@given(chain=CHAINS, ours=HEADS, theirs=HEADS)
def test_two_nodes_of_one_chain_accept_each_other_wherever_they_stand(
    chain: Chain, ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    forks = Forks(chain)
    assert forks.check(forks.at(*theirs), *ours) is Verdict.OK


@given(
    chain=CHAINS,
    head=HEADS,
    following=st.one_of(st.just(0), BLOCKS, TIMES, st.integers(0, 2**64 - 1)),
    data=st.data(),
)
def test_the_verdict_follows_the_four_rules_of_eip_2124(
    chain: Chain, head: tuple[int, int], following: int, data: st.DataObject
) -> None:
    number, time = head
    forks = Forks(chain)
    known = plain_fork_ids(chain)
    local = known.index(forks.at(number, time))
    remote_hash = data.draw(
        st.one_of(st.sampled_from([fork_id.hash for fork_id in known]), st.binary(min_size=4, max_size=4))
    )
    place = next((index for index, fork_id in enumerate(known) if fork_id.hash == remote_hash), None)
    if place is None:
        expected = Verdict.LOCAL_INCOMPATIBLE_OR_STALE
    elif place == local:
        has_times = any(fork > chain.genesis_time for fork in chain.fork_times)
        is_behind_blocks = number >= max(chain.fork_blocks, default=0)
        place = time if has_times and is_behind_blocks else number
        is_passed = 0 < following <= place or FIRST_TIMESTAMP < following <= time
        expected = Verdict.LOCAL_INCOMPATIBLE_OR_STALE if is_passed else Verdict.OK
    elif place < local:
        expected = Verdict.OK if following == known[place].next else Verdict.REMOTE_STALE
    else:
        expected = Verdict.OK
    assert forks.check(ForkId(remote_hash, following), number, time) is expected
