"""Two engines that dial each other at once end up with one session, whichever session each of them sees first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Final

import pytest

from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineError
from tests.system.delayed import delayed
from tests.system.harness import RunningEngine, eventually

ROUNDS: Final = 30


def dial(engine: RunningEngine, enode: str) -> None:
    """Dial and await the outcome, whatever it is."""
    with Client.of(engine.run_dir) as client, suppress(EngineError):
        client.call("dial", enode=enode, wait=True)


def active(engine: RunningEngine) -> int:
    """The engine's active sessions, once nothing is pending."""
    pending_in, pending_out, active_in, active_out = engine.counts()
    return -1 if pending_in or pending_out or engine.unauthenticated() else active_in + active_out


@pytest.mark.parametrize("round_trip_seconds", [0.0, 0.08])
def test_two_engines_that_dial_each_other_at_once_have_one_session(round_trip_seconds: float) -> None:
    with RunningEngine(workers=2) as first, RunningEngine(workers=2) as second, ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        logs = [engine.log("session.established", "session.closed") for engine in (first, second)]
        ports = {engine: engine.address[1] for engine in (first, second)}
        if round_trip_seconds:
            ports = {
                engine: stack.enter_context(delayed(engine.address, round_trip_seconds / 2)) for engine in (first, second)
            }
        ways = [
            (one, f"enode://{other.node_id.hex()}@127.0.0.1:{ports[other]}")
            for one, other in ((first, second), (second, first))
        ]
        for number in range(ROUNDS):
            list(pool.map(lambda way: dial(*way), ways))
            eventually(lambda: active(first) == active(second) == 1, f"one session in round {number}")
            first.call("disconnect-all")
            eventually(lambda: active(first) == active(second) == 0, "none is left")
        for log in logs:
            log.wait("session.established", count=ROUNDS)
            assert len(log.read(0.2)) >= 2 * ROUNDS
            assert len(log.of("session.established")) == ROUNDS
