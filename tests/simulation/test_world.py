from __future__ import annotations

import pytest

from rlpx.protocol.cluster.records import FLEET, Fleet, decode
from rlpx.protocol.lifecycle import Direction
from tests.simulation.world import BrokenError, Plan, World


@pytest.mark.parametrize("seed", range(16))
def test_a_fleet_keeps_its_promises_whatever_fails(seed: int) -> None:
    """One session per peer, the limits in sum, and a store that is right in the end; see `World` for each of them."""
    world = World(seed, plan_of(seed))
    world.live()
    assert world.admitted > 20


@pytest.mark.parametrize("seed", range(8))
def test_a_store_that_is_purged_or_deleted_has_all_again_and_no_limit_is_broken(seed: int) -> None:
    plan = Plan(hosts=2 + seed % 4, faults=0, loss=0.0, attempts_per_s=6.0, purges=seed % 2 == 0, deletes=seed % 2 == 1)
    world = World(seed, plan)
    world.live()
    limits = decode(Fleet, world.kv.keys[FLEET][1])
    assert limits is not None
    assert limits.limits == dict.fromkeys(Direction, plan.limit)


def plan_of(seed: int) -> Plan:
    """The plans take turns: few and more hosts, and both rules for a store that is away."""
    return Plan(hosts=2 + seed % 4, lets_in=seed % 3 != 0)


def test_the_checks_find_a_fleet_that_has_given_out_too_much() -> None:
    world = World(1, Plan(faults=0, attempts_per_s=20.0))
    for host in world.hosts:
        host.member.fleet = None
    world.plan = Plan(limit=1)
    with pytest.raises(BrokenError, match="places of 1 are leased"):
        world.live()


def test_a_fleet_whose_places_are_kept_in_several_shards_keeps_its_promises() -> None:
    world = World(
        1, Plan(hosts=6, peers=500, limit=4_000, attempts_per_s=10.0, seconds=20.0, settle_s=40.0, busy_s=20.0, fills=False)
    )
    world.live()
    assert world.hosts[0].member.fleet is not None
    assert world.hosts[0].member.fleet.shards == 2
