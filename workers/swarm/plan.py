"""The peers of the swarm and their times. Scenario and seed determine all of them, whatever the number of processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Final, TypeVar

import msgspec

from rlpx.protocol.bus.swarm import Client, Fault, Scenario, Slots
from rlpx.protocol.rlpx.crypto import PrivateKey

T = TypeVar("T")

# Peers in one /24 network of 127.0.0.0/8, whose first and last address are left out.
_ADDRESSES_PER_NET: Final = 254
# From 127.16.0.0 on, where no other services are.
_FIRST_NET: Final = 16 << 8


class PeerPlan(msgspec.Struct, frozen=True):
    """One simulated peer. `arrives_at` counts from the start of the swarm."""

    index: int
    key: PrivateKey
    client: Client
    fault: Fault | None
    is_churning: bool
    arrives_at: float
    source: str

    def random(self, seed: int) -> Random:
        """The peer's own randomness."""
        return Random(f"{seed}/{self.index}")  # noqa: S311 - it must be the same every time


def plan(scenario: Scenario, seed: int, process: int) -> list[PeerPlan]:
    """The peers of one process."""
    total = scenario.peers
    shuffled = Random(f"{seed}/swarm")  # noqa: S311 - it must be the same every time
    clients: list[Client] = []
    for client, count in allot(total, scenario.clients.shares()).items():
        clients += [client] * count
    shares: dict[tuple[Fault | None, bool], float] = {
        (fault, False): share for fault, share in scenario.faults.shares().items()
    }
    shares[None, True] = scenario.churn.share
    shares[None, False] = max(0.0, 1 - sum(shares.values()))
    # If there are fewer peers than faults, the seed decides which faults occur.
    kinds = list(shares.items())
    shuffled.shuffle(kinds)
    lots = [lot for lot, count in allot(total, dict(kinds)).items() for _ in range(count)]
    shuffled.shuffle(clients)
    shuffled.shuffle(lots)
    return [_peer(scenario, seed, index, clients[index], lots[index]) for index in scenario.part(process)]


def _peer(scenario: Scenario, seed: int, index: int, client: Client, lot: tuple[Fault | None, bool]) -> PeerPlan:
    key = PrivateKey.generate(Random(f"{seed}/{index}/key").randbytes)  # noqa: S311 - test keys that protect nothing
    rate = scenario.ramp.peers_per_s
    return PeerPlan(index, key, client, lot[0], lot[1], index / rate if rate else 0.0, source_address(index))


def source_address(index: int) -> str:
    """The loopback address of a peer: every peer has its own."""
    net, host = divmod(index, _ADDRESSES_PER_NET)
    net += _FIRST_NET
    return f"127.{net >> 8}.{net & 255}.{host + 1}"


def allot(total: int, weights: Mapping[T, float]) -> dict[T, int]:
    """Divide a number by weights; the remainders go to the largest fractions."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_fraction = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_fraction[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


class Rhythm:
    """When a peer sends the next message of a kind: at random, `rate` per second on average, more in the bursts of slots."""

    def __init__(self, rate: float, slots: Slots, random: Random) -> None:
        self._random = random
        self._slot = slots.slot_s
        self._burst = min(slots.burst_s, slots.slot_s)
        # The rate between bursts; the average over a slot is `rate`.
        self._low = rate * self._slot / (self._burst * slots.factor + self._slot - self._burst)
        self._high = self._low * slots.factor
        self._mean = rate

    def after(self, seconds: float) -> float:
        """The time of the next message, both times counted from the start of the swarm; infinite for never."""
        if not self._mean:
            return math.inf
        return self._time_of(self._passed(seconds) + self._random.expovariate(1.0))

    def _passed(self, seconds: float) -> float:
        """The average number of messages due by this time."""
        slots, rest = divmod(seconds, self._slot)
        in_burst = min(rest, self._burst)
        return slots * self._slot * self._mean + in_burst * self._high + (rest - in_burst) * self._low

    def _time_of(self, passed: float) -> float:
        slots, rest = divmod(passed, self._slot * self._mean)
        of_burst = self._burst * self._high
        seconds = rest / self._high if rest <= of_burst else self._burst + (rest - of_burst) / self._low
        return slots * self._slot + seconds
