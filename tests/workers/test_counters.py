"""What a worker counts, and that nothing is lost when sessions end."""

from __future__ import annotations

from time import monotonic

import msgspec

from rlpx.protocol.bus.control import NO_FEEDS
from rlpx.protocol.bus.metrics import Durations, RequestCounts, WorkerCounters
from rlpx.protocol.eth.kinds import message_table
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage
from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.workers.counters import Counters

TABLE = message_table((Shared(Capability("eth", 69), 16, 18),))


class Session(msgspec.Struct):
    bytes_in: int
    bytes_out: int


def once(seconds: float) -> Durations:
    durations = Durations()
    durations.observe(seconds)
    return durations


def test_nothing_has_happened() -> None:
    assert Counters().totals([], 0, NO_FEEDS) == WorkerCounters()


def test_the_bytes_of_a_session_count_before_and_after_its_end() -> None:
    counters, session = Counters(), Session(10, 20)
    before = counters.totals([session, Session(1, 2)], 3, NO_FEEDS)
    counters.on_ended(session)
    after = counters.totals([Session(1, 2)], 3, NO_FEEDS)
    assert before == after
    assert (before.bytes_in, before.bytes_out, before.dropped_events) == (11, 22, 3)


def test_a_stage_is_passed_or_ended_in() -> None:
    counters = Counters()
    counters.on_passed(Direction.INBOUND, Stage.AUTH, 0.25)
    counters.on_failed(Direction.INBOUND, Stage.HELLO, EndedBy.PEER)
    counters.on_failed(Direction.INBOUND, Stage.HELLO, EndedBy.PEER)
    counters.on_failed(Direction.INBOUND, Stage.HELLO, EndedBy.US)
    passed, ended = counters.totals([], 0, NO_FEEDS).stages
    assert (passed.stage, passed.passed, passed.ended_by) == (Stage.AUTH, once(0.25), {})
    assert (ended.stage, ended.passed, ended.ended_by) == (Stage.HELLO, Durations(), {"peer": 2, "us": 1})


def test_a_handshake_takes_from_the_accept_until_the_session_is_active() -> None:
    counters = Counters()
    counters.on_established(Direction.OUTBOUND, monotonic() - 7.0)
    [handshakes] = counters.totals([], 0, NO_FEEDS).handshakes
    assert handshakes.direction is Direction.OUTBOUND
    assert 7.0 <= handshakes.established.sum_seconds < 60.0


def test_requests_are_named_without_the_version() -> None:
    counters = Counters()
    kind = TABLE.find("eth", 3)
    counters.requests_out.answered(kind, 0.5)
    counters.requests_out.ended(kind, "timed_out")
    counters.requests_in.ended(kind, "empty")
    totals = counters.totals([], 0, NO_FEEDS)
    assert totals.requests_out == [RequestCounts("eth", "GetBlockHeaders", once(0.5), {"answered": 1, "timed_out": 1})]
    assert totals.requests_in == [RequestCounts("eth", "GetBlockHeaders", Durations(), {"empty": 1})]
