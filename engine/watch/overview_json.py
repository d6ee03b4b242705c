"""The overview as JSON for browsers, in named parts, so that a part that has not changed is not sent again."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rlpx.engine.overview.clients import ClientName
from rlpx.engine.overview.ends import End
from rlpx.engine.overview.handshakes import BAR_LIMITS_MS
from rlpx.engine.overview.history import Columns
from rlpx.engine.overview.overview import Overview
from rlpx.engine.overview.sessions import Found, SessionRow

# What a page shows of each list; the rest is a number.
CLIENTS_SHOWN: Final = 60
KINDS_SHOWN: Final = 60
ENDS_SHOWN: Final = 100
NOTICES_SHOWN: Final = 20
CAPABILITIES_SHOWN: Final = 12

# The parts by name, each encoded.
Parts = dict[str, bytes]
_encode = msgspec.json.encode


def parts_of(overview: Overview, *, now: float) -> Parts:
    """All parts except the history, as of now."""
    parts: dict[str, Any] = {
        "engine": _engine(overview, now),
        "now": overview.history.last(),
        "clients": _clients(overview),
        "shared": overview.sessions.shared.most_common(CAPABILITIES_SHOWN),
        "kinds": overview.traffic.kinds()[:KINDS_SHOWN],
        "handshakes": {
            **msgspec.structs.asdict(overview.handshakes.latencies(now=now)),
            "limits": BAR_LIMITS_MS,
            "failed": overview.handshakes.failed(now=now).most_common(),
        },
        "reasons": [[*key, count] for key, count in overview.ends.reasons(now=now).most_common()],
        "workers": overview.workers.rows(),
        "ends": [end_json(end) for end, _ in zip(overview.ends.recent, range(ENDS_SHOWN), strict=False)],
        "notices": list(overview.notices)[:NOTICES_SHOWN],
        "counts": dict(overview.counts),
    }
    return {name: _encode(part) for name, part in parts.items()}


def history_parts(overview: Overview) -> Parts:
    """The history in both resolutions."""
    return {"seconds": _columns(overview.history.seconds()), "minutes": _columns(overview.history.minutes())}


def joined(parts: Parts) -> bytes:
    """One JSON object of all parts."""
    return b"{" + b",".join(_encode(name) + b":" + part for name, part in parts.items()) + b"}"


def changed(parts: Parts, before: Parts) -> Parts:
    """The parts that are not as before."""
    return {name: part for name, part in parts.items() if before.get(name) != part}


def page_json(found: Found) -> bytes:
    """A page of the table of sessions."""
    return _encode({"total": found.total, "rows": [row_json(row) for row in found.rows]})


def row_json(row: SessionRow) -> dict[str, Any]:
    """A row of the table of sessions."""
    fields = msgspec.structs.asdict(row)
    del fields["listed_at"]
    return {**fields, **_client(row.client), "handshake_ms": row.handshake_ms}


def end_json(end: End) -> dict[str, Any]:
    """An end of a session."""
    return {**msgspec.structs.asdict(end), **_client(end.client)}


def _client(client: ClientName) -> dict[str, str]:
    return {"client": client.text, "family": client.family, "version": client.version}


def _engine(overview: Overview, now: float) -> dict[str, Any]:
    status = overview.status or {}
    shown = (
        "version",
        "compiled",
        "pid",
        "node_id",
        "enode",
        "uptime_ms",
        "chain",
        "head",
        "memory_bytes",
        "log_lines_lost",
        "fleet",
    )
    phases = overview.sessions.phases
    return {
        "run": overview.run,
        "cause": overview.cause,
        "stale": overview.is_stale(now=now),
        "age_s": overview.age_seconds(now=now),
        **{name: status.get(name) for name in shown},
        "limits": status.get("counts", {}).get("limits", {}),
        "subscribers": len(status.get("subscribers", ())),
        "cpu": overview.traffic.cpu_shares().get(status.get("pid", 0)),
        "sessions": len(overview.sessions),
        **{f"{phase}_{way}": phases[phase, way] for phase in ("active", "pending") for way in ("inbound", "outbound")},
    }


def _clients(overview: Overview) -> dict[str, Any]:
    clients = overview.sessions.clients
    shown = clients.most_common(CLIENTS_SHOWN)
    others = clients.total() - sum(count for _, count in shown)
    return {"rows": [[family, version, count] for (family, version), count in shown], "others": others}


def _columns(columns: Columns) -> bytes:
    # Three digits are more than a line shows.
    values = {
        name: [value if value is None else round(value, 3) for value in column] for name, column in columns.values.items()
    }
    return _encode({"step_s": columns.step_s, "ends_s": columns.ends_s, "values": values})
