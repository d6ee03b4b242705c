from __future__ import annotations

import pytest

from rlpx.protocol.cluster.claims import State
from rlpx.protocol.cluster.records import Claim, Lease, Note, Shard, decode, note_key, peer_key, shard_key
from rlpx.protocol.cluster.steps import Admitted, Answer, EndSession, Erase, Outcome, Put, Read, Refused
from rlpx.protocol.errors import DisconnectReason
from tests.protocol.cluster.table import IN, OTHER, PEER, Table

KEY = peer_key(PEER)
DUPLICATE = DisconnectReason.ALREADY_CONNECTED


def held(table: Table) -> Claim | None:
    return decode(Claim, table.keys.get(KEY, (0, None))[1])


def is_settled(table: Table) -> bool:
    return table.member.claims.is_settled


def own(table: Table) -> Table:
    """Session 1 has the peer."""
    table.claim(1)
    table.settle()
    assert table.heard() == [Admitted(1)]
    return table


def test_a_claim_is_one_write_at_the_start_and_one_at_the_end() -> None:
    table = Table().joined()
    table.claim(1)
    assert table.calls == [Put(table.calls[0].call, KEY, b'{"host":"a","epoch":"a1","session":1,"since_us":10}', 0)]
    table.settle()
    assert table.heard() == [Admitted(1)]
    table.pass_time(4)
    table.release(1)
    assert [type(call) for call in table.calls] == [Erase]
    table.settle()
    table.release(1)
    assert table.calls == []
    assert held(table) is None
    assert len(table.member.claims) == 0


def test_a_peer_of_a_living_host_is_refused() -> None:
    table = Table().joined()
    table.beat()
    table.claimed_by()
    table.claim(1)
    table.settle()
    assert table.heard() == [Refused(1, DUPLICATE, "the peer has session 7 at host b already")]
    assert len(table.member.claims) == 0


def test_two_sessions_that_cross_share_a_claim() -> None:
    table = Table().joined()
    table.claim(1)
    table.claim(2)
    table.settle()
    table.claim(3)
    assert table.heard() == [Admitted(1), Admitted(2), Admitted(3)]
    for session in (1, 2):
        table.release(session)
    assert table.calls == []
    table.release(3)
    table.settle()
    assert held(table) is None


def test_a_claim_of_a_dead_host_is_void_and_its_host_gets_a_note_before() -> None:
    table = Table().joined()
    table.beat()
    table.pass_time(16)
    table.claimed_by()
    table.claim(1)
    table.settle()
    assert table.heard() == [Admitted(1)]
    assert held(table) == Claim("a", "a1", 1, 10)
    assert decode(Note, table.keys[note_key("b", PEER)][1]) == Note("a")


def test_a_note_that_is_there_already_is_written_anew_so_that_its_host_sees_it() -> None:
    table = Table().joined()
    table.beat()
    table.pass_time(16)
    table.claimed_by()
    before = table.put(note_key("b", PEER), Note("c"))
    table.claim(1)
    table.settle()
    revision, value = table.keys[note_key("b", PEER)]
    assert revision > before
    assert decode(Note, value) == Note("a")
    assert table.heard() == [Admitted(1)]


def test_a_claim_of_an_earlier_epoch_of_our_own_is_void() -> None:
    table = Table().joined()
    table.claimed_by("a", "a0")
    table.claim(1)
    table.settle()
    assert held(table) == Claim("a", "a1", 1, 10)


@pytest.mark.parametrize("value", [b"nonsense", b'{"host":"b"}'])
def test_a_claim_that_is_nonsense_is_nobodys(value: bytes) -> None:
    table = Table().joined()
    table.put(KEY, value)
    table.claim(1)
    table.settle()
    assert held(table) == Claim("a", "a1", 1, 10)


def test_a_host_that_only_seemed_dead_keeps_its_claim() -> None:
    table = Table().joined()
    table.beat()
    table.pass_time(16)
    table.claimed_by()
    table.claim(1)
    table.answer(table.next(Put))
    table.put("host.b", b'{"epoch":"b1"}')
    table.settle()
    assert table.heard() == [Refused(1, DUPLICATE, "the peer has session 7 at host b already")]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_session_that_ends_while_a_dead_claim_is_replaced(steps: int) -> None:
    table = Table().joined()
    table.beat()
    table.pass_time(16)
    table.claimed_by()
    table.claim(1)
    for _ in range(steps):
        table.answer(table.calls[0])
    table.release(1)
    table.settle()
    assert len(table.member.claims) == 0
    assert (held(table) or Claim("", "", 0, 0)).host != "a"


def test_a_note_that_is_lost_is_written_again_and_meanwhile_the_store_counts_as_away() -> None:
    table = Table().joined()
    table.beat()
    table.pass_time(16)
    table.claimed_by()
    table.claim(1)
    for _ in range(2):
        table.answer(table.calls[0])
    table.lose(table.next(Put, "note"))
    assert table.heard() == [Admitted(1)]
    table.pass_time(2)
    assert held(table) == Claim("a", "a1", 1, 10)


def test_a_claim_without_answer_is_let_in_and_settled_later() -> None:
    table = Table().joined()
    table.claim(1)
    late = table.next(Put)
    table.lose(late)
    assert table.heard() == [Admitted(1)]
    assert table.member.claims.states() == {State.LOOSE: 1}
    assert not is_settled(table)
    table.pass_time(2)
    assert table.member.claims.states() == {State.HELD: 1}
    assert table.member.claims.holds(PEER)
    assert not table.member.claims.holds(OTHER)
    assert is_settled(table)
    assert held(table) == Claim("a", "a1", 1, 10)


def test_a_claim_without_answer_is_refused_if_the_user_wishes() -> None:
    table = Table(lets_in=False).joined()
    table.claim(1)
    late = table.next(Put)
    table.lose(late)
    (refused,) = table.heard()
    assert isinstance(refused, Refused)
    assert refused.session == 1
    assert "cannot be asked" in refused.cause
    # The write was done after all: nobody else must be kept out by it.
    table.carry_out(late)
    table.pass_time(3)
    assert held(table) is None
    assert len(table.member.claims) == 0


def test_a_lost_claim_that_was_never_done_is_ruled_out() -> None:
    table = Table(lets_in=False).joined()
    table.claim(1)
    late = table.next(Put)
    table.lose(late)
    table.pass_time(2)
    assert len(table.member.claims) == 0
    assert held(table) is None
    # It was written and erased once more, which leaves a marker in its way.
    assert table.revision > 3


@pytest.mark.parametrize("lets_in", [True, False])
def test_while_the_store_is_away_nobody_is_asked(lets_in: bool) -> None:  # noqa: FBT001 - a case
    table = Table(lets_in=lets_in).joined()
    table.disconnect()
    table.claim(1)
    assert not [call for call in table.calls if call.key == KEY]
    assert isinstance(table.heard()[0], Admitted if lets_in else Refused)
    table.release(1)
    assert len(table.member.claims) == 0


def test_of_two_sessions_that_meet_after_an_outage_the_older_stays() -> None:
    table = Table().joined()
    table.beat()
    table.disconnect()
    table.claim(1, since_us=3)
    table.claim(2, OTHER, since_us=30)
    table.heard()
    table.claimed_by(since_us=5)
    table.claimed_by(since_us=5, peer=OTHER)
    table.connect()
    table.beat()
    table.settle()
    table.pass_time(2)
    assert table.heard() == [EndSession(2, DUPLICATE, "the peer has session 7 at host b already")]
    assert held(table) == Claim("a", "a1", 1, 3)
    assert note_key("b", PEER) in table.keys
    table.release(2)
    assert len(table.member.claims) == 1


def test_a_session_without_its_verdict_is_refused_when_an_older_one_is_found() -> None:
    table = Table().joined()
    table.beat()
    table.see(shard_key(IN, 0), Shard({"b": Lease("b1", 10)}))
    table.disconnect()
    table.claim(1, since_us=30)
    table.heard()
    table.claimed_by(since_us=5)
    table.connect()
    table.answer(table.next(Put, "host"))
    # The host has no place for its session, so it admits nobody at this moment.
    table.use(1)
    table.claim(2, since_us=40)
    table.heard()
    table.pass_time(1)
    cause = "the peer has session 7 at host b already"
    said = [step for step in table.heard() if isinstance(step, EndSession | Refused)]
    assert said == [EndSession(1, DUPLICATE, cause), Refused(2, DUPLICATE, cause)]


def note(table: Table) -> None:
    """Host b replaces our claim, and tells us."""
    table.see(note_key("a", PEER), Note("b"))


def look(table: Table) -> None:
    """A note makes us ask the store about our claim; nobody has answered yet."""
    note(table)
    table.pass_time(1, answers=False)


def test_a_note_makes_a_host_look_at_its_claim_after_a_moment() -> None:
    table = own(Table().joined())
    note(table)
    table.settle()
    assert note_key("a", PEER) not in table.keys
    assert table.heard() == []
    table.beat()
    table.claimed_by(since_us=5)
    table.pass_time(1)
    assert table.heard() == [EndSession(1, DUPLICATE, "the peer has session 7 at host b already")]


def test_a_note_that_comes_long_before_its_claim_makes_a_host_look_again() -> None:
    table = own(Table().joined())
    table.beat()
    note(table)
    table.pass_time(2)
    assert table.heard() == []
    table.claimed_by(since_us=5)
    table.pass_time(4)
    assert table.heard() == [EndSession(1, DUPLICATE, "the peer has session 7 at host b already")]


def test_a_note_about_a_peer_that_we_have_not_is_erased() -> None:
    table = Table().joined()
    note(table)
    table.settle()
    assert note_key("a", PEER) not in table.keys
    table.member.on_seen(note_key("a", PEER), 99, None, table.now)
    assert table.member.take() == []


def test_nobody_is_admitted_before_the_host_is_sure_of_itself() -> None:
    table = Table().joined()
    table.now += 30.0
    table.claim(1)
    table.answer(table.next(Put, "peer"))
    assert table.heard() == []
    table.pass_time(1)
    table.pass_time(1)
    assert Admitted(1) in table.heard()


def test_a_session_that_has_not_begun_takes_no_peer_from_another_host_however_old_it_is() -> None:
    table = Table().joined()
    table.use(1)
    table.disconnect()
    # The host has no place for it, so it does not begin at once.
    table.claim(1, since_us=3)
    table.claimed_by(since_us=5)
    table.connect()
    table.beat()
    table.pass_time(2)
    refused = Refused(1, DUPLICATE, "the peer has session 7 at host b already")
    assert [step for step in table.heard() if isinstance(step, Admitted | Refused | EndSession)] == [refused]


def test_a_peer_that_comes_again_while_its_claim_is_erased_is_not_admitted_with_those_that_waited() -> None:
    table = Table().joined()
    table.now += 30.0
    table.claim(1)
    table.answer(table.next(Put, "peer"))
    table.release(1)
    erase = table.next(Erase, "peer")
    table.claim(2)
    table.calls.remove(erase)
    table.pass_time(3)
    assert not [step for step in table.heard() if isinstance(step, Admitted)]
    table.calls.append(erase)
    # Another host is faster.
    table.carry_out(erase)
    table.beat()
    table.claimed_by()
    table.reply(erase, Answer(erase.call, Outcome.DONE, table.revision))
    table.settle()
    refused = Refused(2, DUPLICATE, "the peer has session 7 at host b already")
    assert [step for step in table.heard() if isinstance(step, Admitted | Refused)] == [refused]


def test_after_an_outage_a_claim_is_looked_at_before_another_session_of_its_peer_begins() -> None:
    table = own(Table().joined())
    table.disconnect()
    table.connect()
    table.answer(table.next(Put, "host"))
    table.claim(2)
    assert not [step for step in table.heard() if isinstance(step, Admitted)]
    table.pass_time(2)
    assert Admitted(2) in table.heard()


@pytest.mark.parametrize("lets_in", [True, False])
def test_if_the_store_goes_away_again_a_claim_that_was_not_looked_at_counts_as_none(lets_in: bool) -> None:  # noqa: FBT001 - a case
    table = own(Table(lets_in=lets_in).joined())
    table.disconnect()
    table.connect()
    table.disconnect()
    table.claim(2)
    assert not [step for step in table.heard() if isinstance(step, Admitted)]
    table.lose(table.next(Read, "peer"))
    assert (Admitted(2) in table.heard()) is lets_in


def test_a_session_that_ends_before_the_host_is_sure_of_itself() -> None:
    table = Table().joined()
    table.now += 30.0
    table.claim(1)
    table.answer(table.next(Put, "peer"))
    table.release(1)
    table.pass_time(3)
    assert table.heard() == []
    assert held(table) is None


def test_a_session_that_ends_while_its_claim_is_asked_for() -> None:
    table = Table().joined()
    table.claim(1)
    table.release(1)
    table.settle()
    assert table.heard() == []
    assert held(table) is None
    assert len(table.member.claims) == 0


def test_a_peer_that_comes_again_while_its_claim_is_erased() -> None:
    table = own(Table().joined())
    table.release(1)
    table.claim(2)
    assert table.heard() == []
    table.settle()
    assert table.heard() == [Admitted(2)]
    assert held(table) == Claim("a", "a1", 2, 10)


@pytest.mark.parametrize("comes_again", [True, False])
def test_a_lost_erasure_is_done_again(comes_again: bool) -> None:  # noqa: FBT001 - a case
    table = own(Table().joined())
    table.release(1)
    late = table.next(Erase)
    if comes_again:
        table.claim(2)
    table.lose(late)
    table.pass_time(2)
    assert (held(table) is not None) == comes_again
    # The late erasure finds another claim, or none.
    assert table.carry_out(late).outcome is Outcome.CONFLICT


def test_a_claim_is_erased_when_the_store_is_back() -> None:
    table = own(Table().joined())
    table.disconnect()
    table.release(1)
    table.pass_time(2)
    assert held(table) is not None
    table.connect()
    table.settle()
    table.pass_time(2)
    assert held(table) is None


def test_a_peer_comes_again_while_its_claim_waits_to_be_erased() -> None:
    table = own(Table().joined())
    table.disconnect()
    table.release(1)
    table.claim(2)
    assert table.heard() == [Admitted(2)]


def test_a_peer_comes_again_while_it_is_not_known_whether_the_store_has_its_claim() -> None:
    table = Table().joined()
    table.claim(1)
    table.lose(table.next(Put, "peer"))
    table.release(1)
    table.heard()
    table.claim(2)
    table.settle()
    assert table.heard() == [Admitted(2)]


def test_a_claim_that_the_store_has_lost_is_written_again() -> None:
    table = own(Table().joined())
    table.disconnect()
    del table.keys[KEY]
    table.connect()
    table.settle()
    table.pass_time(2)
    assert held(table) == Claim("a", "a1", 1, 10)


def test_a_look_that_is_lost_is_repeated_and_a_busy_claim_is_looked_at_later() -> None:
    table = own(Table().joined())
    look(table)
    look(table)
    table.lose(table.next(Read, "peer"))
    table.pass_time(8)
    assert held(table) == Claim("a", "a1", 1, 10)
    assert table.heard() == []


def test_a_session_that_ends_while_its_claim_is_looked_at() -> None:
    table = own(Table().joined())
    look(table)
    table.release(1)
    table.claimed_by()
    table.settle()
    assert len(table.member.claims) == 0


def test_a_lost_put_over_a_released_session_is_cleaned_up() -> None:
    table = Table().joined()
    table.claim(1)
    call = table.next(Put, "peer")
    table.release(1)
    table.lose(call)
    table.carry_out(call)
    table.pass_time(3)
    assert held(table) is None
    assert len(table.member.claims) == 0


def test_nobodys_claim_needs_no_cleaning() -> None:
    table = own(Table().joined())
    look(table)
    table.release(1)
    read = table.next(Read, "peer")
    table.reply(read, Answer(read.call, Outcome.DONE))
    assert len(table.member.claims) == 0


def test_a_claim_that_was_written_late_is_erased_too() -> None:
    table = own(Table().joined())
    look(table)
    del table.keys[KEY]
    table.answer(table.next(Read, "peer"))
    late = table.next(Put, "peer")
    table.carry_out(late)
    table.lose(late)
    table.release(1)
    table.settle()
    table.pass_time(3)
    assert held(table) is None
    assert len(table.member.claims) == 0


def late_over_another(table: Table) -> Put:
    """Our write over the claim of a dead host is lost, its session is over, and it may be done even now."""
    table.beat()
    table.pass_time(16)
    table.claimed_by()
    table.claim(1)
    for _ in range(3):
        table.answer(table.calls[0])
    late = table.next(Put, "peer")
    table.lose(late)
    table.release(1)
    table.pass_time(1, answers=False)
    table.answer(table.next(Read, "peer"))
    return late


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_late_write_over_the_claim_of_another_host_is_ruled_out(is_lost: bool) -> None:  # noqa: FBT001 - a case
    table = Table().joined()
    late = late_over_another(table)
    if is_lost:
        table.lose(table.next(Put, "peer"))
    table.settle()
    table.pass_time(2)
    assert held(table) == Claim("b", "b1", 7, 5)
    assert table.carry_out(late).outcome is Outcome.CONFLICT
    assert len(table.member.claims) == 0


def test_a_peer_comes_again_while_a_late_write_is_ruled_out() -> None:
    table = Table().joined()
    late_over_another(table)
    table.claim(2)
    table.settle()
    assert held(table) == Claim("a", "a1", 2, 10)


def test_a_claim_that_waits_to_be_erased_lends_its_age_to_no_later_session() -> None:
    table = own(Table().joined())
    table.beat()
    table.disconnect()
    table.release(1)
    table.claim(2, since_us=40)
    assert table.heard() == [Admitted(2)]
    table.claimed_by(since_us=20)
    table.connect()
    table.beat()
    table.settle()
    table.pass_time(2)
    ends = [step for step in table.heard() if isinstance(step, EndSession)]
    assert ends == [EndSession(2, DUPLICATE, "the peer has session 7 at host b already")]


def test_a_claim_that_others_may_erase_is_written_anew() -> None:
    table = own(Table().joined())
    before = table.keys[KEY][0]
    for writes in (False, True):
        table.member.claims.on_return(writes=writes)
        table.pass_time(1)
        assert (table.keys[KEY][0] > before) == writes
    assert held(table) == Claim("a", "a1", 1, 10)
