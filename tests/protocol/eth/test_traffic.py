"""Sums over all tables of a process: they never go down, and what users can make grow is bounded."""

from __future__ import annotations

import gc

from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.kinds import MessageTable
from rlpx.protocol.eth.traffic import KINDS_KEPT, OTHER, Traffic
from rlpx.protocol.rlpx.capabilities import Capability, Shared, SubProtocol, share


def table_of(*protocols: SubProtocol) -> MessageTable:
    """A table of its own for these shared protocols."""
    return MessageTable(share(protocols, [protocol.capability for protocol in protocols]))


def test_messages_are_named_by_capability_with_version_and_message() -> None:
    traffic, table = Traffic(), table_of(eth.sub_protocol(69), snap.sub_protocol(1))
    traffic.add(table)
    assert traffic.totals() == {}
    table.count_in(0x12, 3, 700)
    table.count_out(0x12, 1, 50)
    table.count_out(0x22, 1, 90)
    assert traffic.totals() == {("eth/69", "Transactions"): (3, 700, 1, 50), ("snap/1", "GetAccountRange"): (0, 0, 1, 90)}


def test_the_base_protocol_has_names_too_and_codes_without_meaning_are_others() -> None:
    traffic, table = Traffic(), table_of(eth.sub_protocol(69))
    traffic.add(table)
    for code in (0x80, 0x01, 0x02, 0x03):
        table.count_in(code, 1, 4)
    table.count_in(0x0F, 2, 2)
    table.count_in(0x7F, 1, 9)
    names = {name: counts[:2] for name, counts in traffic.totals().items()}
    base = {("p2p/5", name): (1, 4) for name in ("Hello", "Disconnect", "Ping", "Pong")}
    assert names == base | {OTHER: (3, 11)}


def test_tables_are_summed_and_a_table_counts_once() -> None:
    traffic = Traffic()
    first, second = table_of(eth.sub_protocol(69)), table_of(eth.sub_protocol(69), snap.sub_protocol(1))
    for table in (first, first, second):
        traffic.add(table)
        table.count_in(0x12, 1, 10)
    assert traffic.totals() == {("eth/69", "Transactions"): (3, 30, 0, 0)}


def test_what_a_forgotten_table_has_counted_is_kept() -> None:
    traffic = Traffic()
    for _ in range(3):
        table = table_of(eth.sub_protocol(70))
        traffic.add(table)
        table.count_in(0x12, 1, 10)
        del table
        gc.collect()
    assert traffic.totals() == {("eth/70", "Transactions"): (3, 30, 0, 0)}


def test_the_kinds_of_users_sub_protocols_are_bounded_and_no_message_is_lost() -> None:
    traffic = Traffic()
    for version in range(12):
        table = MessageTable((Shared(Capability("user", version), 0x10, 0x6F),))
        traffic.add(table)
        for code in range(0x10, 0x7F):
            table.count_in(code, 1, 2)
        del table
        gc.collect()
    totals = traffic.totals()
    assert len(totals) == KINDS_KEPT + 1
    assert sum(counts[0] for counts in totals.values()) == 12 * 0x6F
    assert totals[OTHER] == (12 * 0x6F - KINDS_KEPT, 2 * (12 * 0x6F - KINDS_KEPT), 0, 0)


def test_what_a_table_has_counted_for_others_before_is_left_out() -> None:
    table = table_of(eth.sub_protocol(69))
    table.count_in(0x12, 5, 50)
    traffic = Traffic()
    traffic.add(table)
    assert traffic.totals() == {}
    table.count_in(0x12, 1, 7)
    assert traffic.totals() == {("eth/69", "Transactions"): (1, 7, 0, 0)}
