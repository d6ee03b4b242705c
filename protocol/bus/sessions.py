"""A session as users see it, and the events of its life. Its worker and the engine both keep one."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from rlpx.protocol.bus import events
from rlpx.protocol.bus.commands import BroadcastParameters, Filter
from rlpx.protocol.bus.control import SessionClosed, SessionEstablished, SessionId, SessionStats, WorkerId
from rlpx.protocol.bus.results import EndedSession, RemoteChain, SessionObject
from rlpx.protocol.lifecycle import Direction, Stage
from rlpx.protocol.rlpx.host_port import format_host_port, host_of


class SessionView(msgspec.Struct):
    """One session as users see it. Times are microseconds since 1970; `peer` is 64 bytes, `dialled` the enode of a dial.

    `opened_at` is on a monotonic clock, in seconds; durations are measured from it.
    """

    session: SessionId
    worker: WorkerId
    direction: Direction
    remote: str
    opened_us: int
    opened_at: float
    peer: bytes | None = None
    dialled: str | None = None
    local: str | None = None
    stage: Stage = Stage.AUTH
    client: str | None = None
    capabilities: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    established_us: int | None = None
    chain: RemoteChain | None = None
    is_connected: bool = True
    listen_port: int = 0

    def establish(self, report: SessionEstablished) -> None:
        """Take over the data of Hello and Status."""
        self.stage = Stage.ACTIVE
        self.client, self.capabilities, self.shared = report.client, report.capabilities, report.shared
        self.local, self.chain, self.established_us = report.local, report.chain, report.established_us
        self.listen_port = report.listen_port

    @property
    def enode(self) -> str | None:
        """The enode of a dial; of an accept the one that its Hello suggests, if the peer listens."""
        if self.dialled is not None or self.peer is None or not self.listen_port:
            return self.dialled
        return f"enode://{self.peer.hex()}@{format_host_port(host_of(self.remote), self.listen_port)}"

    @property
    def peer_hex(self) -> str | None:
        """The peer's id in hex, as users see it."""
        return self.peer.hex() if self.peer is not None else None

    def duration_ms(self, now: float) -> int:
        """Return the age of the session; `now` is on the clock of `opened_at`."""
        return int((now - self.opened_at) * 1000)

    def opened(self, time_us: int) -> events.SessionOpened:
        """Return the event of its opening."""
        return events.SessionOpened(time_us, self.session, self.peer_hex, self.direction, self.remote, self.worker)

    def closed(self, report: SessionClosed, time_us: int) -> events.SessionClosed:
        """Return the event of its end."""
        return events.SessionClosed(
            time_us=time_us,
            session=self.session,
            peer=self.peer_hex,
            direction=self.direction,
            remote=self.remote,
            worker=self.worker,
            stage=report.stage,
            ended_by=report.ended_by,
            reason=report.reason.label if report.reason is not None else None,
            cause=report.cause,
            duration_ms=report.duration_ms,
            bytes_in=report.stats.bytes_in,
            bytes_out=report.stats.bytes_out,
            messages_in=report.stats.messages_in,
            messages_out=report.stats.messages_out,
        )

    def shown(
        self, stats: SessionStats, stage: Stage | None = None, span: tuple[int, int, str] | None = None
    ) -> SessionObject:
        """Return the session object. `span` is the block range of the peer's last update since its Status, if any."""
        chain, stage = self.chain, stage or self.stage
        if chain is not None and span is not None:
            earliest, latest, head = span
            chain = msgspec.structs.replace(chain, earliest=earliest, latest=latest, head=head)
        return SessionObject(
            session=self.session,
            peer=self.peer_hex,
            enode=self.enode,
            direction=self.direction,
            phase="active" if stage is Stage.ACTIVE else "pending",
            stage=stage,
            worker=self.worker,
            remote=self.remote,
            local=self.local,
            client=self.client,
            capabilities=self.capabilities,
            shared=self.shared,
            opened_us=self.opened_us,
            established_us=self.established_us,
            bytes_in=stats.bytes_in,
            bytes_out=stats.bytes_out,
            messages_in=stats.messages_in,
            messages_out=stats.messages_out,
            rtt_ms=stats.rtt_ms,
            queued_bytes=stats.queued_bytes,
            chain=chain,
        )


def matches(view: SessionView, wanted: Filter) -> bool:
    """Whether a session matches every given filter."""
    phase = "active" if view.stage is Stage.ACTIVE else "pending"
    return (
        wanted.direction in (None, view.direction)
        and wanted.phase in (None, phase)
        and wanted.worker in (None, view.worker)
        and (wanted.peer is None or (view.peer_hex or "").startswith(wanted.peer))
        and (wanted.client is None or wanted.client in (view.client or ""))
        and (wanted.shared is None or wanted.shared in view.shared)
    )


def receivers(views: Iterable[SessionView], wanted: BroadcastParameters) -> list[SessionView]:
    """The active sessions to which a broadcast goes."""
    exceptions = frozenset(wanted.exceptions)
    return [
        view for view in views if view.stage is Stage.ACTIVE and view.session not in exceptions and matches(view, wanted)
    ]


def ended_session(client: str | None, closed: events.SessionClosed) -> EndedSession:
    """Return the end of a session as `history` lists it, from the peer's client name and the event."""
    return EndedSession(client, *msgspec.structs.astuple(closed))
