"""Reports on their way to the engine: those of one loop iteration leave in one write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from rlpx.protocol.bus import control

# Each write wakes the engine process, so reports are gathered. At this count they are written at once, so that the engine
# can decide while this worker continues.
REPORTS_AT_ONCE: Final = 16


class Stream(Protocol):
    """What reports need of the transport to the engine."""

    def writelines(self, list_of_data: Sequence[bytes], /) -> None:
        """Write all of it."""

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""


class Reporter:
    """Tells the engine what has happened. Nothing is ever dropped: the engine's own ledger bounds the number of reports.

    `call_soon` asks the loop for a call in its next iteration. Reports made before `start` wait for it.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._stream: Stream | None = None
        # Encoded reports that wait to be written.
        self._reports: list[bytes] = []
        self._is_due = False

    def start(self, stream: Stream) -> None:
        """Write to this stream from now on."""
        self._stream = stream

    def report(self, report: control.Report) -> None:
        """Send the engine a report, together with everything else that this loop iteration reports."""
        if not self._is_due:
            self._is_due = True
            self._call_soon(self.flush)
        self.report_later(report)

    def report_later(self, report: control.Report) -> None:
        """Send a report with the next one or the next `flush`: the engine need not be woken for this one alone."""
        self._reports.append(control.encode(report))
        if len(self._reports) >= REPORTS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write all reports now. Without a stream, or once it is closing, nobody reads them."""
        self._is_due = False
        if self._reports and self._stream is not None and not self._stream.is_closing():
            self._stream.writelines(self._reports)
        self._reports.clear()
