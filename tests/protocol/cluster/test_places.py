from __future__ import annotations

import pytest

from rlpx.protocol.cluster.records import Fleet, Lease, Shard, decode, encode, shard_key
from rlpx.protocol.cluster.steps import Admitted, Answer, EndSession, Outcome, PlacesChanged, Put, Read
from tests.protocol.cluster.table import IN, OUT, Table

SHARD = shard_key(IN, 0)


def leased(table: Table) -> int:
    return table.member.places[IN].leased


def test_places_are_leased_in_blocks() -> None:
    table = Table().joined()
    table.use(0, 1)
    assert isinstance(table.next(Put, "places"), Put)
    assert leased(table) == 0
    table.settle()
    assert leased(table) == 4
    assert table.heard() == [PlacesChanged(IN, 4, 6)]
    table.use(4, 3)
    table.settle()
    assert leased(table) == 8
    table.use(8, 3)
    table.settle()
    assert table.heard()[-1] == PlacesChanged(IN, 10, 0)
    table.use(10, 5)
    assert not [call for call in table.calls if call.key == SHARD]


def test_a_conflict_shows_what_is_left_and_the_next_try_comes_a_little_later() -> None:
    table = Table().joined()
    table.put(SHARD, Shard({"b": Lease("b1", 8)}))
    table.use(0, 5)
    table.answer(table.next(Put, "places"))
    assert leased(table) == 0
    table.pass_time(1)
    assert leased(table) == 2
    assert table.member.places[IN].wants == 3


def test_a_lost_write_that_was_done_after_all_is_found() -> None:
    table = Table().joined()
    table.use(0, 3)
    call = table.next(Put, "places")
    table.carry_out(call)
    table.lose(call)
    assert leased(table) == 0
    assert not table.member.places[IN].is_sure
    table.pass_time(2)
    assert leased(table) == 4
    assert table.member.places[IN].is_sure


def test_a_lost_write_that_was_not_done_is_ruled_out_by_another() -> None:
    table = Table().joined()
    table.use(0, 3)
    late = table.next(Put, "places")
    table.lose(late)
    table.pass_time(2)
    assert leased(table) == 4
    assert table.carry_out(late).outcome is Outcome.CONFLICT


def test_a_watched_shard_settles_a_lost_write_too() -> None:
    table = Table().joined()
    table.use(0, 3)
    call = table.next(Put, "places")
    table.lose(call)
    table.see(SHARD, Shard({"a": Lease("a1", 4)}))
    assert leased(table) == 4
    assert table.member.places[IN].is_sure


def test_the_watch_is_faster_than_the_answer() -> None:
    table = Table().joined()
    table.use(0, 3)
    call = table.next(Put, "places")
    answer = table.carry_out(call)
    revision, value = table.keys[SHARD]
    table.member.on_seen(SHARD, revision, value, table.now)
    assert leased(table) == 0
    table.see(SHARD, Shard({"a": Lease("a1", 4), "b": Lease("b1", 1)}))
    table.reply(call, answer)
    assert leased(table) == 4
    assert table.member.places[IN].elsewhere == 5


def test_a_lease_that_the_store_has_not_is_not_counted_even_while_we_write() -> None:
    table = Table().joined()
    table.use(4, 0)
    table.settle()
    table.use(4, 1)
    call = table.next(Put, "places")
    table.see(SHARD, Shard({"b": Lease("b1", 9)}))
    assert leased(table) == 0
    table.answer(call)
    assert leased(table) == 0


def test_after_a_shard_is_lost_nobody_leases_more_before_all_have_written_their_leases_again() -> None:
    table = Table().joined()
    table.use(4, 0)
    table.settle()
    # The store has lost everything; another host has not noticed yet, and holds six places.
    table.keys.clear()
    table.use(4, 3)
    table.pass_time(4)
    assert decode(Shard, table.keys[SHARD][1]) == Shard({"a": Lease("a1", 4)})
    table.see(SHARD, Shard({"a": Lease("a1", 4), "b": Lease("b1", 6)}))
    table.pass_time(10)
    assert leased(table) == 4


def test_a_host_whose_lease_is_missing_leases_what_it_uses_and_waits_for_the_others() -> None:
    table = Table().joined()
    table.use(2, 0)
    table.settle()
    assert leased(table) == 4
    table.see(SHARD, Shard({"b": Lease("b1", 5)}))
    table.settle()
    assert leased(table) == 2
    table.use(2, 2)
    table.pass_time(4)
    assert leased(table) == 2
    table.pass_time(4)
    assert leased(table) == 5


def test_unused_places_are_given_back_after_a_while_but_for_a_block() -> None:
    table = Table().joined()
    table.use(0, 10)
    table.settle()
    table.use(1, 0)
    table.pass_time(9)
    assert leased(table) == 10
    table.pass_time(3)
    assert leased(table) == 2
    assert table.member.places[IN].free == 1
    assert table.member.places[IN].excess == 0
    table.pass_time(20)
    assert leased(table) == 2


def test_places_that_are_needed_again_are_not_given_back() -> None:
    table = Table().joined()
    table.use(0, 10)
    table.settle()
    table.use(1, 0)
    table.pass_time(5)
    table.use(9, 0)
    table.pass_time(6)
    table.use(1, 0)
    table.pass_time(6)
    assert leased(table) == 10


def test_if_others_lack_places_all_unused_ones_are_given_back() -> None:
    table = Table().joined()
    table.use(1, 0)
    table.settle()
    table.pass_time(1)
    # A session of the other host waits two seconds at most, so this does not wait for the next tick.
    table.beat(wants={"inbound": 8})
    assert leased(table) == 1
    table.use(1, 2)
    table.settle()
    assert leased(table) == 3
    table.use(1, 0)
    table.pass_time(1)
    assert leased(table) == 1


def test_a_host_that_lacks_places_itself_does_not_look_for_some_with_each_heartbeat_of_another_that_does() -> None:
    table = Table().joined()
    table.beat()
    table.see(SHARD, Shard({"b": Lease("b1", 10)}))
    table.use(0, 1)
    table.settle()
    table.pass_time(12)
    # The other host is dead by now, and a third lacks places. A look goes through all leases of the fleet: the tick does it.
    table.now += 3.5
    table.beat("c", "c1", wants={"inbound": 8})
    assert table.calls == []
    table.pass_time(2)
    assert leased(table) > 0


def test_after_the_store_was_away_unused_places_are_kept_until_they_can_be_leased_again() -> None:
    table = Table().joined()
    table.use(1, 0)
    table.settle()
    table.disconnect()
    table.connect()
    table.settle()
    table.beat(wants={"inbound": 8})
    table.pass_time(4)
    assert leased(table) == 4
    table.beat(wants={"inbound": 8})
    table.pass_time(2)
    assert leased(table) == 1


def test_unused_places_are_kept_while_others_find_free_ones() -> None:
    table = Table().joined()
    table.use(1, 0)
    table.settle()
    table.beat(wants={"inbound": 6})
    table.pass_time(3)
    assert leased(table) == 4


def test_places_are_given_back_if_the_limit_has_become_lower() -> None:
    table = Table().joined()
    table.use(3, 0)
    table.settle()
    table.see("fleet", Fleet({IN: 2, OUT: 2}, 1))
    table.pass_time(1)
    assert leased(table) == 3


def test_a_conflict_while_giving_back_restores_what_we_have() -> None:
    table = Table().joined()
    table.use(1, 0)
    table.settle()
    table.pass_time(1)
    table.beat(wants={"inbound": 7})
    call = table.next(Put, "places")
    assert leased(table) == 1
    table.put(SHARD, Shard({"a": Lease("a1", 4), "b": Lease("b1", 1)}))
    table.answer(call)
    assert leased(table) == 4


def test_a_host_without_a_place_asks_the_others_at_once() -> None:
    table = Table().joined()
    table.put(SHARD, Shard({"b": Lease("b1", 10)}))
    table.beat()
    table.use(0, 1)
    table.settle()
    table.pass_time(2)
    assert b'"wants":{"inbound":1,"outbound":0}' in table.keys["host.a"][1]


def test_the_places_of_a_dead_host_are_taken_if_no_other_is_free() -> None:
    table = Table().joined()
    table.see(SHARD, Shard({"c": Lease("c1", 0), "b": Lease("b1", 9)}))
    table.beat()
    table.use(0, 1)
    table.settle()
    assert leased(table) == 1
    table.use(1, 1)
    table.pass_time(14)
    assert leased(table) == 1
    table.pass_time(2)
    assert leased(table) == 3
    assert b"b1" not in table.keys[SHARD][1]


def dead_host(table: Table) -> Read:
    """All places are those of a host that seems to be dead; the member asks whether it is."""
    table.see(SHARD, Shard({"b": Lease("b1", 10)}))
    table.beat()
    table.use(0, 1)
    table.pass_time(14)
    table.pass_time(1, answers=False)
    return table.next(Read, "host.b")


def test_a_host_that_lives_after_all_keeps_its_places() -> None:
    table = Table().joined()
    call = dead_host(table)
    table.put("host.b", b'{"epoch":"b1"}')
    table.answer(call)
    table.settle()
    assert leased(table) == 0


def test_a_dead_host_whose_lease_has_changed_meanwhile_is_looked_at_again() -> None:
    table = Table().joined()
    call = dead_host(table)
    table.see(SHARD, Shard({"c": Lease("c1", 1)}))
    table.answer(call)
    table.settle()
    assert leased(table) == 2


@pytest.mark.parametrize("outcome", [Outcome.CONFLICT, Outcome.LOST])
def test_a_lease_that_could_not_be_taken_away_is_tried_again(outcome: Outcome) -> None:
    table = Table().joined()
    table.answer(dead_host(table))
    call = table.next(Put, "places")
    if outcome is Outcome.CONFLICT:
        table.put(SHARD, Shard({"b": Lease("b1", 9), "c": Lease("c1", 1)}))
        table.answer(call)
    else:
        table.lose(call)
    table.pass_time(2)
    assert leased(table) == 2


def test_a_lease_is_taken_away_and_the_watch_has_said_so_before() -> None:
    table = Table().joined()
    table.answer(dead_host(table))
    call = table.next(Put, "places")
    answer = table.carry_out(call)
    table.see(SHARD, Shard())
    table.reply(call, answer)
    table.settle()
    assert leased(table) == 2


def test_of_two_leases_the_one_of_an_epoch_that_is_over_is_swept_if_nothing_else_is_to_be_written() -> None:
    table = Table().joined()
    places = table.member.places[IN]
    table.see(SHARD, Shard({"b": Lease("b2", 2), "c": Lease("c1", 3)}))
    table.beat("b", "b2")
    table.beat("c", "c2")
    table.use(0, 1)
    places.sweep(table.now)
    table.collect()
    # A lease for a session goes first.
    assert not [call for call in table.calls if isinstance(call, Read)]
    table.settle()
    places.sweep(table.now)
    table.collect()
    table.settle()
    assert decode(Shard, table.keys[SHARD][1]) == Shard({"b": Lease("b2", 2), "a": Lease("a1", 1)})
    places.sweep(table.now)
    table.collect()
    assert table.calls == []


def test_nothing_is_leased_before_we_are_sure_of_ourselves() -> None:
    table = Table().joined()
    table.now += 14.5
    table.use(0, 1)
    assert not [call for call in table.calls if call.key == SHARD]
    table.pass_time(2)
    assert leased(table) == 4


def test_after_a_return_each_lease_is_confirmed_and_a_lost_one_restored() -> None:
    table = Table().joined()
    table.use(3, 0)
    table.settle()
    table.disconnect()
    table.keys[SHARD] = (table.put(SHARD, Shard()), table.keys[SHARD][1])
    table.pass_time(20)
    table.connect()
    assert not table.member.places[IN].is_sure
    table.settle()
    table.pass_time(1)
    # Only what is used, until every host has had the time to do the same.
    assert leased(table) == 3
    table.use(3, 1)
    table.pass_time(3)
    assert leased(table) == 3
    table.pass_time(3)
    assert leased(table) == 7


def returned(table: Table, leases: bytes) -> None:
    """The host has four places, three of them in use, and is back at a store that shows this shard in an older revision."""
    table.use(3, 0)
    table.settle()
    assert leased(table) == 4
    table.disconnect()
    table.connect()
    table.member.on_seen(SHARD, 1, leases, table.now)
    table.collect()
    assert not table.member.places[IN].is_sure


def test_a_store_that_has_lost_its_latest_writes_is_believed_about_revisions() -> None:
    table = Table().joined()
    returned(table, b'{"leases":{"a":["a1",2]}}')
    table.keys[SHARD] = (1, b'{"leases":{"a":["a1",2]}}')
    table.settle()
    table.pass_time(2)
    assert leased(table) == 3


def test_of_a_lost_lease_only_what_nobody_else_has_is_written_once_more() -> None:
    table = Table().joined()
    returned(table, b'{"leases":{"b":["b1",9]}}')
    table.keys[SHARD] = (1, b'{"leases":{"b":["b1",9]}}')
    table.lose(table.next(Put, "places"))
    table.pass_time(2, answers=False)
    assert table.next(Put, "places").value == encode(Shard({"b": Lease("b1", 9), "a": Lease("a1", 1)}))
    table.settle()
    assert leased(table) == 1


def test_a_replica_that_lags_behind_takes_no_lease_away() -> None:
    table = Table().joined()
    returned(table, b'{"leases":{}}')
    assert leased(table) == 4
    # The store goes away again before it has been asked.
    table.disconnect()
    table.claim(1)
    table.use(4, 0)
    assert Admitted(1) in table.heard()
    table.connect()
    table.settle()
    table.pass_time(2)
    assert table.member.places[IN].is_sure
    assert leased(table) == 4


def test_a_conflict_that_shows_an_older_revision_settles_nothing() -> None:
    table = Table().joined()
    table.use(3, 0)
    table.settle()
    table.use(4, 3)
    call = table.next(Put, "places")
    table.reply(call, Answer(call.call, Outcome.CONFLICT, 1, b'{"leases":{"a":["a1",9]}}'))
    assert leased(table) == 4
    assert not table.member.places[IN].is_sure
    table.pass_time(3)
    assert leased(table) == 8


def test_an_unknown_shard_is_ignored() -> None:
    table = Table().joined()
    table.see(shard_key(IN, 5), Shard({"a": Lease("a1", 9)}))
    assert leased(table) == 0


def test_places_are_in_several_shards_if_there_are_many() -> None:
    table = Table(limit=6_500, block=64).joined()
    assert table.member.fleet is not None
    assert table.member.fleet.shards == 3
    table.use(0, 4_000)
    table.settle()
    assert 4_000 <= leased(table) < 4_000 + 2 * 64
    table.use(100, 0)
    table.pass_time(30)
    assert leased(table) <= 100 + 64 + 64


def test_sessions_without_places_end_after_a_while_the_newest_first() -> None:
    table = Table(limit=3).joined()
    for session in (1, 2, 3):
        table.claim(session, bytes([session]) * 64)
    table.claim(4, b"\x04" * 64, passes_limits=True)
    table.use(3, 0)
    table.settle()
    table.heard()
    table.see(SHARD, Shard({"b": Lease("b1", 2)}))
    table.beat()
    table.settle()
    assert leased(table) == 1
    table.pass_time(1)
    assert not [step for step in table.heard() if isinstance(step, EndSession)]
    table.beat()
    table.pass_time(4)
    assert [step.session for step in table.heard() if isinstance(step, EndSession)] == [3, 2]
    table.release(3)
    table.use(2, 0)
    table.pass_time(3)
    assert not [step for step in table.heard() if isinstance(step, EndSession)]


def test_a_lost_write_is_not_forgotten_when_the_host_returns() -> None:
    table = Table().joined()
    table.use(1, 0)
    table.settle()
    table.use(0, 0)
    table.beat(wants={"inbound": 7})
    table.pass_time(1, answers=False)
    table.lose(table.next(Put, "places"))
    assert leased(table) == 0
    table.member.places[IN].on_return(table.now)
    table.collect()
    table.pass_time(2)
    # The store agrees: nothing is left there that nobody counts.
    assert b'"a"' not in table.keys[SHARD][1]
