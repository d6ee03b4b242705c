"""`Overview`: what is known of one engine, from its snapshot, its events and the answers to a few commands.

It has no network and no clock. Whoever has both hands it what the engine said, and `now` on a monotonic clock. What
strangers can make grow is bounded: by the engine's own limits, or by the constants of each part.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from rlpx.engine.client.batch_reader import Event, Gap, Malformed
from rlpx.engine.client.joining import Change, Snapshot
from rlpx.engine.overview.clients import NO_CLIENT, ClientName
from rlpx.engine.overview.counters import Rates
from rlpx.engine.overview.ends import Ends
from rlpx.engine.overview.handshakes import Handshakes
from rlpx.engine.overview.history import History
from rlpx.engine.overview.sessions import SessionTable
from rlpx.engine.overview.traffic import Counters, Traffic
from rlpx.engine.overview.workers import Workers
from rlpx.protocol.bus import events
from rlpx.protocol.errors import printable

# What a run's history shows, by the second.
COLUMNS: Final = (
    "active_inbound",
    "active_outbound",
    "pending",
    "opened",
    "ended",
    "messages_in",
    "messages_out",
    "bytes_in",
    "bytes_out",
    "handshake_p50_ms",
    "handshake_p99_ms",
)
NOTICES_KEPT: Final = 50
NOTICE_CHARACTERS: Final = 200
# Without an answer for this long, what is shown is stale.
STALE_SECONDS: Final = 3.0
# The topics that a link subscribes to, beside those of sessions.
TOPICS: Final = ("worker.", "engine.", "dial.", "peer.")


class Notice(msgspec.Struct, frozen=True):
    """Something that a person should know of: a worker was lost, the engine was started."""

    time_us: int
    text: str
    is_bad: bool = False


class Overview:
    """See the module. The parts are public: who shows them reads them."""

    def __init__(self) -> None:
        self.run: str | None = None
        self.status: dict[str, Any] | None = None
        # Why there is no connection; `None` while there is one. Until the first answer it is empty.
        self.cause: str | None = ""
        self.sessions = SessionTable()
        self.ends = Ends()
        self.handshakes = Handshakes()
        self.workers = Workers()
        self.traffic = Traffic()
        self.history = History(COLUMNS)
        self.notices: deque[Notice] = deque(maxlen=NOTICES_KEPT)
        # Events that the engine could not deliver to us, and refused connections and mistakes of peers, since we look.
        self.counts: Counter[str] = Counter()
        self._rates: Rates[str] = Rates()
        self._answered_at: float | None = None

    # -- what the engine says -----------------------------------------------------------------------------------------------

    def apply(self, changes: Iterable[Change], *, now: float) -> None:
        """Take changes of the stream, in their order."""
        for change in changes:
            if isinstance(change, Snapshot):
                self._on_run(change.run)
                self.sessions.replace(change.sessions)
            elif isinstance(change, Event):
                handler = _HANDLERS.get(change.topic)
                if handler is not None:
                    handler(self, change, now)
            elif isinstance(change, Gap):
                self.counts["missed"] += change.missed
            elif isinstance(change, Malformed):
                self.counts["malformed"] += 1

    def take_status(self, status: dict[str, Any], *, now: float) -> None:
        """Take an answer to `status`."""
        self.status, self.cause, self._answered_at = status, None, now
        self.workers.take_status(status["workers"], status["budgets"].get("worker_progress_bytes"))

    def take_counters(self, counters: Counters, *, now: float) -> None:
        """Take a reading of the engine's counters."""
        self.traffic.take(counters, now=now)
        self.workers.take_cpu(self.traffic.cpu_shares())

    def lose(self, cause: str) -> None:
        """There is no connection to the engine, for this cause. What was known stays, as of then."""
        self.cause = printable(cause, NOTICE_CHARACTERS)

    def is_stale(self, *, now: float) -> bool:
        """Whether the engine has not answered for `STALE_SECONDS`, or never."""
        return self._answered_at is None or now - self._answered_at > STALE_SECONDS

    def age_seconds(self, *, now: float) -> float | None:
        """The time since the last answer; `None` if there was none yet."""
        return None if self._answered_at is None else now - self._answered_at

    # -- what it adds up to -------------------------------------------------------------------------------------------------

    def tick(self, second: int, *, now: float) -> None:
        """End a second (since 1970): add it to the history. Without an answer of the engine, it is a hole."""
        self._rates.add({"opened": self.counts["opened"], "ended": self.counts["ended"]}, now=now)
        self.history.add(second, {} if self.is_stale(now=now) else self._moment(now))

    def _moment(self, now: float) -> dict[str, float | None]:
        phases, rates = self.sessions.phases, self._rates.per_second()
        p50_ms, p99_ms = self.handshakes.moment(now=now)
        return {
            "active_inbound": phases["active", "inbound"],
            "active_outbound": phases["active", "outbound"],
            "pending": phases["pending", "inbound"] + phases["pending", "outbound"],
            "opened": rates.get("opened"),
            "ended": rates.get("ended"),
            "handshake_p50_ms": p50_ms,
            "handshake_p99_ms": p99_ms,
            **self.traffic.totals(),
        }

    # -- events -------------------------------------------------------------------------------------------------------------

    def _on_run(self, run: str) -> None:
        if run == self.run:
            return
        if self.run is not None:
            # Session numbers begin anew.
            self.ends.forget_recent()
            self.traffic.clear()
        self.run = run
        self.sessions.clear()

    def _notice(self, event: Event, text: str, *, is_bad: bool = False) -> None:
        self.notices.appendleft(Notice(event.fields["time_us"], printable(text, NOTICE_CHARACTERS), is_bad))

    def _on_opened(self, event: Event, _now: float) -> None:
        self.counts["opened"] += 1
        self.sessions.open(event.fields)

    def _on_authenticated(self, event: Event, _now: float) -> None:
        self.sessions.authenticate(event.fields["session"], event.fields["peer"])

    def _on_established(self, event: Event, now: float) -> None:
        row = self.sessions.put(event.fields)
        self.counts["established"] += 1
        if row.handshake_ms is not None:
            self.handshakes.add(row.handshake_ms, now=now)

    def _on_closed(self, event: Event, now: float) -> None:
        row = self.sessions.remove(event.fields["session"])
        end = self.ends.add(event.fields, row.client if row is not None else NO_CLIENT, now=now)
        self.counts["ended"] += 1
        if end.stage != "active":
            self.handshakes.fail(end.stage, now=now)

    def _on_refused(self, _event: Event, _now: float) -> None:
        self.counts["refused"] += 1

    def _on_dial_failed(self, _event: Event, _now: float) -> None:
        self.counts["dials_failed"] += 1

    def _on_mistake(self, _event: Event, _now: float) -> None:
        self.counts["mistakes"] += 1

    def _on_worker_started(self, event: Event, _now: float) -> None:
        self._notice(event, f"worker {event.fields['worker']} started (pid {event.fields['pid']})")

    def _on_worker_stopped(self, event: Event, _now: float) -> None:
        self._notice(event, f"worker {event.fields['worker']} stopped: {event.fields['cause']}")

    def _on_worker_lost(self, event: Event, _now: float) -> None:
        fields = event.fields
        text = f"worker {fields['worker']} lost with {fields['sessions']} sessions: {fields['cause']}"
        self._notice(event, text, is_bad=True)

    def _on_engine_started(self, event: Event, _now: float) -> None:
        # Its sessions follow in a snapshot. Those of the run before are gone.
        self._on_run(event.run)
        self._notice(event, "engine started")

    def _on_engine_stopped(self, event: Event, _now: float) -> None:
        self._notice(event, "engine stopped", is_bad=True)

    def _on_engine_reloaded(self, event: Event, _now: float) -> None:
        needs = ", ".join(event.fields["needs_restart"])
        self._notice(event, "settings read again" + (f"; {needs} need a restart" if needs else ""))


def client_of(overview: Overview, session: int) -> ClientName:
    """The client of a live or recently ended session."""
    row = overview.sessions.get(session)
    if row is not None:
        return row.client
    end = overview.ends.find(session)
    return end.client if end is not None else NO_CLIENT


_HANDLERS: Final = {
    events.OPENED: Overview._on_opened,  # noqa: SLF001 - of the same class
    events.AUTHENTICATED: Overview._on_authenticated,  # noqa: SLF001 - see above
    events.ESTABLISHED: Overview._on_established,  # noqa: SLF001 - see above
    events.CLOSED: Overview._on_closed,  # noqa: SLF001 - see above
    events.REFUSED: Overview._on_refused,  # noqa: SLF001 - see above
    events.DIAL_FAILED: Overview._on_dial_failed,  # noqa: SLF001 - see above
    events.BAD_MESSAGE: Overview._on_mistake,  # noqa: SLF001 - see above
    events.BREACH: Overview._on_mistake,  # noqa: SLF001 - see above
    events.WORKER_STARTED: Overview._on_worker_started,  # noqa: SLF001 - see above
    events.WORKER_STOPPED: Overview._on_worker_stopped,  # noqa: SLF001 - see above
    events.WORKER_LOST: Overview._on_worker_lost,  # noqa: SLF001 - see above
    events.ENGINE_STARTED: Overview._on_engine_started,  # noqa: SLF001 - see above
    events.ENGINE_STOPPED: Overview._on_engine_stopped,  # noqa: SLF001 - see above
    events.ENGINE_RELOADED: Overview._on_engine_reloaded,  # noqa: SLF001 - see above
}
