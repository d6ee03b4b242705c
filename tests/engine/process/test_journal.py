"""The log of the engine's work, which strangers cannot make long."""

from __future__ import annotations

import pytest
import structlog.testing

from rlpx.engine.process.journal import KEPT_CAUSES, SESSION_LINES_PER_SECOND, SHOWN_CAUSES, Journal
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.events import SessionClosed
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage

CLOSED = SessionClosed(
    time_us=1000,
    session=7,
    peer=None,
    direction=Direction.INBOUND,
    remote="1.2.3.4:5",
    worker=1,
    stage=Stage.HELLO,
    ended_by=EndedBy.US,
    reason=None,
    cause="it said nothing",
    duration_ms=5,
    bytes_in=1,
    bytes_out=0,
    messages_in=0,
    messages_out=0,
)


def test_the_start_says_what_serves_where_and_within_which_limits() -> None:
    with structlog.testing.capture_logs() as logged:
        Journal().started(Settings(listen="", chain="dev"), "9.9", None)
    [line] = logged
    assert (line["log_level"], line["version"], line["listen"], line["chain"], line["workers"]) == (
        *("info", "9.9", "nowhere", "dev"),
        Settings().workers,
    )
    assert line["limits"]["max_active_inbound"] == 2000
    assert line["descriptors"] > 0


def test_refusals_are_counted_with_their_causes_until_they_are_taken() -> None:
    journal = Journal()
    for cause in ("too many", "the address is banned", "too many"):
        journal.refused(cause)
    assert journal.take_refused() == (3, {"too many": 2, "the address is banned": 1})
    assert journal.take_refused() == (0, {})


def test_the_causes_that_are_kept_and_shown_are_bounded() -> None:
    journal = Journal()
    for number in range(10 * KEPT_CAUSES):
        journal.refused(f"the subnet 10.0.{number}.0/24 has 32 sessions")
    refused, causes = journal.take_refused()
    assert refused == 10 * KEPT_CAUSES
    assert len(causes) == SHOWN_CAUSES
    assert causes["other causes"] == 9 * KEPT_CAUSES


def test_a_session_is_told_from_its_opening_to_its_end() -> None:
    journal = Journal()
    with structlog.testing.capture_logs() as logged:
        journal.opened(SessionId(7), Direction.INBOUND, "1.2.3.4:5", WorkerId(1))
        journal.ended("evil\x1b[2J", CLOSED)
    opened, ended = logged
    assert (opened["session"], opened["remote"], opened["log_level"]) == (7, "1.2.3.4:5", "debug")
    assert (ended["session"], ended["cause"], ended["client"]) == (7, "it said nothing", r"evil\x1b[2J")
    assert "peer" not in ended


@pytest.mark.parametrize("lines", [SESSION_LINES_PER_SECOND, SESSION_LINES_PER_SECOND + 3])
def test_the_lines_of_sessions_have_a_rate_and_what_is_left_out_is_said(lines: int) -> None:
    journal = Journal()
    with structlog.testing.capture_logs() as logged:
        for _ in range(lines):
            journal.ended(None, CLOSED)
        journal.on_second()
        journal.ended(None, CLOSED)
    told = [line for line in logged if line["event"] == "a session has ended"]
    assert len(told) == SESSION_LINES_PER_SECOND + 1
    assert [line["lines"] for line in logged if "lines" in line] == ([3] if lines > SESSION_LINES_PER_SECOND else [])


def test_a_worker_that_was_replaced_is_a_line() -> None:
    with structlog.testing.capture_logs() as logged:
        Journal().replaced(1, 4711)
    assert [(line["log_level"], line["worker"], line["pid"]) for line in logged] == [("info", 1, 4711)]
