"""Answers as people read them: units, tables, and text from peers, shortened and made harmless."""

from __future__ import annotations

from typing import Any

import pytest

from rlpx.engine.cli.ctl_text import as_text, duration, size, value
from tests.engine.cli.test_ctl import SESSION

COUNTS = {
    "pending": {"inbound": 1, "outbound": 2},
    "active": {"inbound": 3, "outbound": 4},
    "limits": {
        "max_pending_inbound": 200,
        "max_pending_outbound": 100,
        "max_active_inbound": 2000,
        "max_active_outbound": 500,
    },
}
STATUS = {
    "version": "0.1.0",
    "compiled": True,
    "enode": None,
    "uptime_ms": 11_520_000,
    "chain": {"name": "dev", "network_id": 7},
    "memory_bytes": 57_147_392,
    "counts": COUNTS,
    "workers": [
        {"worker": 0, "pid": 11, "ready": True, "loop_lag_ms": None, "memory_bytes": None},
        {"worker": 1, "pid": 12, "ready": False, "loop_lag_ms": 0.512, "memory_bytes": 2048},
    ],
}
ENDED = {
    "time_us": 3_661_000_000,
    "session": 7,
    "peer": None,
    "direction": "outbound",
    "stage": "connect",
    "ended_by": "network",
    "reason": None,
    "cause": "no TCP connection",
    "client": None,
}


def test_a_restart_says_who_was_replaced_by_whom() -> None:
    result = {"workers": [0, 1], "drain_s": 30.0, "replaced": []}
    assert as_text("restart-workers", result) == "workers   0,1\ndrain     30 s\nreplaced  -\n"
    result["replaced"] = [{"worker": 0, "by": 2}, {"worker": 1, "by": 0}]
    assert as_text("restart-workers", result).endswith("replaced  0 by 2, 1 by 0\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (27.49145194899984, "27 s"),
        (60, "1 min 0 s"),
        (3599.9, "59 min 59 s"),
        (11_520, "3 h 12 min"),
        (90_061, "1 d 1 h"),
    ],
)
def test_a_time_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (57_147_392, "54.5 MiB")])
def test_bytes_have_their_largest_unit(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("name", "item", "text"),
    [
        ("rtt_ms", 12, "12 ms"),
        ("loop_lag_ms", 0.5123, "0.512 ms"),
        ("next_try_s", 27.49145194899984, "27 s"),
        ("opened_us", 3_661_000_000, "1970-01-01 01:01:01 UTC"),
        ("bytes_in", 2048, "2.0 KiB"),
        ("ready", True, "yes"),
        ("ready", False, "no"),
        ("rtt_ms", None, "-"),
        ("session", 7, "7"),
        ("share", 0.123456, "0.123"),
    ],
)
def test_a_value_has_the_unit_of_its_name(name: str, item: object, text: str) -> None:
    assert value(name, item) == text


def test_counts_is_a_table() -> None:
    assert as_text("counts", COUNTS) == (
        "         inbound    outbound\n"
        "pending  1 of 200   2 of 100\n"
        "active   3 of 2000  4 of 500\n"
    )  # fmt: skip


def test_status_is_its_fields_and_tables_of_counts_and_workers() -> None:
    assert as_text("status", STATUS) == (
        "version           0.1.0\n"
        "compiled          yes\n"
        "enode             -\n"
        "uptime            3 h 12 min\n"
        "chain name        dev\n"
        "chain network id  7\n"
        "memory            54.5 MiB\n"
        "\n"
        "         inbound    outbound\n"
        "pending  1 of 200   2 of 100\n"
        "active   3 of 2000  4 of 500\n"
        "\n"
        "worker  pid  ready  loop lag  memory\n"
        "0       11   yes    -         -\n"
        "1       12   no     0.512 ms  2.0 KiB\n"
    )


def test_two_columns_that_differ_by_their_unit_alone_have_it_in_their_heading() -> None:
    answer = STATUS | {"workers": [{"worker": 0, "deferred": 3, "deferred_ms": 4}]}
    assert as_text("status", answer).splitlines()[-2:] == ["worker  deferred  deferred ms", "0       3         4 ms"]


def test_what_a_worker_has_of_several_fields_is_a_table_of_its_own() -> None:
    workers = [{"worker": 0, "pid": 7, "feeds": None}, {"worker": 1, "pid": 8, "feeds": {"open": 2, "queued_bytes": 2048}}]
    assert as_text("status", STATUS | {"workers": workers}).endswith(
        "\nworker  pid\n0       7\n1       8\n\nfeeds\nworker  open  queued\n0       -     -\n1       2     2.0 KiB\n"
    )


def test_sessions_are_a_table_with_the_beginning_of_each_id() -> None:
    answer = {"sessions": [SESSION, SESSION | {"peer": None}], "total": 9}
    heading, first, second, total = as_text("sessions", answer).splitlines()
    assert heading.split()[:8] == ["session", "peer", "direction", "stage", "worker", "remote", "client", "shared"]
    assert first.split()[:8] == ["7", "ab" * 8, "inbound", "active", "1", "1.2.3.4:5", "geth/1", "eth/69"]
    assert second.split()[1] == "-"
    assert total == "2 of 9"


def test_no_sessions_are_a_heading_and_a_zero() -> None:
    assert as_text("sessions", {"sessions": [], "total": 0}).splitlines()[1:] == ["0 of 0"]


def test_one_session_is_a_line_for_each_field() -> None:
    lines = as_text("session", SESSION).splitlines()
    assert "chain network id  1" in lines
    assert "capabilities      eth/69,snap/1" in lines


def test_the_history_is_a_table() -> None:
    heading, line = as_text("history", [ENDED]).splitlines()
    assert heading.split()[:3] == ["time", "session", "peer"]
    assert line.split() == ["01:01:01", "7", "-", "outbound", "connect", "network", "-", "-", "no", "TCP", "connection"]


def test_peers_show_address_waits_and_bans() -> None:
    enode = f"enode://{'ab' * 64}@203.0.113.7:30303"
    named = {"peer": enode, "static": True, "trusted": False, "next_try_s": 27.49145194899984, "last_end": "x" * 6510}
    trusted = {"peer": "cd" * 64, "static": False, "trusted": True, "next_try_s": None, "last_end": None}
    bans = [{"who": "ef" * 64, "seconds": 43_200.0}, {"who": "2001:db8::1", "seconds": 5.0}]
    text = as_text("peers", {"peers": [named, trusted], "bans": bans})
    lines = text.splitlines()
    assert lines[1].startswith(f"{'ab' * 8}  203.0.113.7:30303  yes     no       27 s      xxx")
    assert lines[2].split() == ["cd" * 8, "-", "no", "yes", "-", "-"]
    assert lines[-2:] == [f"{'ef' * 8}  12 h 0 min", "2001:db8::1       5 s"]
    assert max(map(len, lines)) < 150


def test_a_broadcast_is_summed_up() -> None:
    answer = {"sent": 3, "refused": {"1": "queue_full", "2": "not_shared", "3": "queue_full"}}
    assert as_text("broadcast", answer) == "sent     3\nrefused  1 not_shared, 2 queue_full\n"


def test_a_dial_that_waited_shows_the_session() -> None:
    assert as_text("dial", {"session": 7}) == "session  7\n"
    assert "geth/1" in as_text("dial", {"session": 7, "established": SESSION})


@pytest.mark.parametrize("client", ["geth\n9  evil\x1b[2J", "x" * 1800, "\u202eevil", "\x9b31m", "\t\r"])
def test_what_a_peer_calls_itself_forges_no_line_and_no_width(client: str) -> None:
    forged: dict[str, Any] = SESSION | {"client": client}
    for command, answer, count in (
        ("sessions", {"sessions": [forged], "total": 1}, 3),
        ("history", [ENDED | {"client": client, "cause": client}], 2),
    ):
        lines = as_text(command, answer).splitlines()
        assert len(lines) == count
        assert all(line.isprintable() and len(line) < 240 for line in lines)
    assert all(line.isprintable() and len(line) < 300 for line in as_text("session", forged).splitlines())
