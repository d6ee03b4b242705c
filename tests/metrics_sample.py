"""The counters of an engine on which everything has happened once, for tests of whoever shows them."""

from __future__ import annotations

from typing import Final

from rlpx.protocol.bus.metrics import (
    CapabilityCount,
    ClaimsCount,
    ClientCount,
    DialCounts,
    Durations,
    EndCounts,
    EndpointCounts,
    EngineMetrics,
    FleetMetrics,
    HandshakeCounts,
    MessageCounts,
    MetricsResult,
    PlacesCount,
    ProcessUse,
    QueueUse,
    ReaderCounts,
    RequestCounts,
    SessionsCount,
    StageCounts,
    WorkerCounters,
    WorkerMetrics,
)
from rlpx.protocol.lifecycle import Direction, Stage


def durations(*seconds: float) -> Durations:
    """A histogram of these."""
    counted = Durations()
    for each in seconds:
        counted.observe(each)
    return counted


COUNTERS: Final = WorkerCounters(
    bytes_in=1000,
    bytes_out=2000,
    messages=[
        MessageCounts("eth/69", "Transactions", 5, 500, 2, 200),
        MessageCounts("p2p/5", "Ping", 1, 4, 1, 4),
        MessageCounts("wit/0", "3", 1, 10, 0, 0),
    ],
    stages=[
        StageCounts(Direction.INBOUND, Stage.AUTH, durations(0.002, 0.3), {"peer": 1}),
        StageCounts(Direction.OUTBOUND, Stage.CONNECT, durations(), {"network": 2}),
    ],
    handshakes=[HandshakeCounts(Direction.INBOUND, durations(0.04))],
    requests_out=[RequestCounts("eth", "GetBlockHeaders", durations(0.1), {"answered": 1, "timed_out": 1})],
    requests_in=[RequestCounts("eth", "GetBlockBodies", durations(0.2), {"answered": 1, "empty": 3})],
    misconduct={"breach": 1},
    dropped_events=4,
    feed_events_sent=6,
    feed_events_missed=5,
    loop_lag=durations(0.0005, 0.0005, 0.02),
)

WORKER: Final = WorkerMetrics(
    worker=0,
    ready=True,
    age_ms=3,
    process=ProcessUse(4712, 1_700_000_000_000_000, 12.5, 50_000_000, 40, 1024),
    loop_lag_ms=1.5,
    deferred=2,
    goodbyes=1,
    responders=1,
    feeds=2,
    held_sessions=1,
    queues=[
        QueueUse("progress", 10, 1000),
        QueueUse("worker_events", 20, 2000),
        QueueUse("worker_commands", 30, 3000),
    ],
    counters=COUNTERS,
)

METRICS: Final = MetricsResult(
    run="0011223344556677",
    uptime_ms=60_000,
    engine=EngineMetrics(
        process=ProcessUse(4711, 1_700_000_000_000_000, 3.25, 60_000_000, 30, 1024),
        compiled=True,
        version="1.0",
        chain="mainnet",
        sessions=[
            SessionsCount("unauthenticated", Direction.INBOUND, 1, 1000),
            SessionsCount("pending", Direction.INBOUND, 2, 200),
            SessionsCount("pending", Direction.OUTBOUND, 3, 100),
            SessionsCount("active", Direction.INBOUND, 4, 2000),
            SessionsCount("active", Direction.OUTBOUND, 5, 500),
        ],
        clients=[ClientCount("geth", Direction.INBOUND, 4), ClientCount("other", Direction.OUTBOUND, 5)],
        capabilities=[CapabilityCount("eth/69", 9), CapabilityCount("snap/1", 2)],
        accepted=20,
        refused={"throttle": 2, "too_many_peers": 1},
        ends=[
            EndCounts("peer", "too_many_peers", Direction.OUTBOUND, 7),
            EndCounts("network", "none", Direction.INBOUND, 1),
        ],
        dials=DialCounts(12, 5, 4, {"banned": 1}, {"busy": 1, "waiting": 2, "due": 0, "refused": 1}, 12.5),
        readers=[ReaderCounts("local", 1, 100, 200, 3), ReaderCounts("monitor-1", 0, 0, 50, 0)],
        endpoints=[EndpointCounts("control", 2, 0), EndpointCounts("events", 1, 1)],
        queues=[QueueUse("replies", 5, 500), QueueUse("events", 100, 1000)],
        worker_starts=3,
        worker_ends={"lost": 1},
        commands={"status": 8, "metrics": 2},
        loop_lag=durations(0.0001),
        log_lines_lost=2,
        fleet=FleetMetrics(
            fleet="monitors",
            host="a",
            is_member=True,
            away_s=0.0,
            hosts=3,
            places={Direction.INBOUND: PlacesCount(64, 4, 1000), Direction.OUTBOUND: PlacesCount(128, 5, 0)},
            claims=ClaimsCount(8, 1, 2),
            claims_refused=3,
            claims_erased=7,
            sessions_ended=1,
            claim_seconds=durations(0.002, 0.004),
            lost_calls=5,
            events_published=40,
            events_waiting=2,
            events_dropped=1,
            traffic_batches=10,
            traffic_bytes=1000,
            traffic_dropped=1,
            queues=[QueueUse("fleet_events", 100, 1000), QueueUse("fleet_traffic", 10, 1000)],
        ),
    ),
    workers=[WORKER],
    ended=WorkerCounters(bytes_in=1, loop_lag=durations(0.1)),
)
