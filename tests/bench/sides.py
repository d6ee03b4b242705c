"""The two sides of a comparison: our engine and go-ethereum's p2p server, each with a load of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import msgspec

from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.rlpx.handshake import Initiator
from tests.bench.profiles import profiled
from tests.bench.reckoning import cpu_nanoseconds, pin, resident_bytes
from tests.interop.clients import go_program, write_chain_file
from tests.system.cluster_fleet import Nats
from tests.system.harness import IMPORT_PATH, ROOT, JsonProgram, RunningEngine, working_folder

# The measured side has one core to itself, everything else another; on a machine with one core they share it.
_CORES: Final = sorted(os.sched_getaffinity(0))
LOAD_CORE: Final = _CORES[0]
SERVER_CORE: Final = _CORES[1 % len(_CORES)]
MODULE: Final = Path(__file__).resolve().parent / "geth"
# The longest order is a paced load; on a slow machine thousands of handshakes take a minute.
ORDER_SECONDS: Final = 300.0
ORDER_STEP_SECONDS: Final = 0.01
# Work that follows the load's last answer: reports to the engine process, batches, and ends of goroutines.
SETTLE_SECONDS: Final = 0.2
# The limit of peers: none may be refused here, and a process with 20,000 descriptors holds them all.
LIMITS: Final = ("--limits.max-active-inbound", "12000")

# The folder for samples of our processes; without it none are taken.
profile_folder: ContextVar[Path | None] = ContextVar("profile_folder", default=None)


class BenchError(Exception):
    """A part of the bench did not do what it was told."""


class Program(JsonProgram):
    """A program that takes numbered orders and answers each with `done` or `failed`."""

    def __init__(self, command: list[str]) -> None:
        super().__init__(command, ROOT)
        self._orders = 0

    def begin(self, what: str, **arguments: Any) -> int:
        """Give an order; returns its number."""
        self._orders += 1
        self.do(what, id=self._orders, **arguments)
        return self._orders

    def answer(self, order: int) -> dict[str, Any] | None:
        """The answers so far. Raises `BenchError` if the order failed."""
        if failed := self.of("failed", id=order):
            raise BenchError(f"order failed: {failed[0]['error']}")
        if done := self.of("done", id=order):
            return done[0]
        if self.process.poll() is not None:
            raise BenchError(f"{self.process.args!r} has ended with {self.process.returncode}")
        return None

    def order(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Give an order and await its answer. Raises `BenchError`."""
        number, ends_at = self.begin(what, **arguments), monotonic() + ORDER_SECONDS
        while (answer := self.answer(number)) is None:
            if monotonic() > ends_at:
                raise BenchError(f"{what} {arguments}: no answer within {ORDER_SECONDS:g} s")
            sleep(ORDER_STEP_SECONDS)
        return answer


class Side(ABC):
    """A server under a load. `processes` are the processes whose cost counts, by part."""

    def __init__(self, load: Program, processes: dict[str, list[int]]) -> None:
        self.load = load
        self.processes = processes

    def cpu(self) -> dict[str, int]:
        """Nanoseconds used so far, by part."""
        sleep(SETTLE_SECONDS)
        return {part: cpu_nanoseconds(pids) for part, pids in self.processes.items()}

    def resident(self) -> int:
        """Bytes of memory of all parts."""
        return sum(resident_bytes(pids) for pids in self.processes.values())

    @abstractmethod
    def messages(self) -> int:
        """How many messages, perhaps including pings, the server has received on its present sessions."""

    @abstractmethod
    def await_read(self, count: int) -> None:
        """Wait until this many more messages have been counted. Raises `BenchError` if some were lost."""

    @abstractmethod
    def broadcast(self, size: int, count: int) -> None:
        """Send this many messages of one size to every peer."""


class Ours(Side):
    """The engine with workers, and readers of its events."""

    def __init__(self, engine: RunningEngine, load: Program, reader: Program) -> None:
        workers = [worker.pid for worker in engine.workers()]
        super().__init__(load, {"engine": [engine.process.pid], "workers": workers})
        self.engine = engine
        self.reader = reader

    def messages(self) -> int:
        return sum(session["messages_in"] for session in self.engine.call("sessions")["sessions"])

    def await_read(self, count: int) -> None:
        read = self.reader.order("await", count=count)
        if read["count"] != count or read["missed"]:
            raise BenchError(f"of {count} events {read['count']} were read, {read['missed']} are known to be lost")

    def bytes_in(self) -> int:
        """The number of messages that the present sessions have received."""
        return sum(session["bytes_in"] for session in self.engine.call("sessions")["sessions"])

    def sessions(self) -> int:
        """The number of active sessions."""
        return self.engine.counts()[2]

    def loop_lag_ms(self) -> float:
        """The worst loop lag of any worker, in the last second that they reported."""
        return max(worker["loop_lag_ms"] or 0.0 for worker in self.engine.call("status")["workers"])

    def broadcast(self, size: int, count: int) -> None:
        """Use the command `broadcast`."""
        payload = bytes.fromhex(self.load.order("payload", size=size)["payload"].removeprefix("0x"))
        for _ in range(count):
            self.engine.client.call("broadcast", attachment=payload, capability="eth", message="Transactions")


class InFleet(msgspec.Struct, frozen=True):
    """An engine that is a host of a fleet, and the processes of its NATS servers, whose cost is not the engine's."""

    side: Ours
    servers: list[int]


class Geth(Side):
    """go-ethereum's `p2p.Server`."""

    def __init__(self, server: Program, load: Program) -> None:
        super().__init__(load, {"server": [server.process.pid]})
        self.server = server

    def messages(self) -> int:
        return int(self.server.order("counts")["messages"])

    def await_read(self, count: int) -> None:
        """The handler itself counts them."""

    def broadcast(self, size: int, count: int) -> None:
        """Use `p2p.Send`."""
        self.server.order("broadcast", size=size, count=count)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Whatever is started within it runs on one core. Go derives its number of threads from that."""
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        # All our threads, because ZeroMQ may have started some here.
        pin([os.getpid()], LOAD_CORE)


@contextmanager
def ours(*topics: str, workers: int = 1, is_feed: bool = False, flags: tuple[str, ...] = ()) -> Iterator[Ours]:
    """Our engine with this many workers, more `flags`, and one reader of these topics; without topics there is no reader.

    `is_feed`: it reads a feed of the first worker, and no socket of the engine process.
    """
    with ExitStack() as stack:
        chain_file = write_chain_file(_chain(), stack.enter_context(working_folder()) / "bench.toml")
        with on_core(SERVER_CORE):
            engine = stack.enter_context(
                RunningEngine(*LIMITS, *flags, chain=str(chain_file), workers=workers, is_read=False)
            )
        load = stack.enter_context(_load(engine.enode))
        module = "tests.bench.feed_reader" if is_feed else "tests.bench.reader"
        command = [sys.executable, "-P", "-m", module, str(engine.run_dir)]
        with on_core(LOAD_CORE):
            reader = stack.enter_context(Program([*command, *(topics or ["nothing"])]))
        reader.wait("ready")
        side = Ours(engine, load, reader)
        folder = profile_folder.get()
        if folder is not None:
            stack.enter_context(profiled(side.processes, folder))
        yield side


@contextmanager
def in_fleet(*topics: str, servers: int) -> Iterator[InFleet]:
    """Our engine with one worker, as the one host of a fleet on this many NATS servers, which run beside the load."""
    with ExitStack() as stack:
        with on_core(LOAD_CORE):
            nats = stack.enter_context(Nats(servers))
        flags = ("--cluster", nats.url, "--cluster-name", "bench", "--cluster-host", "host")
        side = stack.enter_context(ours(*topics, flags=flags))
        yield InFleet(side, [process.pid for process in nats.processes])


@contextmanager
def geth() -> Iterator[Geth]:
    """go-ethereum's server."""
    with ExitStack() as stack:
        with on_core(SERVER_CORE):
            server = stack.enter_context(Program([go_program(MODULE, "bench-server", "./server")]))
        load = stack.enter_context(_load(server.wait("listening")["enode"]))
        yield Geth(server, load)


@contextmanager
def flooding(side: Ours, kind: str, seconds: float) -> Iterator[None]:
    """One peer that sends one kind of message as fast as it is read."""
    host, port = side.engine.address
    arguments = [host, str(port), side.engine.node_id.hex(), kind, "1", str(seconds)]
    with on_core(LOAD_CORE):
        flood = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.system.flood", *arguments],
            env={**os.environ, "PYTHONPATH": IMPORT_PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        if flood.stdout is None or flood.stdin is None or flood.stdout.readline() != "ready\n":
            raise BenchError(f"the flood of {kind} did not begin")
        flood.stdin.write("\n")
        flood.stdin.flush()
        yield
    finally:
        flood.kill()
        flood.communicate()


def forge_auths(side: Ours, count: int) -> int:
    """Make connections that each send an auth of the right length with a wrong tag; returns the bytes of all of them."""
    sent = 0
    for _ in range(count):
        key = PrivateKey.generate(os.urandom)
        auth = Initiator(key, side.engine.node_id, os.urandom).auth
        forged = auth[:-1] + bytes([auth[-1] ^ 1])
        with socket.create_connection(side.engine.address) as stranger:
            stranger.sendall(forged)
            # Wait until the engine closes.
            stranger.recv(1)
        sent += len(forged)
    return sent


def _load(enode: str) -> Program:
    with on_core(LOAD_CORE):
        return Program([go_program(MODULE, "bench-load", "./load"), enode])


def _chain() -> dict[str, Any]:
    """The chain as the load describes it: geth computed its genesis hash and fork ids."""
    with Program([go_program(MODULE, "bench-load", "./load")]) as load:
        return load.wait("chain")
