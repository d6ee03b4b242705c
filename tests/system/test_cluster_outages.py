"""NATS servers of a fleet are killed: no session is lost, no limit broken, and every event is in the stream once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.cluster_fleet import Crowd, Lives, Nats, crowd, fleet
from tests.system.cluster_visits import active, come_and_go, has_verdict, lived
from tests.system.harness import RunningEngine, eventually

# Each of two hosts leases ten places or more with its first session, and so has some for others while the store is away.
LIMIT = 40
# What ended is compared with the stream, so the hosts remember all of it.
LIMITS = ("--limits.max-active-inbound", str(LIMIT), "--control.history", "100000")
# Servers that are back must find each other, choose leaders, and take what waited.
BACK_SECONDS = 180.0


def crowd_in(peers: Crowd, engines: list[RunningEngine]) -> None:
    """More peers come than there are places, and those that were let in leave again."""
    before = [engine.counts()[2] for engine in engines]
    came = [peers.connect(engine) for engine in engines for _ in range(LIMIT)]
    eventually(lambda: all(map(has_verdict, came)), "every peer has a verdict", BACK_SECONDS)
    assert active(engines) <= LIMIT
    for peer in came:
        if not peer.session.is_closed:
            peers.leave(peer)
    eventually(lambda: [engine.counts()[2] for engine in engines] == before, "they have left")


def outage(killed: int, act: Callable[[Crowd, list[RunningEngine]], None], and_then: Callable[..., None]) -> None:
    """Kill so many of three servers and act; when they are back, every event must be in the stream once."""
    with Nats(3) as nats, fleet(nats, "a", "b", flags=LIMITS) as engines, crowd() as peers:
        staying = [peers.connect(engine) for engine in engines for _ in range(3)]
        eventually(lambda: active(engines) == 6, "six sessions")
        for server in range(killed):
            nats.kill(server)
        act(peers, engines)
        for server in range(killed):
            nats.start(server)
        and_then(peers, engines)
        assert all(peer.session.stage == "active" for peer in staying)
        hosts = dict(zip(("a", "b"), engines, strict=True))

        def is_told() -> bool:
            lives = Lives(nats)
            ended = set(lives.names("established")) & set(lives.names("closed"))
            return (sorted(lives.names("established")), sorted(ended)) == lived(hosts)

        eventually(is_told, "the stream tells what the hosts tell", BACK_SECONDS)
        lives = Lives(nats)
        assert len(lives.events) == len({event["id"] for event in lives.events})
        for host in hosts:
            opened = [session for name, session in lives.names("opened") if name == host]
            assert opened == sorted(opened)
        assert lives.most_active("inbound") <= LIMIT


@pytest.mark.long
@pytest.mark.parametrize(("killed", "seconds"), [(1, 3.0), (2, 16.0)])
def test_sessions_come_and_go_without_some_of_the_servers(killed: int, seconds: float) -> None:
    def act(peers: Crowd, engines: list[RunningEngine]) -> None:
        come_and_go(peers, engines, seconds)
        crowd_in(peers, engines)

    outage(killed, act, lambda peers, engines: come_and_go(peers, engines, 1.0))


@pytest.mark.long
def test_sessions_survive_a_minute_without_servers_and_of_two_with_one_peer_the_older_stays() -> None:
    key = PrivateKey(b"\x09" * 32)

    def act(peers: Crowd, engines: list[RunningEngine]) -> None:
        for engine in engines:
            peers.connect(engine, key)
            eventually(lambda: engine.counts()[2] == 4, "the peer is let in, because nobody knows that another host has it")  # noqa: B023 - asked in this turn only
        crowd_in(peers, engines)
        come_and_go(peers, engines, 60.0)
        assert active(engines) == 8

    def settle(_peers: Crowd, engines: list[RunningEngine]) -> None:
        eventually(lambda: [engine.counts()[2] for engine in engines] == [4, 3], "the younger session ends", BACK_SECONDS)

    outage(3, act, settle)


@pytest.mark.long
def test_what_a_host_that_is_killed_had_to_say_is_published_by_its_next_start(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)

    def started(nats: Nats) -> RunningEngine:
        flags = ("--cluster", nats.url, "--cluster-name", "test", "--cluster-host", "a")
        return RunningEngine(*flags, workers=1, run_dir=run_dir, is_read=False)

    with Nats() as nats, crowd() as peers:
        killed = started(nats)
        try:
            peers.connect(killed)
            eventually(lambda: active([killed]) == 1, "a session")
            nats.kill_all()
            come_and_go(peers, [killed], 1.0)
            established, ended = lived({"a": killed})
            # The last event of all is the end of the last session.
            last = f'"session":{ended[-1][1]},'.encode()
            spool = run_dir / "lifecycle-test.spool"

            def waits() -> bool:
                lines = spool.read_bytes().splitlines() if spool.exists() else []
                return any(b"session.closed" in line and last in line for line in lines)

            eventually(waits, "what NATS has not confirmed is in the file")
        finally:
            killed.process.kill()
            killed.__exit__(None, None, None)
        nats.start_all()
        with started(nats):
            eventually(lambda: [event["topic"] for event in Lives(nats).events].count("engine.started") == 2, "all is told")
            lives = Lives(nats)
            assert (lives.names("established"), lives.names("closed")) == (established, ended)
            assert len(lives.events) == len({event["id"] for event in lives.events})
            # The one that was active is over with the run that it was part of.
            assert lives.alive() == set()
