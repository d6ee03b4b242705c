"""The command `status`: the engine at a glance."""

from __future__ import annotations

import os
from time import time_ns

import msgspec

from rlpx.engine.departures import Departures
from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.hub.data_endpoints import DataEndpoints
from rlpx.engine.hub.events import EventsHub
from rlpx.engine.ledger.counter import Phase, counts
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.node import Node
from rlpx.engine.process import logs
from rlpx.engine.process.companion import Companion
from rlpx.engine.process.own import OwnProcess
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.settings.settings import Settings
from rlpx.engine.succession import Succession
from rlpx.protocol.bus import commands, results
from rlpx.protocol.bus.endpoint import Endpoint
from rlpx.protocol.native import NATIVE


class Parts(msgspec.Struct, frozen=True):
    """The parts of the engine that `status` shows."""

    settings: Settings
    run_dir: RunDir
    process: OwnProcess
    node: Node
    ledger: Ledger
    fleet: Fleet
    control: Endpoint
    events: EventsHub
    data: DataEndpoints
    departures: Departures
    succession: Succession
    watch: Companion | None = None


class StatusCommands:
    """Each method carries out one command."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def status(self, _parameters: commands.NoParameters) -> results.StatusResult:
        """Version, identity, chain, workers, counts and budgets."""
        parts = self._parts
        identity, head, queues = parts.node.identity, parts.node.head, parts.settings.queues
        membership = parts.ledger.membership
        fork_id = parts.node.fork_id(time_ns() // 1_000_000_000)
        return results.StatusResult(
            version=identity.version,
            compiled=NATIVE is not None,
            pid=os.getpid(),
            node_id=identity.key.id.hex(),
            enode=parts.node.enode,
            enode_is_guess=parts.node.is_enode_guessed,
            uptime_ms=parts.process.uptime_ms,
            chain=results.ChainStatus(
                name=identity.chain.name,
                network_id=identity.chain.network_id,
                genesis="0x" + identity.chain.genesis.hex(),
                fork_hash="0x" + fork_id.hash.hex(),
                fork_next=fork_id.next,
            ),
            head=results.HeadStatus(head.number, "0x" + head.hash.hex(), head.earliest, head.time),
            workers=[self._worker_status(worker) for worker in parts.fleet],
            subscribers=parts.events.status(),
            counts=counts(parts.ledger.counter),
            budgets=results.Budgets(
                peer_write_bytes=queues.peer_write_bytes,
                worker_command_bytes=queues.worker_command_bytes,
                worker_progress_bytes=queues.worker_progress_bytes,
                subscriber_queue_bytes=parts.settings.events.queue_bytes,
                total_queue_bytes=parts.settings.events.total_queue_bytes,
            ),
            endpoints={
                name: results.EndpointStatus(
                    endpoint.connections, endpoint.refused_connections, endpoint.queued_bytes, address or None
                )
                for name, endpoint, address in (
                    ("control", parts.control, parts.settings.control.endpoint),
                    ("events", parts.events.endpoint, parts.settings.events.endpoint),
                )
            },
            has_descriptors=parts.process.descriptors.has_room(),
            run_dir=str(parts.run_dir.path),
            memory_bytes=parts.process.memory_bytes,
            log_lines_lost=logs.lost_lines(),
            workforce=self._workforce(),
            watch=None if parts.watch is None else _watch_status(parts.watch),
            fleet=None if membership is None else membership.status(),
        )

    def _workforce(self) -> results.WorkforceStatus:
        fleet, succession = self._parts.fleet, self._parts.succession
        return results.WorkforceStatus(
            lost=fleet.lost,
            respawned=fleet.respawned,
            replaced=succession.replaced,
            failed=succession.failed,
            restarting=succession.is_restarting,
            error=succession.error,
        )

    def _worker_status(self, worker: WorkerProcess) -> results.WorkerStatus:
        counter = self._parts.ledger.counter
        pulse = worker.pulse
        return results.WorkerStatus(
            worker=worker.index,
            pid=worker.pid,
            ready=worker.is_ready,
            unauthenticated=counter.count_of(worker.index, Phase.UNAUTHENTICATED),
            pending=counter.count_of(worker.index, Phase.PENDING),
            active=counter.count_of(worker.index, Phase.ACTIVE),
            goodbyes=pulse.goodbyes if pulse else None,
            loop_lag_ms=pulse.loop_lag_ms if pulse else None,
            memory_bytes=pulse.memory_bytes if pulse else None,
            dropped_events=pulse.dropped_events if pulse else None,
            queued_event_bytes=pulse.queued_event_bytes if pulse else None,
            unanswered=pulse.unanswered if pulse else None,
            progress_bytes=pulse.progress_bytes if pulse else None,
            responders=pulse.responders if pulse else None,
            responder_queued_bytes=pulse.responder_queued_bytes if pulse else None,
            has_descriptors=pulse.has_descriptors if pulse else None,
            deferred=pulse.deferred if pulse else None,
            deferred_ms=pulse.deferred_ms if pulse else None,
            calls=pulse.calls if pulse else None,
            feeds=pulse.feeds if pulse else None,
            data_endpoints=results.DataPlaces(
                self._parts.run_dir.endpoint(f"worker-{worker.index}"), self._parts.data.address(worker.index)
            ),
            leaving=worker.is_leaving,
            leaves_in_ms=self._parts.departures.leaves_in_ms(worker.index),
            joining=worker.is_joining,
        )


def _watch_status(watch: Companion) -> results.WatchStatus:
    state = watch.state
    return results.WatchStatus(watch.address, state.pid, state.is_up, state.starts, state.last_end)
