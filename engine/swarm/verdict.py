"""The verdict on a run: its exit code, and one line about what is wrong."""

from __future__ import annotations

import os
from typing import Final

import msgspec

from rlpx.engine.swarm.summary import Summary
from rlpx.protocol.bus.swarm import Scenario
from rlpx.protocol.mistakes import EXIT_ERROR_ANSWER

# Why a target ends every session early, by what it told most peers.
_CAUSES: Final = {
    "told already_connected": "the target has these peers already: another swarm has the same --seed",
    "told too_many_peers": "the target is full",
    "told client_quitting": "the target was ending",
}


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """The facts besides the summary on which a verdict depends.

    `has_target`: the peers dialled instead of listening. `any_reason`: any reason is accepted for the end of a faulty peer.
    """

    has_target: bool
    is_target_gone: bool
    any_reason: bool


def _likely_cause(summary: Summary) -> str:
    """What a user may do about a target that let nobody in."""
    [(end, _)] = summary.ends.most_common(1) or [("", 0)]
    return _CAUSES.get(end, "is --chain that of the target?")


def verdict(scenario: Scenario, summary: Summary, circumstances: Circumstances) -> tuple[int, str | None]:
    """Return the exit code, and what is wrong, if anything. The worst fault takes precedence."""
    counts = summary.counts
    honest = scenario.peers * (1 - sum(scenario.faults.shares().values()))
    if summary.losses:
        return os.EX_SOFTWARE, f"{len(summary.losses)} of {scenario.processes} processes of the swarm were lost"
    if circumstances.is_target_gone:
        return os.EX_UNAVAILABLE, "the target was gone before the end"
    if not counts["connected"]:
        return os.EX_UNAVAILABLE, "no peer could connect" if circumstances.has_target else "nobody dialled the peers"
    if not counts["established"] and honest >= 1:
        return EXIT_ERROR_ANSWER, f"no session was established; {_likely_cause(summary)}"
    unexpected = [] if circumstances.any_reason else summary.unexpected()
    if unexpected:
        return EXIT_ERROR_ANSWER, f"faulty peers were not treated as expected: {', '.join(unexpected)}"
    return 0, None
