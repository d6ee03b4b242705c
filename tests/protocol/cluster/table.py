"""A store of one process, for tests of single decisions: it answers when the test lets it, and time is a number."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from rlpx.protocol.cluster.hosts import Me
from rlpx.protocol.cluster.member import Asked, Member, Setup
from rlpx.protocol.cluster.records import Claim, Heartbeat, encode, host_key, peer_key
from rlpx.protocol.cluster.steps import Answer, Entry, Erase, HostLost, Outcome, Put, Read, Returned, Scan, Step, StoreCall
from rlpx.protocol.lifecycle import Direction

IN, OUT = Direction.INBOUND, Direction.OUTBOUND
PEER, OTHER = b"\x01" * 64, b"\x02" * 64
S = TypeVar("S")


class Table:
    """Keys with revisions. A member's calls wait in `calls`; what it decides is in `said`."""

    def __init__(self, *, lets_in: bool = True, limit: int = 10, block: int = 4) -> None:
        self.keys: dict[str, tuple[int, bytes]] = {}
        self.revision = 0
        self.now = 100.0
        self.calls: list[StoreCall] = []
        self.said: list[Step] = []
        # What it tells of hosts.
        self.told: list[Step] = []
        limits = dict.fromkeys(Direction, limit)
        self.member = Member(Setup(Me("a", "a1"), limits, lets_in, block_places=block))

    def joined(self) -> Table:
        """The member has joined, and knows the fleet's limits."""
        self.connect()
        self.settle()
        self.said.clear()
        return self

    def connect(self) -> None:
        self.member.on_connected(self.now)
        self.collect()

    def collect(self) -> None:
        for step in self.member.take():
            if isinstance(step, StoreCall):
                self.calls.append(step)
            elif isinstance(step, HostLost | Returned):
                self.told.append(step)
            else:
                self.said.append(step)

    def pass_time(self, seconds: float, *, answers: bool = True) -> None:
        """Tick once a second."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            self.member.tick(self.now)
            self.collect()
            if answers:
                self.settle()

    def settle(self) -> None:
        """Carry out every call, until there is none."""
        while self.calls:
            self.answer(self.calls[0])

    def next(self, kind: type[S], prefix: str = "") -> S:
        """The oldest waiting call of this kind."""
        return next(call for call in self.calls if isinstance(call, kind) and call.key.startswith(prefix))

    def answer(self, call: StoreCall) -> None:
        """Carry one call out and tell the member."""
        self.reply(call, self.carry_out(call))

    def lose(self, call: StoreCall) -> None:
        """The member hears nothing of a call."""
        self.reply(call, Answer(call.call, Outcome.LOST))

    def reply(self, call: StoreCall, answer: Answer) -> None:
        self.calls.remove(call)
        self.member.on_answers([answer], self.now)
        self.collect()

    def carry_out(self, call: StoreCall) -> Answer:
        revision, value = self.keys.get(call.key, (0, None))
        if isinstance(call, Read):
            return Answer(call.call, Outcome.DONE, revision, value)
        if not isinstance(call, Scan) and revision != call.expected:
            return Answer(call.call, Outcome.CONFLICT, revision, value)
        if isinstance(call, Erase):
            self.revision += 1
            del self.keys[call.key]
            return Answer(call.call, Outcome.DONE, self.revision)
        if isinstance(call, Scan):
            return self.page(call)
        assert isinstance(call, Put)
        return Answer(call.call, Outcome.DONE, self.put(call.key, call.value))

    def page(self, call: Scan) -> Answer:
        """The keys that a scan asks for."""
        found = sorted((revision, key, value) for key, (revision, value) in self.keys.items() if key.startswith(call.key))
        found = [item for item in found if item[0] >= call.first_revision]
        entries = tuple(Entry(key, revision, value) for revision, key, value in found[: call.limit])
        after = found[call.limit][0] if len(found) > call.limit else 0
        return Answer(call.call, Outcome.DONE, after, entries=entries)

    def put(self, key: str, value: bytes | msgspec.Struct) -> int:
        """Another host writes."""
        self.revision += 1
        self.keys[key] = self.revision, value if isinstance(value, bytes) else encode(value)
        return self.revision

    def see(self, key: str, value: bytes | msgspec.Struct | None = None) -> None:
        """Another host writes, and the member sees it."""
        revision = self.put(key, value) if value is not None else self.revision
        self.member.on_seen(key, revision, self.keys[key][1] if value is not None else None, self.now)
        self.collect()

    def beat(self, host: str = "b", epoch: str = "b1", **fields: object) -> None:
        """Another host's heartbeat."""
        self.see(host_key(host), msgspec.convert({"epoch": epoch, **fields}, Heartbeat))

    def claimed_by(self, host: str = "b", epoch: str = "b1", since_us: int = 5, peer: bytes = PEER) -> None:
        """Another host has a claim."""
        self.put(peer_key(peer), Claim(host, epoch, 7, since_us))

    def claim(self, session: int, peer: bytes = PEER, *, since_us: int = 10, passes_limits: bool = False) -> None:
        self.member.claim(session, peer, Asked(IN, passes_limits), since_us=since_us, now=self.now)
        self.collect()

    def release(self, session: int) -> None:
        self.member.release(session, self.now)
        self.collect()

    def use(self, used: int, waiting: int = 0, direction: Direction = IN) -> None:
        self.member.use(direction, used, waiting, self.now)
        self.collect()

    def disconnect(self) -> None:
        self.member.on_disconnected(self.now)
        self.collect()

    def heard(self) -> list[Step]:
        """What the member has decided since the last look."""
        said, self.said = self.said, []
        return said
