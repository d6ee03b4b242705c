"""The end of a session: every session that users can see ends here, exactly once, whoever reports it."""

from __future__ import annotations

from time import monotonic, time_ns

import msgspec

from rlpx.engine.hub.announcer import Announcer
from rlpx.engine.intake.dials import Dials
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.vacancies import Vacancies
from rlpx.engine.verdicts import Verdicts
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionId, SessionStats
from rlpx.protocol.bus.events import DialFailed, SessionClosed
from rlpx.protocol.bus.sessions import SessionView, ended_session
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage


class Ends:
    """See the module."""

    def __init__(self, ledger: Ledger, verdicts: Verdicts, dials: Dials, vacancies: Vacancies, announcer: Announcer) -> None:
        self._ledger = ledger
        self._verdicts = verdicts
        self._dials = dials
        self._vacancies = vacancies
        self._announcer = announcer

    def on_closed(self, report: control.SessionClosed) -> None:
        """A worker has reported the end of a session, which it publishes itself."""
        view = self._ledger.views.get(report.session)
        if view is None:
            # The session of a refused peer, which users never saw, or one that has ended already.
            self._ledger.release(report.session)
        else:
            self._end(view, report, is_reported=True)

    def end(self, session: SessionId, by: EndedBy, cause: str) -> None:
        """End a session on behalf of a worker that cannot; one that has ended already is left alone."""
        view = self._ledger.views.get(session)
        # The fate of the worker is not held against the peer's address.
        self._ledger.admission.cancel(session)
        if view is None:
            self._ledger.release(session)
            return
        closed = control.SessionClosed(session, by, None, cause, view.stage, SessionStats())
        duration_ms = view.duration_ms(monotonic())
        self._end(view, msgspec.structs.replace(closed, duration_ms=duration_ms), is_reported=False)

    def end_all(self, by: EndedBy, cause: str) -> None:
        """End every remaining session."""
        for session in list(self._ledger.views):
            self.end(session, by, cause)

    def _end(self, view: SessionView, closed: control.SessionClosed, *, is_reported: bool) -> None:
        """The single exit path of every session: act on the end, then announce it."""
        self._ledger.release(view.session)
        self._verdicts.on_ended(view.session)
        event = view.closed(closed, time_ns() // 1000)
        self._ledger.history.append(ended_session(view.client, event))
        wait_seconds = self._settle_peer(view, closed, event)
        self._vacancies.offer()
        if view.direction is Direction.OUTBOUND and view.established_us is None:
            self._announcer.dial_failed(view, _failed(view, closed, event, wait_seconds))
        self._announcer.ended(view, event, is_reported=is_reported)

    def _settle_peer(self, view: SessionView, closed: control.SessionClosed, event: SessionClosed) -> float | None:
        """Settle a dial and record the end for its peer; returns the seconds until we dial it again if it is static."""
        says_something = self._dials.settle(view, closed)
        peers = self._ledger.peers
        if view.direction is Direction.OUTBOUND:
            peers.reconsider()
        # Ignore the end of a refused duplicate: the peer's live session decides when to dial again.
        if not says_something or view.peer is None or self._ledger.counter.session_of(view.peer) is not None:
            return None
        # If the peer said goodbye, its reason is the best evidence.
        has_reason = closed.ended_by is EndedBy.PEER and closed.reason is not None
        cause = f"{closed.cause} ({event.reason})" if has_reason else closed.cause
        return peers.ended(view.peer, closed.severity, cause, now=monotonic())


def _failed(
    view: SessionView, closed: control.SessionClosed, event: SessionClosed, wait_seconds: float | None
) -> DialFailed:
    """The event of a dial that has failed."""
    return DialFailed(
        time_us=event.time_us,
        session=view.session,
        peer=view.peer_hex,
        enode=view.enode,
        reason=event.reason,
        cause=closed.cause,
        why_not=closed.cause if closed.ended_by is EndedBy.US and closed.stage is Stage.CONNECT else None,
        next_try_us=None if wait_seconds is None else event.time_us + int(wait_seconds * 1_000_000),
    )
