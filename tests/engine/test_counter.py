"""The ledger against a naive model: the same verdicts, the same totals, whatever happens in whatever order."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from engine.counter import Direction, Entry, Phase, Refusal, SessionCounter, counts
from engine.settings import LimitSettings
from protocol.control import SessionId, WorkerId
from protocol.errors import DisconnectReason

OWN = b"\x01" * 64
PEER = b"\x02" * 64
OTHER = b"\x03" * 64
INBOUND, OUTBOUND = Direction.INBOUND, Direction.OUTBOUND
WORKER = WorkerId(7)

few = st.integers(0, 3)
directions = st.sampled_from(Direction)
workers = st.integers(0, 2).map(WorkerId)
# Few peers, so that many meet; the first is ourselves.
peers = st.integers(1, 5).map(lambda number: bytes([number]) * 64)


def limited(pending: int = 9, active: int = 9, polite: int = 9) -> LimitSettings:
    """The same limits both ways."""
    return LimitSettings(pending, pending, active, active, polite)


def counter(pending: int = 9, active: int = 9, polite: int = 9) -> SessionCounter:
    """An empty ledger."""
    return SessionCounter(limited(pending, active, polite), OWN)


def admitted(ledger: SessionCounter, *numbers: int, direction: Direction = INBOUND) -> None:
    """Enter sessions that must find room."""
    for number in numbers:
        assert ledger.admit(SessionId(number), WORKER, direction) is None


def reason(refusal: Refusal | None) -> DisconnectReason | None:
    """What the peer is told."""
    return refusal.reason if refusal is not None else None


class NaiveLedger:
    """Everything counted afresh from one dictionary."""

    def __init__(self) -> None:
        self.limits = limited(2, 2, 2)
        self.entries: dict[SessionId, Entry] = {}

    def count(self, phase: Phase, direction: Direction) -> int:
        """Sessions in a phase and direction."""
        return sum(e.phase is phase and e.direction is direction for e in self.entries.values())

    def granted(self, direction: Direction) -> int:
        """Sessions that have an active place or wait for it."""
        return sum(e.is_granted and e.direction is direction for e in self.entries.values())

    def maxima(self, direction: Direction) -> tuple[int, int]:
        """Of pending, of active."""
        builtins = msgspec.to_builtins(self.limits)
        return builtins[f"max_pending_{direction}"], builtins[f"max_active_{direction}"]

    def room(self, direction: Direction, *, passes_limits: bool) -> bool:
        """Whether one more may begin."""
        pending, active = self.maxima(direction)
        return self.count(Phase.PENDING, direction) < pending and (passes_limits or self.granted(direction) < active)

    def verdict(self, session: SessionId, peer: bytes, *, passes_limits: bool) -> DisconnectReason | None:
        """What `grant` has to say."""
        entry = self.entries.get(session)
        if entry is None or entry.phase is not Phase.PENDING or entry.is_granted:
            return None
        if peer == OWN:
            return DisconnectReason.CONNECTED_TO_SELF
        if any(other.is_granted and other.peer == peer for other in self.entries.values()):
            return DisconnectReason.ALREADY_CONNECTED
        if not passes_limits and self.granted(entry.direction) >= self.maxima(entry.direction)[1]:
            return DisconnectReason.TOO_MANY_PEERS
        return None

    def load(self, worker: WorkerId) -> tuple[int, int]:
        """Pending work, and all."""
        own = [e for e in self.entries.values() if e.worker == worker]
        return sum(e.phase is not Phase.ACTIVE for e in own), len(own)


class LedgerMachine(RuleBasedStateMachine):
    """Sessions come, go on and leave in any order, under limits that change."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.model = NaiveLedger()
        self.ledger = SessionCounter(self.model.limits, OWN)
        self.last = 0

    def next_session(self) -> SessionId:
        """A number never used before."""
        self.last += 1
        return SessionId(self.last)

    @rule(pending_in=few, pending_out=few, active_in=few, active_out=few, polite=few)
    def limits_change(self, pending_in: int, pending_out: int, active_in: int, active_out: int, polite: int) -> None:
        self.model.limits = self.ledger.limits = LimitSettings(pending_in, pending_out, active_in, active_out, polite)

    @rule(target=sessions, worker=workers, direction=directions, passes_limits=st.booleans())
    def a_session_begins(self, worker: WorkerId, direction: Direction, *, passes_limits: bool) -> SessionId:
        session = self.next_session()
        has_room = self.model.room(direction, passes_limits=passes_limits)
        assert (self.ledger.room(direction, passes_limits=passes_limits) is None) is has_room
        refusal = self.ledger.admit(session, worker, direction, passes_limits=passes_limits)
        assert reason(refusal) is (None if has_room else DisconnectReason.TOO_MANY_PEERS)
        if has_room:
            self.model.entries[session] = Entry(session, worker, direction)
        return session

    @rule(target=sessions, worker=workers)
    def a_peer_is_refused_politely(self, worker: WorkerId) -> SessionId:
        session = self.next_session()
        has_room = self.model.count(Phase.GOODBYE, INBOUND) < self.model.limits.max_polite_refusals
        assert self.ledger.goodbye_room() is has_room
        if has_room:
            self.ledger.admit_goodbye(session, worker)
            self.model.entries[session] = Entry(session, worker, INBOUND, Phase.GOODBYE)
        return session

    @rule(session=sessions, worker=workers)
    def another_worker_takes_it(self, session: SessionId, worker: WorkerId) -> None:
        entry = self.model.entries.get(session)
        if entry is not None:
            self.ledger.move(session, worker)
            entry.worker = worker

    @rule(session=sessions, peer=peers, passes_limits=st.booleans())
    def a_peer_is_proved(self, session: SessionId, peer: bytes, *, passes_limits: bool) -> None:
        expected = self.model.verdict(session, peer, passes_limits=passes_limits)
        assert reason(self.ledger.grant(session, peer, passes_limits=passes_limits)) is expected
        entry = self.model.entries.get(session)
        if expected is None and entry is not None and entry.phase is Phase.PENDING and not entry.is_granted:
            entry.is_granted, entry.peer = True, peer

    @rule(session=sessions)
    def a_status_is_done(self, session: SessionId) -> None:
        entry = self.model.entries.get(session)
        is_due = entry is not None and entry.is_granted
        assert self.ledger.establish(session) is is_due
        if entry is not None and is_due:
            entry.phase = Phase.ACTIVE

    @rule(session=sessions)
    def a_session_ends(self, session: SessionId) -> None:
        """It may end again later: the bundle still has it."""
        assert self.ledger.release(session) == self.model.entries.pop(session, None)

    @rule(session=consumes(sessions))
    def a_session_ends_twice(self, session: SessionId) -> None:
        assert self.ledger.release(session) == self.model.entries.pop(session, None)
        assert self.ledger.release(session) is None

    @rule(worker=workers)
    def a_worker_is_lost(self, worker: WorkerId) -> None:
        lost = self.ledger.of_worker(worker)
        assert lost == [e.session for e in self.model.entries.values() if e.worker == worker]
        for session in lost:
            self.ledger.release(session)
            del self.model.entries[session]
        assert self.ledger.load(worker) == (0, 0)

    @invariant()
    def the_ledgers_agree(self) -> None:
        assert [self.ledger.get(session) for session in self.model.entries] == list(self.model.entries.values())
        assert len(self.ledger) == len(self.model.entries)
        for session, entry in self.model.entries.items():
            assert self.ledger.get(session) == entry

    @invariant()
    def the_totals_are_those_of_the_ledger(self) -> None:
        for direction in Direction:
            for phase in Phase:
                assert self.ledger.count(phase, direction) == self.model.count(phase, direction)
        for worker in map(WorkerId, range(3)):
            assert self.ledger.load(worker) == self.model.load(worker)

    @invariant()
    def each_peer_has_one_session(self) -> None:
        for number in range(1, 6):
            peer = bytes([number]) * 64
            holders = [e.session for e in self.model.entries.values() if e.is_granted and e.peer == peer]
            assert self.ledger.session_of(peer) == (holders[0] if holders else None)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(derandomize=True, deadline=None, max_examples=150, stateful_step_count=40)


def test_the_pending_limit_is_not_exceeded_by_one() -> None:
    ledger = counter(pending=2)
    admitted(ledger, 1, 2)
    assert reason(ledger.admit(SessionId(3), WORKER, INBOUND)) is DisconnectReason.TOO_MANY_PEERS
    assert len(ledger) == 2


def test_the_two_directions_have_limits_of_their_own() -> None:
    ledger = counter(pending=1, active=1)
    admitted(ledger, 1)
    admitted(ledger, 2, direction=OUTBOUND)
    assert ledger.grant(SessionId(1), PEER) is None
    assert ledger.grant(SessionId(2), OTHER) is None


def test_an_active_place_is_reserved_by_the_verdict_already() -> None:
    ledger = counter(active=1)
    admitted(ledger, 1, 2)
    assert ledger.grant(SessionId(1), PEER) is None
    assert reason(ledger.grant(SessionId(2), OTHER)) is DisconnectReason.TOO_MANY_PEERS
    assert ledger.count(Phase.ACTIVE, INBOUND) == 0


def test_a_reserved_place_is_given_back_where_the_session_never_became_active() -> None:
    ledger = counter(active=1)
    admitted(ledger, 1, 2)
    ledger.grant(SessionId(1), PEER)
    ledger.release(SessionId(1))
    assert ledger.session_of(PEER) is None
    assert ledger.grant(SessionId(2), PEER) is None


def test_no_session_begins_while_all_active_places_are_taken() -> None:
    ledger = counter(active=1)
    admitted(ledger, 1)
    ledger.grant(SessionId(1), PEER)
    assert ledger.room(INBOUND) == Refusal(DisconnectReason.TOO_MANY_PEERS, "1 inbound sessions are active")


def test_a_second_session_of_a_peer_is_refused_whatever_its_direction() -> None:
    ledger = counter()
    admitted(ledger, 1)
    admitted(ledger, 2, direction=OUTBOUND)
    assert ledger.grant(SessionId(1), PEER) is None
    refusal = ledger.grant(SessionId(2), PEER)
    assert refusal == Refusal(DisconnectReason.ALREADY_CONNECTED, "the peer has session 1 already")


def test_a_refused_duplicate_does_not_free_the_first_one_when_it_ends() -> None:
    ledger = counter()
    admitted(ledger, 1, 2)
    ledger.grant(SessionId(1), PEER)
    ledger.grant(SessionId(2), PEER)
    ledger.release(SessionId(2))
    assert ledger.session_of(PEER) == 1


def test_we_do_not_talk_to_ourselves() -> None:
    ledger = counter()
    admitted(ledger, 1)
    assert reason(ledger.grant(SessionId(1), OWN)) is DisconnectReason.CONNECTED_TO_SELF
    assert ledger.session_of(OWN) is None


def test_a_session_is_not_established_without_its_verdict() -> None:
    ledger = counter()
    admitted(ledger, 1)
    assert not ledger.establish(SessionId(1))
    assert ledger.count(Phase.PENDING, INBOUND) == 1


def test_establishing_twice_counts_once() -> None:
    ledger = counter()
    admitted(ledger, 1)
    ledger.grant(SessionId(1), PEER)
    assert ledger.establish(SessionId(1))
    assert ledger.establish(SessionId(1))
    assert ledger.count(Phase.PENDING, INBOUND) == 0
    assert ledger.count(Phase.ACTIVE, INBOUND) == 1


def test_one_that_passes_the_limits_needs_a_pending_place_only() -> None:
    ledger = counter(pending=3, active=0)
    assert ledger.admit(SessionId(1), WORKER, INBOUND) is not None
    assert ledger.admit(SessionId(1), WORKER, INBOUND, passes_limits=True) is None
    assert ledger.grant(SessionId(1), PEER, passes_limits=True) is None
    assert ledger.establish(SessionId(1))
    ledger.limits = limited(pending=0)
    assert ledger.admit(SessionId(2), WORKER, INBOUND, passes_limits=True) is not None


def test_a_second_release_is_harmless() -> None:
    ledger = counter()
    admitted(ledger, 1, 2)
    assert ledger.release(SessionId(1)) == Entry(SessionId(1), WORKER, INBOUND)
    assert ledger.release(SessionId(1)) is None
    assert ledger.count(Phase.PENDING, INBOUND) == 1


def test_a_lost_worker_frees_its_places() -> None:
    ledger = counter(pending=1)
    admitted(ledger, 1)
    assert ledger.of_worker(WORKER) == [1]
    ledger.release(SessionId(1))
    admitted(ledger, 2)


def test_sessions_over_a_lowered_limit_stay_and_no_new_one_comes() -> None:
    ledger = counter(pending=3)
    admitted(ledger, 1, 2, 3)
    ledger.limits = limited(pending=1)
    assert len(ledger) == 3
    ledger.release(SessionId(1))
    assert ledger.room(INBOUND) is not None
    ledger.release(SessionId(2))
    assert ledger.room(INBOUND) is not None
    ledger.release(SessionId(3))
    assert ledger.room(INBOUND) is None


def test_goodbyes_are_no_pending_sessions_and_have_a_limit_of_their_own() -> None:
    ledger = counter(pending=1, polite=1)
    ledger.admit_goodbye(SessionId(1), WORKER)
    assert not ledger.goodbye_room()
    admitted(ledger, 2)
    assert ledger.load(WORKER) == (2, 2)
    ledger.release(SessionId(1))
    assert ledger.goodbye_room()


def test_counts_shows_phases_directions_and_limits() -> None:
    ledger = SessionCounter(LimitSettings(1, 2, 3, 4, 5), OWN)
    admitted(ledger, 1)
    admitted(ledger, 2, direction=OUTBOUND)
    ledger.grant(SessionId(2), PEER)
    ledger.establish(SessionId(2))
    ledger.admit_goodbye(SessionId(3), WORKER)
    assert msgspec.to_builtins(counts(ledger)) == {
        "pending": {"inbound": 1, "outbound": 0},
        "active": {"inbound": 0, "outbound": 1},
        "limits": {
            "max_pending_inbound": 1,
            "max_pending_outbound": 2,
            "max_active_inbound": 3,
            "max_active_outbound": 4,
        },
    }
