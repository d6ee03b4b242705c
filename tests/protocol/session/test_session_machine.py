"""A session and a model of it live through the same life, step by step, and have to agree on everything that can be seen."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rlpx.protocol.errors import DisconnectReason, NotSharedError, QueueFullError, Severity, UsageError
from rlpx.protocol.eth.status import Head, LocalRange
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.session.events import (
    Answered,
    Authenticated,
    Closed,
    Established,
    Event,
    MessageReceived,
    Misconduct,
    RequestFailed,
)
from rlpx.protocol.session.requests import RequestId
from rlpx.protocol.session.tallies import Tallies
from rlpx.protocol.settings import QueueSettings
from tests.generated import examples
from tests.pair import (
    DIALER,
    DISCONNECT,
    ETH,
    HEAD,
    HELLO,
    OFFER,
    PING,
    PONG,
    RawPeer,
    Rlp,
    encoded,
    inflated,
    key,
    status_fields,
)
from tests.protocol.session.session_model import (
    ANNOUNCEMENTS,
    BLOCK_RANGE_UPDATE,
    BREACH,
    NOISE,
    REQUESTS,
    RESPONSES,
    SNAP,
    STATUS,
    Fact,
    Fault,
    Model,
    Word,
)

# It takes some twenty, but where it fails Hypothesis looks for five minutes for the shortest life that does.
SHRINKING_SECONDS: Final = 600
# A few of the messages below fill it.
QUEUES: Final = QueueSettings(peer_write_bytes=64)
MISCHIEF: Final = b"\x80"
PENDING: Final = (Stage.AUTH, Stage.HELLO, Stage.STATUS, Stage.VERDICT)
PEER: Final = key(99).id


class Readers(dict[str, bool]):
    """Who reads what: everybody everything, or nobody anything."""

    are_there = True

    def __missing__(self, _topic: str) -> bool:
        return self.are_there


def hello(fault: Fault | None = None, *, version: int = 5, node_id: bytes = PEER, name: bytes = b"eth") -> Word:
    offer: Rlp = [[name if item.name == "eth" else item.name.encode(), item.version] for item in OFFER]
    return Word(HELLO, encoded([version, b"raw/1.0", offer, 30303, node_id]), fault=fault)


def status(fault: Fault | None = None, **changes: Rlp) -> Word:
    return Word(STATUS, encoded(list((status_fields(69) | changes).values())), fault=fault, range=(7, 1000, HEAD.hash))


def goodbye(reason: DisconnectReason, severity: Severity) -> Word:
    return Word(DISCONNECT, encoded([int(reason)]), reason=reason, severity=severity)


def range_update(earliest: int, latest: int, latest_hash: bytes = HEAD.hash, fault: Fault | None = None) -> Word:
    payload = encoded([earliest, latest, latest_hash])
    return Word(BLOCK_RANGE_UPDATE, payload, fault=fault, range=(earliest, latest, latest_hash))


RIGHT_HELLO: Final = hello()
RIGHT_STATUS: Final = status()
OTHER_CHAIN: Final = (DisconnectReason.SUBPROTOCOL_ERROR, Severity.FATAL)
GOODBYES: Final = (
    goodbye(DisconnectReason.TOO_MANY_PEERS, Severity.LOW),
    goodbye(DisconnectReason.CLIENT_QUITTING, Severity.LOW),
    goodbye(DisconnectReason.SUBPROTOCOL_ERROR, Severity.HIGH),
    goodbye(DisconnectReason.USELESS_PEER, Severity.FATAL),
)
# What ends a session, each for its own reason.
MISTAKES: Final = (
    NOISE,
    hello((DisconnectReason.UNEXPECTED_IDENTITY, Severity.FATAL), node_id=key(98).id),
    hello((DisconnectReason.INCOMPATIBLE_VERSION, Severity.FATAL), version=4),
    hello((DisconnectReason.USELESS_PEER, Severity.FATAL), name=b"les"),
    status(OTHER_CHAIN, network=1),
    status(OTHER_CHAIN, genesis=bytes(32)),
    status(OTHER_CHAIN, version=68),
    status(BREACH, earliest=1001),
    status(BREACH, head=bytes(32)),
    status((DisconnectReason.SUBPROTOCOL_ERROR, Severity.MEDIUM), fork_id=[b"\x01\x02\x03\x04", 0]),
    Word(PING, bytes(17), fault=BREACH),
    Word(PONG, bytes(17), fault=BREACH),
    range_update(9, 8, fault=BREACH),
    range_update(1, 8, bytes(32), fault=BREACH),
    # A Hello as others spell it, unassigned, and behind the last one.
    *(Word(code) for code in (0x00, ETH + 0x0B, ETH + 0x12 + 8, 0x7F, 0xFF)),
    *(Word(code, MISCHIEF, fault=BREACH) for code in REQUESTS),
)

CODES: Final = st.sampled_from(list(REQUESTS))
NUMBERS: Final = st.integers(0, 5)
PINGS: Final = st.sampled_from([Word(PING), Word(PONG)])
TOLD: Final = st.one_of(
    st.builds(lambda code, n: Word(code, encoded([n])), st.sampled_from([ETH + 0x01, ETH + 0x02]), NUMBERS),
    st.builds(lambda earliest, blocks: range_update(earliest, earliest + blocks), NUMBERS, NUMBERS),
)
ASKED: Final = st.builds(lambda code, n: Word(code, encoded([n, [n]]), n), CODES, NUMBERS)
ANSWERED: Final = st.builds(lambda code, n: Word(code + 1, encoded([n, [n + 1]]), n), CODES, NUMBERS)
TALK: Final = st.one_of(TOLD, ASKED, ANSWERED, PINGS)


def fact(event: Event) -> Fact:
    """What the model knows of an event."""
    match event:
        case Authenticated():
            told: Fact = "authenticated", event.peer
        case Established():
            told = "established", event.hello.node_id, *(str(item.capability) for item in event.shared)
        case MessageReceived():
            told = "message", event.kind.topic, event.payload, event.request_id
        case Answered():
            told = "answered", event.request, event.kind.topic, event.payload
        case RequestFailed():
            told = "failed", event.request, event.name
        case Misconduct():
            told = "misconduct", event.conduct
        case Closed():
            told = "closed", event.ended_by, event.reason, event.stage, event.severity
    return told


class Life(RuleBasedStateMachine):
    """One session, its peer, its driver and its users; `model` says what is right."""

    @initialize(
        stage=st.sampled_from([*PENDING, *[Stage.ACTIVE] * 6]),
        is_dialer=st.booleans(),
        quiet_steps=st.sampled_from([0, 20, 60]),
        pause=st.sampled_from([0, 0.25, 2]),
        refusal=st.sampled_from([None, None, None, DisconnectReason.TOO_MANY_PEERS]),
    )
    def is_born(
        self, stage: Stage, quiet_steps: int, pause: float, refusal: DisconnectReason | None, *, is_dialer: bool
    ) -> None:
        """Once active, nothing may end it for some steps: most of what there is to see is in a long life.

        `pause` is the seconds that the peer takes for each stage.
        """
        self.quiet_steps = quiet_steps
        self.readers = Readers()
        self.range = LocalRange()
        if stage is not Stage.AUTH:
            refusal = None
        self.tallies = Tallies()
        recipe = msgspec.structs.replace(
            DIALER, interest=self.readers, range=self.range, queues=QUEUES, refusal=refusal, tallies=self.tallies
        )
        self.refusal = refusal
        self.peer = RawPeer(recipe, is_dialer=is_dialer)
        self.session = self.peer.session
        self.model = Model(
            PEER, is_dialed=not is_dialer, now=self.peer.clock.now, queue_bytes=QUEUES.peer_write_bytes, head=HEAD.number
        )
        self.requests: list[MessageReceived] = []
        self.ended: Counter[int] = Counter()
        self.asked: set[int] = set()
        self.cancelled: set[int] = set()
        self.closes = 0
        self.counters = (0, 0, 0, 0)
        self.heard = 0
        self.said_hello = False
        steps = {Stage.AUTH: 0, Stage.HELLO: 1, Stage.STATUS: 2, Stage.VERDICT: 3, Stage.ACTIVE: 4}[stage]
        if steps:
            self.lives_on(pause, is_ponging=False)
            self.authenticates()
        for word in (RIGHT_HELLO, RIGHT_STATUS)[: max(steps - 1, 0)]:
            self.lives_on(pause, is_ponging=False)
            self.says([word], 0)
        if stage is Stage.ACTIVE:
            self.is_admitted()

    def agree(self, events: list[Event]) -> None:
        """What the session told is what the model says, no more and no less."""
        facts = [fact(event) for event in events]
        told, self.model.told = self.model.told, []
        assert facts == told
        for event in events:
            if isinstance(event, MessageReceived) and event.kind.answer is not None:
                self.requests.append(event)
            elif isinstance(event, (Answered, RequestFailed)):
                self.ended[event.request] += 1
            self.closes += isinstance(event, Closed)

    @property
    def is_mortal(self) -> bool:
        return self.quiet_steps <= 0 or self.session.stage is Stage.CLOSED

    # -- the peer ----------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.session.stage in {Stage.AUTH, Stage.ACK})
    @rule()
    def authenticates(self) -> None:
        self.model.handshake(self.refusal)
        self.agree(self.peer.authenticates())
        self.heard = 0
        self.is_drained()

    @precondition(lambda self: self.is_mortal or self.session.stage in {Stage.HELLO, Stage.STATUS})
    @rule()
    def goes_on(self) -> None:
        self.says([RIGHT_HELLO if self.session.stage is Stage.HELLO else RIGHT_STATUS], 0)

    @precondition(lambda self: self.is_mortal or self.session.stage in {Stage.VERDICT, Stage.ACTIVE})
    @rule(words=st.lists(TALK, min_size=1, max_size=4), cut=st.integers(0, 300))
    def says(self, words: list[Word], cut: int) -> None:
        """Some messages at once, which arrive in two parts."""
        if self.peer.has_cipher:
            data = b"".join(map(self.sealed, words))
            self.model.hears(words)
            self.agree(self.peer.gives(data[:cut]) + self.peer.gives(data[cut:]))

    @precondition(lambda self: self.is_mortal)
    @rule(word=st.sampled_from(MISTAKES), around=st.lists(TALK, max_size=2))
    def makes_a_mistake(self, word: Word, around: list[Word]) -> None:
        if self.peer.has_cipher:
            self.says([*around, word, *around], 0)
        else:
            self.model.hears([NOISE])
            self.agree(self.peer.gives(NOISE.payload))

    @precondition(lambda self: self.session.stage is Stage.ACTIVE)
    @rule(pauses=st.lists(st.sampled_from([0, 0.25, 0.75, 1, 2.5]), min_size=1, max_size=12), at_once=st.integers(1, 5))
    def pings(self, pauses: list[float], at_once: int) -> None:
        for pause in pauses:
            self.lives_on(pause, is_ponging=True)
            self.says([Word(PING)] * at_once, 0)

    @precondition(lambda self: self.is_mortal)
    @rule(word=st.sampled_from(GOODBYES), around=st.lists(TALK, max_size=2))
    def leaves(self, word: Word, around: list[Word]) -> None:
        self.says([*around, word, *around], 0)

    @precondition(lambda self: self.model.asked)
    @rule(which=st.integers(0, 20), number=NUMBERS, other=st.sampled_from([0, 0, 0, 1]))
    def answers(self, which: int, number: int, other: int) -> None:
        """A request of ours, rightly or with another kind."""
        request_id = sorted(self.model.asked)[which % len(self.model.asked)]
        codes = list(REQUESTS)
        code = codes[(codes.index(self.model.asked[request_id].code) + other) % len(codes)]
        self.says([Word(code + 1, encoded([request_id, [number + 1]]), request_id)], 0)

    def sealed(self, word: Word) -> bytes:
        """A word in its frame. Snappy is on from the peer's Hello on."""
        if word.code is None:
            return word.payload
        data = self.peer.sealed(word.code, word.payload, is_snappy=self.said_hello and word.code != HELLO)
        self.said_hello = self.said_hello or word.code == HELLO
        return data

    # -- time --------------------------------------------------------------------------------------------------------------

    @rule(quarters=st.one_of(st.integers(1, 3), st.integers(1, 80)))
    def waits(self, quarters: int) -> None:
        """A driver that is in time: it ticks at each deadline."""
        if self.is_mortal or self.session.stage is Stage.ACTIVE:
            self.lives_on(quarters / 4, is_ponging=not self.is_mortal)

    @precondition(lambda self: self.session.stage is Stage.ACTIVE)
    @rule(seconds=st.sampled_from([30, 130, 400]))
    def lives(self, seconds: int) -> None:
        """A longer time, in which the peer answers pings."""
        self.lives_on(seconds, is_ponging=True)

    @rule(seconds=st.integers(1, 150))
    def oversleeps(self, seconds: int) -> None:
        """A driver that comes late, and then at once again for as long as something is due."""
        if self.is_mortal or self.session.stage is Stage.ACTIVE:
            self.peer.clock.passes(seconds)
            self.ticks()
            self.pongs(is_ponging=not self.is_mortal)

    def lives_on(self, seconds: float, *, is_ponging: bool) -> None:
        clock = self.peer.clock
        end = clock.now + seconds
        while self.session.deadline <= end:
            clock.now = self.session.deadline
            self.ticks()
            self.pongs(is_ponging=is_ponging)
        clock.now = end
        self.ticks()

    def pongs(self, *, is_ponging: bool) -> None:
        if is_ponging and self.session.stage is Stage.ACTIVE:
            self.says([Word(PONG)], 0)

    def ticks(self) -> None:
        self.model.now = self.peer.clock.now
        self.model.ticks()
        self.agree(self.peer.waits(0))
        if self.session.deadline <= self.peer.clock.now:
            self.ticks()

    # -- the driver and the users ------------------------------------------------------------------------------------------

    @rule()
    def is_admitted(self) -> None:
        self.model.is_admitted()
        self.agree(self.peer.is_admitted())

    @precondition(lambda self: self.is_mortal)
    @rule(reason=st.sampled_from([DisconnectReason.DISCONNECT_REQUESTED, DisconnectReason.CLIENT_QUITTING]))
    def is_disconnected(self, reason: DisconnectReason) -> None:
        self.model.ends(EndedBy.US, reason)
        self.agree(self.peer.is_disconnected(reason))

    @precondition(lambda self: self.is_mortal)
    @rule()
    def loses_its_connection(self) -> None:
        self.model.ends(EndedBy.NETWORK, None)
        self.agree(self.session.connection_lost("the connection broke"))

    @rule(are_there=st.booleans())
    def readers_come_or_go(self, *, are_there: bool) -> None:
        self.readers.are_there = self.model.is_read = are_there
        self.tallies.skip_nothing()

    @rule(blocks=st.sampled_from([1, 31, 32, 33]))
    def head_moves(self, blocks: int) -> None:
        number = (self.range.head.number if self.range.head else HEAD.number) + blocks
        self.range.head = Head(number, HEAD.hash, earliest=7)
        self.model.head = (7, number, HEAD.hash)

    @rule(code=st.sampled_from([ETH + 0x01, ETH + 0x02, *REQUESTS, *RESPONSES]), size=st.integers(0, 90))
    def sends(self, code: int, size: int) -> None:
        capability, offset = ("snap", SNAP) if code >= SNAP else ("eth", ETH)
        payload = encoded([9, bytes(range(size))])
        try:
            kind = self.session.send(capability, code - offset, payload)
        except NotSharedError:
            assert self.model.stage is not Stage.ACTIVE
        except QueueFullError:
            assert not self.model.sends(code, payload)
        else:
            assert kind.topic == (REQUESTS | RESPONSES | ANNOUNCEMENTS)[code]
            assert self.model.stage is Stage.ACTIVE
            assert self.model.sends(code, payload)

    @rule(
        codes=st.lists(CODES, min_size=1, max_size=3),
        original_id=st.integers(0, 2**64 - 1),
        answer_after=st.sampled_from([None, 0, 0.25, 8, 25]),
    )
    def asks(self, codes: list[int], original_id: int, answer_after: float | None) -> None:
        for number, code in enumerate(codes):
            self.asks_one(code, original_id, number)
        if answer_after is not None and self.session.stage is Stage.ACTIVE:
            self.lives_on(answer_after, is_ponging=True)
            if self.model.asked:
                self.answers(which=0, number=1, other=0)

    def asks_one(self, code: int, original_id: int, number: int) -> None:
        capability, offset = ("snap", SNAP) if code >= SNAP else ("eth", ETH)
        payload = encoded([original_id, [number]])
        try:
            request_id = self.session.request(capability, code - offset, payload, now=self.peer.clock.now)
        except NotSharedError:
            assert self.model.stage is not Stage.ACTIVE
        except QueueFullError:
            assert self.model.asks(code, original_id, number) is None
        else:
            assert self.model.stage is Stage.ACTIVE
            assert self.model.asks(code, original_id, number) == request_id
            self.asked.add(request_id)

    @rule(code=st.sampled_from([*ANNOUNCEMENTS, *RESPONSES]))
    def asks_what_is_no_request(self, code: int) -> None:
        capability, offset = ("snap", SNAP) if code >= SNAP else ("eth", ETH)
        try:
            self.session.request(capability, code - offset, encoded([1, []]), now=self.peer.clock.now)
        except NotSharedError:
            assert self.model.stage is not Stage.ACTIVE
        except UsageError:
            assert self.model.stage is Stage.ACTIVE
        else:
            raise AssertionError(code)

    @precondition(lambda self: self.model.asked)
    @rule(which=st.integers(0, 20))
    def cancels(self, which: int) -> None:
        request_id = sorted(self.model.asked)[which % len(self.model.asked)]
        if not self.model.asked[request_id].is_over:
            self.cancelled.add(request_id)
        self.model.cancels(request_id)
        self.session.cancel(RequestId(request_id))

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0, 20), number=NUMBERS)
    def answers_the_peer(self, which: int, number: int) -> None:
        request = self.requests[which % len(self.requests)]
        payload = encoded([request.request_id or 0, [number]])
        kind = self.session.answer(request, payload)
        if self.model.stage is Stage.ACTIVE:
            assert kind is not None
            assert kind.topic == RESPONSES[request.kind.code + 1]
            self.model.answers(kind.code, payload)
        else:
            assert kind is None

    @rule()
    def is_drained(self) -> None:
        if self.peer.has_cipher:
            self.writes(self.session.data_to_send())
            assert not any(self.model.waiting.values())

    @rule(room_bytes=st.sampled_from([1, 60, 120]))
    def has_room_for(self, room_bytes: int) -> None:
        if self.peer.has_cipher and self.session.has_data_to_send:
            data = self.session.data_to_send(room_bytes)
            assert data
            self.writes(data)

    def writes(self, data: bytes) -> None:
        """What leaves can be read, is what the model says, and comes in its order."""
        self.peer.opens(data)
        written = self.model.written()
        new, self.heard = self.peer.heard[self.heard :], len(self.peer.heard)
        for code, body in new:
            expected = next(written)
            if code == HELLO:
                assert expected[0] == HELLO
            else:
                is_plain = expected == (DISCONNECT, encoded([DisconnectReason.INCOMPATIBLE_VERSION]))
                is_snappy = self.peer.heard[0][0] == HELLO and not is_plain
                assert (code, inflated(body) if is_snappy else body) == expected

    # -- what always holds -------------------------------------------------------------------------------------------------

    @invariant()
    def all_that_can_be_seen_is_the_same(self) -> None:
        session, model = self.session, self.model
        assert session.stage is model.stage
        assert session.is_closed == (model.stage is Stage.CLOSED)
        assert session.is_held == (model.stage is Stage.VERDICT)
        assert session.deadline == model.deadline
        assert session.deadline > self.peer.clock.now
        assert session.queued_bytes == model.bytes_waiting
        assert session.queued_responses == len(model.waiting[1])
        assert session.rtt_seconds == model.rtt
        assert session.remote_range == model.remote_range
        assert session.messages_in == model.messages_in

    @invariant()
    def counters_never_fall(self) -> None:
        self.quiet_steps -= 1
        session = self.session
        counters = (session.bytes_in, session.bytes_out, session.messages_in, session.messages_out)
        assert all(new >= old for new, old in zip(counters, self.counters, strict=True))
        self.counters = counters

    @invariant()
    def nothing_ends_twice(self) -> None:
        assert all(count == 1 for count in self.ended.values())
        assert not self.ended.keys() & self.cancelled

    def teardown(self) -> None:
        """In the end everybody who asked has been told, once."""
        if not hasattr(self, "session"):
            return
        self.is_disconnected(DisconnectReason.CLIENT_QUITTING)
        assert self.closes == 1
        assert self.ended.keys() | self.cancelled == self.asked
        assert self.session.deadline == math.inf
        self.is_drained()


TestLife = pytest.mark.long(pytest.mark.timeout(SHRINKING_SECONDS)(Life.TestCase))
TestLife.settings = examples(400, steps=80)


@pytest.mark.parametrize("is_dialer", [True, False])
@pytest.mark.parametrize("stage", [Stage.HELLO, Stage.STATUS, Stage.VERDICT, Stage.ACTIVE])
def test_every_word_at_every_stage_ends_it_or_not_as_the_model_says(stage: Stage, *, is_dialer: bool) -> None:
    for word in (RIGHT_HELLO, RIGHT_STATUS, *MISTAKES, *GOODBYES, Word(PING), Word(PONG), Word(ETH + 0x02)):
        life = Life()
        life.is_born(stage=stage, quiet_steps=0, pause=1, refusal=None, is_dialer=is_dialer)
        life.says(words=[word], cut=1)
        life.is_admitted()
        life.all_that_can_be_seen_is_the_same()
        life.teardown()
