"""Somebody sets the clocks of hosts, by an hour forward and backward: nothing follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.cluster_fleet import Crowd, Lives, Nats, SteppedClock, crowd
from tests.system.cluster_visits import active, come_and_go, lived
from tests.system.harness import RunningEngine, eventually

LIMIT = 12
HOUR_SECONDS = 3600
# Longer than any host without heartbeats is believed to live, if somebody counted by a clock that is set.
LONG_SECONDS = 16.0


def started(nats: Nats, name: str, clock: SteppedClock) -> RunningEngine:
    """A host with a clock that can be set."""
    flags = ("--cluster", nats.url, "--cluster-name", "test", "--cluster-host", name)
    limits = ("--limits.max-active-inbound", str(LIMIT))
    return RunningEngine(*flags, *limits, workers=1, program=clock.program, is_read=False)


def fill(peers: Crowd, engines: list[RunningEngine]) -> None:
    """Peers come until the fleet has no place left, and no more of them are let in."""

    def is_full() -> bool:
        for engine in engines:
            peers.connect(engine)
        count = active(engines)
        assert count <= LIMIT
        return count == LIMIT

    eventually(is_full, "every place is taken")


@pytest.mark.long
def test_clocks_that_are_set_end_no_session_and_take_no_place(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in "ab"}
    for folder in folders.values():
        folder.mkdir()
    clocks = {name: SteppedClock(folder) for name, folder in folders.items()}
    with (
        Nats() as nats,
        started(nats, "a", clocks["a"]) as first,
        started(nats, "b", clocks["b"]) as second,
        crowd() as peers,
    ):
        engines, key = [first, second], PrivateKey(b"\x07" * 32)
        staying = [peers.connect(engine) for engine in engines for _ in range(2)]
        staying.append(peers.connect(first, key))
        eventually(lambda: active(engines) == 5, "five sessions")
        clocks["a"].step(HOUR_SECONDS)
        clocks["b"].step(-HOUR_SECONDS)
        come_and_go(peers, engines, LONG_SECONDS)
        # By the clock of host b the session at host a begins in two hours.
        rival = peers.connect(second, key)
        eventually(lambda: rival.session.is_closed, "a second session of the same peer is refused")
        fill(peers, engines)
        clocks["a"].step(0)
        clocks["b"].step(0)
        assert all(peer.session.stage == "active" for peer in staying)
        hosts = {"a": first, "b": second}
        eventually(lambda: sum(engine.counts()[0] for engine in engines) == 0, "every peer has a verdict")
        there = {(name, shown["session"]) for name, engine in hosts.items() for shown in engine.call("sessions")["sessions"]}
        eventually(lambda: Lives(nats).alive() == there, "the stream says who is there")
        lives = Lives(nats)
        assert sorted(lives.names("established")) == lived(hosts)[0]
        assert len(lives.events) == len({event["id"] for event in lives.events})
        assert not [event for event in lives.events if event["topic"] in ("engine.lost", "engine.back")]
        for name in hosts:
            times_us = [event["time_us"] for event in lives.of("opened") if event["host"] == name]
            assert max(times_us) - min(times_us) > HOUR_SECONDS * 500_000
            opened = [session for host, session in lives.names("opened") if host == name]
            assert opened == sorted(opened)
