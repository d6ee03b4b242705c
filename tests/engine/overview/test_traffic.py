from __future__ import annotations

from rlpx.engine.overview.traffic import MAX_KINDS, Counters, Kind, Traffic

TRANSACTIONS = Kind("eth", "Transactions", "in")
SENT = Kind("eth", "Transactions", "out")
HEADERS = Kind("eth", "GetBlockHeaders", "in")


def reading(counts: dict[Kind, float], cpu: float = 0.0) -> Counters:
    return Counters(counts, {kind: count * 100 for kind, count in counts.items()}, {7: cpu})


def test_rates_are_known_from_the_second_reading_on() -> None:
    traffic = Traffic()
    traffic.take(reading({TRANSACTIONS: 100, SENT: 5, HEADERS: 1}), now=0.0)
    assert (traffic.is_known, traffic.kinds()) == (False, [])
    assert set(traffic.totals().values()) == {None}
    traffic.take(reading({TRANSACTIONS: 120, SENT: 10, HEADERS: 1}, cpu=0.5), now=1.0)
    [row] = traffic.kinds()
    assert (row.message, row.in_per_s, row.out_per_s, row.bytes_in_per_s, row.points) == ("Transactions", 20, 5, 2000, [25])
    assert traffic.totals() == {"messages_in": 20, "messages_out": 5, "bytes_in": 2000, "bytes_out": 500}
    assert traffic.cpu_shares() == {7: 0.5}


def test_the_most_frequent_message_comes_first() -> None:
    traffic = Traffic()
    traffic.take(reading({}), now=0.0)
    traffic.take(reading({HEADERS: 50, TRANSACTIONS: 10}), now=1.0)
    assert [row.message for row in traffic.kinds()] == ["GetBlockHeaders", "Transactions"]


def test_a_restart_begins_anew() -> None:
    traffic = Traffic()
    traffic.take(reading({HEADERS: 1}), now=0.0)
    traffic.take(reading({HEADERS: 2}), now=1.0)
    traffic.clear()
    assert (traffic.is_known, traffic.kinds()) == (False, [])


def test_its_kinds_are_bounded() -> None:
    traffic = Traffic()
    for now in (0.0, 1.0):
        traffic.take(reading({Kind("own", str(number), "in"): now * 5 + 1 for number in range(1000)}), now=now)
    assert len(traffic.kinds()) == MAX_KINDS
