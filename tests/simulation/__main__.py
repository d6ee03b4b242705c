"""Runs many seeds, one large fleet, or fleets of growing size; see --help."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from multiprocessing import Pool
from pathlib import Path
from typing import Final

import msgspec

from tests.simulation.growth import measure, plot
from tests.simulation.world import BrokenError, Plan, World

# A thousand hosts and ten million sessions: each host begins and ends some 170 a second for a minute.
LARGE: Final = Plan(
    hosts=1000,
    peers=2_000_000,
    limit=800_000,
    seconds=60.0,
    attempts_per_s=180.0,
    stay_s=4.0,
    loss=0.001,
    faults=60,
    outages=0.03,
    block=64,
    settle_s=20.0,
    fills=False,
)


def plan_of(seed: int) -> Plan:
    """The plans take turns: few and more hosts, both rules for a store that is away, and some fill up."""
    return Plan(hosts=2 + seed % 4, lets_in=seed % 3 != 0, settle_s=40.0, fills=seed % 4 == 0)


def try_seed(seed: int) -> tuple[int, int, str | None]:
    """A seed, the sessions that were admitted, and what was broken if anything was."""
    world = World(seed, plan_of(seed))
    try:
        world.live()
    except BrokenError as error:
        return seed, world.admitted, str(error)
    return seed, world.admitted, None


def run_seeds(first: int, last: int, processes: int) -> int:
    """Run each seed; returns how many are broken."""
    started, admitted, broken, done = time.monotonic(), 0, 0, 0
    with Pool(processes) as pool:
        for seed, count, error in pool.imap_unordered(try_seed, range(first, last), chunksize=8):
            admitted, done = admitted + count, done + 1
            if error is not None:
                broken += 1
                sys.stdout.write(f"seed {seed}: {error}\n")
            if done % 500 == 0:
                sys.stdout.write(f"{done} seeds, {broken} broken, {time.monotonic() - started:.0f} s\n")
                sys.stdout.flush()
    sys.stdout.write(f"{done} seeds, {admitted} sessions admitted, {broken} broken, {time.monotonic() - started:.0f} s\n")
    return broken


def run_large(seed: int, sessions: int) -> None:
    """Run the large fleet until so many sessions have begun."""
    started = time.monotonic()
    share = sessions / 10_000_000
    world = World(seed, msgspec.structs.replace(LARGE, seconds=max(10.0, LARGE.seconds * share)))
    # Nothing here is a cycle, and looking for cycles among millions of sessions takes as long as the run.
    gc.disable()
    world.live()
    writes = ", ".join(f"{kind} {count}" for kind, count in sorted(world.kv.writes.items()))
    sys.stdout.write(f"{world.admitted} sessions on {len(world.hosts)} hosts: nothing broken; writes: {writes}; ")
    sys.stdout.write(f"{time.monotonic() - started:.0f} s\n")


def main() -> None:
    """The command."""
    arguments = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    arguments.add_argument("--seeds", metavar="FIRST:LAST", help="run small fleets, one for each seed")
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--large", action="store_true", help="run 1,000 hosts until --sessions have begun")
    arguments.add_argument("--sessions", type=int, default=10_000_000)
    arguments.add_argument("--seed", type=int, default=1, help="the seed of --large")
    arguments.add_argument(
        "--growth", metavar="FILE", type=Path, help="plot writes and size of the store by number of hosts"
    )
    given = arguments.parse_args()
    if given.seeds:
        first, _, last = given.seeds.partition(":")
        if run_seeds(int(first), int(last), given.processes):
            sys.exit(1)
    if given.large:
        run_large(given.seed, given.sessions)
    if given.growth:
        given.growth.write_text(plot(measure()), encoding="utf-8")


if __name__ == "__main__":
    main()
