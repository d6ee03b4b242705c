"""The places in one direction that this host has leased, so that the sum over all hosts never exceeds the fleet's limit.

Places are kept in shards, each a record with the leases of all hosts, changed by compare-and-set. One write is under way at
a time. We count a place as ours only when its lease is confirmed, and stop counting it before we write that it is given
back. What the store says is used the other way round: if it has less than we count, we count less at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from rlpx.protocol.cluster.hosts import Hosts
from rlpx.protocol.cluster.records import Lease, Shard, decode, shard_key
from rlpx.protocol.cluster.steps import Answer, Outcome, PlacesChanged, Step
from rlpx.protocol.cluster.store import Store
from rlpx.protocol.lifecycle import Direction

# Places are leased in blocks of this size: one write serves as many sessions, and few places lie unused.
BLOCK_PLACES: Final = 64
# A block is no more than one in so many parts of a host's even share of the places.
SHARE_BLOCKS: Final = 2
# A host keeps a block of unused places. More than that is given back after this time.
IDLE_SECONDS: Final = 10.0
# If other hosts lack places and none are free, unused ones are given back this often at most.
GIVE_SECONDS: Final = 0.5
# How often a host with unused places looks whether others lack some.
LOOK_SECONDS: Final = 0.25
# After the store was away, hosts that find their leases lost write them again before anybody leases more.
SETTLE_SECONDS: Final = 5.0
# After a conflict the next try comes later, by up to this much for each conflict in a row: not all hosts collide again.
BACKOFF_SECONDS: Final = 0.02
_MAX_CONFLICTS: Final = 10


# Asks whether an epoch of a host is dead or over, and hands on the answer with the time.
Confirm = Callable[[str, str, Callable[[bool, float], None]], None]


class Kept(msgspec.Struct):
    """A shard as we last saw it, the sum of its leases, and how many of its places we count as ours.

    It is stale from a return of the store until the next look, which may then show an older revision: a store that has lost
    its latest writes counts from there again.
    """

    revision: int = 0
    shard: Shard = msgspec.field(default_factory=Shard)
    leased: int = 0
    mine: int = 0
    # The revision at which the store had them.
    mine_at: int = 0
    is_stale: bool = False


class Places:
    """See the module. `limit` and `shards` come from the fleet's record; there are no places before `configure`."""

    def __init__(self, direction: Direction, hosts: Hosts, store: Store, steps: list[Step]) -> None:
        self.direction = direction
        self.block_places = BLOCK_PLACES
        self.used = 0
        self.waiting = 0
        # The places that we count as ours, and those that nobody has leased: sums over all shards, kept because each session
        # asks for them.
        self.leased = 0
        self.elsewhere = 0
        self._hosts = hosts
        self._store = store
        self._steps = steps
        self._limit = 0
        self._kept: list[Kept] = []
        self._is_writing = False
        # The shards whose leases must be confirmed before we use more places.
        self._unsure: set[int] = set()
        self._lease_from = 0.0
        self._give_from = 0.0
        self._look_from = 0.0
        self._try_from = 0.0
        self._conflicts = 0
        self._idle_since: float | None = None
        self._told: tuple[int, int] | None = None

    # -- what is known ------------------------------------------------------------------------------------------------------

    def configure(self, limit: int, shards: int) -> None:
        """Use the fleet's limit, kept in this many shards."""
        self._limit = limit
        while len(self._kept) < shards:
            self._kept.append(Kept())
        self.elsewhere = sum(max(0, self._free_in(number)) for number in range(len(self._kept)))
        self._tell()

    @property
    def block(self) -> int:
        """How many places are leased at once: fewer if the limit is low, so that every host gets some."""
        return max(1, min(self.block_places, self._limit // (SHARE_BLOCKS * (len(self._hosts.others) + 1))))

    @property
    def is_sure(self) -> bool:
        """Whether our leases are known to be in force."""
        return not self._unsure

    @property
    def excess(self) -> int:
        """The sessions that have no place."""
        return max(0, self.used - self.leased)

    @property
    def free(self) -> int:
        """Our unused places."""
        return max(0, self.leased - self.used - self.waiting)

    @property
    def wants(self) -> int:
        """The places that we lack."""
        return max(0, self.used + self.waiting - self.leased)

    # -- what happens -------------------------------------------------------------------------------------------------------

    def on_connected(self, now: float) -> None:
        """The store can be reached again, and may have lost what it had."""
        if self._hosts.is_joined:
            self._lease_from = now + SETTLE_SECONDS
        for number, kept in enumerate(self._kept):
            kept.is_stale = True
            if kept.mine:
                self._unsure.add(number)

    def on_return(self, now: float) -> None:
        """Others may have given us up meanwhile: confirm each lease."""
        self._unsure |= {number for number, kept in enumerate(self._kept) if kept.mine}
        self.decide(now)

    def on_seen(self, number: int, revision: int, value: bytes | None, now: float) -> None:
        """A shard has been written."""
        if number < len(self._kept) and (self._kept[number].is_stale or revision > self._kept[number].revision):
            # A newer revision than that of our last write rules out that a write of ours is still to come.
            is_final = not self._is_writing and revision > self._kept[number].revision
            self._look(number, revision, value, now, is_final=is_final)
            self.decide(now)

    def on_lack(self, now: float) -> None:
        """Another host says that it lacks places. Sessions wait for them, so we look at once if we have unused ones."""
        if self.free:
            self._look_from = now
            self.decide(now)

    def use(self, used: int, waiting: int, now: float) -> None:
        """So many sessions have a place or wait for one."""
        self.used, self.waiting = used, waiting
        self.decide(now)

    def decide(self, now: float) -> None:
        """Lease or give back, if there is reason to."""
        if not self._is_writing and not self._hosts.is_away and self._hosts.is_joined and now >= self._try_from:
            if self._unsure:
                number = min(self._unsure)
                self._write(number, self._confirmable(number))
            elif self.wants:
                self._lease(now)
            else:
                self._give_back(now)
        self._tell()

    def sweep(self, now: float) -> None:
        """Take a lease of an epoch that is over out of its shard, although nobody needs its places."""
        if self._is_writing or self._unsure or self.wants or now < self._try_from:
            return
        for number, kept in enumerate(self._kept):
            for host, lease in kept.shard.leases.items():
                if self._hosts.is_over(host, lease.epoch, now):
                    self._void(number, (host, lease), self._hosts.confirm_over)
                    return

    # -- decisions ----------------------------------------------------------------------------------------------------------

    def _lease(self, now: float) -> None:
        self._idle_since = None
        if not self._hosts.is_firm(now):
            return
        # Places for sessions that are there already do not wait.
        wanted = self.wants if now >= self._lease_from else self.used - self.leased
        if wanted <= 0:
            return
        for number in self._own_order():
            free = self._free_in(number)
            if free > 0:
                blocks = -(-wanted // self.block) * self.block
                size = blocks if now >= self._lease_from else wanted
                self._write(number, self._kept[number].mine + min(size, free))
                return
        for number in self._own_order():
            dead = self._dead_in(number, now)
            if dead is not None:
                self._void(number, dead, self._hosts.confirm_dead)
                return
        self._hosts.hurry(now)

    def _give_back(self, now: float) -> None:
        free = self.leased - self.used - self.waiting
        if free <= self.block:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        if free <= 0 or now < max(self._give_from, self._look_from):
            return
        # Looked at this often only, because it is asked with every session.
        self._look_from = now + LOOK_SECONDS
        is_over = sum(kept.leased for kept in self._kept) > self._limit
        lacking = self._hosts.wanted(self.direction, now)
        # Whoever lacks places takes those that nobody has leased first: ours must last while the store is away.
        is_wanted = is_over or lacking > self.elsewhere
        is_idle = self._idle_since is not None and now >= self._idle_since + IDLE_SECONDS
        if not is_wanted and not is_idle:
            return
        # What it gives back it cannot have again before that time, and its own sessions would be refused.
        if now < self._lease_from and not is_over:
            return
        # A block is kept, unless others lack it.
        given = free if is_wanted else (free - 1) // self.block * self.block
        number = max(range(len(self._kept)), key=lambda index: self._kept[index].mine)
        self._give_from = now + GIVE_SECONDS
        left = max(0, self._kept[number].mine - given)
        self._count(self._kept[number], left)
        self._write(number, left)

    def _own_order(self) -> Iterator[int]:
        """The shards, those first that we have leased from, so that most hosts do not meet in one."""
        own = sum(self._hosts.me.host.encode()) % len(self._kept) if self._kept else 0
        for step in range(len(self._kept)):
            yield (own + step) % len(self._kept)

    def _free_in(self, number: int) -> int:
        """The places of a shard that nobody has leased."""
        share = self._limit // len(self._kept) + (number < self._limit % len(self._kept))
        return share - self._kept[number].leased

    def _confirmable(self, number: int) -> int:
        """The places of a shard that we count as ours, as far as nobody else has them by now."""
        kept = self._kept[number]
        written = kept.shard.places_of(self._hosts.me.host, self._hosts.me.epoch)
        return min(kept.mine, written + max(0, self._free_in(number)))

    def _dead_in(self, number: int, now: float) -> tuple[str, Lease] | None:
        """A lease of a host that is gone. Such places are given out last: perhaps the host is only cut off."""
        for host, lease in self._kept[number].shard.leases.items():
            if lease.places and self._hosts.is_dead(host, lease.epoch, now):
                return host, lease
        return None

    # -- writes -------------------------------------------------------------------------------------------------------------

    def _write(self, number: int, places: int) -> None:
        """Write our lease in a shard. Dead epochs of our own go with it."""
        kept = self._kept[number]
        me = self._hosts.me
        self._is_writing = True
        base = kept.revision
        record = kept.shard.replaced(me.host, Lease(me.epoch, places) if places else None)

        def on_written(answer: Answer, then: float) -> None:
            if answer.outcome is Outcome.LOST:
                # The write may take effect even now. Another one over the same revision rules that out, or confirms it.
                self._count(kept, min(kept.mine, places))
                self._unsure.add(number)
                self._try_from = then + GIVE_SECONDS
                self._end_write(then, is_conflict=False)
            elif answer.outcome is Outcome.DONE:
                self._count(kept, places)
                kept.mine_at = answer.revision
                self._unsure.discard(number)
                if answer.revision > kept.revision:
                    self._saw(number, answer.revision, record)
                else:
                    self._recount(number)
                self._end_write(then, is_conflict=False)
            else:
                is_final = answer.revision >= kept.revision and answer.revision != base
                if not is_final:
                    self._unsure.add(number)
                self._look(number, answer.revision, answer.value, then, is_final=is_final)
                self._end_write(then, is_conflict=True)

        self._store.put(shard_key(self.direction, number), record, base, on_written)

    def _void(self, number: int, dead: tuple[str, Lease], confirm: Confirm) -> None:
        """Take the places of a dead epoch away, once that is confirmed."""
        host, lease = dead
        kept = self._kept[number]
        self._is_writing = True

        def on_confirmed(is_dead: bool, now: float) -> None:  # noqa: FBT001 - the answer to a question
            record = kept.shard.replaced(host, None)
            if is_dead and kept.shard.leases.get(host) == lease:
                self._store.put(shard_key(self.direction, number), record, kept.revision, on_voided)
            else:
                self._end_write(now, is_conflict=not is_dead)

        def on_voided(answer: Answer, now: float) -> None:
            if answer.outcome is Outcome.DONE and answer.revision > kept.revision:
                self._saw(number, answer.revision, kept.shard.replaced(host, None))
            elif answer.outcome is Outcome.CONFLICT:
                self._look(number, answer.revision, answer.value, now, is_final=answer.revision > kept.revision)
            self._end_write(now, is_conflict=answer.outcome is not Outcome.DONE)

        confirm(host, lease.epoch, on_confirmed)

    def _end_write(self, now: float, *, is_conflict: bool) -> None:
        self._is_writing = False
        self._conflicts = min(self._conflicts + 1, _MAX_CONFLICTS) if is_conflict else 0
        if is_conflict:
            # Each host waits for another time, which follows from its name and the number of its conflicts.
            spread = sum(byte * (index + self._conflicts) for index, byte in enumerate(self._hosts.me.host.encode(), 1)) % 97
            self._try_from = now + BACKOFF_SECONDS * self._conflicts * spread / 97
        self.decide(now)

    def _look(self, number: int, revision: int, value: bytes | None, now: float, *, is_final: bool) -> None:
        """A shard as it is at this revision. If no write of ours can be under way, its word on our lease is final.

        An older revision than that of our lease is of a replica that lags behind, or of a store that has lost its latest
        writes. We keep what was confirmed and write it once more, which shows which of the two it is.
        """
        kept = self._kept[number]
        was_there = kept.revision > 0
        self._saw(number, revision, decode(Shard, value) or Shard())
        places = kept.shard.places_of(self._hosts.me.host, self._hosts.me.epoch)
        if (value is None and was_there) or (is_final and places < kept.mine):
            # Nobody erases a shard, or takes a lease of a host that lives: the store has lost them. All hosts write theirs
            # again before anybody leases more.
            self._lease_from = now + SETTLE_SECONDS
        if is_final:
            self._unsure.discard(number)
            self._count(kept, places)
            kept.mine_at = revision
        elif kept.mine != places:
            # A write of ours settles which of the two holds.
            self._unsure.add(number)
            if revision > kept.mine_at:
                self._count(kept, min(kept.mine, places))

    def _recount(self, number: int) -> None:
        kept = self._kept[number]
        self._count(kept, min(kept.mine, kept.shard.places_of(self._hosts.me.host, self._hosts.me.epoch)))

    def _count(self, kept: Kept, mine: int) -> None:
        """Count so many places of a shard as ours."""
        self.leased += mine - kept.mine
        kept.mine = mine

    def _saw(self, number: int, revision: int, shard: Shard) -> None:
        """A shard has this revision now."""
        kept = self._kept[number]
        before = self._free_in(number)
        kept.revision, kept.shard, kept.leased, kept.is_stale = revision, shard, shard.leased, False
        self.elsewhere += max(0, self._free_in(number)) - max(0, before)

    def _tell(self) -> None:
        """Tell the engine, if anything has changed."""
        leased, elsewhere = self.leased, self.elsewhere
        if self._told != (leased, elsewhere):
            self._told = leased, elsewhere
            self._steps.append(PlacesChanged(self.direction, leased, elsewhere))
