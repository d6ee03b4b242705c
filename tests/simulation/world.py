"""A simulated fleet: hosts that run the real state machine, a store with delays, losses and outages, and peers.

Everything follows from one seed. Time is virtual. Whatever the hosts may never do is checked at every step.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from rlpx.protocol.cluster.hosts import Me, Timing
from rlpx.protocol.cluster.member import Asked, Member, Setup
from rlpx.protocol.cluster.records import Claim, Note, Shard, decode, host_key, note_key, peer_key
from rlpx.protocol.cluster.steps import (
    Admitted,
    Answer,
    EndSession,
    Entry,
    Erase,
    Joined,
    NameTaken,
    Outcome,
    PlacesChanged,
    Put,
    Read,
    Refused,
    Scan,
    Step,
    StoreCall,
)
from rlpx.protocol.cluster.sweep import PAGE_CLAIMS, PAGE_SECONDS
from rlpx.protocol.lifecycle import Direction

# A host whose watch is silent for this long looks whether there is a store, and makes one.
WATCH_SECONDS: Final = 8.0
# A host notices within this time that the store has lost its heartbeat, and its claims with it, and has written them again.
NOTICE_SECONDS: Final = 8.0
# After this time a host treats a call as lost.
CALL_SECONDS: Final = 2.0
# A session that finds no place waits for one this long.
PLACE_SECONDS: Final = 2.0
# What dead hosts have left is erased soon, so that a run sees them come back after that.
TIMING: Final = Timing(over_s=20.0, sweep_s=2.0)
# When what was lost in the last moment may be done, and a host that was stopped or cut off then is a member again.
LATEST_SECONDS: Final = 20.0

# So many servers tell hosts of changes, each after its own delay: one for each host, unless there are many.
MAX_SERVERS: Final = 30

DIRECTIONS: Final = tuple(Direction)


class Plan(msgspec.Struct, frozen=True):
    """What a run does. Rates are per second and host; `faults` says how many faults happen in the run."""

    hosts: int = 3
    peers: int = 30
    limit: int = 12
    seconds: float = 60.0
    attempts_per_s: float = 2.0
    stay_s: float = 10.0
    loss: float = 0.01
    faults: int = 4
    block: int = 4
    lets_in: bool = True
    # After the faults, of which sessions still begin for `busy_s`.
    settle_s: float = 60.0
    busy_s: float = 30.0
    # Of the faults, the share that takes the store away from all hosts.
    outages: float = 2 / 7
    # Whether the store loses all that it has, once, and is the same one afterwards, or another.
    purges: bool = False
    deletes: bool = False
    # Whether in the end one host tries to fill every place.
    fills: bool = True


class Session(msgspec.Struct):
    """One session of a host, as its engine knows it."""

    number: int
    peer: bytes
    direction: Direction
    began_at: float
    is_placed: bool = False
    is_active: bool = False
    # Whether the store has not answered a call about its peer: it may be let in without a claim, and is settled later.
    is_unanswered: bool = False


class Noted(msgspec.Struct, frozen=True):
    """When a note was written last, and by which host."""

    at: float
    sender: str


class BrokenError(AssertionError):
    """An invariant does not hold."""


class Kv:
    """The store: keys with revisions, a time to live, and watchers that see every change in order."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.sequence = 0
        self.keys: dict[str, tuple[int, bytes]] = {}
        # Those that are watched: a host that connects is told of them, and does not go through those of all peers.
        self.watched: dict[str, tuple[int, bytes]] = {}
        # An erased key leaves a marker, so that a write which was sent before and expects the key to be missing is refused.
        # Markers are remembered only of keys of which such writes are under way, and that come late.
        self._late: Counter[str] = Counter()
        self._erased_at: dict[str, int] = {}
        self.notes: dict[str, Noted] = {}
        self.writes: Counter[str] = Counter()
        # What hosts were told because they watch it: how many changes, and their bytes of keys and values.
        self.told, self.told_bytes = 0, 0
        self.is_away = False
        # When it has lost all that it had.
        self.lost_at = -math.inf

    def carry_out(self, call: StoreCall) -> Answer:
        revision, value = self.keys.get(call.key, (0, None))
        if isinstance(call, Read):
            return Answer(call.call, Outcome.DONE, revision, value)
        if isinstance(call, Scan):
            return self._page(call)
        if revision != call.expected:
            return Answer(call.call, Outcome.CONFLICT, revision, value)
        self.sequence += 1
        self.writes[call.key.partition(".")[0]] += 1
        if isinstance(call, Erase):
            self.keys.pop(call.key, None)
            if call.key in self._late:
                self._erased_at[call.key] = self.sequence
            self._publish(call.key, self.sequence, None)
        else:
            self.keys.pop(call.key, None)
            self.keys[call.key] = self.sequence, call.value
            if call.key.startswith("note."):
                self.notes[call.key] = Noted(self._world.now, msgspec.json.decode(call.value, type=Note).sender)
            self._publish(call.key, self.sequence, call.value)
            if call.ttl_s is not None:
                self._world.at(call.ttl_s, lambda key=call.key, revision=self.sequence: self._expire(key, revision))  # type: ignore[misc]
        return Answer(call.call, Outcome.DONE, self.sequence)

    def purge(self) -> None:
        """Somebody erases all keys, and nobody is told."""
        self.keys.clear()
        self.watched.clear()
        self.lost_at = self._world.now

    def remake(self) -> None:
        """The store is another one, which counts from the beginning."""
        self.purge()
        self.sequence = 0

    def delay(self, call: StoreCall, seconds: float) -> None:
        """Carry out a call that nobody waits for any more, much later."""
        sent_at = self.sequence
        self._late[call.key] += 1

        def carry_out() -> None:
            erased_at = self._erased_at.get(call.key, 0)
            self._late[call.key] -= 1
            if not self._late[call.key]:
                del self._late[call.key]
                self._erased_at.pop(call.key, None)
            if not isinstance(call, Put) or call.expected or erased_at <= sent_at:
                self.carry_out(call)

        self._world.at(seconds, carry_out)

    def _page(self, call: Scan) -> Answer:
        """A page of keys; they are in the order of their revisions."""
        found = (item for item in self.keys.items() if item[1][0] >= call.first_revision and item[0].startswith(call.key))
        page = list(islice(found, call.limit + 1))
        entries = tuple(Entry(key, revision, value) for key, (revision, value) in page[: call.limit])
        after = page[-1][1][0] if len(page) > call.limit else 0
        return Answer(call.call, Outcome.DONE, after, entries=entries)

    def _expire(self, key: str, revision: int) -> None:
        if self.keys.get(key, (0, b""))[0] == revision:
            self.sequence += 1
            del self.keys[key]
            self._publish(key, self.sequence, None)

    def _publish(self, key: str, revision: int, value: bytes | None) -> None:
        if key.startswith("peer."):
            return
        self.watched.pop(key, None)
        if value is not None:
            self.watched[key] = revision, value
        if key.startswith("note."):
            host = self._world.by_name.get(key.split(".")[1])
            if host is not None:
                self._world.at(self._world.delay(), partial(host.watch, key, revision, value))
            return
        for server in self._world.servers:
            server.publish(key, revision, value)
        self.told += len(self._world.hosts)
        self.told_bytes += len(self._world.hosts) * (len(key) + len(value or b""))


class Server:
    """Tells its hosts of changes, in order, and all of them at the same time."""

    def __init__(self, world: World) -> None:
        self.hosts: list[Host] = []
        self._world = world
        self._free_at = 0.0

    def publish(self, key: str, revision: int, value: bytes | None) -> None:
        self._free_at = max(self._free_at, self._world.now + self._world.delay())
        self._world.at(self._free_at - self._world.now, partial(self._deliver, key, revision, value))

    def _deliver(self, key: str, revision: int, value: bytes | None) -> None:
        for host in self.hosts:
            host.watch(key, revision, value)


class Host:
    """One engine: its member of the fleet, its sessions, and its link to the store."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.starts = 0
        self.is_up = False
        self.is_stopped = False
        self.is_cut = False
        self.rate = 1 + world.random.uniform(-1e-3, 1e-3)
        self.wall_us = 1_700_000_000_000_000
        self.inbox: deque[Callable[[], None]] = deque()
        self.stream_free_at = 0.0
        self.start()

    # -- life ---------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        plan = self.world.plan
        self.starts += 1
        self.is_up, self.is_stopped, self.is_joined = True, False, False
        self.sessions: dict[int, Session] = {}
        self.by_peer: dict[bytes, int] = {}
        # The sessions that wait for a place, in the order in which they came, and how many of them have not ended.
        self.queues: dict[Direction, deque[int]] = {way: deque() for way in DIRECTIONS}
        self.waiting: Counter[Direction] = Counter()
        self.used: Counter[Direction] = Counter()
        self.leased: Counter[Direction] = Counter()
        self.last_session = 0
        self.open_calls: dict[int, StoreCall] = {}
        self.inbox.clear()
        limits = dict.fromkeys(Direction, plan.limit)
        me = Me(self.name, f"{self.name}-{self.starts}")
        self.member = Member(Setup(me, limits, plan.lets_in, TIMING, plan.block))
        self.connect()
        self.tick(self.starts)

    def kill(self) -> None:
        self.is_up = False
        for peer in self.by_peer:
            self.world.release(self, peer)
        self.sessions, self.by_peer = {}, {}

    def connect(self) -> None:
        self.do(lambda: self.member.on_connected(self.now))
        for key, (revision, value) in list(self.world.kv.watched.items()):
            if not key.startswith("note.") or key.startswith(f"note.{self.name}."):
                self.stream_free_at = max(self.stream_free_at, self.world.now + self.world.delay())
                self.watch(key, revision, value)

    def tick(self, start: int) -> None:
        if self.is_up and self.starts == start:
            self.do(lambda: self.member.tick(self.now))
            self.world.at(1.0 / self.rate, lambda: self.tick(start))

    @property
    def now(self) -> float:
        return self.world.now * self.rate

    def do(self, act: Callable[[], None]) -> None:
        """Something happens in the process; if it is stopped, it happens when it goes on."""
        if self.is_stopped:
            self.inbox.append(act)
        elif self.is_up:
            act()
            self.carry_out()

    def resume(self) -> None:
        self.is_stopped = False
        waiting, self.inbox = self.inbox, deque()
        # After a stop, what was due and what has arrived come in any order.
        acts = list(waiting)
        if self.world.random.random() < 0.5:
            self.do(lambda: self.member.tick(self.now))
        for act in acts:
            self.do(act)

    # -- the store ----------------------------------------------------------------------------------------------------------

    def carry_out(self) -> None:
        while steps := self.member.take():
            for step in steps:
                self.carry_out_one(step)

    def carry_out_one(self, step: Step) -> None:
        if isinstance(step, StoreCall):
            self.send(step)
        elif isinstance(step, Joined):
            self.is_joined = True
        elif isinstance(step, Admitted):
            self.on_admitted(step.session)
        elif isinstance(step, Refused):
            self.end(step.session)
        elif isinstance(step, EndSession):
            self.later(self.world.random.uniform(0.001, 1.5), partial(self.end, step.session))
        elif isinstance(step, PlacesChanged):
            self.leased[step.direction] = step.leased
            self.world.check_leases(step.direction)
            self.place_waiting(step.direction)
        elif isinstance(step, NameTaken):
            raise BrokenError(f"{self.name} is taken")

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """This start of the host does something, unless it has been killed by then."""
        self.world.at(seconds, act, self)

    def send(self, call: StoreCall) -> None:
        world = self.world
        self.open_calls[call.call] = call
        if self.is_cut or world.kv.is_away or world.loses():
            self.later(CALL_SECONDS, partial(self.lost, call))
            if not self.is_cut and world.random.random() < 0.3:
                # Not lost, but very late: it is done long after the host has given up.
                world.kv.delay(call, world.random.uniform(1.0, 6.0))
            return
        world.at(world.delay(), partial(self.arrive, call, self.starts, world.now))

    def arrive(self, call: StoreCall, start: int, sent_at: float) -> None:
        """A call has reached the store. An answer that comes at all comes in less than `CALL_SECONDS`."""
        world = self.world
        answer = None if world.kv.is_away else world.kv.carry_out(call)
        if self.starts != start:
            return
        if answer is None or world.loses() or self.is_cut:
            self.later(sent_at + CALL_SECONDS - world.now, partial(self.lost, call))
        else:
            self.later(world.delay(), partial(self.answered, answer))

    def answered(self, answer: Answer) -> None:
        if self.open_calls.pop(answer.call, None) is not None:
            self.member.on_answers([answer], self.now)

    def lost(self, call: StoreCall) -> None:
        """A call had no answer for too long."""
        if call.call in self.open_calls:
            peer = bytes.fromhex(call.key.rpartition(".")[2]) if call.key.startswith(("peer.", "note.")) else b""
            if peer in self.by_peer:
                self.sessions[self.by_peer[peer]].is_unanswered = True
            self.answered(Answer(call.call, Outcome.LOST))

    def watch(self, key: str, revision: int, value: bytes | None) -> None:
        """A change has reached the host, after what it was told before; but never while it is cut off."""
        if not self.is_up or self.is_cut:
            return
        wait_s = self.stream_free_at - self.world.now
        if wait_s > 0:
            self.later(wait_s, partial(self.see, key, revision, value))
        else:
            self.do(partial(self.see, key, revision, value))

    def see(self, key: str, revision: int, value: bytes | None) -> None:
        self.member.on_seen(key, revision, value, self.now)

    # -- sessions -----------------------------------------------------------------------------------------------------------

    def attempt(self, peer: bytes, direction: Direction) -> None:
        if not self.is_up or not self.is_joined or peer in self.by_peer:
            return
        self.last_session += 1
        session = Session(self.last_session, peer, direction, self.world.now)
        self.sessions[session.number] = session
        self.by_peer[peer] = session.number
        self.world.holders.setdefault(peer, []).append(self)
        self.queues[direction].append(session.number)
        self.waiting[direction] += 1
        self.place_waiting(direction)
        if not session.is_placed:
            self.later(PLACE_SECONDS, lambda: None if session.is_placed else self.end(session.number))

    def place_waiting(self, way: Direction) -> None:
        queue = self.queues[way]
        while queue and self.used[way] < self.leased[way]:
            session = self.sessions.get(queue.popleft())
            if session is not None:
                self.waiting[way] -= 1
                self.used[way] += 1
                session.is_placed = True
                since = int(self.world.now * 1e6) + self.wall_us
                self.member.claim(session.number, session.peer, Asked(way), since_us=since, now=self.now)
        self.tell_use(way)

    def tell_use(self, way: Direction) -> None:
        places = self.member.places[way]
        if (places.used, places.waiting) != (self.used[way], self.waiting[way]):
            self.member.use(way, self.used[way], self.waiting[way], self.now)

    def on_admitted(self, number: int) -> None:
        session = self.sessions.get(number)
        if session is None:
            return
        self.world.check_admitted(self, session)
        session.is_active = True
        self.world.admitted += 1
        stay_s = self.world.random.expovariate(1 / self.world.plan.stay_s)
        self.later(stay_s, partial(self.leave, number))

    def leave(self, number: int) -> None:
        """A peer ends its session, unless the run is in its quiet end."""
        if self.world.is_busy:
            self.end(number)

    def end(self, number: int) -> None:
        session = self.sessions.pop(number, None)
        if session is None:
            return
        del self.by_peer[session.peer]
        self.world.release(self, session.peer)
        if session.is_placed:
            self.used[session.direction] -= 1
            self.member.release(number, self.now)
        else:
            self.waiting[session.direction] -= 1
        self.place_waiting(session.direction)

    # -- what the checks ask ------------------------------------------------------------------------------------------------

    @property
    def is_certain(self) -> bool:
        """Whether nobody may have given the host up, and it has looked at everything since it was."""
        hosts = self.member.hosts
        return self.is_up and hosts.is_firm(self.now) and all(places.is_sure for places in self.member.places.values())


class World:
    """See the module."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a run can be repeated
        self.plan = plan
        self.now = 0.0
        self.admitted = 0
        # What happens: when, the number that orders what happens at the same time, what, and in which start of which host.
        self._queue: list[tuple[float, int, Callable[[], None], Host | None, int]] = []
        self._count = 0
        self.kv = Kv(self)
        self.hosts: list[Host] = []
        self.by_name: dict[str, Host] = {}
        self.servers = [Server(self) for _ in range(min(plan.hosts, MAX_SERVERS))]
        # The hosts that have a session with a peer.
        self.holders: dict[bytes, list[Host]] = {}
        self.peers = [self.random.randbytes(64) for _ in range(plan.peers)]
        self.is_busy = True
        self._lease_changes = 0
        for number in range(plan.hosts):
            host = Host(self, f"h{number}")
            self.hosts.append(host)
            self.by_name[host.name] = host
            self.servers[number % len(self.servers)].hosts.append(host)

    def at(self, seconds: float, act: Callable[[], None], host: Host | None = None) -> None:
        """Something happens later: in the store or the network, or in this start of a host."""
        self._count += 1
        start = 0 if host is None else host.starts
        heapq.heappush(self._queue, (self.now + seconds, self._count, act, host, start))

    def delay(self) -> float:
        if self.random.random() < 0.02:
            return self.random.uniform(0.05, 1.0)
        return 0.0002 + 0.0038 * self.random.random()

    def release(self, host: Host, peer: bytes) -> None:
        """A host has no session with the peer any more."""
        left = [other for other in self.holders.pop(peer) if other is not host]
        if left:
            self.holders[peer] = left

    def loses(self) -> bool:
        """Whether a message is lost. In the end none is."""
        return self.is_busy and self.random.random() < self.plan.loss

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.now, _, act, host, start = heapq.heappop(self._queue)
            if host is None:
                act()
            elif host.starts == start:
                host.do(act)
        self.now = until

    # -- the run ------------------------------------------------------------------------------------------------------------

    def live(self) -> None:
        """Churn and faults, then quiet; then everything must be in order."""
        plan = self.plan
        self.churn()
        if plan.purges:
            self.at(self.random.uniform(10.0, plan.seconds), self.kv.purge)
        if plan.deletes:
            self.at(self.random.uniform(10.0, plan.seconds - 2 * WATCH_SECONDS), self._delete)
        for _ in range(plan.faults):
            self.at(self.random.uniform(1.0, plan.seconds), self._fault)
        self.run(plan.seconds)
        self._heal()
        self.run(plan.seconds + plan.busy_s)
        self.is_busy = False
        self.run(plan.seconds + plan.settle_s)
        self._await_answers()
        self.check_settled()
        if plan.fills:
            self._fill(self.random.choice(self.hosts))

    def _await_answers(self) -> None:
        """Go on until nothing but heartbeats is under way: a write that is done but not answered makes two truths."""
        end = self.now + 2 * CALL_SECONDS
        while any(call.key != host_key(host.name) for host in self.hosts for call in host.open_calls.values()):
            if self.now >= end:
                raise BrokenError("hosts go on writing although nothing happens")
            self.run(self.now + 0.01)

    def churn(self) -> None:
        """Peers come and go at every host."""
        for host in self.hosts:
            self._churn(host)

    def _fill(self, host: Host) -> None:
        """One host wants every place that there is, and gets it: the others give back what they do not use."""
        way = self.random.choice(DIRECTIONS)
        end = self.now + 20.0
        while self.now < end:
            for _ in range(self.plan.limit):
                peer = self.random.randbytes(64)
                host.do(lambda peer=peer: host.attempt(peer, way))  # type: ignore[misc]
            self.run(self.now + 0.5)
        self.run(self.now + 2 * CALL_SECONDS)
        active = sum(session.direction is way for one in self.hosts for session in one.sessions.values())
        if active != self.plan.limit:
            raise BrokenError(f"{active} {way} sessions, although {host.name} wants all {self.plan.limit} places")

    def _churn(self, host: Host) -> None:
        if not self.is_busy:
            return
        self.at(self.random.expovariate(self.plan.attempts_per_s), partial(self._churn, host))
        peer, way = self.random.choice(self.peers), self.random.choice(DIRECTIONS)
        host.do(partial(host.attempt, peer, way))

    def _fault(self) -> None:
        host = self.random.choice(self.hosts)
        is_outage = self.random.random() < self.plan.outages
        kind = self.random.choice(["away", "silent_away"] if is_outage else ["kill", "stop", "cut", "silent", "clock"])
        long = self.random.choice([self.random.uniform(0.1, 4.0), self.random.uniform(4.0, 40.0)])
        if kind == "kill" and host.is_up:
            host.kill()
            self.at(long, lambda: None if host.is_up else host.start())
        elif kind == "stop" and host.is_up and not host.is_stopped:
            host.is_stopped = True
            self.at(long, host.resume)
        elif kind in ("cut", "silent") and not host.is_cut:
            host.is_cut = True
            if kind == "cut":
                host.do(lambda: host.member.on_disconnected(host.now))
            self.at(long, lambda: self._join(host))
        elif kind in ("away", "silent_away") and not self.kv.is_away:
            self.kv.is_away = True
            if kind == "away":
                for other in self.hosts:
                    other.do(lambda other=other: other.member.on_disconnected(other.now))  # type: ignore[misc]
            self.at(long, self._come_back)
        elif kind == "clock":
            host.wall_us += int(self.random.uniform(-1e9, 1e9))

    def _delete(self) -> None:
        """Somebody deletes the store. It does not answer until the first host notices that its watch is silent."""
        self.kv.is_away = True
        self.at(WATCH_SECONDS, self.kv.remake)
        self.at(WATCH_SECONDS, self._come_back)

    def _join(self, host: Host) -> None:
        if host.is_cut:
            host.is_cut = False
            host.connect()

    def _come_back(self) -> None:
        if self.kv.is_away:
            self.kv.is_away = False
            for host in self.hosts:
                self.at(self.random.uniform(0.0, 3.0), lambda host=host: None if host.is_cut else host.connect())  # type: ignore[misc]

    def _heal(self) -> None:
        self._come_back()
        for host in self.hosts:
            self._join(host)
            if not host.is_up:
                host.start()
            elif host.is_stopped:
                host.resume()

    # -- what must hold -----------------------------------------------------------------------------------------------------

    def check_leases(self, direction: Direction) -> None:
        """The hosts that nobody may have given up never count more places than there are. Looked at more rarely if large."""
        self._lease_changes += 1
        if self._lease_changes % max(1, len(self.hosts) // 10):
            return
        counted = sum(host.member.places[direction].leased for host in self.hosts if host.is_certain)
        if counted > self.plan.limit:
            raise BrokenError(f"{counted} places of {self.plan.limit} are leased at {self.now:.3f}")

    def check_admitted(self, host: Host, session: Session) -> None:
        """A session begins only with a place, in a host that nobody has given up, and with the only claim of its peer.

        If its host knows that the store is away, or had no answer about this peer, the session may begin without a claim. So
        it may, or with a second claim, while not all hosts have noticed that the store has lost the claims.
        """
        if host.used[session.direction] > host.leased[session.direction] and host.is_certain:
            raise BrokenError(f"{host.name} admits session {session.number} without a place at {self.now:.3f}")
        hosts = host.member.hosts
        if hosts.is_away and (self.plan.lets_in or host.member.claims.holds(session.peer)):
            return
        if not hosts.is_firm(host.now):
            raise BrokenError(
                f"{host.name} admits session {session.number} although it may have been given up at {self.now:.3f}"
            )
        if self.now < self.kv.lost_at + NOTICE_SECONDS:
            return
        claim = decode(Claim, self.kv.keys.get(peer_key(session.peer), (0, None))[1])
        if claim is None or (claim.host, claim.epoch) != (host.name, host.member.setup.me.epoch):
            if not (session.is_unanswered and self.plan.lets_in) and self._noted(host, session) is None:
                raise BrokenError(f"{host.name} admits session {session.number} without a claim at {self.now:.3f}")
            return
        for other in self.holders.get(session.peer, ()):
            theirs = other.sessions[other.by_peer[session.peer]]
            # A host that is stopped or cut off has not read yet that it has lost the peer.
            is_reached = other.is_certain and not other.is_stopped and not other.is_cut
            if other is host or not theirs.is_active or not is_reached or not other.member.claims.holds(session.peer):
                continue
            # An older session that was let in may have taken the peer from theirs. This one, which is new, may not.
            note = self._noted(other, theirs)
            if note is None or (note.at >= session.began_at and note.sender == host.name):
                raise BrokenError(f"{host.name} and {other.name} have the same peer at {self.now:.3f}")

    def _noted(self, host: Host, session: Session) -> Noted | None:
        """The note that another host takes the peer of this session."""
        note = self.kv.notes.get(note_key(host.name, session.peer))
        return note if note is not None and note.at >= session.began_at else None

    def check_settled(self) -> None:
        """After quiet: one session per peer, no more than the limit, and a store that says exactly what is so."""
        owners = self._check_sessions()
        self._check_claims(owners)
        for way in Direction:
            self._check_places(way)
        for host in self.hosts:
            if host_key(host.name) not in self.kv.keys or len(host.member.claims) != len(host.sessions):
                raise BrokenError(f"{host.name} has {len(host.member.claims)} claims and {len(host.sessions)} sessions")

    def _check_sessions(self) -> dict[bytes, str]:
        owners: dict[bytes, str] = {}
        for host in self.hosts:
            for session in host.sessions.values():
                if not session.is_active:
                    raise BrokenError(f"{host.name} session {session.number} never had a verdict")
                if session.peer in owners:
                    raise BrokenError(f"{host.name} and {owners[session.peer]} both have a peer in the end")
                owners[session.peer] = host.name
        return owners

    def _check_claims(self, owners: dict[bytes, str]) -> None:
        living = {host.name: host.member.setup.me.epoch for host in self.hosts}
        claimed = set()
        for key, (_, value) in self.kv.keys.items():
            claim = decode(Claim, value) if key.startswith("peer.") else None
            if claim is not None and living[claim.host] != claim.epoch and self._is_swept:
                raise BrokenError(f"a claim of epoch {claim.epoch} is still there")
            if claim is not None and living[claim.host] == claim.epoch:
                peer = bytes.fromhex(key.removeprefix("peer."))
                if owners.get(peer) != claim.host:
                    raise BrokenError(f"{claim.host} claims a peer that it has not")
                claimed.add(peer)
        if claimed != set(owners):
            raise BrokenError(f"{len(set(owners) - claimed)} sessions have no claim")

    @property
    def _is_swept(self) -> bool:
        """Whether the quiet was long enough for a whole look at the claims, with the pause before it."""
        pages_s = len(self.kv.keys) / PAGE_CLAIMS * PAGE_SECONDS
        return self.plan.settle_s > LATEST_SECONDS + 2 * (TIMING.sweep_s + pages_s)

    def _check_places(self, way: Direction) -> None:
        active = sum(host.used[way] for host in self.hosts)
        if active > self.plan.limit:
            raise BrokenError(f"{active} {way} sessions in the end")
        values = [value for key, (_, value) in self.kv.keys.items() if key.startswith(f"places.{way}.")]
        shards = [decode(Shard, value) or Shard() for value in values]
        living = {host.name: host.member.setup.me.epoch for host in self.hosts}
        leases = [(name, lease) for shard in shards for name, lease in shard.leases.items()]
        if self._is_swept and any(living[name] != lease.epoch for name, lease in leases):
            raise BrokenError(f"leases of dead epochs are still there: {leases}")
        for host in self.hosts:
            places = host.member.places[way]
            said = sum(shard.places_of(host.name, host.member.setup.me.epoch) for shard in shards)
            if said != places.leased:
                raise BrokenError(f"{host.name} counts {places.leased} places, the store {said}")
            if places.free > self.plan.block:
                raise BrokenError(f"{host.name} keeps {places.free} unused places")
