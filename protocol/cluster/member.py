"""One host's part in the fleet: heartbeats, claims of peers, and leases of places. Events in, steps out.

It is driven from outside: what has happened is told with the time on a monotonic clock, `take` returns what is to be done,
and `tick` is called at least once a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from rlpx.protocol.cluster.claims import Claims
from rlpx.protocol.cluster.deaths import Deaths
from rlpx.protocol.cluster.hosts import Hosts, Me, Timing
from rlpx.protocol.cluster.places import BLOCK_PLACES, Places
from rlpx.protocol.cluster.records import FLEET, Fleet, Heartbeat, decode, encode, host_of, noted_peer, shard_of
from rlpx.protocol.cluster.rendezvous import owner_of, weight_of
from rlpx.protocol.cluster.steps import Answer, EndSession, Outcome, Step
from rlpx.protocol.cluster.store import Store
from rlpx.protocol.cluster.sweep import Sweep
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction

# Sessions above the leased places end after this time, unless places come free before.
EXCESS_SECONDS: Final = 2.0
# A shard is for this many places: hosts that lease in the same one disturb each other, and each write carries all leases to
# all hosts. With 100 places a host that is 20 leases, some 500 bytes.
SHARD_PLACES: Final = 2_000
MAX_SHARDS: Final = 64


class Setup(msgspec.Struct, frozen=True):
    """Who we are, the limits if the fleet has none yet, and whether sessions begin while the store is away."""

    me: Me
    limits: Mapping[Direction, int]
    lets_in: bool = True
    timing: Timing = Timing()
    block_places: int = BLOCK_PLACES
    node: str = ""
    chain: str = ""


class Asked(msgspec.Struct, gc=False):
    """A session whose verdict or end is awaited. One that passes the limits is never ended for lack of a place."""

    direction: Direction
    passes_limits: bool = False
    is_ending: bool = False


class Member:
    """See the module."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._steps: list[Step] = []
        self._store = Store(self._steps)
        self.hosts = Hosts(setup.me, setup.timing, self._store, self._steps)
        self.hosts.describe, self.hosts.on_return, self.hosts.on_loss = self._describe, self._on_return, self._on_loss
        self.places = {way: Places(way, self.hosts, self._store, self._steps) for way in Direction}
        for places in self.places.values():
            places.block_places = setup.block_places
        self.claims = Claims(self.hosts, self._store, self._steps, lets_in=setup.lets_in)
        self.deaths = Deaths(self.hosts, self._steps)
        self.sweep = Sweep(self.hosts, self._store, self.places.values())
        self.claims.is_open = self._is_open
        self.fleet: Fleet | None = None
        self._fleet_revision = 0
        # Whether the store has a record of the limits that makes sense.
        self._is_fleet_stored = False
        self._wanted_limits: dict[Direction, int] = {}
        self._is_writing_fleet = False
        self._is_fleet_stale = False
        self._sessions: dict[int, Asked] = {}
        # Since when there have been more sessions than places, by direction.
        self._excess_since: dict[Direction, float] = {}

    def take(self) -> list[Step]:
        """What is to be done now, in this order."""
        steps = list(self._steps)
        self._steps.clear()
        for step in steps:
            if isinstance(step, EndSession) and step.session in self._sessions:
                self._sessions[step.session].is_ending = True
        return steps

    # -- what happens -------------------------------------------------------------------------------------------------------

    def on_connected(self, now: float) -> None:
        """The store can be reached. After this, every key that is watched is seen once more."""
        self._look_anew(now)
        self.hosts.on_connected(now)
        self.tick(now)

    def on_disconnected(self, now: float) -> None:
        """The store cannot be reached any more."""
        self.hosts.on_disconnected()
        self.tick(now)

    def on_seen(self, key: str, revision: int, value: bytes | None, now: float) -> None:
        """A watched key has this value: those of hosts, of places and of the fleet, and notes to this host."""
        if (host := host_of(key)) is not None:
            self.hosts.on_seen(host, revision, value, now)
            for way, places in self.places.items():
                if self.hosts.lacks(host, way):
                    places.on_lack(now)
        elif (shard := shard_of(key)) is not None:
            self.places[shard[0]].on_seen(shard[1], revision, value, now)
        elif value is not None and (peer := noted_peer(key, self.setup.me.host)) is not None:
            self.claims.on_note(key, revision, peer, now)
        elif key == FLEET and (revision > self._fleet_revision or self._is_fleet_stale):
            self._on_fleet(revision, value, now)

    def on_answers(self, answers: Iterable[Answer], now: float) -> None:
        """The store has answered calls, or will not."""
        self._store.on_answers(answers, now)

    def tick(self, now: float) -> None:
        """Let time pass."""
        self.hosts.tick(now)
        self._keep_fleet()
        for places in self.places.values():
            places.decide(now)
        self.claims.tick(now)
        self._end_excess(now)
        self.deaths.tick(now)
        self.sweep.tick(now)

    # -- what the engine asks -----------------------------------------------------------------------------------------------

    def claim(self, session: int, peer: bytes, asked: Asked, *, since_us: int, now: float) -> None:
        """A session has a place, and its peer is proved: `Admitted` or `Refused` follows."""
        self._sessions[session] = asked
        self.claims.claim(session, peer, since_us, now)

    def release(self, session: int, now: float) -> None:
        """A session has ended; a second release is harmless."""
        self._sessions.pop(session, None)
        self.claims.release(session, now)

    def use(self, direction: Direction, used: int, waiting: int, now: float) -> None:
        """So many sessions have a place, without those that pass the limits, and so many wait for one."""
        self.places[direction].use(used, waiting, now)

    def set_limits(self, limits: Mapping[Direction, int]) -> None:
        """Change limits of the whole fleet."""
        self._wanted_limits.update(limits)
        self._keep_fleet()

    def leave(self, now: float) -> None:
        """End the membership: the host has no sessions any more, and whatever it held is void."""
        self.hosts.leave(now)

    def owner_of(self, target: bytes, now: float) -> str:
        """The host that is to dial this peer: this one, if no host has a place."""
        me = self.setup.me.host
        free = {host: sum(beat.free.values()) for host, beat in self.hosts.alive(now).items()}
        free[me] = sum(self._describe().free.values())
        return owner_of(target, {host: weight_of(places) for host, places in free.items()}) or me

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _describe(self) -> Heartbeat:
        me = self.setup.me
        hosts = len(self.hosts.others) + 1
        free = {way: places.free + places.elsewhere // hosts for way, places in self.places.items()}
        wants = {way: places.wants for way, places in self.places.items()}
        return Heartbeat(me.epoch, free, wants, has_left=self.hosts.has_left, node=self.setup.node, chain=self.setup.chain)

    def _on_loss(self, now: float) -> None:
        """The store has lost what it had, and may be another one."""
        self.hosts.expect_any()
        self._look_anew(now)

    def _look_anew(self, now: float) -> None:
        """The store may have lost what it had: see that it has what we hold."""
        self._is_fleet_stale = True
        if self.fleet is not None:
            # No watch tells of a key that is missing.
            self._store.read(FLEET, self._on_fleet_read)
        for places in self.places.values():
            places.on_connected(now)
        self.claims.on_return()

    def _on_return(self, now: float) -> None:
        """Heartbeats are confirmed for the first time, or after a time in which we may have been given up."""
        self._keep_fleet()
        for places in self.places.values():
            places.on_return(now)
        self.claims.on_return(writes=self.hosts.was_silent)

    def _is_open(self, now: float) -> bool:
        """Whether there is a place for each of our sessions, and we are sure of them or have nobody to ask."""
        is_sure = self.hosts.is_firm(now)
        for places in self.places.values():
            if places.excess:
                return False
            is_sure = is_sure and places.is_sure
        return is_sure or self.hosts.is_away

    def _end_excess(self, now: float) -> None:
        """If we have had more sessions than places for a while, end the newest."""
        for way, places in self.places.items():
            if not places.excess or self.hosts.is_away or not places.is_sure:
                self._excess_since.pop(way, None)
            elif now >= self._excess_since.setdefault(way, now) + EXCESS_SECONDS:
                for number in self._surplus(way, places.excess):
                    cause = "the fleet has given this host's places to others"
                    self._sessions[number].is_ending = True
                    self._steps.append(EndSession(number, DisconnectReason.TOO_MANY_PEERS, cause))

    def _surplus(self, way: Direction, excess: int) -> list[int]:
        """The newest sessions that have no place, less those that have been told to end. Some need none."""
        limited = {
            number: asked for number, asked in self._sessions.items() if asked.direction is way and not asked.passes_limits
        }
        staying = sorted((number for number, asked in limited.items() if not asked.is_ending), reverse=True)
        return staying[: max(0, excess - (len(limited) - len(staying)))]

    # -- the fleet's record -------------------------------------------------------------------------------------------------

    def _on_fleet_read(self, answer: Answer, now: float) -> None:
        if not self._is_fleet_stale:
            return
        if answer.outcome is Outcome.DONE:
            self._on_fleet(answer.revision, answer.value, now)
        else:
            # It may be missing. A write over the revision that we know shows that as well, and is repeated until its answer.
            self._is_fleet_stored = False

    def _on_fleet(self, revision: int, value: bytes | None, now: float) -> None:
        fleet = decode(Fleet, value)
        self._is_fleet_stale = False
        self._fleet_revision = revision if value is not None else 0
        self._is_fleet_stored = fleet is not None
        if fleet is not None:
            self.fleet = fleet
            for way, places in self.places.items():
                places.configure(fleet.limits.get(way, 0), fleet.shards)
                places.decide(now)
            # Others should hear soon how many places we have.
            self.hosts.hurry(now)
        self._keep_fleet()

    def _keep_fleet(self) -> None:
        """Write the fleet's record if it is missing or nonsense, or if its limits are to change."""
        if self._is_writing_fleet or self.hosts.is_away or not self.hosts.is_joined:
            return
        limits = {way: self.setup.limits.get(way, 0) for way in Direction} if self.fleet is None else dict(self.fleet.limits)
        limits.update(self._wanted_limits)
        if self.fleet is not None and limits == self.fleet.limits and self._is_fleet_stored:
            self._wanted_limits.clear()
            return
        shards = min(MAX_SHARDS, max(1, max(limits.values()) // SHARD_PLACES)) if self.fleet is None else self.fleet.shards
        self._is_writing_fleet = True
        record = Fleet(limits, shards)

        def on_written(answer: Answer, now: float) -> None:
            self._is_writing_fleet = False
            if answer.outcome is Outcome.DONE:
                self._on_fleet(answer.revision, encode(record), now)
            elif answer.outcome is Outcome.CONFLICT:
                self._on_fleet(answer.revision, answer.value, now)

        self._store.put(FLEET, record, self._fleet_revision, on_written)
