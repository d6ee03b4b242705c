"""The command `metrics`: all counters of the engine and its workers."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.hub.tally import Tally
from rlpx.engine.ledger.counter import Phase
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.operations.status import Parts
from rlpx.engine.process import logs
from rlpx.protocol.bus import commands, control
from rlpx.protocol.bus.metrics import (
    EndpointCounts,
    EngineMetrics,
    MetricsResult,
    ProcessUse,
    QueueUse,
    SessionsCount,
    WorkerMetrics,
)
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.native import NATIVE

# A worker that does not answer at once is shown as it was at its last pulse: the caller must not wait for it.
ANSWER_SECONDS: Final = 0.5
# A pulse this recent is not asked for again, however many callers there are.
FRESH_SECONDS: Final = 0.1


class MetricsCommands:
    """See the module."""

    def __init__(self, parts: Parts, tally: Tally) -> None:
        self._parts = parts
        self._tally = tally

    async def metrics(self, _parameters: commands.NoParameters) -> MetricsResult:
        """Every counter as it is now; those of a worker that does not answer as they were at its last pulse."""
        fleet = self._parts.fleet
        now = asyncio.get_running_loop().time()
        asked = [worker for worker in fleet if worker.is_ready and now - worker.pulse_at > FRESH_SECONDS]
        await asyncio.gather(
            *(fleet.calls.ask(worker, control.SendPulse, ANSWER_SECONDS) for worker in asked), return_exceptions=True
        )
        return MetricsResult(
            run=self._parts.events.run,
            uptime_ms=self._parts.process.uptime_ms,
            engine=self._engine(),
            workers=[self._worker(worker) for worker in fleet],
            ended=self._tally.ended_workers,
        )

    def _engine(self) -> EngineMetrics:
        parts, tally = self._parts, self._tally
        static, next_s = parts.ledger.peers.states(now=monotonic())
        membership = parts.ledger.membership
        return EngineMetrics(
            process=parts.process.use(),
            compiled=NATIVE is not None,
            version=parts.node.identity.version,
            chain=parts.node.identity.chain.name,
            sessions=_sessions(parts.ledger),
            clients=tally.clients(),
            capabilities=tally.capabilities(),
            accepted=tally.accepted,
            refused=dict(tally.refused),
            ends=tally.ends(),
            dials=tally.dials(static, next_s),
            readers=parts.events.readers(),
            endpoints=[
                EndpointCounts(name, endpoint.connections, endpoint.refused_connections)
                for name, endpoint in (("control", parts.control), ("events", parts.events.endpoint))
            ],
            queues=[
                QueueUse("replies", parts.control.queued_bytes, parts.control.limits.total_queue_bytes),
                QueueUse("events", parts.events.endpoint.queued_bytes, parts.events.endpoint.limits.total_queue_bytes),
            ],
            worker_starts=tally.worker_starts,
            worker_ends=dict(tally.worker_ends),
            commands=dict(tally.commands),
            loop_lag=tally.loop_lag,
            log_lines_lost=logs.lost_lines(),
            fleet=None if membership is None else membership.metrics(),
        )

    def _worker(self, worker: WorkerProcess) -> WorkerMetrics:
        settings, pulse = self._parts.settings, worker.pulse
        age_ms = None if pulse is None else int((asyncio.get_running_loop().time() - worker.pulse_at) * 1000)
        pulse = pulse or control.Pulse(0, 0.0, 0, 0, 0)
        process = ProcessUse(
            pid=worker.pid,
            started_us=pulse.started_us,
            cpu_seconds=pulse.cpu_seconds,
            memory_bytes=pulse.memory_bytes,
            descriptors=pulse.descriptors,
            descriptor_limit=pulse.descriptor_limit,
        )
        queues = [
            QueueUse("progress", pulse.progress_bytes, settings.queues.worker_progress_bytes),
            QueueUse("worker_events", pulse.queued_event_bytes, settings.events.worker_queue_bytes),
            QueueUse("worker_programs", pulse.responder_queued_bytes, pulse.program_queue_limit_bytes),
            QueueUse("worker_feeds", pulse.feeds.queued_bytes, settings.feeds.total_queue_bytes),
            QueueUse("worker_commands", worker.queued_command_bytes, settings.queues.worker_command_bytes),
        ]
        return WorkerMetrics(
            worker=worker.index,
            ready=worker.is_ready,
            age_ms=age_ms,
            process=process,
            loop_lag_ms=pulse.loop_lag_ms,
            deferred=pulse.deferred,
            goodbyes=pulse.goodbyes,
            responders=pulse.responders,
            feeds=pulse.feeds.open,
            held_sessions=pulse.feeds.held_sessions,
            queues=queues,
            counters=pulse.counters,
        )


def _sessions(ledger: Ledger) -> list[SessionsCount]:
    """The sessions by phase and direction, each with its limit."""
    counter = ledger.counter
    limits = {
        (Phase.UNAUTHENTICATED, Direction.INBOUND): counter.limits.max_unauthenticated,
        (Phase.PENDING, Direction.INBOUND): counter.limits.max_pending_inbound,
        (Phase.PENDING, Direction.OUTBOUND): counter.limits.max_pending_outbound,
        (Phase.ACTIVE, Direction.INBOUND): counter.limits.max_active_inbound,
        (Phase.ACTIVE, Direction.OUTBOUND): counter.limits.max_active_outbound,
    }
    return [
        SessionsCount(phase.value, direction, counter.count(phase, direction), limit)
        for (phase, direction), limit in limits.items()
    ]
