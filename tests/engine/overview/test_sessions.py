from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.engine.overview.sessions import SORTS, Query, SessionTable
from tests.engine.overview.objects import opened, session_object


def table_of(*items: dict[str, Any]) -> SessionTable:
    table = SessionTable()
    table.replace(items)
    return table


def test_a_session_is_counted_from_its_opening_to_its_end() -> None:
    table = SessionTable()
    table.open(opened(1).fields)
    assert table.phases == {("pending", "inbound"): 1}
    table.authenticate(1, "ab" * 64)
    row = table.get(1)
    assert row is not None
    assert row.peer == "ab" * 64
    table.put(session_object(1))
    assert table.phases == {("active", "inbound"): 1}
    assert table.clients == {("Geth", "v1.16.2"): 1}
    assert table.shared == {"eth/69": 1}
    table.remove(1)
    table.remove(1)
    assert (table.phases, table.clients, table.shared, len(table)) == ({}, {}, {}, 0)


@given(steps=st.lists(st.tuples(st.sampled_from(["open", "put", "remove"]), st.integers(0, 3), st.booleans()), max_size=40))
def test_the_counts_are_always_those_of_the_rows(steps: list[tuple[str, int, bool]]) -> None:
    table = SessionTable()
    for step, session, is_outbound in steps:
        direction = "outbound" if is_outbound else "inbound"
        if step == "open":
            table.open(opened(session, direction=direction).fields)
        elif step == "put":
            table.put(session_object(session, direction=direction, client=f"c{session}/v1.{session}"))
        else:
            table.remove(session)
    rows = table.find(Query(limit=100)).rows
    assert table.phases.total() == len(rows) == len(table)
    assert table.clients.total() == table.shared["eth/69"] == sum(row.phase == "active" for row in rows)
    assert all(table.phases.values())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {1, 2, 3}),
        ("2", {2}),
        ("#2", {2}),
        ("outbound", {3}),
        ("ABAB", {3}),
        ("0xabab", {3}),
        ("203.0.113.1:", {1}),
        ("GETH", {1, 2}),
        ("eth/70", {3}),
        ("geth 203.0.113.2", {2}),
        ("geth reth", set()),
    ],
)
def test_a_search_finds_by_id_address_client_and_capability(text: str, found: set[int]) -> None:
    reth = session_object(3, peer="ab" * 64, client="reth/v1.6.0/linux", shared=["eth/70"], remote="[2001:db8::1]:30303")
    reth["direction"] = "outbound"
    table = table_of(session_object(1), session_object(2), reth)
    assert {row.session for row in table.find(Query(text=text)).rows} == found


def test_a_page_is_a_part_of_the_sorted_whole() -> None:
    table = table_of(*(session_object(number, bytes_in=number % 7) for number in range(100)))
    pages = [table.find(Query(sort="bytes_in", offset=offset, limit=30)) for offset in range(0, 120, 30)]
    rows = [row for page in pages for row in page.rows]
    assert [page.total for page in pages] == [100] * 4
    assert len({row.session for row in rows}) == 100
    assert [row.bytes_in for row in rows] == sorted((row.bytes_in for row in rows), reverse=True)


@pytest.mark.parametrize("sort", [*SORTS, "no such column"])
def test_every_column_sorts_both_ways(sort: str) -> None:
    table = table_of(session_object(1), session_object(2, client=None, rtt_ms=1.5, direction="outbound"))
    table.open(opened(3).fields)
    for is_descending in (False, True):
        assert table.find(Query(sort=sort, is_descending=is_descending)).total == 3


def test_filters_are_by_direction_and_phase() -> None:
    table = table_of(session_object(1), session_object(2, direction="outbound"))
    table.open(opened(3).fields)
    assert [row.session for row in table.find(Query(direction="outbound")).rows] == [2]
    assert [row.session for row in table.find(Query(phase="pending")).rows] == [3]


def test_rates_are_those_between_two_listings() -> None:
    table = table_of(session_object(1))
    table.list_traffic([session_object(1, bytes_in=1000, rtt_ms=20.0)], now=10.0)
    table.list_traffic([session_object(1, bytes_in=3000, bytes_out=400), session_object(9)], now=12.0)
    row = table.get(1)
    assert row is not None
    assert (row.rate_in, row.rate_out, row.bytes_in, row.rtt_ms) == (1000.0, 200.0, 3000, None)
    assert table.get(9) is None


def test_texts_of_a_peer_are_printable() -> None:
    row = table_of(session_object(1, client="\x1b]0;owned\x07" * 500)).get(1)
    assert row is not None
    assert row.client.text.isprintable()
    assert len(row.client.text) <= 1000
