"""What all simulated peers of a process have in common, and what they count together."""

from __future__ import annotations

from collections import Counter

import msgspec

from rlpx.protocol.bus.swarm import Ends, Fault, Latencies, Scenario, bucket_of
from rlpx.protocol.eth.status import LocalChain
from rlpx.workers.swarm.bodies import Bodies


class Tally:
    """What has happened in this process since the last report."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.faults: dict[Fault, Ends] = {}
        self.latencies: dict[str, Latencies] = {}

    def time(self, name: str, seconds: float) -> None:
        """Note a latency."""
        bucket = bucket_of(seconds)
        latencies = self.latencies.setdefault(name, {})
        latencies[bucket] = latencies.get(bucket, 0) + 1

    def count_end(self, fault: Fault, outcome: str, *, is_expected: bool) -> None:
        """Count how the visit of a faulty peer ended."""
        before = self.faults.get(fault, Ends())
        otherwise = dict(before.otherwise)
        if not is_expected:
            otherwise[outcome] = otherwise.get(outcome, 0) + 1
        self.faults[fault] = Ends(before.expected + is_expected, otherwise)

    def clear(self) -> None:
        """Reset the counts, after a report."""
        for table in (self.counts, self.ends, self.faults, self.latencies):
            table.clear()


class World(msgspec.Struct, frozen=True):
    """The surroundings of a peer. `starts_at` is when the swarm began, on the clock of `now`.

    `target` is the 64-byte id of the node that the peers dial; `None` if the peers are dialled.
    """

    scenario: Scenario
    seed: int
    chain: LocalChain
    target: bytes | None
    wall_seconds: int
    starts_at: float
    tally: Tally
    bodies: Bodies
