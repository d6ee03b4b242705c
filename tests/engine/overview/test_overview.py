from __future__ import annotations

import msgspec
import pytest

from rlpx.engine.client.batch_reader import Gap, Malformed
from rlpx.engine.client.joining import Snapshot
from rlpx.engine.overview.overview import NOTICES_KEPT, STALE_SECONDS, Overview, client_of
from rlpx.engine.overview.traffic import Counters, Kind
from tests.engine.overview.objects import RUN, closed, established, event, opened, session_object, status


@pytest.fixture
def overview() -> Overview:
    made = Overview()
    made.apply([Snapshot(RUN, [session_object(1), session_object(2, direction="outbound")])], now=0.0)
    made.take_status(status(), now=0.0)
    return made


def test_the_snapshot_and_every_change_make_the_table(overview: Overview) -> None:
    overview.apply(
        [opened(3), event("session.authenticated", session=3, peer="cd" * 64), established(3), closed(1)], now=1.0
    )
    assert overview.sessions.phases == {("active", "inbound"): 1, ("active", "outbound"): 1}
    assert [end.session for end in overview.ends.recent] == [1]
    assert client_of(overview, 1).family == "Geth"
    assert client_of(overview, 3).family == "Geth"
    assert client_of(overview, 9).family == "-"
    assert overview.handshakes.latencies(now=1.0).p50_ms == 50.0


def test_another_snapshot_replaces_the_table(overview: Overview) -> None:
    overview.apply([Snapshot(RUN, [session_object(7)])], now=1.0)
    assert [overview.sessions.get(number) is not None for number in (1, 2, 7)] == [False, False, True]


def test_a_session_that_ends_in_its_handshake_is_counted_by_its_stage(overview: Overview) -> None:
    overview.apply([opened(3), closed(3, stage="hello", ended_by="us", reason="ping_timeout")], now=1.0)
    assert overview.handshakes.failed(now=1.0) == {"hello": 1}
    assert overview.ends.reasons(now=1.0) == {("us", "ping_timeout"): 1}


def test_a_restart_forgets_the_sessions_and_ends_of_the_earlier_run(overview: Overview) -> None:
    overview.apply([closed(1)], now=1.0)
    overview.apply([event("engine.started", run="run-2")], now=2.0)
    assert len(overview.sessions) == 0
    assert list(overview.ends.recent) == []
    assert [notice.text for notice in overview.notices] == ["engine started"]
    overview.apply([Snapshot("run-2", [session_object(1)])], now=3.0)
    assert overview.run == "run-2"
    assert len(overview.sessions) == 1


def test_every_second_is_in_the_history(overview: Overview) -> None:
    kind = Kind("eth", "Transactions", "in")
    overview.take_counters(Counters({kind: 10}, {kind: 1000}, {}), now=0.0)
    overview.take_counters(Counters({kind: 30}, {kind: 5000}, {}), now=1.0)
    overview.tick(100, now=0.0)
    overview.apply([opened(3), established(3)], now=0.5)
    overview.tick(101, now=1.0)
    assert overview.history.last() == {
        "active_inbound": 2,
        "active_outbound": 1,
        "pending": 0,
        "opened": 1.0,
        "ended": 0.0,
        "messages_in": 20.0,
        "messages_out": 0,
        "bytes_in": 4000.0,
        "bytes_out": 0,
        "handshake_p50_ms": 50.0,
        "handshake_p99_ms": 50.0,
    }


def test_an_engine_that_does_not_answer_is_stale_and_leaves_a_hole(overview: Overview) -> None:
    overview.tick(100, now=1.0)
    assert not overview.is_stale(now=STALE_SECONDS)
    overview.lose("no engine at ipc://\x1b[2J")
    assert overview.is_stale(now=STALE_SECONDS + 1)
    assert overview.age_seconds(now=STALE_SECONDS + 1) == STALE_SECONDS + 1
    assert (overview.cause or "") == "no engine at ipc://\\x1b[2J"
    overview.tick(104, now=STALE_SECONDS + 1)
    assert overview.history.seconds().values["active_inbound"] == [1, None, None, None, None]
    overview.take_status(status(), now=10.0)
    assert not overview.cause
    assert not overview.is_stale(now=10.0)


def test_before_the_first_answer_nothing_is_known() -> None:
    overview = Overview()
    assert overview.is_stale(now=0.0)
    assert overview.age_seconds(now=0.0) is None
    overview.tick(1, now=0.0)
    assert overview.history.last()["active_inbound"] is None


def test_what_happens_to_workers_and_settings_is_noticed(overview: Overview) -> None:
    overview.apply(
        [
            event("worker.lost", worker=1, pid=7, cause="killed", sessions=12),
            event("worker.started", worker=1, pid=8),
            event("worker.stopped", worker=1, pid=8, cause="told to", sessions=0),
            event("engine.reloaded", needs_restart=["workers"]),
            event("engine.reloaded", needs_restart=[]),
            event("engine.stopped"),
        ],
        now=1.0,
    )
    assert [(notice.text, notice.is_bad) for notice in overview.notices] == [
        ("engine stopped", True),
        ("settings read again", False),
        ("settings read again; workers need a restart", False),
        ("worker 1 stopped: told to", False),
        ("worker 1 started (pid 8)", False),
        ("worker 1 lost with 12 sessions: killed", True),
    ]


def test_counts_of_what_went_wrong(overview: Overview) -> None:
    overview.apply(
        [
            Gap("session.closed", 0, 5),
            Malformed("session.closed", "no JSON"),
            event("session.refused", session=9, remote="203.0.113.9:1", cause="too many"),
            event("dial.failed", enode=None, reason=None, cause="refused", why_not=None, next_try_us=None),
            event("peer.bad_message", session=1, cause="not requested", count=1),
            event("peer.breach", session=1, cause="no answer", count=1),
            event("eth.Transactions", session=1),
        ],
        now=1.0,
    )
    assert overview.counts == {"missed": 5, "malformed": 1, "refused": 1, "dials_failed": 1, "mistakes": 2}


def test_notices_are_bounded(overview: Overview) -> None:
    lost = event("worker.lost", worker=1, pid=7, cause="x" * 10_000, sessions=12)
    overview.apply([lost] * 1000, now=1.0)
    assert len(overview.notices) == NOTICES_KEPT
    assert len(msgspec.json.encode(list(overview.notices))) < NOTICES_KEPT * 400
