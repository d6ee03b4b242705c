"""The ledger against a naive model: the same verdicts, the same totals, whatever happens in whatever order."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rlpx.engine.ledger.counter import Entry, Phase, Refusal, SessionCounter, counts
from rlpx.engine.settings.settings import LimitSettings
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction
from tests.generated import examples

OWN = b"\x03" * 64
# Two peers with higher ids: we decide between sessions that cross. And one with a lower id, which decides itself.
PEER = b"\x04" * 64
OTHER = b"\x05" * 64
DECIDER = b"\x02" * 64
INBOUND, OUTBOUND = Direction.INBOUND, Direction.OUTBOUND
WORKER = WorkerId(7)

few = st.integers(0, 3)
directions = st.sampled_from(Direction)
workers = st.integers(0, 2).map(WorkerId)
# Few peers, so that many meet; the third is ourselves.
peers = st.integers(1, 5).map(lambda number: bytes([number]) * 64)


def limited(pending: int = 9, active: int = 9, polite: int = 9, unauthenticated: int = 9) -> LimitSettings:
    """The same limits both ways."""
    return LimitSettings(unauthenticated, pending, pending, active, active, polite)


def counter(pending: int = 9, active: int = 9, polite: int = 9, unauthenticated: int = 9) -> SessionCounter:
    """An empty ledger."""
    return SessionCounter(limited(pending, active, polite, unauthenticated), OWN)


def admitted(ledger: SessionCounter, *numbers: int, direction: Direction = INBOUND) -> None:
    """Enter sessions that must find room; accepted ones send their auth at once."""
    for number in numbers:
        assert ledger.admit(SessionId(number), WORKER, direction) is None
        if direction is INBOUND:
            assert ledger.take_place(SessionId(number), now=0.0)


def accepted(ledger: SessionCounter, *numbers: int) -> None:
    """Enter accepted connections that must find room and send no auth."""
    for number in numbers:
        assert ledger.admit(SessionId(number), WORKER, INBOUND) is None


def reason(refusal: Refusal | None) -> DisconnectReason | None:
    """The reason that the peer gets."""
    return refusal.reason if refusal is not None else None


class NaiveLedger:
    """A model that counts everything afresh from one dictionary."""

    def __init__(self) -> None:
        self.limits = limited(2, 2, 2)
        self.entries: dict[SessionId, Entry] = {}

    def count(self, phase: Phase, direction: Direction) -> int:
        """Sessions in a phase and direction."""
        return sum(e.phase is phase and e.direction is direction for e in self.entries.values())

    def granted(self, direction: Direction) -> int:
        """Sessions that have an active place or wait for it."""
        return sum(e.is_granted and e.direction is direction for e in self.entries.values())

    def limit(self, name: str) -> int:
        """One of the limits."""
        return int(msgspec.to_builtins(self.limits)[name])

    def room(self, direction: Direction, *, passes_limits: bool) -> bool:
        """Whether one more may begin."""
        if direction is INBOUND:
            has_place = self.count(Phase.UNAUTHENTICATED, INBOUND) < self.limit("max_unauthenticated")
        else:
            has_place = self.count(Phase.PENDING, OUTBOUND) < self.limit("max_pending_outbound")
        return has_place and (passes_limits or self.granted(direction) < self.limit(f"max_active_{direction}"))

    def holders(self, peer: bytes) -> list[Entry]:
        """The sessions that a peer has or is about to have."""
        return [e for e in self.entries.values() if e.is_granted and e.peer == peer]

    def verdict(self, session: SessionId, peer: bytes, *, passes_limits: bool) -> DisconnectReason | None:
        """The expected answer of `grant`."""
        entry = self.entries.get(session)
        if entry is None or entry.phase is not Phase.PENDING or entry.is_granted:
            return None
        if peer == OWN:
            return DisconnectReason.CONNECTED_TO_SELF
        holders = self.holders(peer)
        crosses = [other.phase is Phase.PENDING and other.direction is not entry.direction for other in holders] == [True]
        if holders and not (crosses and peer < OWN):
            return DisconnectReason.ALREADY_CONNECTED
        if not passes_limits and self.granted(entry.direction) >= self.limit(f"max_active_{entry.direction}"):
            return DisconnectReason.TOO_MANY_PEERS
        return None

    def load(self, worker: WorkerId) -> tuple[int, int]:
        """The number of pending sessions, and of all."""
        own = [e for e in self.entries.values() if e.worker == worker and e.phase is not Phase.LEAVING]
        return sum(e.phase is not Phase.ACTIVE for e in own), len(own)


class LedgerMachine(RuleBasedStateMachine):
    """Sessions come, go on and leave in any order, under limits that change."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.model = NaiveLedger()
        self.ledger = SessionCounter(self.model.limits, OWN)
        self.last = 0
        # Accepts whose auth has come and that have no place; and those whose id is proved as well.
        self.waiting: list[SessionId] = []
        self.proved: list[SessionId] = []

    def next_session(self) -> SessionId:
        """A number never used before."""
        self.last += 1
        return SessionId(self.last)

    @rule(limits=st.lists(few, min_size=6, max_size=6))
    def limits_change(self, limits: list[int]) -> None:
        self.model.limits = self.ledger.limits = LimitSettings(*limits)

    @rule(target=sessions, worker=workers, direction=directions, passes_limits=st.booleans())
    def a_session_begins(self, worker: WorkerId, direction: Direction, *, passes_limits: bool) -> SessionId:
        session = self.next_session()
        has_room = self.model.room(direction, passes_limits=passes_limits)
        assert (self.ledger.room(direction, passes_limits=passes_limits) is None) is has_room
        refusal = self.ledger.admit(session, worker, direction, passes_limits=passes_limits)
        assert reason(refusal) is (None if has_room else DisconnectReason.TOO_MANY_PEERS)
        if has_room:
            phase = Phase.UNAUTHENTICATED if direction is INBOUND else Phase.PENDING
            self.model.entries[session] = Entry(session, worker, direction, phase)
        return session

    @rule(session=sessions, is_proved=st.booleans())
    def an_auth_comes(self, session: SessionId, *, is_proved: bool) -> None:
        entry = self.model.entries.get(session)
        if entry is not None and entry.phase is Phase.UNAUTHENTICATED and session not in self.proved:
            if is_proved:
                self.leaves(session)
                self.proved.append(session)
            elif session not in self.waiting:
                self.waiting.append(session)
        has_room = self.model.count(Phase.PENDING, INBOUND) < self.model.limit("max_pending_inbound")
        is_pending = entry is not None and entry.phase is Phase.PENDING
        takes = session in (self.proved + self.waiting)[:1] and has_room
        assert self.ledger.take_place(session, now=0.0, is_proved=is_proved) is (takes or is_pending)
        if takes and entry is not None:
            self.leaves(session)
            entry.phase = Phase.PENDING

    @rule(session=sessions, has_spoken=st.booleans())
    def nothing_comes(self, session: SessionId, *, has_spoken: bool) -> None:
        self.ledger.stall(session, has_spoken=has_spoken, now=0.0)

    @rule(phase=st.sampled_from([Phase.UNAUTHENTICATED, Phase.PENDING, Phase.GOODBYE]))
    def somebody_makes_room(self, phase: Phase) -> None:
        session = self.ledger.laggard(phase, now=100.0)
        if session is not None:
            entry = self.model.entries[session]
            assert self.ledger.evict(session) == (phase, entry.worker)
            entry.phase = Phase.LEAVING

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
        assert reason(self.ledger.grant(session, peer, now=0.0, passes_limits=passes_limits)) is expected
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

    def leaves(self, session: SessionId) -> None:
        """The session no longer waits for anything."""
        for queue in (self.waiting, self.proved):
            if session in queue:
                queue.remove(session)

    @rule(session=sessions)
    def a_session_ends(self, session: SessionId) -> None:
        """Release a session; it may be released again later, as the bundle still has it."""
        self.leaves(session)
        assert self.ledger.release(session) == self.model.entries.pop(session, None)

    @rule(session=consumes(sessions))
    def a_session_ends_twice(self, session: SessionId) -> None:
        self.leaves(session)
        assert self.ledger.release(session) == self.model.entries.pop(session, None)
        assert self.ledger.release(session) is None

    @rule(worker=workers)
    def a_worker_is_lost(self, worker: WorkerId) -> None:
        lost = self.ledger.of_worker(worker)
        assert lost == [e.session for e in self.model.entries.values() if e.worker == worker]
        for session in lost:
            self.ledger.release(session)
            self.leaves(session)
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
    def each_peer_has_one_session_or_two_that_cross(self) -> None:
        for number in range(1, 6):
            peer = bytes([number]) * 64
            holders = [e.session for e in self.model.holders(peer)]
            assert len(holders) <= (2 if peer < OWN else 1)
            first = self.ledger.session_of(peer)
            assert first in holders if holders else first is None
            for session in holders:
                rivals = [other for other in holders if other != session]
                assert self.ledger.rival_of(session) == (rivals[0] if rivals else None)

    @invariant()
    def whose_id_is_proved_is_next_and_then_whose_auth_came_first(self) -> None:
        queue = self.proved + self.waiting
        assert self.ledger.waiting == (queue[0] if queue else None)

    @invariant()
    def who_makes_room_is_where_the_room_is_wanted(self) -> None:
        for phase in (Phase.UNAUTHENTICATED, Phase.PENDING, Phase.GOODBYE):
            laggard = self.ledger.laggard(phase, now=100.0)
            assert laggard is None or self.model.entries[laggard].phase is phase
            assert laggard not in self.waiting + self.proved


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = examples(150, steps=40)


def test_no_limit_is_exceeded_by_one() -> None:
    ledger = counter(pending=2, unauthenticated=2)
    accepted(ledger, 1, 2)
    assert not ledger.has_accept_room
    refusal = ledger.admit(SessionId(3), WORKER, INBOUND)
    assert refusal == Refusal(DisconnectReason.TOO_MANY_PEERS, "2 accepted connections are unauthenticated")
    admitted(ledger, 3, 4, direction=OUTBOUND)
    refusal = ledger.admit(SessionId(5), WORKER, OUTBOUND)
    assert refusal == Refusal(DisconnectReason.TOO_MANY_PEERS, "2 outbound sessions are pending")
    assert len(ledger) == 4


# -- from accept to pending -------------------------------------------------------------------------------------------------


def test_an_accepted_peer_takes_no_pending_place_before_its_auth() -> None:
    ledger = counter(pending=1)
    accepted(ledger, 1, 2)
    assert ledger.count(Phase.PENDING, INBOUND) == 0
    assert ledger.take_place(SessionId(2), now=0.0)
    assert ledger.count(Phase.PENDING, INBOUND) == 1
    assert ledger.count(Phase.UNAUTHENTICATED, INBOUND) == 1


def test_whose_auth_finds_no_place_waits_for_one_in_turn() -> None:
    ledger = counter(pending=1)
    accepted(ledger, 1, 2, 3)
    assert ledger.take_place(SessionId(1), now=0.0)
    assert not ledger.take_place(SessionId(2), now=0.0)
    assert not ledger.take_place(SessionId(3), now=0.0)
    assert ledger.waiting == 2
    # No verdict without a place.
    assert ledger.grant(SessionId(2), PEER, now=0.0) is None
    assert ledger.session_of(PEER) is None
    ledger.release(SessionId(1))
    assert not ledger.take_place(SessionId(3), now=0.0)
    assert ledger.take_place(SessionId(2), now=0.0)
    assert ledger.waiting == 3


def test_whose_id_is_proved_waits_before_those_that_have_sent_an_auth_only() -> None:
    ledger = counter(pending=0)
    accepted(ledger, 1, 2, 3)
    for session in (1, 2):
        assert not ledger.take_place(SessionId(session), now=0.0)
    assert not ledger.take_place(SessionId(3), now=0.0, is_proved=True)
    assert ledger.waiting == 3
    # A repeated call changes nothing.
    assert not ledger.take_place(SessionId(3), now=0.0)
    ledger.limits = limited(pending=1)
    assert ledger.take_place(SessionId(3), now=0.0)
    assert ledger.waiting == 1


def test_of_silent_peers_the_one_that_is_there_longest_makes_room_then_those_that_have_spoken() -> None:
    ledger = counter(unauthenticated=3)
    accepted(ledger, 1, 2, 3)
    assert ledger.laggard(Phase.UNAUTHENTICATED, now=1.0) is None
    ledger.stall(SessionId(1), has_spoken=True, now=1.0)
    ledger.stall(SessionId(3), has_spoken=False, now=1.0)
    ledger.stall(SessionId(2), has_spoken=False, now=2.0)
    gone = []
    while (laggard := ledger.laggard(Phase.UNAUTHENTICATED, now=2.0)) is not None:
        assert ledger.evict(laggard) == (Phase.UNAUTHENTICATED, WORKER)
        gone.append(laggard)
    assert gone == [3, 2, 1]
    assert ledger.count(Phase.UNAUTHENTICATED, INBOUND) == 0
    assert ledger.of_worker(WORKER) == [1, 2, 3]


def test_whoever_waits_for_a_place_makes_no_room() -> None:
    ledger = counter(pending=0)
    accepted(ledger, 1)
    ledger.stall(SessionId(1), has_spoken=True, now=0.0)
    ledger.take_place(SessionId(1), now=0.0)
    ledger.stall(SessionId(1), has_spoken=True, now=0.0)
    assert ledger.laggard(Phase.UNAUTHENTICATED, now=9.0) is None


def test_a_pending_peer_that_goes_no_further_makes_room_first_where_its_id_is_not_proved() -> None:
    ledger = counter()
    admitted(ledger, 1, 2)
    ledger.grant(SessionId(1), PEER, now=0.0)
    assert ledger.laggard(Phase.PENDING, now=0.9) is None
    assert ledger.laggard(Phase.PENDING, now=1.0) == 2
    ledger.evict(SessionId(2))
    assert ledger.laggard(Phase.PENDING, now=1.0) == 1


def test_who_makes_room_keeps_an_active_place_that_it_has_to_its_end() -> None:
    ledger = counter(active=1)
    admitted(ledger, 1)
    ledger.grant(SessionId(1), PEER, now=0.0)
    ledger.evict(SessionId(1))
    assert ledger.room(INBOUND) is not None
    # It became active before its worker got the command.
    assert ledger.establish(SessionId(1))
    assert ledger.count(Phase.ACTIVE, INBOUND) == 1
    ledger.release(SessionId(1))
    assert ledger.room(INBOUND) is None


def test_a_refused_peer_that_sends_no_auth_makes_room_for_another_refusal() -> None:
    ledger = counter(polite=1)
    ledger.admit_goodbye(SessionId(1), WORKER)
    assert ledger.laggard(Phase.GOODBYE, now=0.0) is None
    ledger.stall(SessionId(1), has_spoken=False, now=0.0)
    assert ledger.laggard(Phase.GOODBYE, now=0.0) == 1
    ledger.evict(SessionId(1))
    assert ledger.goodbye_room()


# -- sessions that cross ----------------------------------------------------------------------------------------------------


def test_of_two_sessions_that_cross_the_first_one_wins_where_our_id_is_the_lower() -> None:
    ledger = counter()
    admitted(ledger, 1)
    admitted(ledger, 2, direction=OUTBOUND)
    ledger.grant(SessionId(2), PEER, now=0.0)
    assert reason(ledger.grant(SessionId(1), PEER, now=0.0)) is DisconnectReason.ALREADY_CONNECTED


def test_of_two_sessions_that_cross_the_peer_chooses_where_its_id_is_the_lower() -> None:
    ledger = counter(active=1)
    admitted(ledger, 1)
    admitted(ledger, 2, direction=OUTBOUND)
    assert ledger.grant(SessionId(2), DECIDER, now=0.0) is None
    assert ledger.grant(SessionId(1), DECIDER, now=0.0) is None
    assert (ledger.rival_of(SessionId(1)), ledger.rival_of(SessionId(2))) == (2, 1)
    # Both directions are exact meanwhile.
    assert ledger.room(INBOUND) is not None
    assert ledger.room(OUTBOUND) is not None
    # The peer has refused the one that it dialled: the other one has the peer now.
    ledger.release(SessionId(1))
    assert ledger.session_of(DECIDER) == 2
    assert ledger.rival_of(SessionId(2)) is None
    assert ledger.establish(SessionId(2))
    assert ledger.room(INBOUND) is None


def test_a_third_session_of_a_peer_is_refused_and_so_is_one_that_comes_when_another_is_active() -> None:
    ledger = counter()
    admitted(ledger, 1, 3)
    admitted(ledger, 2, 4, direction=OUTBOUND)
    ledger.grant(SessionId(2), DECIDER, now=0.0)
    assert reason(ledger.grant(SessionId(4), DECIDER, now=0.0)) is DisconnectReason.ALREADY_CONNECTED
    ledger.grant(SessionId(1), DECIDER, now=0.0)
    assert reason(ledger.grant(SessionId(3), DECIDER, now=0.0)) is DisconnectReason.ALREADY_CONNECTED
    ledger.release(SessionId(1))
    ledger.establish(SessionId(2))
    assert reason(ledger.grant(SessionId(3), DECIDER, now=0.0)) is DisconnectReason.ALREADY_CONNECTED
    assert ledger.rival_of(SessionId(3)) is None
    assert ledger.rival_of(SessionId(77)) is None


# -- verdicts and places ----------------------------------------------------------------------------------------------------


def test_the_two_directions_have_limits_of_their_own() -> None:
    ledger = counter(pending=1, active=1)
    admitted(ledger, 1)
    admitted(ledger, 2, direction=OUTBOUND)
    assert ledger.grant(SessionId(1), PEER, now=0.0) is None
    assert ledger.grant(SessionId(2), OTHER, now=0.0) is None


def test_an_active_place_is_reserved_by_the_verdict_already() -> None:
    ledger = counter(active=1)
    admitted(ledger, 1, 2)
    assert ledger.grant(SessionId(1), PEER, now=0.0) is None
    assert reason(ledger.grant(SessionId(2), OTHER, now=0.0)) is DisconnectReason.TOO_MANY_PEERS
    assert ledger.count(Phase.ACTIVE, INBOUND) == 0


def test_a_reserved_place_is_given_back_where_the_session_never_became_active() -> None:
    ledger = counter(active=1)
    admitted(ledger, 1, 2)
    ledger.grant(SessionId(1), PEER, now=0.0)
    ledger.release(SessionId(1))
    assert ledger.session_of(PEER) is None
    assert ledger.grant(SessionId(2), PEER, now=0.0) is None


def test_no_session_begins_while_all_active_places_are_taken() -> None:
    ledger = counter(active=1)
    admitted(ledger, 1)
    ledger.grant(SessionId(1), PEER, now=0.0)
    assert ledger.room(INBOUND) == Refusal(DisconnectReason.TOO_MANY_PEERS, "1 inbound sessions are active")


def test_a_second_session_of_a_peer_is_refused_whatever_its_direction() -> None:
    ledger = counter()
    admitted(ledger, 1)
    admitted(ledger, 2, direction=OUTBOUND)
    assert ledger.grant(SessionId(1), PEER, now=0.0) is None
    refusal = ledger.grant(SessionId(2), PEER, now=0.0)
    assert refusal == Refusal(DisconnectReason.ALREADY_CONNECTED, "the peer has session 1 already")


def test_a_refused_duplicate_does_not_free_the_first_one_when_it_ends() -> None:
    ledger = counter()
    admitted(ledger, 1, 2)
    ledger.grant(SessionId(1), PEER, now=0.0)
    ledger.grant(SessionId(2), PEER, now=0.0)
    ledger.release(SessionId(2))
    assert ledger.session_of(PEER) == 1


def test_we_do_not_talk_to_ourselves() -> None:
    ledger = counter()
    admitted(ledger, 1)
    assert reason(ledger.grant(SessionId(1), OWN, now=0.0)) is DisconnectReason.CONNECTED_TO_SELF
    assert ledger.session_of(OWN) is None


def test_a_session_is_not_established_without_its_verdict() -> None:
    ledger = counter()
    admitted(ledger, 1)
    assert not ledger.establish(SessionId(1))
    assert ledger.count(Phase.PENDING, INBOUND) == 1


def test_establishing_twice_counts_once() -> None:
    ledger = counter()
    admitted(ledger, 1)
    ledger.grant(SessionId(1), PEER, now=0.0)
    assert ledger.establish(SessionId(1))
    assert ledger.establish(SessionId(1))
    assert ledger.count(Phase.PENDING, INBOUND) == 0
    assert ledger.count(Phase.ACTIVE, INBOUND) == 1


def test_one_that_passes_the_limits_needs_a_pending_place_only() -> None:
    ledger = counter(pending=3, active=0)
    assert ledger.admit(SessionId(1), WORKER, INBOUND) is not None
    assert ledger.admit(SessionId(1), WORKER, INBOUND, passes_limits=True) is None
    assert ledger.take_place(SessionId(1), now=0.0)
    assert ledger.grant(SessionId(1), PEER, now=0.0, passes_limits=True) is None
    assert ledger.establish(SessionId(1))
    ledger.limits = limited(unauthenticated=0)
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
    accepted(ledger, 4)
    assert len(ledger) == 4
    for session in (1, 2):
        ledger.release(SessionId(session))
        assert not ledger.take_place(SessionId(4), now=0.0)
    ledger.release(SessionId(3))
    assert ledger.take_place(SessionId(4), now=0.0)


def test_goodbyes_are_no_pending_sessions_and_have_a_limit_of_their_own() -> None:
    ledger = counter(pending=1, polite=1)
    ledger.admit_goodbye(SessionId(1), WORKER)
    assert not ledger.goodbye_room()
    admitted(ledger, 2)
    assert ledger.load(WORKER) == (2, 2)
    ledger.release(SessionId(1))
    assert ledger.goodbye_room()


def test_counts_shows_phases_directions_and_limits() -> None:
    ledger = SessionCounter(LimitSettings(9, 1, 2, 3, 4, 5), OWN)
    admitted(ledger, 1)
    accepted(ledger, 4)
    admitted(ledger, 2, direction=OUTBOUND)
    ledger.grant(SessionId(2), PEER, now=0.0)
    ledger.establish(SessionId(2))
    ledger.admit_goodbye(SessionId(3), WORKER)
    assert msgspec.to_builtins(counts(ledger)) == {
        "unauthenticated": {"inbound": 1},
        "pending": {"inbound": 1, "outbound": 0},
        "active": {"inbound": 0, "outbound": 1},
        "limits": {
            "max_unauthenticated": 9,
            "max_pending_inbound": 1,
            "max_pending_outbound": 2,
            "max_active_inbound": 3,
            "max_active_outbound": 4,
        },
    }
