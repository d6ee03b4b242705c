"""One visit of a simulated peer, without a socket and without a clock: bytes and time in, bytes and counts out.

A visit is one connection: a real `Session` that sends what its scenario asks for. Faulty peers are in `fault.py`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from os import urandom
from random import Random
from typing import Any, ClassVar, Final

from rlpx.protocol import rlp
from rlpx.protocol.bus.swarm import Query
from rlpx.protocol.errors import DisconnectReason, RlpError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.kinds import topics
from rlpx.protocol.eth.status import LocalRange
from rlpx.protocol.lifecycle import Direction, EndedBy
from rlpx.protocol.session.events import Answered, Closed, Established, Event, MessageReceived, RequestFailed
from rlpx.protocol.session.requests import RequestId
from rlpx.protocol.session.session import Session
from rlpx.protocol.session.setup import LocalNode, Setup
from rlpx.protocol.settings import QueueSettings, TimeoutSettings
from rlpx.workers.swarm.bodies import DIFFERENT_BODIES
from rlpx.workers.swarm.personality import PERSONALITIES
from rlpx.workers.swarm.plan import PeerPlan, Rhythm
from rlpx.workers.swarm.session import EchoingSession
from rlpx.workers.swarm.world import World

_TRANSACTIONS: Final = "Transactions"
_ANNOUNCEMENT: Final = "NewPooledTransactionHashes"
_REQUESTS: Final = {
    Query.HEADERS: "GetBlockHeaders",
    Query.BODIES: "GetBlockBodies",
    Query.TRANSACTIONS: "GetPooledTransactions",
    Query.RECEIPTS: "GetReceipts",
}
_MESSAGE_IDS: Final = {row.name: row.id for row in eth.MESSAGES}
# geth and reth ask for at most this many announced transactions at once. Here it also bounds the requests in flight.
_ASKED_AT_ONCE: Final = 256
# Hashes, or headers, in one request.
_ASKED_ITEMS: Final = 4

_INTEREST: Final = {topic: topic == f"{eth.NAME}.{_ANNOUNCEMENT}" for topic in topics()}


class _Interest(dict[str, bool]):
    """The topics that peers read: announcements of transactions. Topics of protocols besides eth and snap are unread."""

    def __missing__(self, _topic: str) -> bool:
        return False


class Hangup(StrEnum):
    """What the driver must do to the socket."""

    EOF = "eof"
    RESET = "reset"


class Peer:
    """See the module. After every call, the driver writes `data_to_send` and looks at `deadline`, `hangup` and `end`."""

    # The ends that are right for a faulty peer; an honest peer has none.
    expected: ClassVar[frozenset[str]] = frozenset()
    # Whether it waits longer than any target's patience.
    is_patient: ClassVar[bool] = False
    # Whether the target receives its Status, and with it the session.
    is_heard: ClassVar[bool] = True
    # Whether its own session may become active, and send its Status.
    is_admitted: ClassVar[bool] = True
    # Whether it reads little at a time, and seldom.
    reads_slowly: ClassVar[bool] = False

    def __init__(self, plan: PeerPlan, world: World, *, now: float, visit: int = 0) -> None:
        self.plan = plan
        self.hangup: Hangup | None = None
        # How this visit ended, as the summary names it.
        self.end: str | None = None
        self.is_established = False
        self.began_at = now
        self._world = world
        self._random = Random(f"{world.seed}/{plan.index}/{visit}")  # noqa: S311 - it must be the same every time
        self._personality = PERSONALITIES[plan.client]
        self._asked: dict[RequestId, float] = {}
        self._due: dict[Callable[[float], None], tuple[float, Rhythm]] = {}
        # The time at which this peer leaves; infinite if it stays until the swarm ends.
        self._leaves_at = math.inf
        session_class = EchoingSession if self._personality.echoes_goodbye else Session
        self.session = session_class(self._setup(), now=now)
        self._version = 0
        if self.is_admitted:
            self.session.approve(now=now)

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        due = min((at for at, _ in self._due.values()), default=math.inf)
        return min(self.session.deadline, due, self._leaves_at)

    def data_to_send(self) -> bytes:
        """The bytes to write now."""
        return self.session.data_to_send()

    def receive(self, data: bytes, *, now: float) -> None:
        """Take bytes of the target."""
        self._on_events(self.session.receive(data, now=now), now)

    def tick(self, *, now: float) -> None:
        """Let time pass: messages that are due are sent, and a visit ends."""
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
        """Say goodbye, by default for the reason that this client gives when it makes room."""
        if self.end is None:
            self._finish("left")
            self._settle(self.session.disconnect(reason or self._personality.leaves_with, "left"))

    def lost(self, *, is_reset: bool, now: float) -> None:
        """The connection was lost without a Disconnect."""
        if self.end is None:
            self._on_events(self._flush(now), now)
        if self.end is None:
            self._finish("reset" if is_reset else "closed")
            self._settle(self.session.connection_lost("gone"))

    def count_end(self) -> None:
        """Count how it ended; once, when the connection is over or the swarm ends."""
        outcome = self.end or "kept"
        tally = self._world.tally
        tally.ends[outcome] += 1
        tally.counts["messages_out"] += self.session.messages_out
        tally.counts["messages_in"] += self.session.messages_in
        if self.plan.fault is not None and (outcome != "kept" or "kept" in self.expected):
            tally.count_end(self.plan.fault, outcome, is_expected=outcome in self.expected)

    # -- what faulty peers do otherwise ----------------------------------------------------------------------------------

    def _flush(self, now: float) -> list[Event]:
        """Return the events that the session has held back until the end of the stream."""
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

    # The payload for merging with queued announcements is empty: nothing is queued here, as everything is sealed at once.

    def _announce(self, _now: float) -> None:
        body = self._world.bodies.announcement(self._version, self._random.randrange(DIFFERENT_BODIES))
        self.session.send_deflated(eth.NAME, _MESSAGE_IDS[_ANNOUNCEMENT], b"", body)
        self._world.tally.counts["announcements"] += 1

    def _send_transactions(self, _now: float) -> None:
        body = self._world.bodies.transactions(self._random.randrange(DIFFERENT_BODIES))
        self.session.send_deflated(eth.NAME, _MESSAGE_IDS[_TRANSACTIONS], b"", body)
        self._world.tally.counts["transactions"] += 1

    def _request(self, now: float) -> None:
        self._ask(self._random.choice(self._world.scenario.messages.requests), now)

    def _ask(self, what: Query, now: float, hashes: list[rlp.Encodable] | None = None) -> None:
        if what is Query.HEADERS:
            # One header, that of the head in the target's Status, as a client does that checks it.
            head = self.session.status.head if self.session.status is not None else bytes(32)
            payload = rlp.encode([0, [head, 1, 0, 0]])
        else:
            asked = hashes or [self._random.randbytes(32) for _ in range(_ASKED_ITEMS)]
            is_partial = what is Query.RECEIPTS and self._version >= eth.PARTIAL_RECEIPTS_VERSION
            payload = rlp.encode([0, 0, asked] if is_partial else [0, asked])
        counts = self._world.tally.counts
        if len(self._asked) >= _ASKED_AT_ONCE:
            counts["requests_held"] += 1
            return
        request = self.session.request(eth.NAME, _MESSAGE_IDS[_REQUESTS[what]], payload, now=now)
        self._asked[request] = now
        counts["requests_sent"] += 1

    # -- what it receives --------------------------------------------------------------------------------------------------

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
        elif event.kind.name == _ANNOUNCEMENT:
            self._world.tally.counts["announcements_heard"] += 1
            fields = rlp.decode_list(event.payload)
            hashes = rlp.as_list(fields[2]) if self._version >= eth.TYPED_ANNOUNCEMENT_VERSION else fields
            if hashes:
                self._ask(Query.TRANSACTIONS, now, [rlp.as_bytes(item) for item in hashes[:_ASKED_AT_ONCE]])

    def _on_answered(self, event: Answered, now: float) -> None:
        self._world.tally.counts["requests_answered"] += 1
        seconds = now - self._asked.pop(event.request)
        if not self.reads_slowly:
            # The time that a slow reader leaves an answer unread says nothing about the target.
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
        """Count the requests that remain open because we end the session."""
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
        timeouts = TimeoutSettings(
            auth_s=patience,
            handshake_s=patience,
            pending_inbound_s=patience,
            pending_outbound_s=patience,
            ping_interval_s=math.inf if self.is_patient else personality.ping_interval_seconds,
            ping_s=math.inf if self.is_patient else personality.ping_seconds,
        )
        node = LocalNode(
            key=key,
            hello=personality.hello(key.id).encode(),
            protocols=personality.protocols,
            interest=_Interest(_INTEREST),
            entropy=urandom,
            range=LocalRange(),
            queues=QueueSettings(peer_write_bytes=sys.maxsize),
        )
        direction = Direction.OUTBOUND if world.target is not None else Direction.INBOUND
        return Setup(direction, node, world.chain, world.wall_seconds, timeouts, world.target)
