"""A fleet whose workers the test controls, at the other end of their sockets."""

from __future__ import annotations

import asyncio
import subprocess
from typing import cast

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.process.spawn import StartProcess
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import Drain, SessionId, WorkerId
from rlpx.protocol.bus.records import Handoff, Handoffs
from rlpx.protocol.bus.reports import Published
from rlpx.protocol.errors import DisconnectReason
from tests.engine.fake_worker import FakeWorker, configuration, until

DRAIN = Drain(DisconnectReason.CLIENT_QUITTING, "the end")
FIRST, SECOND = WorkerId(0), WorkerId(1)


def one(session: int) -> Handoffs:
    """A handoff of one socket."""
    return Handoffs((Handoff(SessionId(session)),))


class Owner:
    """An owner that records what the fleet reports to it."""

    def __init__(self) -> None:
        self.reports: list[tuple[WorkerId, control.Report]] = []
        self.lost: list[tuple[WorkerProcess, str]] = []
        self.begun: list[WorkerId] = []
        self.published: list[tuple[WorkerId, Published]] = []

    def on_report(self, worker: WorkerProcess, report: control.Report) -> None:
        """Record it."""
        self.reports.append((worker.index, report))

    def on_begun(self, worker: WorkerProcess) -> None:
        """Record it."""
        self.begun.append(worker.index)

    def on_published(self, worker: WorkerProcess, published: Published) -> None:
        """Record it."""
        self.published.append((worker.index, published))

    def on_worker_lost(self, worker: WorkerProcess, cause: str) -> None:
        """Record it."""
        self.lost.append((worker, cause))


class FleetHarness:
    """A fleet of fake workers, its owner, and how busy each worker is said to be."""

    def __init__(self, start: StartProcess | None = None) -> None:
        self.owner = Owner()
        self.loads: dict[WorkerId, tuple[int, int]] = {}
        self.fleet = Fleet(configuration, lambda index: self.loads.get(index, (0, 0)), start or self.start_process)
        self.fleet.owner = self.owner
        self.workers: list[FakeWorker] = []

    def start_process(self, descriptor: int) -> subprocess.Popen[bytes]:
        """Start a fake worker in place of a process."""
        worker = FakeWorker(descriptor)
        self.workers.append(worker)
        return cast("subprocess.Popen[bytes]", worker)

    async def spawned(self, index: WorkerId, *, is_ready: bool = True) -> FakeWorker:
        """A worker that has begun and, unless told otherwise, is ready."""
        await self.fleet.spawn(index)
        worker = self.workers[-1]
        worker.begin()
        if is_ready:
            worker.report(control.Ready(worker.pid))
            await until(lambda: self.fleet.get(index) is not None)
        return worker


async def ended(harness: FleetHarness) -> None:
    """End the workers that still run, and the fleet with them."""
    for worker in harness.workers:
        worker.close()
    async with asyncio.timeout(60):
        await harness.fleet.retire(DRAIN, 5)
