"""The engine at a glance."""

from __future__ import annotations

import os

import msgspec
import orjson

from rlpx.protocol.bus import control
from rlpx.protocol.native import NATIVE
from tests.engine.fake_worker import until
from tests.engine.harness import (
    KEY,
    NOTHING,
    MakeEngine,
)


async def test_status_shows_the_engine_at_a_glance(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await harness.active()
        harness.worker.report(control.Pulse(2, 0.5, 4096, 7, 3))
        await until(lambda: any(worker.pulse for worker in harness.engine.fleet))
        status = await harness.commands.status.status(NOTHING)
        assert (status.version, status.run_dir, status.pid) == ("9.9", str(harness.run_dir.path), os.getpid())
        assert status.enode == f"enode://{KEY.id.hex()}@127.0.0.1:{harness.address[1]}"
        assert status.compiled == (NATIVE is not None)
        assert status.chain.name == "dev"
        [worker] = status.workers
        assert (worker.active, worker.goodbyes, worker.loop_lag_ms, worker.dropped_events) == (1, 2, 0.5, 7)
        assert status.memory_bytes > 1 << 20
        assert orjson.loads(msgspec.json.encode(status))["uptime_ms"] >= 0
