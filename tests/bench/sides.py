"""The two sides of a comparison: our engine and go-ethereum's p2p server, each with a load of its own."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from tests.bench.profiles import profiled
from tests.bench.reckoning import cpu_nanoseconds, pin, resident_bytes
from tests.interop.clients import go_program, write_chain_file
from tests.system.harness import ROOT, SUBSCRIBE_SECONDS, JsonProgram, RunningEngine, working_folder

# What is measured has one core for itself, all else another; on a machine of one core they share it.
_CORES: Final = sorted(os.sched_getaffinity(0))
LOAD_CORE: Final = _CORES[0]
SERVER_CORE: Final = _CORES[1 % len(_CORES)]
MODULE: Final = Path(__file__).resolve().parent / "geth"
# The longest order is a paced load; on a slow machine thousands of handshakes take a minute.
ORDER_SECONDS: Final = 300.0
ORDER_STEP_SECONDS: Final = 0.01
# After the load has its last answer: reports to the engine process, batches, and ends of goroutines.
SETTLE_SECONDS: Final = 0.2
# Of peers at a time; nothing here is to be refused.
LIMITS: Final = ("--limits.max-active-inbound", "20000")

# Where the samples of our processes go; none is taken without it.
profile_folder: ContextVar[Path | None] = ContextVar("profile_folder", default=None)


class BenchError(Exception):
    """A part of the bench did not do what it was told."""


class Program(JsonProgram):
    """A program that takes numbered orders and answers each with `done` or `failed`."""

    def __init__(self, command: list[str]) -> None:
        super().__init__(command, ROOT)
        self._orders = 0

    def begin(self, what: str, **arguments: Any) -> int:
        """Give an order; its number."""
        self._orders += 1
        self.do(what, id=self._orders, **arguments)
        return self._orders

    def answer(self, order: int) -> dict[str, Any] | None:
        """What it has answered so far. Raises `BenchError` where the order failed."""
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
    """A server under a load. `processes` are those whose cost counts, by their part."""

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
        """How many messages, pings perhaps included, the server has had of the sessions that it has now."""

    @abstractmethod
    def await_read(self, count: int) -> None:
        """Until whoever counts the messages has counted so many more. Raises `BenchError` where some were lost."""

    @abstractmethod
    def broadcast(self, size: int, count: int) -> None:
        """So many messages of a size to every peer."""


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

    def sessions(self) -> int:
        """Active ones."""
        return self.engine.counts()[2]

    def loop_lag_ms(self) -> float:
        """The worst of the workers' in the last second that they told of."""
        return max(worker["loop_lag_ms"] or 0.0 for worker in self.engine.call("status")["workers"])

    def broadcast(self, size: int, count: int) -> None:
        """By the command of that name."""
        payload = bytes.fromhex(self.load.order("payload", size=size)["payload"].removeprefix("0x"))
        for _ in range(count):
            self.engine.client.call("broadcast", attachment=payload, capability="eth", message="Transactions")


class Geth(Side):
    """go-ethereum's `p2p.Server`."""

    def __init__(self, server: Program, load: Program) -> None:
        super().__init__(load, {"server": [server.process.pid]})
        self.server = server

    def messages(self) -> int:
        return int(self.server.order("counts")["messages"])

    def await_read(self, count: int) -> None:
        """The handler itself has counted them."""

    def broadcast(self, size: int, count: int) -> None:
        """By `p2p.Send`."""
        self.server.order("broadcast", size=size, count=count)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started here runs on one core, and knows it: Go takes its number of threads from that."""
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        # All our threads: ZeroMQ's may have been started here as well.
        pin([os.getpid()], LOAD_CORE)


@contextmanager
def ours(*topics: str, workers: int = 1) -> Iterator[Ours]:
    """Our engine with so many workers, and one reader of these topics; without any, nobody reads."""
    with ExitStack() as stack:
        chain_file = write_chain_file(_chain(), stack.enter_context(working_folder()) / "bench.toml")
        with on_core(SERVER_CORE):
            engine = stack.enter_context(RunningEngine(*LIMITS, chain=str(chain_file), workers=workers))
        load = stack.enter_context(_load(engine.enode))
        command = [sys.executable, "-P", "-m", "tests.bench.reader", str(engine.run_dir)]
        with on_core(LOAD_CORE):
            reader = stack.enter_context(Program([*command, *(topics or ["nothing"])]))
        reader.wait("ready")
        sleep(SUBSCRIBE_SECONDS)
        side = Ours(engine, load, reader)
        folder = profile_folder.get()
        if folder is not None:
            stack.enter_context(profiled(side.processes, folder))
        yield side


@contextmanager
def geth() -> Iterator[Geth]:
    """go-ethereum's server."""
    with ExitStack() as stack:
        with on_core(SERVER_CORE):
            server = stack.enter_context(Program([go_program(MODULE, "bench-server", "./server")]))
        load = stack.enter_context(_load(server.wait("listening")["enode"]))
        yield Geth(server, load)


def _load(enode: str) -> Program:
    with on_core(LOAD_CORE):
        return Program([go_program(MODULE, "bench-load", "./load"), enode])


def _chain() -> dict[str, Any]:
    """What the load says of the chain: geth computed its genesis hash and fork ids."""
    with Program([go_program(MODULE, "bench-load", "./load")]) as load:
        return load.wait("chain")
