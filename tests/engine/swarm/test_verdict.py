"""The worst fault of a run decides its exit code."""

from __future__ import annotations

import os

import pytest

from rlpx.engine.swarm.summary import Summary
from rlpx.engine.swarm.verdict import Circumstances, verdict
from rlpx.protocol.bus.swarm import Ends, Fault, Faults, Report, Scenario

FINE = Circumstances(has_target=True, is_target_gone=False, any_reason=False)
SCENARIO = Scenario(peers=10, processes=2)


def summary(connected: int, established: int, faults: dict[Fault, Ends] | None = None) -> Summary:
    """The summary of one report."""
    found = Summary()
    found.add(
        Report(
            index=0,
            seconds=1.0,
            counts={"connected": connected, "established": established},
            ends={},
            faults=faults or {},
            latencies={},
            established=established,
            cpu_seconds=0.0,
            waiting_seconds=0.0,
            lag_seconds=0.0,
            memory_bytes=0,
        )
    )
    return found


def test_a_run_as_expected_has_no_problem() -> None:
    assert verdict(SCENARIO, summary(3, 3), FINE) == (0, None)


def test_a_lost_process_is_worse_than_a_target_that_is_gone() -> None:
    found = summary(0, 0)
    gone = Circumstances(has_target=True, is_target_gone=True, any_reason=False)
    assert verdict(SCENARIO, found, gone) == (os.EX_UNAVAILABLE, "the target was gone before the end")
    found.add_loss(1, "was ended by signal 9", 5)
    assert verdict(SCENARIO, found, gone) == (os.EX_SOFTWARE, "1 of 2 processes of the swarm were lost")


@pytest.mark.parametrize(("has_target", "problem"), [(True, "no peer could connect"), (False, "nobody dialled the peers")])
def test_a_run_without_connections_says_who_did_not_connect(problem: str, *, has_target: bool) -> None:
    circumstances = Circumstances(has_target=has_target, is_target_gone=False, any_reason=False)
    assert verdict(SCENARIO, summary(0, 0), circumstances) == (os.EX_UNAVAILABLE, problem)


def test_a_session_is_only_missed_where_peers_are_honest() -> None:
    code, problem = verdict(SCENARIO, summary(3, 0), FINE)
    assert (code, problem) == (1, "no session was established; is --chain that of the target?")
    assert verdict(Scenario(peers=10, faults=Faults(garbage=1.0)), summary(3, 0), FINE) == (0, None)


@pytest.mark.parametrize(
    ("end", "hint"),
    [
        ("told already_connected", "the target has these peers already: another swarm has the same --seed"),
        ("told too_many_peers", "the target is full"),
        ("told subprotocol_error", "is --chain that of the target?"),
    ],
)
def test_what_most_peers_were_told_says_why_no_session_was_established(end: str, hint: str) -> None:
    found = summary(13, 0)
    found.ends.update({end: 13, "closed": 2})
    assert verdict(SCENARIO, found, FINE) == (1, f"no session was established; {hint}")


def test_an_unexpected_end_of_a_faulty_peer_is_a_problem_unless_any_reason_will_do() -> None:
    found = summary(3, 3, {Fault.BAD_MAC: Ends(1, {"told useless_peer": 2})})
    problem = "faulty peers were not treated as expected: bad-mac told useless_peer 2"
    assert verdict(SCENARIO, found, FINE) == (1, problem)
    assert verdict(SCENARIO, found, Circumstances(has_target=True, is_target_gone=False, any_reason=True)) == (0, None)
