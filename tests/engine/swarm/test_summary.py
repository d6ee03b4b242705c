"""Reports summed over processes: counts, percentiles, faults, and the bottleneck."""

from __future__ import annotations

from typing import Any

import msgspec

from rlpx.engine.swarm.summary import Summary
from rlpx.protocol.bus.swarm import Ends, Fault, Report, bucket_of

REPORT = Report(
    index=0,
    seconds=1.0,
    counts={"dials": 3, "connected": 3, "established": 2, "requests_sent": 5, "requests_answered": 4},
    ends={"left": 1},
    faults={Fault.BAD_MAC: Ends(1)},
    latencies={"handshake": {bucket_of(0.010): 2}},
    established=2,
    cpu_seconds=0.1,
    waiting_seconds=0.1,
    lag_seconds=0.001,
    memory_bytes=1 << 20,
)


def summed(*reports: Report) -> Summary:
    """The summary of these reports."""
    summary = Summary()
    for report in reports:
        summary.add(report)
    return summary


def changed(**changes: Any) -> Report:
    """The report with some fields changed."""
    return msgspec.structs.replace(REPORT, **changes)


def test_counts_add_up_and_sessions_are_those_of_now() -> None:
    summary = summed(REPORT, changed(index=1, established=7), changed(established=1))
    shown = summary.as_json(10.0)
    assert shown["sessions"] == {"dials": 9, "connected": 9, "established": 6, "most_at_a_time": 9}
    assert summary.established == 8
    assert (shown["requests"]["sent"], shown["requests"]["answered"]) == (15, 12)
    assert shown["ends"] == {"left": 3}


def test_latencies_are_shown_in_milliseconds() -> None:
    shown = summed(REPORT, changed(latencies={"handshake": {bucket_of(1.0): 1}})).as_json(1.0)["latencies_ms"]["handshake"]
    assert 9.8 < shown["p50"] < 10.2
    assert 980 < shown["max"] < 1020
    assert shown["count"] == 3


def test_a_fault_that_was_treated_otherwise_is_told() -> None:
    assert not summed(REPORT).unexpected()
    summary = summed(REPORT, changed(faults={Fault.BAD_MAC: Ends(0, {"told useless_peer": 2})}))
    assert summary.unexpected() == ["bad-mac told useless_peer 2"]
    assert summary.as_json(1.0)["faults"]["bad-mac"] == {
        "as_expected": 1,
        "undecided": 0,
        "otherwise": {"told useless_peer": 2},
    }
    assert "told useless_peer 2" in summary.as_text(1.0)


def test_faults_without_an_end_are_undecided_and_no_failure() -> None:
    summary = summed(changed(counts={"undecided half-open": 2}))
    assert not summary.unexpected()
    assert summary.as_json(1.0)["faults"]["half-open"]["undecided"] == 2


def test_a_process_that_is_busy_or_late_is_the_bottleneck() -> None:
    assert not summed(REPORT, REPORT, REPORT).bottlenecks()
    for busy in (changed(cpu_seconds=0.95), changed(cpu_seconds=0.5, waiting_seconds=0.45), changed(lag_seconds=0.3)):
        [line] = summed(busy, busy, REPORT).bottlenecks()
        assert line.startswith("the swarm is the bottleneck: process 0 was too busy in 2 of 3 s")
        assert line in summed(busy, busy, REPORT).as_text(3.0)
        assert not summed(busy, REPORT, REPORT).bottlenecks()


def test_a_lost_process_takes_its_sessions_along_and_is_told() -> None:
    summary = summed(REPORT, changed(index=1, established=7))
    summary.add_loss(1, "was ended by signal 9", 30)
    assert summary.established == 2
    assert summary.ends["lost with its process"] == 7
    assert summary.as_json(1.0)["lost"] == [{"process": 1, "cause": "was ended by signal 9", "peers": 30, "established": 7}]
    assert "lost: process 1 was ended by signal 9, with 30 peers, 7 of them established\n" in summary.as_text(1.0)


def test_a_process_that_never_reported_is_lost_with_nobody_established() -> None:
    summary = summed(REPORT)
    summary.add_loss(1, "ended with exit code 1", 3)
    assert summary.losses[0].established == 0
    assert summary.ends == {"left": 1}
    assert summary.established == 2


def test_a_table_without_rows_is_left_out() -> None:
    text = summed(changed(ends={}, faults={}, latencies={})).as_text(1.0)
    assert "visits" not in text
    assert "latency" not in text
    assert "as expected" not in text
    assert "\n\n\n" not in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "process  CPU" in text
