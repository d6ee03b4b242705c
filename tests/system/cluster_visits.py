"""Peers that come to the hosts of a fleet and go, and what the hosts tell of their sessions."""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.session.events import Closed
from tests.system.cluster_fleet import Crowd
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer

# So long a host may lack places after the servers were away: on a busy machine, and if it connects to one after the other.
SHORT_SECONDS = 30.0
AGAIN_SECONDS = 0.25


def active(engines: list[RunningEngine]) -> int:
    """The active sessions of all."""
    return sum(engine.counts()[2] for engine in engines)


def has_verdict(peer: Peer) -> bool:
    """Whether a peer is let in or refused."""
    return peer.session.stage == "active" or peer.session.is_closed


def refused(peer: Peer) -> DisconnectReason | None:
    """The reason that a peer reads."""
    ends: list[Closed] = eventually(lambda: [end for end in peer.events if isinstance(end, Closed)], "it reads why")
    return ends[0].reason


def visit(peers: Crowd, engine: RunningEngine) -> Peer:
    """A peer comes and is let in.

    A host that has found the store again leases no places for five seconds: if it has no unused ones, the peer comes again.
    """
    ends_at = monotonic() + SHORT_SECONDS
    while True:
        peer = peers.connect(engine)
        eventually(lambda: has_verdict(peer), "a verdict")  # noqa: B023 - asked in this turn only
        if peer.session.stage == "active":
            return peer
        assert (refused(peer), monotonic() < ends_at) == (DisconnectReason.TOO_MANY_PEERS, True)
        sleep(AGAIN_SECONDS)


def come_and_go(peers: Crowd, engines: list[RunningEngine], seconds: float) -> None:
    """For so long a peer comes to one host after the other, is let in, and leaves."""
    ends_at = monotonic() + seconds
    while monotonic() < ends_at:
        for engine in engines:
            before = engine.counts()[2]
            peer = visit(peers, engine)
            eventually(lambda: engine.counts()[2] == before + 1, "its session is active")  # noqa: B023 - asked in this turn only
            peers.leave(peer)
            eventually(lambda: engine.counts()[2] == before, "it has left")  # noqa: B023 - see above


def lived(engines: dict[str, RunningEngine]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The sessions that were ever active, as the hosts tell it, and those that have ended."""
    there = {(name, shown["session"]) for name, engine in engines.items() for shown in sessions(engine)}
    ended = {
        (name, shown["session"])
        for name, engine in engines.items()
        for shown in engine.call("history", limit=100_000)
        if shown["stage"] == "active"
    }
    return sorted(there | ended), sorted(ended)


def sessions(engine: RunningEngine) -> list[dict[str, Any]]:
    """The active sessions of a host."""
    return list(engine.call("sessions", phase="active")["sessions"])
