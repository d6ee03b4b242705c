"""The same seed makes the same swarm, over however many processes; shares are kept exactly; rhythms keep their mean."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus.swarm import Churn, Client, Clients, Fault, Faults, Ramp, Scenario, Slots
from rlpx.workers.swarm.plan import PeerPlan, Rhythm, allot, plan, source_address

SCENARIO = Scenario(
    "test",
    peers=100,
    processes=1,
    ramp=Ramp(peers_per_s=50.0),
    clients=Clients(geth=2.0, reth=1.0),
    churn=Churn(share=0.3),
    faults=Faults(bad_mac=0.1, reset=0.05),
)


def told(peers: list[PeerPlan]) -> list[tuple[object, ...]]:
    """Everything that a plan decides, in the order of the peers."""
    ordered = sorted(peers, key=lambda peer: peer.index)
    return [(p.index, p.key.secret, p.client, p.fault, p.is_churning, p.arrives_at, p.source) for p in ordered]


def test_the_same_seed_makes_the_same_swarm_however_it_is_divided() -> None:
    whole = told(plan(SCENARIO, 7, 0))
    assert told(plan(SCENARIO, 7, 0)) == whole
    divided = msgspec.structs.replace(SCENARIO, processes=3)
    assert told([peer for process in range(3) for peer in plan(divided, 7, process)]) == whole
    assert told(plan(SCENARIO, 8, 0)) != whole


def test_shares_are_kept_exactly() -> None:
    peers = plan(SCENARIO, 1, 0)
    assert Counter(peer.client for peer in peers) == {Client.GETH: 67, Client.RETH: 33}
    assert Counter(peer.fault for peer in peers) == {None: 85, Fault.BAD_MAC: 10, Fault.RESET: 5}
    assert sum(peer.is_churning for peer in peers) == 30
    assert not any(peer.is_churning and peer.fault for peer in peers)


def test_of_few_peers_as_many_are_faulty_as_of_many() -> None:
    faults = msgspec.convert({fault.value: 0.02 for fault in Fault}, Faults)
    few = msgspec.structs.replace(SCENARIO, peers=20, faults=faults)
    found: Counter[Fault | None] = Counter()
    for seed in range(20):
        peers = plan(few, seed, 0)
        assert len(peers) == 20
        # 5.6 faulty peers in all, but of no fault as much as half a peer.
        assert sum(peer.fault is not None for peer in peers) in {5, 6}
        found.update(peer.fault for peer in peers)
    assert set(found) == {*Fault, None}


def test_they_come_at_the_pace_of_the_ramp_or_all_at_once() -> None:
    assert [peer.arrives_at for peer in plan(SCENARIO, 1, 0)][:3] == [0.0, 0.02, 0.04]
    at_once = Scenario("test", processes=1, ramp=Ramp(peers_per_s=0))
    assert {peer.arrives_at for peer in plan(at_once, 1, 0)} == {0.0}


def test_ten_thousand_peers_have_ten_thousand_addresses_of_loopback() -> None:
    addresses = {source_address(index) for index in range(10_000)}
    assert len(addresses) == 10_000
    assert all(address.startswith("127.") and address.rpartition(".")[2] not in {"0", "255"} for address in addresses)


@given(st.integers(0, 1000), st.dictionaries(st.integers(), st.floats(0.01, 100), min_size=1, max_size=6))
def test_what_is_allotted_is_all_and_within_one_of_the_share(total: int, weights: dict[int, float]) -> None:
    counts = allot(total, weights)
    assert sum(counts.values()) == total
    for name, weight in weights.items():
        assert abs(counts[name] - total * weight / sum(weights.values())) < 1.0001


@pytest.mark.parametrize("factor", [1.0, 8.0])
def test_a_rhythm_keeps_its_mean_and_is_denser_in_bursts(factor: float) -> None:
    slots = Slots(slot_s=12.0, burst_s=2.0, factor=factor)
    rhythm = Rhythm(5.0, slots, Random(1))  # noqa: S311 - the same every time is what is wanted
    at, times = 0.0, []
    while at < 1200:
        at = rhythm.after(at)
        times.append(at)
    assert times == sorted(times)
    assert len(times) == pytest.approx(6000, rel=0.05)
    in_bursts = sum(time % 12 < 2 for time in times)
    # Two of twelve seconds at `factor`, ten at one.
    assert in_bursts / len(times) == pytest.approx(2 * factor / (2 * factor + 10), rel=0.1)


def test_a_rate_of_zero_is_never() -> None:
    assert Rhythm(0.0, Slots(), Random(1)).after(3.0) == math.inf  # noqa: S311 - the same every time is what is wanted
