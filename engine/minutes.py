"""One line of the log a minute: what has happened in it, over all workers, and how things stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import structlog

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.hub.tally import Tally
from rlpx.engine.ledger.counter import Phase
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.process import logs
from rlpx.engine.process.journal import Journal
from rlpx.protocol.bus.metrics import WorkerCounters

SUMMARY_SECONDS: Final = 60.0
_ENDED_BY: Final = "ended_by "

log = structlog.get_logger()


class Minutes:
    """See the module. `is_on` says whether the line is written; call `on_second` once a second."""

    def __init__(self, ledger: Ledger, fleet: Fleet, tally: Tally, journal: Journal, *, now: float) -> None:
        self.is_on = True
        self._ledger = ledger
        self._fleet = fleet
        self._tally = tally
        self._journal = journal
        self._due = now + SUMMARY_SECONDS
        # What was counted up to the last line.
        self._before: Counter[str] = Counter()
        self._worst_lag_ms = 0.0

    def on_second(self, now: float) -> None:
        """Write the line if a minute is over."""
        lags = [worker.pulse.loop_lag_ms for worker in self._fleet if worker.pulse is not None]
        self._worst_lag_ms = max([self._worst_lag_ms, *lags])
        if now < self._due:
            return
        # After a pause of the whole machine one line is enough.
        self._due = max(self._due + SUMMARY_SECONDS, now)
        refused, causes = self._journal.take_refused()
        counted = self._counted()
        since, self._before = counted - self._before, counted
        lag_ms, self._worst_lag_ms = self._worst_lag_ms, 0.0
        if not self.is_on:
            if refused:
                log.info("connections were refused in the last minute", refused=refused, causes=causes)
            return
        counter = self._ledger.counter
        serving = self._fleet.serving
        log.info(
            "the last minute",
            active=sum(number for (phase, _), number in counter.totals() if phase is Phase.ACTIVE),
            pending=sum(number for (phase, _), number in counter.totals() if phase in _BEGINNING),
            accepted=since["accepted"],
            dialled=since["dialled"],
            established=since["established"],
            refused=refused,
            causes=causes,
            ended={name.removeprefix(_ENDED_BY): number for name, number in since.items() if name.startswith(_ENDED_BY)},
            messages_in=since["messages_in"],
            messages_out=since["messages_out"],
            bytes_in=since["bytes_in"],
            bytes_out=since["bytes_out"],
            loop_lag_ms=round(lag_ms, 1),
            workers=sum(worker.is_ready for worker in serving),
            log_lines_lost=logs.lost_lines(),
        )

    def _counted(self) -> Counter[str]:
        """All counts since the start. A worker's are those of its last pulse, at most a second old."""
        counted = Counter({"accepted": self._tally.accepted, "dialled": self._tally.dialled})
        for end in self._tally.ends():
            counted[_ENDED_BY + end.ended_by] += end.sessions
        for counters in self._counters():
            counted["established"] += sum(sum(way.established.counts) for way in counters.handshakes)
            counted["messages_in"] += sum(kind.messages_in for kind in counters.messages)
            counted["messages_out"] += sum(kind.messages_out for kind in counters.messages)
            counted["bytes_in"] += counters.bytes_in
            counted["bytes_out"] += counters.bytes_out
        return counted

    def _counters(self) -> Iterator[WorkerCounters]:
        yield self._tally.ended_workers
        for worker in self._fleet:
            if worker.pulse is not None:
                yield worker.pulse.counters


_BEGINNING: Final = frozenset({Phase.UNAUTHENTICATED, Phase.PENDING})
