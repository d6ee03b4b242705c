"""What the swarm's command and processes say to each other survives the stream; latencies in buckets stay true."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus.swarm import (
    Address,
    Begin,
    Client,
    Clients,
    Ends,
    Failed,
    Fault,
    Faults,
    Go,
    Leave,
    Order,
    Ready,
    Report,
    Returned,
    Scenario,
    SwarmReport,
    bucket_of,
    encode,
    order_decoder,
    percentile,
    report_decoder,
)
from rlpx.protocol.eth.forkid import Chain

BEGIN = Begin(
    Scenario("test", faults=Faults(bad_mac=0.1)), 7, 1, Chain("dev", 1, "00" * 32), b"\x01" * 64, Address("127.0.0.1", 1)
)
REPORT = Report(0, 1.0, {"dials": 3}, {"left": 1}, {Fault.RESET: Ends(1)}, {"connect": {-5: 2}}, 2, 0.1, 0.0, 0.0, 1)


def test_orders_arrive_in_any_cut() -> None:
    orders: list[Order] = [BEGIN, Go(1.5), Leave()]
    decoder = order_decoder()
    found = [order for byte in b"".join([encode(order) for order in orders]) for order in decoder.feed(bytes([byte]))]
    assert found == orders


def test_words_arrive_whole() -> None:
    words: list[SwarmReport] = [Ready({3: "enode://…"}), Failed("why"), Returned(3), REPORT]
    assert report_decoder().feed(b"".join([encode(word) for word in words])) == words


def test_every_client_and_fault_has_its_key_in_a_scenario() -> None:
    assert set(Clients(1.0, 1.0, 1.0, 1.0).shares()) == set(Client)
    assert set(msgspec.convert({fault.value: 0.01 for fault in Fault}, Faults).shares()) == set(Fault)
    assert Faults(bad_mac=0.1).shares() == {Fault.BAD_MAC: 0.1}


@given(st.integers(1, 200), st.integers(1, 64))
def test_every_peer_is_of_one_process(peers: int, processes: int) -> None:
    scenario = Scenario("test", peers=peers, processes=processes)
    assert sorted(number for process in range(processes) for number in scenario.part(process)) == list(range(peers))


@given(st.lists(st.floats(1e-5, 1000), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_percentile_is_exact_to_one_percent(latencies: list[float], share: float) -> None:
    buckets: dict[int, int] = {}
    for latency in latencies:
        buckets[bucket_of(latency)] = buckets.get(bucket_of(latency), 0) + 1
    found = percentile(buckets, share)
    wanted = next(value for index, value in enumerate(sorted(latencies), 1) if index >= share * len(latencies))
    assert found == pytest.approx(wanted, rel=0.0101)


def test_nothing_has_no_percentile() -> None:
    assert percentile({}, 0.5) is None
    assert bucket_of(0.0) == bucket_of(1e-9)
