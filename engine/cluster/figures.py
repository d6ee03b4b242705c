"""What an operator sees of this host's membership: counted here, or asked of the parts at the moment of the question."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rlpx.engine.cluster.lifecycle import LifecycleStream
from rlpx.engine.cluster.outlet import MAX_WAITING_BYTES, Outlet
from rlpx.protocol.bus.metrics import ClaimsCount, Durations, FleetMetrics, PlacesCount, QueueUse
from rlpx.protocol.bus.results import FleetStatus
from rlpx.protocol.cluster.claims import State
from rlpx.protocol.cluster.member import Member
from rlpx.protocol.lifecycle import Direction


class Figures:
    """See the module. Times are those of the membership's clock. The parts are there once this host has joined."""

    def __init__(self, fleet: str, member: Member) -> None:
        self._fleet = fleet
        self._member = member
        self.lives: LifecycleStream | None = None
        self.outlet: Outlet | None = None
        self.lost_calls = 0
        self.refused_claims = 0
        self.ended_sessions = 0
        self._claim_seconds = Durations()
        # When each session that awaits its verdict was claimed.
        self._claimed_at: dict[int, float] = {}
        self._away_since: float | None = None

    def look(self, now: float) -> None:
        """Note whether NATS answers; called several times a second."""
        if not self._member.hosts.is_away:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = now

    def on_claim(self, session: int, now: float) -> None:
        """A session is claimed."""
        self._claimed_at[session] = now

    def on_verdicts(self, sessions: Iterable[int], now: float) -> None:
        """The sessions have their verdicts."""
        for session in sessions:
            claimed_at = self._claimed_at.pop(session, None)
            if claimed_at is not None:
                self._claim_seconds.observe(now - claimed_at)

    def on_release(self, session: int) -> None:
        """The session has ended, perhaps without a verdict."""
        self._claimed_at.pop(session, None)

    def metrics(self, now: float) -> FleetMetrics:
        """All counters."""
        self.look(now)
        lives, outlet = self.lives, self.outlet
        queues = [] if lives is None else [QueueUse("fleet_events", lives.spool.size_bytes, lives.spool.max_bytes)]
        if outlet is not None:
            queues.append(QueueUse("fleet_traffic", outlet.waiting_bytes, MAX_WAITING_BYTES))
        return FleetMetrics(
            fleet=self._fleet,
            host=self._member.setup.me.host,
            is_member=self._member.hosts.is_firm(now),
            away_s=0.0 if self._away_since is None else now - self._away_since,
            hosts=len(self._hosts(now)),
            places=self._places(),
            claims=self._claims(),
            claims_refused=self.refused_claims,
            claims_erased=self._member.sweep.erased,
            sessions_ended=self.ended_sessions,
            claim_seconds=self._claim_seconds,
            lost_calls=self.lost_calls,
            events_published=0 if lives is None else lives.published_events,
            events_waiting=0 if lives is None else lives.waiting_events,
            events_dropped=0 if lives is None else lives.lost_events,
            traffic_batches=0 if outlet is None else outlet.sent_batches,
            traffic_bytes=0 if outlet is None else outlet.sent_bytes,
            traffic_dropped=0 if outlet is None else outlet.dropped_batches,
            queues=queues,
        )

    def status(self, now: float) -> FleetStatus:
        """The membership at a glance."""
        self.look(now)
        lives, away_since, state = self.lives, self._away_since, self._state(now)
        return FleetStatus(
            name=self._fleet,
            host=self._member.setup.me.host,
            state=state,
            lets_in=state == "member" or (state == "away" and self._member.setup.lets_in),
            away_ms=None if away_since is None else int((now - away_since) * 1000),
            hosts=self._hosts(now),
            places=self._places(),
            claims=self._claims(),
            waiting_events=0 if lives is None else lives.waiting_events,
            spooled_bytes=0 if lives is None else lives.spool.size_bytes,
            lost_events=0 if lives is None else lives.lost_events,
        )

    def _state(self, now: float) -> Literal["member", "doubtful", "away"]:
        if self._away_since is not None:
            return "away"
        return "member" if self._member.hosts.is_firm(now) else "doubtful"

    def _hosts(self, now: float) -> list[str]:
        """The living hosts as far as this one sees: none while it sees nothing."""
        own = [self._member.setup.me.host] if self._member.hosts.is_firm(now) else []
        return sorted([*self._member.hosts.alive(now), *own])

    def _places(self) -> dict[Direction, PlacesCount]:
        return {
            way: PlacesCount(places.leased, places.used, places.elsewhere) for way, places in self._member.places.items()
        }

    def _claims(self) -> ClaimsCount:
        states = self._member.claims.states()
        return ClaimsCount(states[State.HELD], states[State.LOOSE], states[State.ASKING])
