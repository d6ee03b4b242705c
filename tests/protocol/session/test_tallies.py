"""Tallies belong to tables, which sessions share."""

from __future__ import annotations

import gc
from weakref import ref

from rlpx.protocol.eth.kinds import MessageTable
from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.protocol.session.tallies import Tallies

SHARED = (Shared(Capability("eth", 69), 0x10, 18),)
CONTENT = b"\x12\x05"


def test_a_table_has_one_tally_that_counts_in_it() -> None:
    tallies, table, other = Tallies(), MessageTable(SHARED), MessageTable(SHARED)
    tally = tallies.of(table)
    assert tallies.of(table) is tally
    assert tallies.of(other) is not tally
    tally.skip(0x12, 100, 100)
    assert tally.takes(CONTENT)
    assert (table.counters[0x12], other.counters[0x12]) == (1, 0)


def test_after_a_change_of_readers_no_tally_takes_anything() -> None:
    tallies, tables = Tallies(), [MessageTable(SHARED), MessageTable(SHARED)]
    for table in tables:
        tallies.of(table).skip(0x12, 100, 100)
    tallies.skip_nothing()
    assert not any(tallies.of(table).takes(CONTENT) for table in tables)


def test_a_table_is_not_kept_for_its_tally() -> None:
    tallies, table = Tallies(), MessageTable(SHARED)
    tallies.of(table)
    gone = ref(table)
    del table
    gc.collect()
    assert gone() is None
