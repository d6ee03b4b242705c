from __future__ import annotations

from rlpx.protocol.cluster.records import Fleet, encode
from rlpx.protocol.cluster.steps import Joined, PlacesChanged, Put, Read
from tests.protocol.cluster.table import IN, OUT, PEER, Table


def test_the_first_host_writes_the_limits_of_the_fleet() -> None:
    table = Table()
    table.connect()
    table.settle()
    assert table.member.fleet == Fleet({IN: 10, OUT: 10}, 1)
    heard = table.heard()
    assert Joined() in heard
    assert heard[-2:] == [PlacesChanged(IN, 0, 10), PlacesChanged(OUT, 0, 10)]


def test_a_later_host_uses_the_limits_that_there_are() -> None:
    table = Table()
    table.put("fleet", Fleet({IN: 99}, 2))
    table.connect()
    table.settle()
    assert table.member.fleet == Fleet({IN: 99, OUT: 10}, 2) or table.member.fleet == Fleet({IN: 99}, 2)
    assert table.member.places[IN].elsewhere == 99


def test_limits_are_changed_for_all() -> None:
    table = Table().joined()
    table.member.set_limits({IN: 20})
    table.collect()
    # Somebody else changes the other limit meanwhile.
    table.put("fleet", Fleet({IN: 10, OUT: 5}, 1))
    table.settle()
    assert table.member.fleet == Fleet({IN: 20, OUT: 5}, 1)
    table.member.set_limits({IN: 20})
    table.collect()
    assert table.calls == []


def test_a_lost_change_of_limits_is_repeated() -> None:
    table = Table().joined()
    table.member.set_limits({IN: 20})
    table.collect()
    table.lose(table.next(Put, "fleet"))
    table.pass_time(1)
    assert table.member.fleet == Fleet({IN: 20, OUT: 10}, 1)


def test_a_record_of_limits_that_is_lost_or_nonsense_is_written_again() -> None:
    table = Table().joined()
    table.see("fleet", b"nonsense")
    table.settle()
    assert b'"limits":{"inbound":10,"outbound":10}' in table.keys["fleet"][1]
    table.disconnect()
    del table.keys["fleet"]
    table.connect()
    table.member.on_seen("fleet", 0, None, table.now)
    table.collect()
    table.settle()
    assert b'"limits":{"inbound":10,"outbound":10}' in table.keys["fleet"][1]


def test_the_limits_outlive_a_store_that_has_lost_them_without_a_word() -> None:
    table = Table().joined()
    table.member.set_limits({IN: 20})
    table.collect()
    table.settle()
    table.keys.clear()
    table.connect()
    # The first look at them is lost. The host looks again once its heartbeat is missing.
    table.lose(table.next(Read, "fleet"))
    table.settle()
    assert table.keys["fleet"][1] == encode(Fleet({IN: 20, OUT: 10}, 1))
    table.connect()
    # A watch that tells of another record is faster than the answer.
    read = table.next(Read, "fleet")
    answer = table.carry_out(read)
    table.see("fleet", Fleet({IN: 30, OUT: 10}, 1))
    table.reply(read, answer)
    assert table.member.fleet == Fleet({IN: 30, OUT: 10}, 1)
    table.keys.clear()
    table.connect()
    table.settle()
    assert table.keys["fleet"][1] == encode(Fleet({IN: 30, OUT: 10}, 1))


def test_limits_that_were_lost_while_the_host_was_away_are_written_again_although_the_look_at_them_is_lost() -> None:
    table = Table().joined()
    table.disconnect()
    # Its heartbeat has expired by then, so that its absence says nothing.
    table.pass_time(20)
    table.keys.clear()
    table.connect()
    table.lose(table.next(Read, "fleet"))
    table.pass_time(2)
    assert table.keys["fleet"][1] == encode(Fleet({IN: 10, OUT: 10}, 1))
    # Limits that others have changed meanwhile stay.
    table.disconnect()
    table.pass_time(20)
    table.put("fleet", Fleet({IN: 30, OUT: 10}, 1))
    table.connect()
    table.lose(table.next(Read, "fleet"))
    table.pass_time(2)
    assert table.member.fleet == Fleet({IN: 30, OUT: 10}, 1)


def test_a_record_that_is_older_than_ours_is_ignored() -> None:
    table = Table().joined()
    table.member.on_seen("fleet", 1, b'{"limits":{"inbound":1},"shards":1}', table.now)
    assert table.member.fleet == Fleet({IN: 10, OUT: 10}, 1)


def test_unknown_keys_are_ignored() -> None:
    table = Table().joined()
    table.member.on_seen("else.where", 1, b"", table.now)
    assert table.member.take() == []


def test_targets_belong_to_hosts_with_places() -> None:
    table = Table().joined()
    assert table.member.owner_of(PEER, table.now) == "a"
    table.beat(free={"inbound": 0, "outbound": 0})
    owners = {table.member.owner_of(bytes([number]) * 64, table.now) for number in range(20)}
    assert owners == {"a"}
    table.beat(free={"inbound": 9, "outbound": 9})
    owners = {table.member.owner_of(bytes([number]) * 64, table.now) for number in range(20)}
    assert owners == {"a", "b"}
    full = Table(limit=0).joined()
    assert full.member.owner_of(PEER, full.now) == "a"


def test_a_host_that_leaves_says_so() -> None:
    table = Table().joined()
    table.member.leave(table.now)
    table.collect()
    table.settle()
    assert b'"has_left":true' in table.keys["host.a"][1]
