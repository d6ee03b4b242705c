"""The Grafana dashboard, made from the declared metrics: what an operator looks at first stands first."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rlpx.engine.watch.queries import quantile, rate, select, total

TITLE: Final = "rlpx-engine"
# The width of a dashboard, and that of its panels: three in a line.
COLUMNS: Final = 24
PANEL_WIDTH: Final = 8
PANEL_HEIGHT: Final = 8
# Grafana fits this window to the interval between scrapes.
WINDOW: Final = "$__rate_interval"
_WHERE: Final = {"instance": "~$instance"}


class Query(msgspec.Struct, frozen=True):
    """One line or group of lines of a panel. `legend` names labels as {{label}}."""

    expression: str
    legend: str


class Panel(msgspec.Struct, frozen=True):
    """A panel: its title, what it says, the unit of its values (Grafana's name), and its queries."""

    title: str
    text: str
    unit: str
    queries: list[Query]
    is_stacked: bool = False


def _rate(name: str, *by: str, **labels: str) -> str:
    return rate(name, WINDOW, by, **_WHERE, **labels)


def _quantile(share: float, name: str, *by: str, **labels: str) -> str:
    return quantile(share, name, WINDOW, by, **_WHERE, **labels)


def _total(name: str, *by: str, **labels: str) -> str:
    return total(name, by, **_WHERE, **labels)


def _select(name: str, **labels: str) -> str:
    return select(name, **_WHERE, **labels)


ROWS: Final[dict[str, list[Panel]]] = {
    "Overview": [
        Panel(
            "Up",
            "Whether each engine answers, and how many of its workers are up.",
            "none",
            [Query(_select("rlpx_up"), "{{instance}}"), Query(_total("rlpx_worker_up"), "{{instance}} workers")],
        ),
        Panel(
            "Active sessions",
            "By who opened the connection, with the limits.",
            "none",
            [
                Query(_total("rlpx_sessions", "direction", phase="active"), "{{direction}}"),
                Query(_total("rlpx_sessions_limit", "direction", phase="active"), "{{direction}} limit"),
            ],
        ),
        Panel(
            "Sessions in the handshake",
            "Accepted connections without auth, and pending sessions.",
            "none",
            [
                Query(
                    _total("rlpx_sessions", "phase", "direction", phase="~unauthenticated|pending"),
                    "{{phase}} {{direction}}",
                )
            ],
            is_stacked=True,
        ),
        Panel(
            "Active sessions by client",
            "The families of peers' clients.",
            "none",
            [Query(_total("rlpx_sessions_by_client", "client"), "{{client}}")],
            is_stacked=True,
        ),
        Panel(
            "Active sessions by capability",
            "A session counts once for each capability that both sides share.",
            "none",
            [Query(_total("rlpx_sessions_by_capability", "capability", "version"), "{{capability}}/{{version}}")],
        ),
        Panel(
            "Ends",
            "Sessions and dials that ended, by who ended them and with which reason.",
            "ops",
            [Query(_rate("rlpx_session_ends", "ended_by", "reason"), "{{ended_by}} {{reason}}")],
            is_stacked=True,
        ),
    ],
    "Handshakes": [
        Panel(
            "Connections",
            "Accepted connections and begun dials, and those that were refused, by why.",
            "ops",
            [
                Query(_rate("rlpx_accepted_connections"), "accepted"),
                Query(_rate("rlpx_dials_started"), "dialled"),
                Query(_rate("rlpx_refused_connections", "reason"), "refused: {{reason}}"),
            ],
        ),
        Panel(
            "Handshake duration",
            "From the accept, or the start of the dial, until the session is active.",
            "s",
            [
                Query(_quantile(share, "rlpx_handshake_seconds", "direction"), f"{{{{direction}}}} {share:.0%}")
                for share in (0.5, 0.95, 0.99)
            ],
        ),
        Panel(
            "Stages, 95 %",
            "How long the stages of handshakes take that are passed.",
            "s",
            [Query(_quantile(0.95, "rlpx_handshake_stage_seconds", "direction", "stage"), "{{direction}} {{stage}}")],
        ),
        Panel(
            "Failures",
            "Handshakes that ended early, by the stage reached and who ended them.",
            "ops",
            [
                Query(
                    _rate("rlpx_handshake_failures", "direction", "stage", "ended_by"),
                    "{{direction}} {{stage}}, by {{ended_by}}",
                )
            ],
            is_stacked=True,
        ),
        Panel(
            "Dials",
            "How dials end, and those that we did not begin, by why.",
            "ops",
            [
                Query(_rate("rlpx_dials", "outcome"), "{{outcome}}"),
                Query(_rate("rlpx_dials_refused", "reason"), "not dialled: {{reason}}"),
            ],
        ),
        Panel(
            "Static peers",
            "What static peers do, and the seconds until the next one is dialled.",
            "none",
            [
                Query(_total("rlpx_static_peers", "state"), "{{state}}"),
                Query(_select("rlpx_next_static_dial_seconds"), "seconds until the next dial"),
            ],
        ),
    ],
    "Traffic": [
        Panel(
            "Bytes",
            "On peers' sockets.",
            "Bps",
            [Query(_rate("rlpx_peer_bytes", "direction"), "{{direction}}")],
        ),
        Panel(
            "Messages of peers",
            "By kind.",
            "ops",
            [Query(_rate("rlpx_messages", "capability", "message", direction="in"), "{{capability}} {{message}}")],
        ),
        Panel(
            "Our messages",
            "By kind.",
            "ops",
            [Query(_rate("rlpx_messages", "capability", "message", direction="out"), "{{capability}} {{message}}")],
        ),
        Panel(
            "Bytes by kind",
            "Compressed, both directions.",
            "Bps",
            [Query(_rate("rlpx_message_bytes", "capability", "message", "direction"), "{{message}} {{direction}}")],
        ),
        Panel(
            "Our requests",
            "By outcome.",
            "ops",
            [Query(_rate("rlpx_requests_sent", "message", "outcome"), "{{message}} {{outcome}}")],
        ),
        Panel(
            "Time of peers' answers, 95 %",
            "From our request to the answer.",
            "s",
            [Query(_quantile(0.95, "rlpx_request_seconds", "message"), "{{message}}")],
        ),
        Panel(
            "Requests of peers",
            "By outcome. Those without a responder get an empty answer.",
            "ops",
            [Query(_rate("rlpx_requests_received", "message", "outcome"), "{{message}} {{outcome}}")],
        ),
        Panel(
            "Time of responders, 95 %",
            "From a peer's request to a responder's answer.",
            "s",
            [Query(_quantile(0.95, "rlpx_response_seconds", "message"), "{{message}}")],
        ),
        Panel(
            "Misconduct",
            "Bad messages and breaches of peers.",
            "ops",
            [Query(_rate("rlpx_misconduct", "conduct"), "{{conduct}}")],
        ),
    ],
    "Programs": [
        Panel(
            "Events sent",
            "To the readers of each user, and to feeds.",
            "ops",
            [
                Query(_rate("rlpx_reader_events_sent", "reader"), "{{reader}}"),
                Query(_rate("rlpx_feed_events_sent"), "feeds"),
            ],
        ),
        Panel(
            "Events missed",
            "By readers and feeds that are too slow, and dropped by workers. It should be empty.",
            "ops",
            [
                Query(_rate("rlpx_reader_events_missed", "reader"), "{{reader}}"),
                Query(_rate("rlpx_feed_events_missed"), "feeds"),
                Query(_rate("rlpx_worker_events_dropped"), "dropped by workers"),
            ],
        ),
        Panel(
            "Connected programs",
            "Readers, callers, responders and feeds, and sessions that a lossless feed holds.",
            "none",
            [
                Query(_total("rlpx_readers", "reader"), "readers: {{reader}}"),
                Query(_total("rlpx_endpoint_connections", "endpoint"), "endpoint {{endpoint}}"),
                Query(_total("rlpx_worker_responders"), "responders"),
                Query(_total("rlpx_worker_feeds"), "feeds"),
                Query(_total("rlpx_worker_held_sessions"), "held sessions"),
            ],
        ),
        Panel(
            "Queues and budgets",
            "The used part of each bound, and the bytes that wait for readers.",
            "percentunit",
            [Query(f"{_select('rlpx_queue_bytes')} / {_select('rlpx_queue_limit_bytes')}", "{{process}} {{queue}}")],
        ),
        Panel(
            "Bytes that wait for readers",
            "By user.",
            "bytes",
            [Query(_total("rlpx_reader_queue_bytes", "reader"), "{{reader}}")],
        ),
        Panel(
            "Commands",
            "Of programs, and connections of programs that were refused.",
            "ops",
            [
                Query(_rate("rlpx_commands", "command"), "{{command}}"),
                Query(_rate("rlpx_endpoint_refused", "endpoint"), "refused at {{endpoint}}"),
            ],
        ),
    ],
    "Processes": [
        Panel(
            "CPU",
            "Cores used by each process.",
            "percentunit",
            [Query(_rate("rlpx_process_cpu_seconds", "process"), "{{process}}")],
        ),
        Panel(
            "Memory",
            "Resident memory.",
            "bytes",
            [Query(_select("rlpx_process_resident_memory_bytes"), "{{process}}")],
        ),
        Panel(
            "File descriptors",
            "The used part of the limit.",
            "percentunit",
            [Query(f"{_select('rlpx_process_open_fds')} / {_select('rlpx_process_max_fds')}", "{{process}}")],
        ),
        Panel(
            "Loop lag",
            "How long a byte of a peer waits for its worker, and the lateness of the engine.",
            "s",
            [
                Query(_quantile(0.99, "rlpx_loop_lag_seconds", "loop"), "{{loop}} 99 %"),
                Query(_select("rlpx_worker_lag_max_seconds"), "{{process}} worst"),
            ],
        ),
        Panel(
            "Workers",
            "Starts and ends, connections that wait for their turn, and goodbyes under way.",
            "none",
            [
                Query(_rate("rlpx_worker_starts"), "starts"),
                Query(_rate("rlpx_worker_ends", "how"), "ends: {{how}}"),
                Query(_select("rlpx_worker_deferred_connections"), "{{process}} deferred"),
                Query(_select("rlpx_worker_goodbyes"), "{{process}} goodbyes"),
            ],
        ),
        Panel(
            "Age and scrapes",
            "Time since each process started, age of workers' figures, duration of scrapes, lost log lines.",
            "s",
            [
                Query(f"time() - {_select('rlpx_process_start_time_seconds')}", "{{process}} age"),
                Query(_select("rlpx_worker_report_age_seconds"), "{{process}} figures"),
                Query(_select("rlpx_scrape_duration_seconds"), "scrape"),
                Query(_rate("rlpx_log_lines_lost"), "log lines lost"),
            ],
        ),
    ],
    "Fleet": [
        Panel(
            "Members",
            "Hosts as each one sees them, whether its own membership holds, and for how long it has not reached NATS.",
            "none",
            [
                Query(_select("rlpx_fleet_hosts"), "{{instance}} sees"),
                Query(_select("rlpx_fleet_member"), "{{instance}} is a member"),
                Query(_select("rlpx_fleet_away_seconds"), "{{instance}} without NATS, seconds"),
            ],
        ),
        Panel(
            "Places",
            "Leased by each host and used, and those that nobody has leased.",
            "none",
            [
                Query(_total("rlpx_fleet_places_leased", "direction"), "{{instance}} {{direction}} leased"),
                Query(_total("rlpx_fleet_places_used", "direction"), "{{instance}} {{direction}} used"),
                Query(_total("rlpx_fleet_places_elsewhere", "direction"), "{{direction}} free, as {{instance}} sees"),
            ],
        ),
        Panel(
            "Claims",
            "Peers that each host has claimed, and those whose claim is not settled.",
            "none",
            [Query(_total("rlpx_fleet_claims", "state"), "{{instance}} {{state}}")],
        ),
        Panel(
            "Claim duration",
            "From the claim of a peer to the verdict on its session.",
            "s",
            [Query(_quantile(share, "rlpx_fleet_claim_seconds"), f"{{{{instance}}}} {share:.0%}") for share in (0.5, 0.99)],
        ),
        Panel(
            "Refused and lost",
            "Sessions refused or ended for another host's, calls without an answer of the store, and claims of dead hosts.",
            "ops",
            [
                Query(_rate("rlpx_fleet_claims_refused"), "{{instance}} refused"),
                Query(_rate("rlpx_fleet_sessions_ended"), "{{instance}} ended"),
                Query(_rate("rlpx_fleet_lost_calls"), "{{instance}} lost calls"),
                Query(_rate("rlpx_fleet_claims_erased"), "{{instance}} erased for dead hosts"),
            ],
        ),
        Panel(
            "Events and traffic on NATS",
            "Lives of sessions that are published, wait or are lost, and batches of messages for listeners.",
            "ops",
            [
                Query(_rate("rlpx_fleet_events_published"), "{{instance}} events published"),
                Query(_select("rlpx_fleet_events_waiting"), "{{instance}} events waiting"),
                Query(_rate("rlpx_fleet_events_dropped"), "{{instance}} events dropped"),
                Query(_rate("rlpx_fleet_traffic_batches"), "{{instance}} batches"),
                Query(_rate("rlpx_fleet_traffic_dropped"), "{{instance}} batches dropped"),
            ],
        ),
        Panel(
            "Traffic on NATS",
            "Bytes of peers' messages for listeners.",
            "Bps",
            [Query(_rate("rlpx_fleet_traffic_bytes"), "{{instance}}")],
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it. It asks for the data source, and has a variable for the engines."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place}
        )
        y += 1
        for index, panel in enumerate(row):
            x = index * PANEL_WIDTH % COLUMNS
            if index and not x:
                y += PANEL_HEIGHT
            place = {"x": x, "y": y, "w": PANEL_WIDTH, "h": PANEL_HEIGHT}
            panels.append(_panel(panel, len(panels) + 1, place))
        y += PANEL_HEIGHT
    return {
        "__inputs": [{"name": "DS_PROMETHEUS", "label": "Prometheus", "type": "datasource", "pluginId": "prometheus"}],
        "title": TITLE,
        "uid": TITLE,
        "tags": ["ethereum", "devp2p"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_instances()]},
        "panels": panels,
    }


_SOURCE: Final = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}


def _instances() -> dict[str, Any]:
    """The variable with which a reader chooses engines."""
    query = f"label_values({select('rlpx_up')}, instance)"
    return {
        "name": "instance",
        "label": "Engine",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "instances"},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    stacking = {"mode": "normal" if panel.is_stacked else "none", "group": "A"}
    custom = {"lineWidth": 1, "fillOpacity": 20 if panel.is_stacked else 5, "showPoints": "never", "stacking": stacking}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query.expression, "legendFormat": query.legend, "datasource": _SOURCE}
            for index, query in enumerate(panel.queries)
        ],
    }
