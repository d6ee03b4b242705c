"""Runs many seeds, one large fleet, or fleets of growing size; see --help."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from multiprocessing import Pool
from pathlib import Path
from typing import Final

from tests.simulation.growth import HOSTS, measure, plot
from tests.simulation.world import BrokenError, Plan, World

# With --large each host tries to begin so many sessions a second, and has four times as many.
LARGE_ATTEMPTS_PER_S: Final = 180.0
# Of 1,000 hosts' attempts so many begin a session. The others meet a peer that has one, or a host or store that is away.
LARGE_SHARE: Final = 0.85
LARGE_STAY_SECONDS: Final = 4.0


def large_plan(hosts: int, sessions: int) -> Plan:
    """A fleet that begins so many sessions; half of the places are used, and few faults hit all hosts."""
    seconds = max(10.0, sessions / hosts / LARGE_ATTEMPTS_PER_S / LARGE_SHARE)
    return Plan(
        hosts=hosts,
        peers=2000 * hosts,
        limit=800 * hosts,
        seconds=seconds,
        attempts_per_s=LARGE_ATTEMPTS_PER_S,
        stay_s=LARGE_STAY_SECONDS,
        loss=0.001,
        faults=int(seconds),
        outages=0.03,
        block=64,
        # A host gives unused places back after 10 s, and once more when the rest of its sessions have ended.
        settle_s=40.0,
        busy_s=5.0,
        fills=False,
    )


def plan_of(seed: int) -> Plan:
    """The plans take turns: few and more hosts, both rules for a store that is away, and some fill up."""
    return Plan(hosts=2 + seed % 4, lets_in=seed % 3 != 0, settle_s=40.0, busy_s=20.0, fills=seed % 4 == 0)


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


def run_large(seed: int, plan: Plan) -> None:
    """Run one large fleet."""
    started = time.process_time()
    world = World(seed, plan)
    # Nothing here is a cycle, and looking for cycles among millions of sessions takes as long as the run.
    gc.disable()
    world.live()
    writes = ", ".join(f"{kind} {count}" for kind, count in sorted(world.kv.writes.items()))
    sys.stdout.write(f"{world.admitted} sessions on {len(world.hosts)} hosts: nothing broken; writes: {writes}; ")
    sys.stdout.write(f"{time.process_time() - started:.0f} s of CPU\n")


def main() -> None:
    """The command."""
    arguments = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    arguments.add_argument("--seeds", metavar="FIRST:LAST", help="run small fleets, one for each seed")
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--large", action="store_true", help="run --hosts until --sessions have begun, or more")
    arguments.add_argument("--sessions", type=int, default=10_000_000)
    arguments.add_argument("--seed", type=int, default=1, help="the seed of --large")
    arguments.add_argument(
        "--growth", metavar="FILE", type=Path, help="plot writes and size of the store by number of hosts"
    )
    arguments.add_argument("--hosts", type=int, default=HOSTS[-1], help="the size of --large and the largest of --growth")
    given = arguments.parse_args()
    if given.seeds:
        first, _, last = given.seeds.partition(":")
        if run_seeds(int(first), int(last), given.processes):
            sys.exit(1)
    if given.large:
        run_large(given.seed, large_plan(given.hosts, given.sessions))
    if given.growth:
        given.growth.write_text(plot(measure(size for size in HOSTS if size <= given.hosts)), encoding="utf-8")


if __name__ == "__main__":
    main()
