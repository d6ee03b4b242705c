"""Messages and bytes per second by kind and direction, and the CPU of each process, from counters that only grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from rlpx.engine.overview.counters import Rates

POINTS_KEPT: Final = 60
# The messages of eth and snap are about 50. Users add sub-protocols of up to 128 messages each.
MAX_KINDS: Final = 256

Way = Literal["in", "out"]
WAYS: Final[tuple[Way, ...]] = ("in", "out")


class Kind(msgspec.Struct, frozen=True):
    """A kind of message: `eth` `Transactions`, from a peer (`in`) or from us (`out`)."""

    capability: str
    message: str
    way: Way


class Counters(msgspec.Struct, frozen=True):
    """A reading of an engine's counters: messages and payload bytes by kind, and CPU seconds by process id."""

    messages: dict[Kind, float]
    message_bytes: dict[Kind, float]
    cpu_seconds: dict[int, float]


class KindRow(msgspec.Struct, frozen=True):
    """The rates of one message, both ways, and the sum of both over the last minute, by the second."""

    capability: str
    message: str
    in_per_s: float
    out_per_s: float
    bytes_in_per_s: float
    bytes_out_per_s: float
    points: list[float]


class Traffic:
    """See the module."""

    def __init__(self) -> None:
        self._messages: Rates[Kind] = Rates()
        self._bytes: Rates[Kind] = Rates()
        self._cpu: Rates[int] = Rates()
        self._points: dict[tuple[str, str], deque[float]] = {}

    @property
    def is_known(self) -> bool:
        """Whether there are rates: after the second reading."""
        return self._messages.is_known

    def take(self, counters: Counters, *, now: float) -> None:
        """Add a reading."""
        kinds = dict(list(counters.messages.items())[:MAX_KINDS])
        self._messages.add(kinds, now=now)
        self._bytes.add({kind: counters.message_bytes.get(kind, 0) for kind in kinds}, now=now)
        self._cpu.add(counters.cpu_seconds, now=now)
        if not self.is_known:
            return
        sums: dict[tuple[str, str], float] = {}
        for kind, rate in self._messages.per_second().items():
            name = (kind.capability, kind.message)
            sums[name] = sums.get(name, 0.0) + rate
        for gone in self._points.keys() - sums.keys():
            del self._points[gone]
        for name, rate in sums.items():
            self._points.setdefault(name, deque(maxlen=POINTS_KEPT)).append(rate)

    def clear(self) -> None:
        """Forget all readings: the engine was started again."""
        for rates in (self._messages, self._bytes):
            rates.clear()
        self._cpu.clear()
        self._points.clear()

    def totals(self) -> dict[str, float | None]:
        """The sums of all kinds per second; `None` before the second reading."""
        if not self.is_known:
            return dict.fromkeys(("messages_in", "messages_out", "bytes_in", "bytes_out"))
        messages, sizes = self._messages.per_second(), self._bytes.per_second()
        return {
            "messages_in": sum(rate for kind, rate in messages.items() if kind.way == "in"),
            "messages_out": sum(rate for kind, rate in messages.items() if kind.way == "out"),
            "bytes_in": sum(rate for kind, rate in sizes.items() if kind.way == "in"),
            "bytes_out": sum(rate for kind, rate in sizes.items() if kind.way == "out"),
        }

    def kinds(self) -> list[KindRow]:
        """All messages of the last minute, the most frequent first."""
        messages, sizes = self._messages.per_second(), self._bytes.per_second()
        rows = []
        for (capability, message), points in self._points.items():
            if not any(points):
                continue
            inward, outward = Kind(capability, message, "in"), Kind(capability, message, "out")
            rows.append(
                KindRow(
                    capability=capability,
                    message=message,
                    in_per_s=messages.get(inward, 0.0),
                    out_per_s=messages.get(outward, 0.0),
                    bytes_in_per_s=sizes.get(inward, 0.0),
                    bytes_out_per_s=sizes.get(outward, 0.0),
                    points=list(points),
                )
            )
        return sorted(rows, key=lambda row: (-(row.in_per_s + row.out_per_s), row.capability, row.message))

    def cpu_shares(self) -> dict[int, float]:
        """The share of a core that each process uses, by its process id."""
        return self._cpu.per_second()


def counters_of(metrics: Mapping[str, Any]) -> Counters:
    """The counters in an answer to `metrics`: those of all workers, and of all that have ended, over all versions."""
    messages: dict[Kind, float] = {}
    sizes: dict[Kind, float] = {}
    for counters in (metrics["ended"], *(worker["counters"] for worker in metrics["workers"])):
        for row in counters["messages"]:
            capability = row["capability"].partition("/")[0]
            for way in WAYS:
                kind = Kind(capability, row["message"], way)
                messages[kind] = messages.get(kind, 0) + row[f"messages_{way}"]
                sizes[kind] = sizes.get(kind, 0) + row[f"bytes_{way}"]
    processes = [item["process"] for item in (metrics["engine"], *metrics["workers"])]
    return Counters(messages, sizes, {process["pid"]: process["cpu_seconds"] for process in processes})
