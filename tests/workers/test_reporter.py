"""Reports: in their order, gathered for one write, never kept back for long and never lost while there is a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionAlive, SessionId
from rlpx.protocol.bus.reports import ReportReader
from rlpx.workers.reporter import REPORTS_AT_ONCE, Reporter


class FakeStream:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def writelines(self, list_of_data: Sequence[bytes], /) -> None:
        self.writes.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.is_closed

    @property
    def reports(self) -> list[object]:
        """All that was written."""
        return list(ReportReader().feed(b"".join(self.writes)))


class Harness:
    """A reporter, its stream, and the calls that it asked the loop for."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.stream = FakeStream()
        self.reporter = Reporter(self.calls.append)
        self.reporter.start(self.stream)


def alive(number: int) -> control.Report:
    """Some report."""
    return SessionAlive(SessionId(number))


def test_the_reports_of_one_iteration_leave_in_one_write_and_in_their_order() -> None:
    harness = Harness()
    reports = [alive(number) for number in range(3)]
    for report in reports:
        harness.reporter.report(report)
    assert harness.stream.writes == []
    [call] = harness.calls
    call()
    assert len(harness.stream.writes) == 1
    assert harness.stream.reports == reports


def test_many_reports_do_not_wait_for_the_end_of_the_iteration() -> None:
    harness = Harness()
    for number in range(REPORTS_AT_ONCE):
        harness.reporter.report(alive(number))
    assert len(harness.stream.reports) == REPORTS_AT_ONCE


def test_a_report_that_may_wait_wakes_nobody_and_leaves_with_the_next() -> None:
    harness = Harness()
    harness.reporter.report_later(alive(1))
    assert harness.calls == []
    harness.reporter.report(alive(2))
    harness.calls[0]()
    assert harness.stream.reports == [alive(1), alive(2)]


def test_after_a_write_the_next_report_asks_for_another() -> None:
    harness = Harness()
    for number in (1, 2):
        harness.reporter.report(alive(number))
        harness.calls.pop()()
    assert harness.stream.reports == [alive(1), alive(2)]


def test_nothing_is_written_where_there_is_nothing_to_say() -> None:
    harness = Harness()
    harness.reporter.flush()
    assert harness.stream.writes == []


def test_a_stream_that_closes_is_written_nothing() -> None:
    harness = Harness()
    harness.stream.is_closed = True
    harness.reporter.report(alive(1))
    harness.reporter.flush()
    assert harness.stream.writes == []
