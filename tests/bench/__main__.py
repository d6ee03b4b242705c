"""`bin/bench`: what a session, a frame, a message and an idle peer cost. One table; `--json FILE` keeps the figures.

CPU is user and system time of the engine's whole process tree, from schedstat (nanoseconds; the ticks of `stat` are 10 ms),
never wall time: the machine may be shared. The load comes from another process, so that its own CPU does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, process_time, sleep
from typing import Any, Final

import msgspec
import psutil

from engine.client import Subscriber
from protocol.crypto import PrivateKey
from protocol.frames import MAX_FRAME_BYTES, FrameCipher
from protocol.handshake import Initiator, Responder
from tests.bench.table import show
from tests.interop.clients import geth, write_chain_file
from tests.system.harness import ROOT, RunningEngine, eventually, working_folder

FRAME_SIZES_BYTES: Final = (64, 1024, 64 * 1024)
MESSAGE_SIZES_BYTES: Final = (64, 1024, 16 * 1024, 128 * 1024)
# Bytes of frames per repeat: tens of milliseconds each, so that the clock's grain is nothing.
FRAME_TOTAL_BYTES: Final = 4 * 1024 * 1024
FRAMES_MOST: Final = 10_000
SESSIONS: Final = 300
MESSAGE_TOTAL_BYTES: Final = 8 * 1024 * 1024
MESSAGES_MOST: Final = 20_000
IDLE_SESSIONS: Final = 1000
CHUNK_BYTES: Final = 64 * 1024


class Figure(msgspec.Struct, frozen=True):
    """One row: the median of the repeats, the lowest and the highest."""

    name: str
    unit: str
    median: float
    low: float
    high: float


def figure(name: str, unit: str, values: list[float]) -> Figure:
    """The row of these repeats."""
    return Figure(name, unit, statistics.median(values), min(values), max(values))


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """User and system time of all threads of the processes."""
    total = 0
    for process in processes:
        for file in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            total += int(file.read_text().split()[0])
    return total / 1e9


# -- frames -----------------------------------------------------------------------------------------------------------------


def frames(repeats: int) -> list[Figure]:
    """Sealing and opening in one process, no socket."""
    rows: list[Figure] = []
    for size in FRAME_SIZES_BYTES:
        count = max(20, min(FRAMES_MOST, FRAME_TOTAL_BYTES // size))
        sealed: list[float] = []
        opened: list[float] = []
        for _ in range(repeats):
            sender, receiver = ciphers()
            content = os.urandom(size)
            start = process_time()
            stream = b"".join([sender.seal(content) for _ in range(count)])
            sealed.append((process_time() - start) / count * 1e6)
            chunks = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
            start = process_time()
            found = 0
            for chunk in chunks:
                receiver.feed(chunk)
                found += sum(1 for _ in receiver.frames())
            opened.append((process_time() - start) / count * 1e6)
            assert found == count
        rows.append(figure(f"seal a frame of {size} B", "µs", sealed))
        rows.append(figure(f"open a frame of {size} B", "µs", opened))
        rows.append(figure(f"frames of {size} B opened per second", "1/s", [1e6 / value for value in opened]))
    return rows


def ciphers() -> tuple[FrameCipher, FrameCipher]:
    """Both ends of one connection."""
    ours, theirs = PrivateKey.generate(os.urandom), PrivateKey.generate(os.urandom)
    initiator = Initiator(ours, theirs.id, os.urandom)
    responder = Responder(initiator.auth, theirs, os.urandom)
    pair = FrameCipher(initiator.open_ack(responder.ack)), FrameCipher(responder.secrets)
    for cipher in pair:
        cipher.limit_bytes = MAX_FRAME_BYTES
    return pair


# -- the engine -------------------------------------------------------------------------------------------------------------


class Load:
    """The other process: `tests.bench.load` with its orders on stdin."""

    def __init__(self, enode: str, chain: str = "dev") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.bench.load", enode, chain],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def order(self, *words: object) -> str:
        """Give an order and wait until it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def sessions(repeats: int) -> list[Figure]:
    """Inbound sessions from accept to established, with one subscriber to `session.`."""
    whole: list[float] = []
    share: list[float] = []
    with RunningEngine(workers=1) as engine:
        log = engine.log("session.")
        processes = [psutil.Process(engine.process.pid), *engine.workers()]
        load = Load(engine.enode)
        load.order("sessions", 50)
        for repeat in range(repeats):
            before = [cpu_seconds([process]) for process in processes]
            load.order("sessions", SESSIONS)
            after = [cpu_seconds([process]) for process in processes]
            spent = [(end - start) / SESSIONS * 1e6 for start, end in zip(before, after, strict=True)]
            whole.append(sum(spent))
            share.append(spent[0])
            load.order("leave")
            log.wait("session.closed", count=50 * (repeat == 0) + SESSIONS * (repeat + 1))
        load.close()
    return [
        figure("CPU per inbound session, accept to established", "µs", whole),
        figure("of it the engine process", "µs", share),
    ]


def messages(repeats: int, *, with_subscriber: bool) -> list[Figure]:
    """Inbound messages from the socket, with one subscriber that counts them or with none."""
    rows: list[Figure] = []
    words = "one subscriber" if with_subscriber else "no subscriber"
    with RunningEngine(workers=1) as engine:
        processes = [psutil.Process(engine.process.pid), *engine.workers()]
        subscriber = Subscriber.of(engine.run_dir, ["eth."] if with_subscriber else ["nothing"])
        sleep(0.5)
        load = Load(engine.enode)
        load.order("sessions", 1)
        for size in MESSAGE_SIZES_BYTES:
            count = max(50, min(MESSAGES_MOST, MESSAGE_TOTAL_BYTES // size))
            costs: list[float] = []
            rates: list[float] = []
            for _ in range(repeats):
                seen = int(engine.call("session", session=1)["messages_in"])
                before, start = cpu_seconds(processes), monotonic()
                load.order("messages", count, size)
                if with_subscriber:
                    left = count
                    while left > 0:
                        left -= len(subscriber.poll(30.0))
                    assert left == 0
                else:
                    arrived(engine, seen + count)
                rates.append(count / (monotonic() - start))
                costs.append((cpu_seconds(processes) - before) / count * 1e6)
            rows.append(figure(f"CPU per message of {size} B, {words}", "µs", costs))
            if with_subscriber:
                rows.append(figure(f"events of {size} B per second to one subscriber", "1/s", rates))
        load.close()
        subscriber.close()
    return rows


def arrived(engine: RunningEngine, count: int) -> None:
    """Until the session has had so many messages; asked seldom, as asking costs CPU."""
    while int(engine.call("session", session=1)["messages_in"]) < count:
        sleep(0.2)


def memory(_repeats: int) -> list[Figure]:
    """Resident memory of all processes per idle session."""
    with RunningEngine("--limits.max-active-inbound", "5000", workers=2) as engine:
        processes = [psutil.Process(engine.process.pid), *engine.workers()]
        load = Load(engine.enode)
        load.order("sessions", 20)
        eventually(lambda: engine.counts()[2] == 20, "warm")
        before = sum(process.memory_info().rss for process in processes)
        load.order("sessions", IDLE_SESSIONS)
        eventually(lambda: engine.counts()[2] == IDLE_SESSIONS + 20, "all are active")
        sleep(1.0)
        after = sum(process.memory_info().rss for process in processes)
        load.close()
    return [
        figure(
            f"memory per idle session at {IDLE_SESSIONS}, all processes", "KiB", [(after - before) / IDLE_SESSIONS / 1024]
        )
    ]


def geth_sessions(repeats: int) -> list[Figure]:
    """The same load on go-ethereum's own p2p server with an eth Status: what the figures of `sessions` compare with."""
    costs: list[float] = []
    with working_folder() as folder, geth("-listen", "-max-peers", "100000", "-max-pending", "1000", "-eth", "72") as peer:
        file = write_chain_file(peer.wait("chain"), folder / "interop.toml")
        process = psutil.Process(peer.process.pid)
        load = Load(peer.wait("listening")["enode"], str(file))
        load.order("sessions", 50)
        for _ in range(repeats):
            before = cpu_seconds([process])
            load.order("sessions", SESSIONS)
            costs.append((cpu_seconds([process]) - before) / SESSIONS * 1e6)
            load.order("leave")
            sleep(1.0)
        load.close()
    return [figure("CPU per inbound session of go-ethereum 1.17.10, same load", "µs", costs)]


PARTS: Final[dict[str, Callable[[int], list[Figure]]]] = {
    "frames": frames,
    "sessions": sessions,
    "geth": geth_sessions,
    "messages": lambda repeats: messages(repeats, with_subscriber=True),
    "unread": lambda repeats: messages(repeats, with_subscriber=False),
    "memory": memory,
}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(prog="bench", description=__doc__)
    arguments.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--json", metavar="FILE", help="write the figures there")
    arguments.add_argument("--compare", metavar="FILE", help="show the ratio to earlier figures")
    given = arguments.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        arguments.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    rows = [row for part in given.parts or PARTS for row in PARTS[part](given.repeats)]
    earlier: dict[str, Any] = json.loads(Path(given.compare).read_text()) if given.compare else {"figures": []}
    known = {item["name"]: item["median"] for item in earlier["figures"]}
    table = [["", "median", "lowest", "highest", "unit", *(["to earlier"] if known else [])]]
    for row in rows:
        ratio = [f"{row.median / known[row.name]:.2f}" if row.name in known else "-"] if known else []
        table.append([row.name, f"{row.median:,.1f}", f"{row.low:,.1f}", f"{row.high:,.1f}", row.unit, *ratio])
    sys.stdout.write(show(table))
    sys.stdout.write(f"\n{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores\n")
    if given.json:
        Path(given.json).write_text(json.dumps({"figures": [msgspec.to_builtins(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
