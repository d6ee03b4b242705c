"""The alert rules for Prometheus, made from the declared metrics: each says what is wrong and what to look at."""

from __future__ import annotations

import json
from typing import Final, Literal, TypeAlias

import msgspec

from rlpx.engine.watch.queries import increase, quantile, rate, select, total

Severity: TypeAlias = Literal["critical", "warning", "info"]
GROUP: Final = "rlpx-engine"
# Long enough for a scrape interval of a minute.
WINDOW: Final = "5m"


class Rule(msgspec.Struct, frozen=True):
    """One alert: its name, its condition and for how long it must hold, and what it says to people."""

    name: str
    expression: str
    lasts: str
    severity: Severity
    summary: str
    description: str


_FAILED: Final = rate("rlpx_handshake_failures", WINDOW)
_TIMED_OUT: Final = rate("rlpx_requests_sent", "15m", outcome="timed_out")

RULES: Final = [
    Rule(
        "RlpxEngineDown",
        f"{select('rlpx_up')} == 0",
        "1m",
        "critical",
        "The engine does not answer",
        "rlpx-watch at {{ $labels.instance }} has got no answer from its engine for a minute. Its /healthz says why.",
    ),
    Rule(
        "RlpxWatchMissing",
        f"absent({select('rlpx_up')})",
        "5m",
        "critical",
        "No engine is scraped",
        "Prometheus has no answer from any rlpx-watch: is it running, and is its address in the scrape configuration?",
    ),
    Rule(
        "RlpxWorkerDown",
        f"{select('rlpx_worker_up')} == 0",
        "1m",
        "critical",
        "A worker is not up",
        "{{ $labels.process }} of {{ $labels.instance }} has not come up for a minute. The engine's log says why it ended.",
    ),
    Rule(
        "RlpxWorkerLost",
        f"{increase('rlpx_worker_ends', '10m', how='lost')} > 0",
        "0m",
        "warning",
        "A worker was lost",
        "A worker of {{ $labels.instance }} ended without being told to, and its sessions with it. The engine's "
        "log has the cause.",
    ),
    Rule(
        "RlpxWorkerSilent",
        f"{select('rlpx_worker_report_age_seconds')} > 3",
        "1m",
        "warning",
        "A worker does not report",
        "{{ $labels.process }} of {{ $labels.instance }} has not reported for {{ $value | humanizeDuration }}.",
    ),
    Rule(
        "RlpxNoSessions",
        f"{total('rlpx_sessions', phase='active')} == 0",
        "15m",
        "warning",
        "There are no sessions",
        "{{ $labels.instance }} has had no active session for 15 minutes. Look at why handshakes fail and dials "
        "are refused.",
    ),
    Rule(
        "RlpxHandshakesFail",
        f"{_FAILED} > 1 and {_FAILED} > 20 * sum by (instance) (rate(rlpx_handshake_seconds_count[{WINDOW}]))",
        "15m",
        "info",
        "Nearly all handshakes fail",
        "Of the handshakes at {{ $labels.instance }}, fewer than one in twenty leads to a session.",
    ),
    Rule(
        "RlpxHandshakesSlow",
        f"{quantile(0.95, 'rlpx_handshake_seconds', WINDOW, ['direction'], direction='inbound')} > 2",
        "15m",
        "warning",
        "Handshakes take long",
        "One in twenty accepted peers of {{ $labels.instance }} waits more than {{ $value | humanizeDuration }} "
        "until its session is active.",
    ),
    Rule(
        "RlpxLoopLag",
        f"min_over_time({select('rlpx_worker_lag_max_seconds')}[{WINDOW}]) > 0.25",
        "0m",
        "warning",
        "Peers wait for a worker",
        "Bytes of peers have waited {{ $value | humanizeDuration }} and more for {{ $labels.process }} of {{ "
        "$labels.instance }} in each of the last minutes: it has more to do than a core can, or has not got one.",
    ),
    Rule(
        "RlpxEventsMissed",
        f"{increase('rlpx_reader_events_missed', WINDOW, ['reader'])} > 0",
        "0m",
        "warning",
        "A reader misses events",
        "Readers of {{ $labels.reader }} at {{ $labels.instance }} have missed {{ $value | humanize }} events in "
        "five minutes: they read too slowly.",
    ),
    Rule(
        "RlpxFeedEventsMissed",
        f"{increase('rlpx_feed_events_missed', WINDOW)} > 0",
        "0m",
        "warning",
        "A feed misses events",
        "Feeds at {{ $labels.instance }} have missed {{ $value | humanize }} events in five minutes.",
    ),
    Rule(
        "RlpxEventsDropped",
        f"{increase('rlpx_worker_events_dropped', WINDOW)} > 0",
        "0m",
        "warning",
        "Workers drop events",
        "Workers of {{ $labels.instance }} have dropped {{ $value | humanize }} events in five minutes: the engine"
        " process is too busy.",
    ),
    Rule(
        "RlpxQueueNearlyFull",
        f"{select('rlpx_queue_bytes')} / {select('rlpx_queue_limit_bytes')} > 0.8",
        WINDOW,
        "warning",
        "A queue is nearly full",
        "The queue {{ $labels.queue }} of {{ $labels.process }} at {{ $labels.instance }} is {{ $value | "
        "humanizePercentage }} full. Beyond its bound events are lost, or sessions end.",
    ),
    Rule(
        "RlpxDescriptorsNearlyUsed",
        f"{select('rlpx_process_open_fds')} / {select('rlpx_process_max_fds')} > 0.9",
        WINDOW,
        "warning",
        "File descriptors run out",
        "{{ $labels.process }} of {{ $labels.instance }} uses {{ $value | humanizePercentage }} of its file "
        "descriptors. At the limit it takes no more sessions: raise it (LimitNOFILE=).",
    ),
    Rule(
        "RlpxRequestsTimeOut",
        f"{_TIMED_OUT} > 0.5 * {rate('rlpx_requests_sent', '15m')}",
        "15m",
        "info",
        "Peers do not answer",
        "More than half of the requests of {{ $labels.instance }} to peers get no answer in time.",
    ),
    Rule(
        "RlpxStaticPeersRefused",
        f"{total('rlpx_static_peers', state='refused')} > 0",
        "30m",
        "warning",
        "Static peers are not dialled",
        "{{ $value }} static peers of {{ $labels.instance }} are due and not dialled; `rlpx-ctl peers` says why.",
    ),
    Rule(
        "RlpxLogLinesLost",
        f"{increase('rlpx_log_lines_lost', '1h')} > 0",
        "0m",
        "warning",
        "Log lines are lost",
        "{{ $labels.instance }} could not write {{ $value | humanize }} lines of its log in an hour: is the disk full?",
    ),
    Rule(
        "RlpxFleetAway",
        f"{select('rlpx_fleet_away_seconds')} > 60",
        "0m",
        "critical",
        "A host does not reach NATS",
        "{{ $labels.instance }} has had no answer from NATS for {{ $value | humanizeDuration }}. Its sessions go on, "
        "within the places that it has leased. Are the servers up, and does JetStream have a quorum?",
    ),
    Rule(
        "RlpxFleetHostMissing",
        f"{select('rlpx_fleet_hosts')} < max_over_time({select('rlpx_fleet_hosts')}[1h]) "
        f"and {select('rlpx_fleet_away_seconds')} == 0",
        "1m",
        "warning",
        "A host of the fleet is missing",
        "{{ $labels.instance }} sees {{ $value }} hosts, and has seen more within the last hour. If one was taken away on "
        "purpose, the alert ends by itself; `rlpx-ctl --cluster ... hosts` lists those that are there.",
    ),
    Rule(
        "RlpxFleetClaimsUnsettled",
        f"{total('rlpx_fleet_claims', state='unsettled')} > 0 and on (instance) {select('rlpx_fleet_away_seconds')} == 0",
        "5m",
        "warning",
        "Claims stay unsettled",
        "{{ $value }} sessions of {{ $labels.instance }} were let in without a claim, and have none yet although NATS "
        "answers. Another host may have the same peers.",
    ),
    Rule(
        "RlpxFleetEventsWait",
        f"{select('rlpx_queue_bytes', queue='fleet_events')} > 0",
        "10m",
        "warning",
        "Events wait on disk",
        "{{ $labels.instance }} has {{ $value | humanize1024 }}B of sessions' lives in a file, and cannot publish them. "
        "When the file is full, events are lost.",
    ),
    Rule(
        "RlpxFleetEventsDropped",
        f"{increase('rlpx_fleet_events_dropped', WINDOW)} > 0",
        "0m",
        "warning",
        "Events are lost to the fleet",
        "{{ $labels.instance }} has dropped {{ $value | humanize }} events of sessions' lives in five minutes: NATS was "
        "away for longer than its file could take them.",
    ),
]


def rules_file() -> str:
    """The rules as Prometheus reads them (YAML)."""
    lines = ["# Made from the metrics that rlpx-watch declares; do not edit.", "groups:", f"  - name: {GROUP}", "    rules:"]
    for rule in RULES:
        lines += [
            f"      - alert: {rule.name}",
            f"        expr: {_text(rule.expression)}",
            f"        for: {rule.lasts}",
            "        labels:",
            f"          severity: {rule.severity}",
            "        annotations:",
            f"          summary: {_text(rule.summary)}",
            f"          description: {_text(rule.description)}",
        ]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """A text in YAML: a string of JSON is one."""
    return json.dumps(text)
