"""The table of sessions, with the counts of its live ones, searched and sorted by pages."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from rlpx.engine.overview.clients import NO_CLIENT, ClientName, client_name
from rlpx.protocol.errors import printable

# Texts of a peer are cut for the table; the session's own page has the whole.
REMOTE_CHARACTERS: Final = 64
MAX_SHARED: Final = 16
# A shorter term is not taken for the beginning of a peer's id.
MIN_ID_DIGITS: Final = 4
# More terms of a search cannot be meant.
MAX_TERMS: Final = 8

Phase = Literal["pending", "active"]


class SessionRow(msgspec.Struct):
    """A session as a table shows it. Traffic is as of the last listing; rates are bytes per second since the one before."""

    session: int
    direction: str
    remote: str
    worker: int
    opened_us: int
    peer: str = ""
    phase: Phase = "pending"
    stage: str = "auth"
    client: ClientName = NO_CLIENT
    shared: tuple[str, ...] = ()
    established_us: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    rate_in: float = 0.0
    rate_out: float = 0.0
    rtt_ms: float | None = None
    queued_bytes: int = 0
    listed_at: float | None = None

    @property
    def handshake_ms(self) -> float | None:
        """The time from the connection to `active`."""
        return (self.established_us - self.opened_us) / 1000 if self.established_us is not None else None


# By what a table may be sorted.
SORTS: Final[dict[str, Callable[[SessionRow], Any]]] = {
    "session": lambda row: row.session,
    "direction": lambda row: row.direction,
    "stage": lambda row: row.stage,
    "client": lambda row: row.client.text.casefold(),
    "remote": lambda row: row.remote,
    "peer": lambda row: row.peer,
    "worker": lambda row: row.worker,
    "shared": lambda row: row.shared,
    "age": lambda row: -row.opened_us,
    "rtt": lambda row: row.rtt_ms if row.rtt_ms is not None else -1.0,
    "bytes_in": lambda row: row.bytes_in,
    "bytes_out": lambda row: row.bytes_out,
    "rate_in": lambda row: row.rate_in,
    "rate_out": lambda row: row.rate_out,
    "messages_in": lambda row: row.messages_in,
    "messages_out": lambda row: row.messages_out,
}


class Query(msgspec.Struct, frozen=True):
    """A page of the table. Every term of `text` must be a session's number, the beginning of its peer's id, or part of its
    address, client, direction or capabilities.
    """

    text: str = ""
    direction: str = ""
    phase: str = ""
    sort: str = "session"
    is_descending: bool = True
    offset: int = 0
    limit: int = 50


class Found(msgspec.Struct, frozen=True):
    """The rows of a page, and how many sessions match."""

    rows: list[SessionRow]
    total: int


class SessionTable:
    """The live sessions. Its size is bounded by the engine's limits, and by the bounds of each text."""

    def __init__(self) -> None:
        self._rows: dict[int, SessionRow] = {}
        # By phase and direction.
        self.phases: Counter[tuple[str, str]] = Counter()
        # Active sessions by family and version of their client, and by shared capability.
        self.clients: Counter[tuple[str, str]] = Counter()
        self.shared: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, session: int) -> SessionRow | None:
        """The row of a live session."""
        return self._rows.get(session)

    def clear(self) -> None:
        """Forget all sessions."""
        self._rows.clear()
        for counts in (self.phases, self.clients, self.shared):
            counts.clear()

    def replace(self, sessions: Iterable[Mapping[str, Any]]) -> None:
        """Take over all sessions of a snapshot, as session objects."""
        self.clear()
        for item in sessions:
            self.put(item)

    def open(self, fields: Mapping[str, Any]) -> SessionRow:
        """Add the session of `session.opened`."""
        row = SessionRow(
            session=fields["session"],
            direction=fields["direction"],
            remote=printable(fields["remote"], REMOTE_CHARACTERS),
            worker=fields["worker"],
            opened_us=fields["time_us"],
            peer=fields["peer"] or "",
        )
        self._add(row)
        return row

    def authenticate(self, session: int, peer: str) -> None:
        """Note the peer's id."""
        row = self._rows.get(session)
        if row is not None:
            row.peer = peer

    def put(self, item: Mapping[str, Any]) -> SessionRow:
        """Add or replace a session by its session object."""
        row = SessionRow(
            session=item["session"],
            direction=item["direction"],
            remote=printable(item["remote"], REMOTE_CHARACTERS),
            worker=item["worker"],
            opened_us=item["opened_us"],
            peer=item["peer"] or "",
            phase=item["phase"],
            stage=item["stage"],
            client=client_name(item["client"]),
            shared=tuple(item["shared"][:MAX_SHARED]),
            established_us=item["established_us"],
        )
        self.remove(row.session)
        self._add(row)
        _take_traffic(row, item)
        return row

    def remove(self, session: int) -> SessionRow | None:
        """Forget a session; returns its row. A second removal is harmless."""
        row = self._rows.pop(session, None)
        if row is not None:
            self._count(row, -1)
        return row

    def list_traffic(self, sessions: Iterable[Mapping[str, Any]], *, now: float) -> None:
        """Take the traffic of a listing. Sessions that are not in the table are ignored: they have just come or gone."""
        for item in sessions:
            row = self._rows.get(item["session"])
            if row is None:
                continue
            if row.listed_at is not None and now > row.listed_at:
                seconds = now - row.listed_at
                row.rate_in = max(0, item["bytes_in"] - row.bytes_in) / seconds
                row.rate_out = max(0, item["bytes_out"] - row.bytes_out) / seconds
            row.listed_at = now
            row.stage = item["stage"] if row.phase == "pending" else row.stage
            _take_traffic(row, item)

    def find(self, query: Query) -> Found:
        """The page of a query. An unknown sort is by session."""
        terms = query.text.casefold().split()[:MAX_TERMS]
        rows = [
            row
            for row in self._rows.values()
            if (not query.direction or row.direction == query.direction)
            and (not query.phase or row.phase == query.phase)
            and all(_has(row, term) for term in terms)
        ]
        sort = SORTS.get(query.sort, SORTS["session"])
        pick = heapq.nlargest if query.is_descending else heapq.nsmallest
        first = pick(query.offset + query.limit, rows, key=sort)
        return Found(first[query.offset :], len(rows))

    def _add(self, row: SessionRow) -> None:
        self.remove(row.session)
        self._rows[row.session] = row
        self._count(row, 1)

    def _count(self, row: SessionRow, step: int) -> None:
        _count(self.phases, (row.phase, row.direction), step)
        if row.phase == "active":
            _count(self.clients, (row.client.family, row.client.version), step)
            for capability in row.shared:
                _count(self.shared, capability, step)


def _count(counts: Counter[Any], key: object, step: int) -> None:
    counts[key] += step
    if not counts[key]:
        # Strangers choose some of the keys: none stays longer than its sessions.
        del counts[key]


def _take_traffic(row: SessionRow, item: Mapping[str, Any]) -> None:
    row.bytes_in, row.bytes_out = item["bytes_in"], item["bytes_out"]
    row.messages_in, row.messages_out = item["messages_in"], item["messages_out"]
    row.rtt_ms, row.queued_bytes = item["rtt_ms"], item["queued_bytes"]


def _has(row: SessionRow, term: str) -> bool:
    if len(term) >= MIN_ID_DIGITS and row.peer.startswith(term.removeprefix("0x")):
        return True
    if term.removeprefix("#").isdecimal():
        # A bare number would be part of almost every address and version.
        return term.removeprefix("#") == str(row.session)
    return (
        term in row.remote
        or term in row.client.text.casefold()
        or term in row.direction
        or any(term in capability for capability in row.shared)
    )
