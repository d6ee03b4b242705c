"""A seeded run of everything that may happen to an engine at once, with checks of its invariants during and after it.

    bin/nemesis --minutes 10 --seed 7

In each round, some loads run beside one fault (`nemesis_loads.py`); then the invariants are checked. The seed gives the
same schedule again, though not the same interleaving. The first broken invariant ends the run: it is printed with the seed
and the steps that led to it.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, Self

import psutil

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.subscriber import Subscriber
from rlpx.protocol.lifecycle import Stage
from tests.reader_model import ReaderModel
from tests.system.harness import PATIENCE_SECONDS, RunningEngine, eventually, working_folder
from tests.system.nemesis_loads import CHAIN, EXPECTED, FAULTS, LOADS, SETTINGS, Field
from tests.system.raw import RawConnection

WORKERS: Final = 2
# The number of steps that are kept and printed after a failure.
TRACE_LINES: Final = 60
# The messages of floods are not among them: a reader in Python would lag, and lose events that it needs here.
TOPICS: Final = ["session.", "dial.", "worker.", "engine.", "peer."]
# Honest peers whose pings are timed, and how often: below the second at which pongs would wait.
WITNESSES: Final = 3
WITNESS_SECONDS: Final = 1.2
# The time that an honest peer's ping may take, at the 99th percentile, while no process is stopped on purpose: the machine
# may also be busy with other things.
PING_SECONDS: Final = 3.0
# For this long after a worker was killed, stopped or short of descriptors, slow pings are not held against the engine.
FAULT_SECONDS: Final = 2.0
# The growth allowed to each process since the start: the part of its peak that an allocator keeps.
ENGINE_GROWTH_BYTES: Final = 128 * 1024 * 1024
WORKER_GROWTH_BYTES: Final = 128 * 1024 * 1024
# Sockets that are in the middle of something when they are counted.
SPARE_DESCRIPTORS: Final = 4


class BrokenInvariantError(Exception):
    """An invariant did not hold; the text has the seed, the difference, and the steps that led to it."""


class Watch:
    """A reader of all events with its model, and honest peers that time their pings, each in a thread of its own."""

    def __init__(self, engine: RunningEngine) -> None:
        self._engine = engine
        self._stops = threading.Event()
        self._leaves = threading.Event()
        self.model = ReaderModel()
        self._model_lock = threading.Lock()
        self.failures: list[str] = []
        # The time at which each ping was sent, and the time that it took.
        self.pings: list[tuple[float, float]] = []
        self._subscriber = Subscriber.of(engine.run_dir, TOPICS)
        self.model.take(self._subscriber.confirm(PATIENCE_SECONDS))
        self._reader = threading.Thread(target=self._read)
        self._witnesses = [threading.Thread(target=self._witness) for _ in range(WITNESSES)]

    def __enter__(self) -> Self:
        for thread in (self._reader, *self._witnesses):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()
        self._stops.set()
        self._reader.join(PATIENCE_SECONDS)
        self._subscriber.close()

    def dismiss(self) -> None:
        """The honest peers leave."""
        self._leaves.set()
        for thread in self._witnesses:
            thread.join(PATIENCE_SECONDS)

    def differences(self, sessions: list[dict[str, Any]]) -> list[str]:
        """The differences between the table made from events and the engine's answer."""
        with self._model_lock:
            return self.model.differences(sessions)

    def _read(self) -> None:
        try:
            while not self._stops.is_set():
                for item in self._subscriber.poll(0.2):
                    last = item
                    with self._model_lock:
                        self.model.take([item])
        except AssertionError as error:
            self.failures.append(f"{error}; the event: {last}")
        except (EngineUnavailableError, OSError) as error:
            self.failures.append(f"the reader itself failed: {error!r}")

    def _witness(self) -> None:
        while not self._leaves.is_set():
            with suppress(*EXPECTED), RawConnection.to(self._engine.address, self._engine.node_id, CHAIN) as peer:
                peer.reaches(Stage.ACTIVE)
                self._ping(peer)
            sleep(0.3)

    def _ping(self, peer: RawConnection) -> None:
        sent_at: float | None = None
        due = monotonic()
        peer.socket.settimeout(0.1)
        while not self._leaves.is_set():
            now = monotonic()
            if sent_at is None and now >= due:
                peer.says(0x02)
                sent_at, due = now, now + WITNESS_SECONDS
            with suppress(TimeoutError):
                if not peer.reads():
                    return
            for code, _ in peer.heard:
                if code == 0x02:
                    peer.says(0x03)
                elif code == 0x03 and sent_at is not None:
                    self.pings.append((sent_at, monotonic() - sent_at))
                    sent_at = None
            peer.heard.clear()


class Nemesis:
    """One run. `trace` has the last steps."""

    def __init__(self, seed: int, engine: RunningEngine, conf: Path, watch: Watch) -> None:
        self.seed = seed
        self.rounds = 0
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self._random = random.Random(seed)  # noqa: S311 - a schedule that can be had again
        self._engine = engine
        self._conf = conf
        self._watch = watch
        self._began = monotonic()
        self._faults_at: list[tuple[float, float]] = []
        self._base = self._held()

    def run(self, seconds: float, rounds: int = 1) -> None:
        """Run rounds for this long, and so many at least, then end everything. Raises `BrokenInvariantError`."""
        ends_at = monotonic() + seconds
        try:
            with ThreadPoolExecutor(len(LOADS)) as pool:
                while monotonic() < ends_at or self.rounds < rounds:
                    self._round(pool)
            self._finish()
        except BrokenInvariantError:
            raise
        except AssertionError as error:
            raise self._broken(str(error)) from error

    def _round(self, pool: ThreadPoolExecutor) -> None:
        self.rounds += 1
        loads = self._random.sample(sorted(LOADS), self._random.randint(1, 4))
        fault = self._random.choice(sorted(FAULTS))
        self._say(f"round {self.rounds}: {', '.join(loads)} beside {fault}")
        fields = [self._field() for _ in loads]
        running = [pool.submit(LOADS[name], field) for name, field in zip(loads, fields, strict=True)]
        started = monotonic()
        with suppress(psutil.NoSuchProcess):
            FAULTS[fault](self._field())
        if fault in {"kill_worker", "pause_worker", "fill_descriptors"}:
            self._faults_at.append((started, monotonic() + FAULT_SECONDS))
        for future in running:
            future.result(4 * PATIENCE_SECONDS)
        self._check()

    def _field(self) -> Field:
        own = random.Random(self._random.random())  # noqa: S311 - as above
        return Field(self._engine, self._conf, own, self._say)

    # -- invariants ------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Check the invariants that hold between rounds, once everything on its way has arrived."""
        if self._watch.failures:
            raise self._broken(f"the model of a reader: {self._watch.failures[0]}")
        if self._engine.process.poll() is not None:
            raise self._broken(f"the engine has ended with {self._engine.process.returncode}")
        self._holds("counts, sessions and workers are the same", self._is_counted)
        self._holds("the events say what the sessions are", self._is_told)
        self._holds("no zombie is left", lambda: not self._zombies())
        if "Traceback" in self._engine.stderr:
            raise self._broken("a traceback is in the log")

    def _is_counted(self) -> str:
        """Nothing if all counts agree, else the difference."""
        counts = self._engine.call("counts")
        listed = self._engine.call("sessions", limit=10_000)["sessions"]
        workers = self._engine.call("status")["workers"]
        active = sum(counts["active"].values())
        shown = sum(item["phase"] == "active" for item in listed), sum(worker["active"] for worker in workers)
        if shown != (active, active):
            return f"{active} active by counts, {shown} by sessions and workers"
        inbound = counts["active"]["inbound"]
        # The present limit ends no session: existing ones may stay, and none may be added.
        above = inbound - counts["limits"]["max_active_inbound"]
        if above > 0:
            sleep(0.2)
            later = self._engine.call("counts")
            is_same = later["limits"] == counts["limits"]
            if is_same and later["active"]["inbound"] > inbound:
                return f"{later['active']['inbound']} active inbound, {counts['limits']['max_active_inbound']} allowed"
        return ""

    def _is_told(self) -> str:
        listed = self._engine.call("sessions", limit=10_000)["sessions"]
        found = self._watch.differences(listed)
        return "; ".join(found[:5])

    def _zombies(self) -> list[int]:
        children = psutil.Process(self._engine.process.pid).children(recursive=True)
        found: list[int] = []
        for child in children:
            with suppress(psutil.NoSuchProcess):
                if child.status() == psutil.STATUS_ZOMBIE:
                    found.append(child.pid)
        return found

    def _finish(self) -> None:
        """Let everybody leave, and check that nothing is left of them."""
        self._say("everybody leaves")
        self._watch.dismiss()
        self._engine.call("disconnect-all")
        self._holds("no session is left", lambda: str(self._engine.call("sessions", limit=10)["sessions"] or ""))
        self._check()
        self._holds("every opened session has its end", lambda: str(self._watch.model.sessions or ""))
        self._holds("no descriptor or memory is left", self._leak)
        model = self._watch.model
        self._say(f"{len(model.ended)} sessions have ended, {model.received} events came, {model.missed} were missed")
        if not model.ended or not self._watch.pings:
            raise self._broken("nothing has happened: the run proves nothing")
        self._check_pings()

    def _leak(self) -> str:
        """The descriptors and memory that are held beyond those at the beginning."""
        for (name, descriptors, memory), (_, base_descriptors, base_memory) in zip(self._held(), self._base, strict=True):
            growth = ENGINE_GROWTH_BYTES if name == "the engine" else WORKER_GROWTH_BYTES
            if descriptors > base_descriptors + SPARE_DESCRIPTORS:
                return f"{name} has {descriptors} descriptors, at first {base_descriptors}"
            if memory > base_memory + growth:
                return f"{name} has {memory >> 20} MiB, at first {base_memory >> 20}"
        return ""

    def _held(self) -> list[tuple[str, int, int]]:
        """The descriptors, and the memory in bytes, of the engine and of each worker."""
        processes = [psutil.Process(self._engine.process.pid), *self._engine.workers()]
        names = ["the engine", *(f"worker {index}" for index in range(len(processes) - 1))]
        return [(name, process.num_fds(), process.memory_info().rss) for name, process in zip(names, processes, strict=True)]

    def _check_pings(self) -> None:
        fair = sorted(
            took for at, took in self._watch.pings if not any(start - took <= at <= end for start, end in self._faults_at)
        )
        if not fair:
            return
        late = fair[len(fair) * 99 // 100]
        self._say(f"{len(fair)} honest pings, median {1000 * fair[len(fair) // 2]:.0f} ms, 99th {1000 * late:.0f} ms")
        if late > PING_SECONDS:
            raise self._broken(f"honest pings take {late:.2f} s at the 99th percentile, {PING_SECONDS:g} are allowed")

    def _holds(self, name: str, difference: Callable[[], object]) -> None:
        """Wait until an invariant holds. `difference` returns what is wrong, or nothing; `False` is wrong as well."""
        found: list[object] = []

        def is_true() -> bool:
            try:
                answer = difference()
            except (EngineError, EngineUnavailableError, psutil.NoSuchProcess) as error:
                answer = str(error)
            found[:] = [answer]
            return answer in {"", True}

        try:
            eventually(is_true, name)
        except AssertionError as error:
            raise self._broken(f"{name}: {found[0] if found else 'no answer'}") from error

    def _say(self, words: str) -> None:
        self.trace.append(f"{monotonic() - self._began:7.1f} s  {words}")

    def _broken(self, words: str) -> BrokenInvariantError:
        led = "\n".join(self.trace)
        return BrokenInvariantError(f"seed {self.seed}, round {self.rounds}: {words}\nwhat led to it:\n{led}")


@contextmanager
def prepared(seed: int) -> Iterator[Nemesis]:
    """An engine with its watch, and the nemesis of this seed."""
    with working_folder() as folder:
        conf = folder / "engine.toml"
        conf.write_text(f"{SETTINGS}[limits]\nmax_active_inbound = 40\nmax_pending_inbound = 30\nmax_active_outbound = 10\n")
        with RunningEngine("--conf", str(conf), workers=WORKERS, is_read=False) as engine, Watch(engine) as watch:
            yield Nemesis(seed, engine, conf, watch)


def main() -> int:
    """Run as a program; returns 0 if all invariants held, 1 if one was broken."""
    arguments = argparse.ArgumentParser(prog="nemesis", description="Everything at once, and what must be true meanwhile.")
    arguments.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    arguments.add_argument("--seed", type=int, default=None, help="the schedule (default: any)")
    given = arguments.parse_args()
    seed = int.from_bytes(os.urandom(4), "big") if given.seed is None else given.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    try:
        with prepared(seed) as nemesis:
            nemesis.run(given.minutes * 60)
    except BrokenInvariantError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    told = "".join(f"{line}\n" for line in list(nemesis.trace)[-2:])
    sys.stdout.write(f"{nemesis.rounds} rounds, all invariants held\n{told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
