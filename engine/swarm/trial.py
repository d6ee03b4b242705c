"""An engine of our own and a swarm against it, to measure what sessions cost on this machine. Loopback only.

The engine has a run directory, a key and a port of its own, and ends with the trial. What it uses is what its own counters
and the kernel say, so the swarm's cost is not in it; but both share the cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from rlpx.engine.client.client import Client
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.process.proc import resident_bytes
from rlpx.engine.process.spawn import end_with_parent
from rlpx.engine.settings.chain import load_chain
from rlpx.engine.swarm.fleet import Lost, SwarmFleet
from rlpx.engine.swarm.summary import Summary
from rlpx.protocol.bus.swarm import Address, Begin, Report, Scenario
from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.rlpx.enode import Enode, parse_enode

# The engine's processes have loaded everything, and reported once.
SETTLE_SECONDS: Final = 2.5
# After this long without a new session, the rest does not come.
STANDSTILL_SECONDS: Final = 30.0
_READY_SECONDS: Final = 120.0
_CALL_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05
# The folder on which Python finds our modules, even in a clone.
_IMPORT_PATH: Final = Path(__file__).parents[3]


class Usage(msgspec.Struct, frozen=True):
    """What the engine has used and seen up to a moment: CPU seconds since the start, resident bytes now, counters."""

    at: float
    engine_cpu: float
    worker_cpu: float
    engine_bytes: int
    worker_bytes: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    lag_ms: float
    active: int


class Costs(msgspec.Struct, frozen=True):
    """What one trial has found. CPU is that of the engine process and of all workers together, in seconds.

    `establish`: from the first connect until the last session is active. `hold`: afterwards, in a window of some seconds.
    """

    peers: int
    workers: int
    established: int
    establish_seconds: float
    establish_engine_cpu: float
    establish_worker_cpu: float
    base_bytes: int
    session_bytes: float
    hold_seconds: float
    hold_engine_cpu: float
    hold_worker_cpu: float
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    worst_lag_ms: float
    ends: dict[str, int]


class Trial:
    """See the module. `reads` are the topics that one program reads meanwhile."""

    def __init__(self, workers: int, peers: int, *, reads: tuple[str, ...] = ()) -> None:
        self._workers = workers
        self._peers = peers
        self._reads = reads
        self._folder = tempfile.TemporaryDirectory(prefix="rlpx-trial-")
        self._process: subprocess.Popen[str] | None = None
        self._client: Client | None = None
        self._subscriber: Subscriber | None = None
        self._worst_lag_ms = 0.0

    def __enter__(self) -> Self:
        """Start the engine. Raises `ConfigError` if it does not become ready."""
        run_dir = Path(self._folder.name)
        room = str(self._peers + self._peers // 10 + 10)
        command = [sys.executable, "-P", "-m", "rlpx.engine", "--chain", "dev", "--workers", str(self._workers)]
        command += ["--run-dir", str(run_dir), "--node-key", str(run_dir / "key"), "--listen", "127.0.0.1:0"]
        command += ["--limits.max-active-inbound", room, "--limits.max-pending-inbound", "2000"]
        command += ["--limits.max-unauthenticated", "4000", "--log.level", "warning"]
        # The swarm shares the cores, so its peers may be slow; that is not what is measured.
        command += ["--timeouts.auth-s", "30", "--timeouts.pending-inbound-s", "60"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RLPX_ENGINE_")}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                env={**environment, "PYTHONPATH": str(_IMPORT_PATH)},
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - no thread of ours runs yet
            )
            self._enode = self._ready()
            self._client = Client.of(run_dir, timeout_seconds=_CALL_SECONDS)
            if self._reads:
                self._subscriber = Subscriber.of(run_dir, list(self._reads))
                self._subscriber.confirm(_CALL_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the engine."""
        for opened in (self._subscriber, self._client):
            if opened is not None:
                opened.close()
        if self._process is not None:
            # Its sessions have ended; nobody waits for its goodbyes.
            self._process.terminate()
            try:
                self._process.wait(_READY_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._folder.cleanup()

    def run(self, scenario: Scenario, hold_seconds: float, tell: Callable[[str], None]) -> Costs:
        """Connect all peers, wait until no more come, then measure for a while. Raises `ConfigError`."""
        self._wait(SETTLE_SECONDS)
        base = self.usage()
        fleet, summary = SwarmFleet(), Summary()
        try:
            address = self._enode.endpoints[0]
            begin = Begin(scenario, 1, 0, load_chain("dev"), self._enode.id, Address(address.host, address.port))
            fleet.spawn(begin)
            fleet.await_ready(lambda: True)
            before = self.usage()
            starts_at = fleet.go()
            up = self._establish(fleet, summary, scenario, starts_at, tell)
            self._watch(fleet, summary, SETTLE_SECONDS)
            held = self.usage()
            self._watch(fleet, summary, hold_seconds)
            after = self.usage()
            fleet.leave()
            self._finish(fleet, summary)
        finally:
            fleet.close()
        sessions = max(1, after.active)
        return Costs(
            peers=scenario.peers,
            workers=self._workers,
            established=held.active,
            establish_seconds=up.at - starts_at,
            establish_engine_cpu=up.engine_cpu - before.engine_cpu,
            establish_worker_cpu=up.worker_cpu - before.worker_cpu,
            base_bytes=base.engine_bytes + base.worker_bytes,
            session_bytes=(after.engine_bytes + after.worker_bytes - base.engine_bytes - base.worker_bytes) / sessions,
            hold_seconds=after.at - held.at,
            hold_engine_cpu=after.engine_cpu - held.engine_cpu,
            hold_worker_cpu=after.worker_cpu - held.worker_cpu,
            messages_in=after.messages_in - held.messages_in,
            messages_out=after.messages_out - held.messages_out,
            bytes_in=after.bytes_in - held.bytes_in,
            bytes_out=after.bytes_out - held.bytes_out,
            worst_lag_ms=self._worst_lag_ms,
            ends=dict(summary.ends),
        )

    def usage(self) -> Usage:
        """What the engine has used so far."""
        metrics = self._call("metrics")
        workers = metrics["workers"]
        counters = [worker["counters"] for worker in workers]
        pids = [worker["process"]["pid"] for worker in workers]
        counts = self._call("counts")["active"]
        lag = max((worker["loop_lag_ms"] for worker in workers), default=0.0)
        self._worst_lag_ms = max(self._worst_lag_ms, lag)
        return Usage(
            at=monotonic(),
            engine_cpu=metrics["engine"]["process"]["cpu_seconds"],
            worker_cpu=sum(worker["process"]["cpu_seconds"] for worker in workers),
            engine_bytes=resident_bytes(metrics["engine"]["process"]["pid"]),
            worker_bytes=sum(map(resident_bytes, pids)),
            messages_in=sum(kind["messages_in"] for counter in counters for kind in counter["messages"]),
            messages_out=sum(kind["messages_out"] for counter in counters for kind in counter["messages"]),
            bytes_in=sum(counter["bytes_in"] for counter in counters),
            bytes_out=sum(counter["bytes_out"] for counter in counters),
            lag_ms=lag,
            active=counts["inbound"] + counts["outbound"],
        )

    def _ready(self) -> Enode:
        """The enode in the engine's ready line."""
        out = self._process.stdout if self._process is not None else None
        words = out.readline().split() if out is not None else []
        if not words:
            raise ConfigError("the engine of the trial did not start: see its message", os.EX_SOFTWARE)
        return parse_enode(words[1])

    def _call(self, method: str) -> Any:  # noqa: ANN401 - JSON
        assert self._client is not None  # noqa: S101 - the engine runs
        return self._client.call(method)

    def _establish(
        self, fleet: SwarmFleet, summary: Summary, scenario: Scenario, starts_at: float, tell: Callable[[str], None]
    ) -> Usage:
        """Wait until all sessions are active, no more come, or the scenario's time is up."""
        best, told_at = self.usage(), starts_at
        while True:
            self._take(fleet, summary)
            now = monotonic()
            if now - told_at < 1.0:
                continue
            told_at, used = now, self.usage()
            tell(f"{used.active} of {scenario.peers} sessions after {now - starts_at:.0f} s")
            if used.active > best.active:
                best = used
            is_over = now - best.at > STANDSTILL_SECONDS or now - starts_at > scenario.seconds
            if used.active >= scenario.peers or is_over:
                return best

    def _watch(self, fleet: SwarmFleet, summary: Summary, seconds: float) -> None:
        ends_at, asked_at = monotonic() + seconds, monotonic()
        while (now := monotonic()) < ends_at:
            self._take(fleet, summary)
            if now - asked_at >= 1.0:
                asked_at = now
                self.usage()

    def _finish(self, fleet: SwarmFleet, summary: Summary) -> None:
        ends_at = monotonic() + _CALL_SECONDS
        while not fleet.is_over and monotonic() < ends_at:
            self._take(fleet, summary)
        fleet.give_up()

    def _take(self, fleet: SwarmFleet, summary: Summary) -> None:
        for news in fleet.poll(_POLL_SECONDS):
            if isinstance(news, Report):
                summary.add(news)
            elif isinstance(news, Lost) and not fleet.is_leaving:
                raise ConfigError(f"process {news.process} of the swarm {news.cause}", os.EX_SOFTWARE)
        self._read()

    def _wait(self, seconds: float) -> None:
        ends_at = monotonic() + seconds
        while monotonic() < ends_at:
            self._read()
            sleep(_POLL_SECONDS)

    def _read(self) -> None:
        """Read what has come for the program that reads, so that its queue never fills."""
        while self._subscriber is not None and self._subscriber.poll(0.0):
            pass
