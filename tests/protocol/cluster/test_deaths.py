from __future__ import annotations

from rlpx.protocol.cluster.records import host_key
from rlpx.protocol.cluster.steps import HostLost, Read, Returned, Step
from tests.protocol.cluster.table import Table

TTL_SECONDS = 15.0


def told(table: Table) -> list[Step]:
    """What the member has told of hosts since the last look."""
    told, table.told = table.told, []
    return told


def dies(table: Table) -> HostLost:
    """Host b sends its last heartbeat; returns what is to be told of it."""
    table.beat("b")
    del table.keys[host_key("b")]
    return HostLost("b", "b1", table.revision)


def test_a_host_that_has_become_silent_is_told_of_once_for_each_silence() -> None:
    table = Table().joined()
    death = dies(table)
    table.pass_time(TTL_SECONDS - 1)
    assert told(table) == []
    table.pass_time(TTL_SECONDS + 5)
    assert told(table) == [death]
    assert "b" not in table.member.hosts.others
    death = dies(table)
    table.pass_time(TTL_SECONDS + 5)
    assert told(table) == [death]


def test_a_store_that_was_away_brings_no_second_word_of_the_same_silence() -> None:
    table = Table().joined()
    death = dies(table)
    table.pass_time(TTL_SECONDS + 2)
    table.disconnect()
    table.connect()
    table.pass_time(TTL_SECONDS + 1)
    assert told(table) == [death]


def test_a_host_that_has_left_in_good_order_is_not_told_of() -> None:
    table = Table().joined()
    table.beat("b", has_left=True)
    table.pass_time(TTL_SECONDS + 5)
    assert told(table) == []


def test_only_the_first_host_by_name_tells() -> None:
    table = Table().joined()
    dies(table)
    table.pass_time(TTL_SECONDS - 1)
    table.beat("Z")
    table.pass_time(5)
    assert told(table) == []


def test_a_heartbeat_that_has_not_been_seen_yet_is_no_silence() -> None:
    table = Table().joined()
    dies(table)
    table.pass_time(TTL_SECONDS - 1)
    table.pass_time(1, answers=False)
    call = table.next(Read, host_key("b"))
    table.put(host_key("b"), b'{"epoch":"b1"}')
    table.answer(call)
    table.pass_time(5)
    assert told(table) == []


def test_a_store_that_does_not_answer_is_asked_again() -> None:
    table = Table().joined()
    death = dies(table)
    table.pass_time(TTL_SECONDS - 1)
    table.pass_time(1, answers=False)
    table.lose(table.next(Read, host_key("b")))
    table.pass_time(1)
    assert told(table) == [death]


def test_a_host_that_is_back_after_a_silence_says_so() -> None:
    table = Table().joined()
    table.disconnect()
    table.pass_time(TTL_SECONDS)
    table.connect()
    table.settle()
    assert told(table) == [Returned(table.keys[host_key("a")][0])]
    table.disconnect()
    table.connect()
    table.settle()
    assert told(table) == []
    table.member.leave(table.now)
    table.collect()
    table.settle()
    assert told(table) == []
