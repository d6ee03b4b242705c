"""One visit of a simulated peer, without a socket and without a clock: bytes and time in, bytes and counts out.

A visit is one connection: a real `Session` that sends what its scenario asks for. Faulty ones are in `swarm_fault`.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from os import urandom
from random import Random
from typing import Any, ClassVar, Final

import msgspec

from protocol import eth, rlp
from protocol.errors import DisconnectReason, RlpError
from protocol.eth import LocalChain, LocalRange
from protocol.events import Answered, Closed, EndedBy, Established, Event, MessageReceived, RequestFailed
from protocol.messages import topics
from protocol.p2p import deflate
from protocol.requests import RequestId
from protocol.session import LocalNode, Role, Session, Setup, Timeouts
from protocol.swarm import Ends, Fault, Latencies, Request, Scenario, bucket_of
from workers.swarm_personality import PERSONALITIES
from workers.swarm_plan import PeerPlan, Rhythm
from workers.swarm_session import EchoingSession

_ANNOUNCEMENT_ID: Final = 0x08
_TRANSACTIONS_ID: Final = 0x02
_REQUEST_IDS: Final = {Request.HEADERS: 0x03, Request.BODIES: 0x05, Request.TRANSACTIONS: 0x09, Request.RECEIPTS: 0x0F}
# The form of announcements changed with types and sizes, and with the mask of cells.
_TYPED_VERSION: Final = 68
_MASKED_VERSION: Final = 72
# Different messages of a kind: peers repeat one another's, as in gossip. They are deflated once.
_BODIES_KEPT: Final = 64
# geth and reth ask for no more announced transactions at once.
_ASKED_AT_ONCE: Final = 256
# A request asks for so many hashes, or headers.
_ASKED_ITEMS: Final = 4

_INTEREST: Final = {topic: topic == "eth.NewPooledTransactionHashes" for topic in topics()}


class _Interest(dict[str, bool]):
    """Of protocols beside eth and snap nothing is read."""

    def __missing__(self, _topic: str) -> bool:
        return False


class Hangup(StrEnum):
    """What a peer wants done to its socket."""

    EOF = "eof"
    RESET = "reset"


class Tally:
    """What has happened in this process since the last report."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.faults: dict[Fault, Ends] = {}
        self.latencies: dict[str, Latencies] = {}

    def time(self, name: str, seconds: float) -> None:
        """Note a latency."""
        bucket = bucket_of(seconds)
        latencies = self.latencies.setdefault(name, {})
        latencies[bucket] = latencies.get(bucket, 0) + 1

    def judge(self, fault: Fault, outcome: str, *, is_expected: bool) -> None:
        """Note how the visit of a faulty peer ended."""
        before = self.faults.get(fault, Ends())
        otherwise = dict(before.otherwise)
        if not is_expected:
            otherwise[outcome] = otherwise.get(outcome, 0) + 1
        self.faults[fault] = Ends(before.expected + is_expected, otherwise)


class World(msgspec.Struct, frozen=True):
    """What all peers of a process have in common. `starts_at` is when the swarm began, on the clock of `now`."""

    scenario: Scenario
    seed: int
    chain: LocalChain
    target: bytes | None
    wall_seconds: int
    starts_at: float
    tally: Tally
    bodies: Bodies


class Bodies:
    """Announcements and transactions of the swarm, deflated once: by version and number, the same for every process."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._messages = scenario.messages
        self._seed = seed
        self._kept: dict[tuple[str, int, int], bytes] = {}

    def announcement(self, version: int, number: int) -> bytes:
        """NewPooledTransactionHashes in the form of a version of eth."""
        number %= _BODIES_KEPT
        form = min(max(version, _TYPED_VERSION - 1), _MASKED_VERSION)
        return self._body("announcement", form, number, self._announcement)

    def transactions(self, number: int) -> bytes:
        """Transactions with one transaction."""
        return self._body("transactions", 0, number % _BODIES_KEPT, self._transactions)

    def _body(self, kind: str, form: int, number: int, make: Callable[[int, Random], bytes]) -> bytes:
        body = self._kept.get((kind, form, number))
        if body is None:
            random = Random(f"{self._seed}/{kind}/{number}")  # noqa: S311 - the same every time is what is wanted
            body = self._kept[kind, form, number] = deflate(make(form, random))
        return body

    def _announcement(self, version: int, random: Random) -> bytes:
        count = self._messages.hashes
        hashes = [random.randbytes(32) for _ in range(count)]
        if version < _TYPED_VERSION:
            return rlp.encode(hashes)
        fields: list[rlp.Encodable] = [b"\x02" * count, [self._messages.transaction_bytes] * count, hashes]
        return rlp.encode([*fields, bytes(eth.CELL_MASK_BYTES)] if version >= _MASKED_VERSION else fields)

    def _transactions(self, _form: int, random: Random) -> bytes:
        # A typed transaction as its envelope: type 2, a list, and data that Snappy gains nothing from.
        data = random.randbytes(self._messages.transaction_bytes)
        return rlp.encode([b"\x02" + rlp.encode([1, 0, 1, 1, 21000, bytes(20), 0, data, [], 0, bytes(32), bytes(32)])])


class Peer:
    """See the module. After every call the driver takes `outgoing`, and heeds `deadline`, `hangup` and `end`."""

    # What a fault may end with; an honest peer has none.
    expected: ClassVar[frozenset[str]] = frozenset()
    # Whether its handshake may be slower than any target's patience.
    is_patient: ClassVar[bool] = False
    # Whether the target gets its Status, and with it the session.
    is_heard: ClassVar[bool] = True
    # Whether its own session may become active, and say its Status.
    is_admitted: ClassVar[bool] = True
    # Whether little is read at a time, seldom.
    reads_slowly: ClassVar[bool] = False

    def __init__(self, plan: PeerPlan, world: World, *, now: float, visit: int = 0) -> None:
        self.plan = plan
        self.hangup: Hangup | None = None
        # How it ended, in the words of the summary.
        self.end: str | None = None
        self.is_established = False
        self.began_at = now
        self._world = world
        self._random = Random(f"{world.seed}/{plan.index}/{visit}")  # noqa: S311 - the same every time is what is wanted
        self._personality = PERSONALITIES[plan.client]
        self._asked: dict[RequestId, float] = {}
        self._due: dict[Callable[[float], None], tuple[float, Rhythm]] = {}
        # When it leaves; infinite for when the swarm ends.
        self._leaves_at = math.inf
        session_class = EchoingSession if self._personality.echoes_goodbye else Session
        self.session = session_class(self._setup(), now=now)
        self._version = 0
        if self.is_admitted:
            self.session.admit(now=now)

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        due = min((at for at, _ in self._due.values()), default=math.inf)
        return min(self.session.deadline, due, self._leaves_at)

    def outgoing(self) -> bytes:
        """The bytes to write now."""
        return self.session.outgoing()

    def receive(self, data: bytes, *, now: float) -> None:
        """Bytes of the target."""
        self._on_events(self.session.receive(data, now=now), now)

    def tick(self, *, now: float) -> None:
        """Let time pass: messages that are due go out, and a visit ends."""
        self._on_events(self.session.tick(now=now), now)
        if self.end is None and now >= self._leaves_at:
            self.leave()
            return
        for send, (at, rhythm) in list(self._due.items()):
            due = at
            while due <= now and self.end is None:
                send(now)
                due = self._world.starts_at + rhythm.after(due - self._world.starts_at)
            self._due[send] = (due, rhythm)

    def leave(self, reason: DisconnectReason | None = None) -> None:
        """Say goodbye, for the reason that this client has for making room."""
        if self.end is None:
            self._finish("left")
            self._settle(self.session.disconnect(reason or self._personality.leaves_with, "left"))

    def lost(self, *, is_reset: bool, now: float) -> None:
        """The connection has gone without a word."""
        if self.end is None:
            self._on_events(self._flush(now), now)
        if self.end is None:
            self._finish("reset" if is_reset else "closed")
            self._settle(self.session.connection_lost("gone"))

    def judge(self) -> None:
        """Count how it ended; once, when the connection is over or the swarm ends."""
        outcome = self.end or "kept"
        tally = self._world.tally
        tally.ends[outcome] += 1
        tally.counts["messages_out"] += self.session.messages_out
        tally.counts["messages_in"] += self.session.messages_in
        if self.plan.fault is not None and (outcome != "kept" or "kept" in self.expected):
            tally.judge(self.plan.fault, outcome, is_expected=outcome in self.expected)

    # -- what the kinds of peers differ in ------------------------------------------------------------------------------

    def _flush(self, now: float) -> list[Event]:
        """What the session has kept back, at the end of the stream."""
        del now
        return []

    def _on_established(self, event: Established, now: float) -> None:
        """The session is active."""
        del event
        scenario, world = self._world.scenario, self._world
        if self.plan.is_churning:
            churn = scenario.churn
            if churn.storm_every_s:
                since = now - world.starts_at
                self._leaves_at = world.starts_at + (since // churn.storm_every_s + 1) * churn.storm_every_s
            else:
                self._leaves_at = now + self._random.expovariate(1 / churn.stay_s)
        messages = scenario.messages
        for send, rate in (
            (self._announce, messages.announcements_per_s),
            (self._send_transactions, messages.transactions_per_s),
            (self._request, messages.requests_per_s),
        ):
            self._schedule(send, rate, now)
        if self._personality.opening is not None:
            self._ask(self._personality.opening, now)

    # -- what it sends --------------------------------------------------------------------------------------------------

    def _schedule(self, send: Callable[[float], None], rate: float, now: float) -> None:
        if rate:
            rhythm = Rhythm(rate, self._world.scenario.slots, self._random)
            self._due[send] = (self._world.starts_at + rhythm.after(now - self._world.starts_at), rhythm)

    # The payload that would be merged with others is left out: all that is sent is sealed at once.

    def _announce(self, _now: float) -> None:
        body = self._world.bodies.announcement(self._version, self._random.randrange(_BODIES_KEPT))
        self.session.send_deflated(eth.NAME, _ANNOUNCEMENT_ID, b"", body)
        self._world.tally.counts["announcements"] += 1

    def _send_transactions(self, _now: float) -> None:
        body = self._world.bodies.transactions(self._random.randrange(_BODIES_KEPT))
        self.session.send_deflated(eth.NAME, _TRANSACTIONS_ID, b"", body)
        self._world.tally.counts["transactions"] += 1

    def _request(self, now: float) -> None:
        self._ask(self._random.choice(self._world.scenario.messages.requests), now)

    def _ask(self, what: Request, now: float, hashes: list[rlp.Encodable] | None = None) -> None:
        if what is Request.HEADERS:
            # One header back from the head that its Status told, as a client does that checks it.
            head = self.session.status.head if self.session.status is not None else bytes(32)
            payload = rlp.encode([0, [head, 1, 0, 0]])
        else:
            asked = hashes or [self._random.randbytes(32) for _ in range(_ASKED_ITEMS)]
            is_partial = what is Request.RECEIPTS and self._version >= eth.PARTIAL_RECEIPTS_VERSION
            payload = rlp.encode([0, 0, asked] if is_partial else [0, asked])
        counts = self._world.tally.counts
        if len(self._asked) >= _ASKED_AT_ONCE:
            counts["requests_held"] += 1
            return
        request = self.session.request(eth.NAME, _REQUEST_IDS[what], payload, now=now)
        self._asked[request] = now
        counts["requests_sent"] += 1

    # -- what it hears --------------------------------------------------------------------------------------------------

    def _on_events(self, events: list[Event], now: float) -> None:
        for event in events:
            handler = self._HANDLERS.get(type(event))
            if handler is not None and self.end is None:
                handler(self, event, now)

    def _on_session_established(self, event: Established, now: float) -> None:
        if not self.is_heard:
            return
        self._version = event.status.version
        self.is_established = True
        self._world.tally.counts["established"] += 1
        self._world.tally.time("handshake", now - self.began_at)
        self._on_established(event, now)

    def _on_message(self, event: MessageReceived, now: float) -> None:
        if event.kind.answer is not None:
            try:
                answer = event.kind.empty_answer(event.request_id or 0, event.payload)
            except RlpError:
                self.session.disconnect(DisconnectReason.PROTOCOL_BREACH, "a malformed request")
                self._finish("bad-request")
                return
            self.session.answer(event, answer)
            self._world.tally.counts["requests_served"] += 1
        elif event.kind.name == "NewPooledTransactionHashes":
            self._world.tally.counts["announcements_heard"] += 1
            fields = rlp.decode_list(event.payload)
            hashes = rlp.as_list(fields[2]) if self._version >= _TYPED_VERSION else fields
            if hashes:
                self._ask(Request.TRANSACTIONS, now, [rlp.as_bytes(item) for item in hashes[:_ASKED_AT_ONCE]])

    def _on_answered(self, event: Answered, now: float) -> None:
        self._world.tally.counts["requests_answered"] += 1
        seconds = now - self._asked.pop(event.request)
        if not self.reads_slowly:
            # How long a slow reader leaves an answer unread says nothing of the target.
            self._world.tally.time("request", seconds)

    def _on_request_failed(self, event: RequestFailed, _now: float) -> None:
        if self._asked.pop(event.request, None) is not None:
            self._world.tally.counts[f"requests_{event.name}"] += 1

    def _on_closed(self, event: Closed, _now: float) -> None:
        reason = event.reason.label if event.reason is not None else "no_reason"
        if event.ended_by is EndedBy.PEER:
            self._finish(f"told {reason}")
        else:
            self._finish(f"gave up at {event.stage}")

    _HANDLERS: ClassVar[Mapping[type, Callable[[Peer, Any, float], None]]] = {
        Established: _on_session_established,
        MessageReceived: _on_message,
        Answered: _on_answered,
        RequestFailed: _on_request_failed,
        Closed: _on_closed,
    }

    def _settle(self, events: list[Event]) -> None:
        """Count the requests that an end of ours leaves open."""
        for event in events:
            if isinstance(event, RequestFailed):
                self._on_request_failed(event, 0.0)

    def _finish(self, end: str) -> None:
        self.end = end
        self.is_established = False
        self._due.clear()
        self._leaves_at = math.inf

    def _setup(self) -> Setup:
        world, personality, key = self._world, self._personality, self.plan.key
        patience = world.scenario.patience_s * (10 if self.is_patient else 1)
        timeouts = Timeouts(patience, patience, personality.ping_interval_seconds, personality.ping_seconds)
        if self.is_patient:
            timeouts = Timeouts(patience, patience, math.inf, math.inf)
        node = LocalNode(
            key=key,
            hello=personality.hello(key.id).encode(),
            protocols=personality.protocols,
            interest=_Interest(_INTEREST),
            entropy=urandom,
            range=LocalRange(),
            queue_bytes=sys.maxsize,
        )
        role = Role.INITIATOR if world.target is not None else Role.RESPONDER
        return Setup(role, node, world.chain, world.wall_seconds, timeouts, world.target)
