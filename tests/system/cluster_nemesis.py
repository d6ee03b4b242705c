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
from typing import Any, Final

import nats as nats_client

from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.cluster_fleet import Crowd, Lives, Nats, Proxy, crowd
from tests.system.harness import RunningEngine, eventually

LIMIT: Final = 12
HOSTS: Final = ("a", "b", "c")
PEERS: Final = 18
# After the last fault everything is in order within this time.
SETTLE_SECONDS: Final = 60.0


class Fleet:
    """Three hosts, each with a way to NATS that can be cut, and three servers."""

    def __init__(self, seed: int, stack: ExitStack) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a run can be repeated
        self.nats = stack.enter_context(Nats(3))
        self._stack = stack
        self.proxies = {name: stack.enter_context(Proxy(port)) for name, port in zip(HOSTS, self.nats.ports, strict=True)}
        self._folders = {name: Path(tempfile.mkdtemp(prefix=f"rlpx-{name}-")) for name in HOSTS}
        self.hosts: dict[str, RunningEngine] = {}
        for name in HOSTS:
            self.start(name)
        self.peers: Crowd = stack.enter_context(crowd())
        self.keys = [PrivateKey(bytes([number]) * 32) for number in range(1, PEERS + 1)]
        self.log: list[str] = []
        stack.callback(self._end)

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
        self.hosts[name] = RunningEngine(*flags, workers=1, run_dir=self._folders[name], is_read=False)

    def kill(self, name: str) -> None:
        """kill -9 of a host and its workers."""
        engine = self.hosts.pop(name)
        os.kill(engine.process.pid, signal.SIGCONT)
        engine.process.kill()
        with suppress(AssertionError):
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

    def fault(self) -> Callable[[], None] | None:
        """Something fails; returns how it is mended."""
        kind = self.random.choice(["kill host", "stop host", "cut", "kill server", "kill all servers"])
        name, index = self.random.choice(HOSTS), self.random.randrange(3)
        self.log.append(f"{kind} {name} {index}")
        if kind == "kill host" and name in self.hosts:
            self.kill(name)
            return lambda: self.start(name)
        if kind == "stop host" and name in self.hosts:
            process = self.hosts[name].process
            os.kill(process.pid, signal.SIGSTOP)
            return lambda: os.kill(process.pid, signal.SIGCONT)
        if kind == "cut":
            self.proxies[name].cut()
            return self.proxies[name].heal
        if kind == "kill server":
            self.nats.kill(index)
            return lambda: self.nats.start(index)
        if kind == "kill all servers":
            self.nats.kill_all()
            return self.nats.start_all
        return None

    def run(self, seconds: float) -> None:
        """Visits all the time, and one fault after another, each mended before the next."""
        ends_at = monotonic() + seconds
        while monotonic() < ends_at:
            self._visit_for(self.random.uniform(0.5, 3.0))
            mend = self.fault()
            self._visit_for(self.random.choice([self.random.uniform(0.2, 3.0), self.random.uniform(10.0, 20.0)]))
            if mend is not None:
                mend()

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
        store = await client.jetstream().key_value("test")
        try:
            keys = await store.keys()
        except nats_client.js.errors.NoKeysError:
            return {}
        found = {}
        for key in keys:
            if key.startswith("peer."):
                with suppress(nats_client.js.errors.KeyNotFoundError):
                    entry = await store.get(key)
                    found[key.removeprefix("peer.")] = json.loads(entry.value or b"null")
        return {peer: claim for peer, claim in found.items() if claim}
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
