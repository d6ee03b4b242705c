"""The subscriber of the bench, a process of its own: `python -m tests.bench.reader RUN_DIR TOPIC`, orders on stdin.

{"do": "await", "count": n}   waits until n events were read since the last such order; says how many were missed
{"do": "delays"}              how long stamped payloads took since the last such order, in milliseconds
"""

from __future__ import annotations

import json
import queue
import struct
import sys
import threading
from time import monotonic, monotonic_ns
from typing import Any, Final, Protocol

from rlpx.engine.client.batch_reader import Gap, Malformed
from rlpx.engine.client.subscriber import Subscriber

# Without an event for this long, no more will come.
SILENCE_SECONDS: Final = 10.0
# The longest time until a subscription holds at all workers, on a machine that is busy with other things.
CONFIRM_SECONDS: Final = 30.0
# The longest time until an order is read while no event comes.
POLL_SECONDS: Final = 0.05
# A stamp is the last 8 bytes of a payload: CLOCK_MONOTONIC of the sender in nanoseconds.
STAMP: Final = struct.Struct(">Q")
# Payloads without a stamp read as any number; a stamp of this run is younger than this.
STAMP_MOST_NANOSECONDS: Final = 60_000_000_000


class Reader:
    """Counts what it reads."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._events = 0
        self._missed = 0
        self._heard_at = monotonic()
        self._delays_ns: list[int] = []

    def read(self) -> None:
        """Take the next batch, if one comes soon."""
        for item in self._subscriber.poll(POLL_SECONDS):
            self._heard_at = monotonic()
            if isinstance(item, Gap):
                self._missed += item.missed
                continue
            if isinstance(item, Malformed):
                raise ValueError(item)  # noqa: TRY004 - the type of the argument is right
            self._events += 1
            if len(item.payload) >= STAMP.size:
                delay = monotonic_ns() - STAMP.unpack_from(item.payload, len(item.payload) - STAMP.size)[0]
                if 0 <= delay <= STAMP_MOST_NANOSECONDS:
                    self._delays_ns.append(delay)

    def carry_out(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order; returns the fields of its answer."""
        if order["do"] == "delays":
            delays, self._delays_ns = sorted(self._delays_ns), []
            shown = {f"p{part}": delays[len(delays) * part // 100] / 1e6 for part in (50, 99)} if delays else {}
            return {"count": len(delays), **shown}
        self._heard_at = monotonic()
        while self._events < order["count"] and monotonic() - self._heard_at < SILENCE_SECONDS:
            self.read()
        answer = {"count": self._events, "missed": self._missed}
        self._events = self._missed = 0
        return answer


def main() -> None:
    """Carry out orders until stdin ends."""
    with Subscriber.of(sys.argv[1], sys.argv[2:]) as subscriber:
        subscriber.confirm(CONFIRM_SECONDS)
        serve(Reader(subscriber))


class Counting(Protocol):
    """A reader that takes orders."""

    def read(self) -> None:
        """Take what comes next, if it comes soon."""

    def carry_out(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order; returns the fields of its answer."""


def serve(reader: Counting) -> None:
    """Carry out orders until stdin ends; read meanwhile."""
    orders: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            orders.put(line)
        orders.put("")

    threading.Thread(target=listen, daemon=True).start()
    _say({"event": "ready"})
    while True:
        reader.read()
        if orders.empty():
            continue
        line = orders.get()
        if not line:
            return
        order = json.loads(line)
        _say({"event": "done", "id": order["id"], **reader.carry_out(order)})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
