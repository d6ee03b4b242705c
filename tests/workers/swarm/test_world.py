"""What peers count together: nothing is counted twice, and a report begins anew."""

from __future__ import annotations

from rlpx.protocol.bus.swarm import Ends, Fault, bucket_of
from rlpx.workers.swarm.world import Tally


def test_latencies_are_counted_in_their_buckets() -> None:
    tally = Tally()
    for seconds in (0.5, 0.5, 2.0):
        tally.time("connect", seconds)
    assert tally.latencies == {"connect": {bucket_of(0.5): 2, bucket_of(2.0): 1}}


def test_ends_of_a_fault_are_as_expected_or_named() -> None:
    tally = Tally()
    tally.count_end(Fault.RESET, "reset by us", is_expected=True)
    tally.count_end(Fault.RESET, "kept", is_expected=False)
    tally.count_end(Fault.RESET, "kept", is_expected=False)
    assert tally.faults == {Fault.RESET: Ends(1, {"kept": 2})}


def test_after_a_report_everything_begins_anew() -> None:
    tally = Tally()
    tally.time("connect", 0.5)
    tally.count_end(Fault.RESET, "kept", is_expected=False)
    tally.counts["dials"] += 1
    tally.ends["kept"] += 1
    tally.clear()
    assert (tally.counts, tally.ends, tally.faults, tally.latencies) == ({}, {}, {}, {})
