"""Faults at a whole fleet, chosen by a seed, while peers come and go; then the invariants, from the stream and the store.

`python -m tests.system.cluster_nemesis --seed 7 --seconds 120` runs more of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, NamedTuple

import nats as nats_client

from rlpx.engine.cluster.pages import read_page
from rlpx.protocol.cluster.steps import Outcome, Scan
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.cluster_fleet import Crowd, Lives, Nats, Proxy, SteppedClock, crowd
from tests.system.harness import RunningEngine, eventually

LIMIT: Final = 12
HOSTS: Final = ("a", "b", "c")
PEERS: Final = 18
HOUR_SECONDS: Final = 3600
# After the last fault everything is in order within this time.
SETTLE_SECONDS: Final = 180.0


class Mend(NamedTuple):
    """How a fault is mended, and in which turn."""

    turn: int
    act: Callable[[], None]


class Fleet:
    """Three hosts, each with a way to NATS that can be cut, and three servers."""

    def __init__(self, seed: int, stack: ExitStack) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a run can be repeated
        self.nats = stack.enter_context(Nats(3))
        self._stack = stack
        self.proxies = {name: stack.enter_context(Proxy(port)) for name, port in zip(HOSTS, self.nats.ports, strict=True)}
        self._folders = {name: self._folder(name) for name in HOSTS}
        self._clocks = {name: SteppedClock(self._folder(name)) for name in HOSTS}
        # Half of the seeds have hosts of two workers.
        self._workers = 1 + seed % 2
        self.hosts: dict[str, RunningEngine] = {}
        for name in HOSTS:
            self.start(name)
        self.peers: Crowd = stack.enter_context(crowd())
        self.keys = [PrivateKey(bytes([number]) * 32) for number in range(1, PEERS + 1)]
        self.log: list[str] = []
        stack.callback(self._end)

    def _folder(self, name: str) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=f"rlpx-{name}-")))

    def start(self, name: str) -> None:
        """Start a host; it has its own server first and the others behind it, all by ways that can be cut."""
        url = ",".join(self.proxies[other].url for other in HOSTS)
        flags = (
            "--cluster",
            url,
            "--cluster-name",
            "test",
            "--cluster-host",
            name,
            "--limits.max-active-inbound",
            str(LIMIT),
        )
        folder, program = self._folders[name], self._clocks[name].program
        self.hosts[name] = RunningEngine(*flags, workers=self._workers, run_dir=folder, program=program, is_read=False)

    def kill(self, name: str) -> None:
        """kill -9 of a host and its workers."""
        engine = self.hosts.pop(name)
        os.kill(engine.process.pid, signal.SIGCONT)
        engine.process.kill()
        with suppress(AssertionError):
            engine.__exit__(None, None, None)

    def end(self, name: str) -> None:
        """A host ends in good order."""
        engine = self.hosts.pop(name)
        engine.process.send_signal(signal.SIGCONT)
        engine.__exit__(None, None, None)

    def _end(self) -> None:
        for name in list(self.hosts):
            os.kill(self.hosts[name].process.pid, signal.SIGCONT)
            with suppress(AssertionError):
                self.hosts[name].__exit__(None, None, None)

    # -- load and faults ----------------------------------------------------------------------------------------------------

    def visit(self) -> None:
        """Some peer connects to some host, or leaves."""
        key = self.random.choice(self.keys)
        own = [peer for peer in self.peers.peers if peer.node_id == key.id and not peer.session.is_closed]
        if own and self.random.random() < 0.3:
            with suppress(KeyError, ValueError, OSError):
                self.peers.leave(own[0])
        elif len(own) < 2 and self.hosts:
            with suppress(OSError):
                self.peers.connect(self.random.choice(list(self.hosts.values())), key)

    def fault(self) -> Mend | None:
        """Something fails; returns how it is mended."""
        faults = (self._of_host, self._of_host, self._of_servers, self._of_network)
        name = self.random.choice(HOSTS)
        return self.random.choice(faults)(name)

    def _of_host(self, name: str) -> Mend | None:
        kind = self.random.choice(["kill", "end", "stop"])
        if name not in self.hosts:
            return None
        self.log.append(f"{kind} host {name}")
        if kind == "stop":
            process = self.hosts[name].process
            process.send_signal(signal.SIGSTOP)
            return Mend(1, lambda: process.send_signal(signal.SIGCONT))
        (self.kill if kind == "kill" else self.end)(name)
        return Mend(2, lambda: self.start(name))

    def _of_servers(self, _name: str) -> Mend | None:
        living = [index for index, process in enumerate(self.nats.processes) if process.poll() is None]
        killed = self.random.sample(living, self.random.randint(min(1, len(living)), len(living)))
        self.log.append(f"kill servers {killed}")
        for index in killed:
            self.nats.kill(index)

        def start() -> None:
            for index in killed:
                self.nats.start(index)

        return Mend(0, start)

    def _of_network(self, name: str) -> Mend | None:
        if self.random.random() < 0.5:
            off_s = self.random.choice([-HOUR_SECONDS, HOUR_SECONDS])
            self.log.append(f"clock of {name} {off_s} s off")
            self._clocks[name].step(off_s)
            return Mend(1, lambda: self._clocks[name].step(0))
        self.log.append(f"cut {name}")
        self.proxies[name].cut()
        return Mend(1, self.proxies[name].heal)

    def run(self, seconds: float) -> None:
        """Visits all the time, and one fault after another. Some begin before the last one is mended."""
        ends_at = monotonic() + seconds
        mends: list[Mend] = []
        while monotonic() < ends_at:
            self._visit_for(self.random.uniform(0.5, 3.0))
            mend = self.fault()
            if mend is not None:
                mends.append(mend)
            self._visit_for(self.random.choice([self.random.uniform(0.2, 3.0), self.random.uniform(10.0, 20.0)]))
            if self.random.random() < 0.7:
                self._mend(mends)
        self._mend(mends)

    def _mend(self, mends: list[Mend]) -> None:
        """Servers before hosts, which need them at their start."""
        for mend in sorted(mends, key=lambda mend: mend.turn):
            mend.act()
        mends.clear()
        self.log.append("mended")

    def _visit_for(self, seconds: float) -> None:
        ends_at = monotonic() + seconds
        while monotonic() < ends_at:
            self.visit()
            sleep(0.05)

    # -- what must hold -----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """After quiet: the limit in sum, one session per peer, a store that says so, and a stream with each event once."""
        eventually(self._is_settled, "one session per peer, each with its claim", SETTLE_SECONDS)
        # A host that was stopped publishes its last events when it has noticed that nobody has confirmed them.
        eventually(self._agrees, "the stream and the hosts agree", SETTLE_SECONDS)

    def _agrees(self) -> bool:
        """Whether the stream has the lives of the sessions that the hosts have, and no event twice."""
        lives = Lives(self.nats)
        assert len(lives.events) == len({event["id"] for event in lives.events}), "an event is in the stream twice"
        there = {(name, shown["session"]) for name, engine in self.hosts.items() for shown in _active(engine)}
        return lives.alive() == there

    def _is_settled(self) -> bool:
        sessions = [
            (name, shown["peer"], shown["session"]) for name, engine in self.hosts.items() for shown in _active(engine)
        ]
        try:
            claims = asyncio.run(_claims(self.nats))
        except (nats_client.errors.Error, nats_client.js.errors.Error, TimeoutError):
            return False  # the servers are not ready yet
        living = {name: engine.call("snapshot")["run"] for name, engine in self.hosts.items()}
        held = {peer: claim["host"] for peer, claim in claims.items() if living[claim["host"]] == claim["epoch"]}
        peers = [peer for _, peer, _ in sessions]
        return len(peers) == len(set(peers)) <= LIMIT and held == {peer: name for name, peer, _ in sessions}


def _active(engine: RunningEngine) -> list[dict[str, Any]]:
    return list(engine.call("sessions", phase="active")["sessions"])


async def _claims(nats: Nats) -> dict[str, dict[str, Any]]:
    """The claims in the fleet's store, by peer."""
    client = await nats_client.connect([url if "://" in url else f"nats://{url}" for url in nats.url.split(",")])
    try:
        # nats-py's own list of keys leaves a consumer behind, and may miss some.
        page = await read_page(client, "test", Scan(1, "peer.", 0, 10_000))
        if page.outcome is not Outcome.DONE or page.revision:
            raise nats_client.errors.TimeoutError
        return {entry.key.removeprefix("peer."): json.loads(entry.value) for entry in page.entries}
    finally:
        await client.close()


def attack(seed: int, seconds: float) -> list[str]:
    """Run one seed; returns the faults that there were. Raises `AssertionError` if an invariant is broken."""
    with ExitStack() as stack:
        fleet = Fleet(seed, stack)
        try:
            fleet.run(seconds)
            fleet.check()
        except BaseException:
            sys.stderr.write(f"seed {seed}: {'; '.join(fleet.log)}\n")
            raise
        return fleet.log


def main() -> None:
    """The command."""
    arguments = argparse.ArgumentParser(prog="python -m tests.system.cluster_nemesis", description=__doc__)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--seconds", type=float, default=60.0)
    given = arguments.parse_args()
    sys.stdout.write(f"seed {given.seed}: {'; '.join(attack(given.seed, given.seconds))}: nothing broken\n")


if __name__ == "__main__":
    main()
