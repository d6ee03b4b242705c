"""The result of a swarm: counts, ends and latencies summed over its processes, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from rlpx.protocol.bus.swarm import Fault, Latencies, Report, percentile

# A process that was busy, or waited for a core, for this share of a second had no time to measure others.
BUSY_SHARE: Final = 0.9
LATE_SECONDS: Final = 0.1
# A process is the bottleneck if that was so in more than this share of its seconds, and in at least two of them.
BUSY_SECONDS_SHARE: Final = 0.1
_BUSY_SECONDS_LEAST: Final = 2
_PERCENTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
_LATENCIES: Final = ("connect", "handshake", "request")
_MIB: Final = 1024 * 1024


class Own(msgspec.Struct):
    """The cost of one process of the swarm."""

    cpu_seconds: float = 0.0
    waiting_seconds: float = 0.0
    seconds: float = 0.0
    lag_seconds: float = 0.0
    memory_bytes: int = 0
    reports: int = 0
    busy_reports: int = 0

    @property
    def is_bottleneck(self) -> bool:
        """Whether its own slowness may have caused its latencies."""
        return self.busy_reports >= max(_BUSY_SECONDS_LEAST, BUSY_SECONDS_SHARE * self.reports)


class Loss(msgspec.Struct, frozen=True):
    """A lost process of the swarm, with the number of its peers and how many were established at its last report."""

    process: int
    cause: str
    peers: int
    established: int


class Summary:
    """Adds up reports and makes the summary."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.latencies: dict[str, Latencies] = {}
        self.expected: Counter[Fault] = Counter()
        self.otherwise: dict[Fault, Counter[str]] = {}
        self.established_now: dict[int, int] = {}
        self.max_established = 0
        self.own: dict[int, Own] = {}
        self.losses: list[Loss] = []

    def add(self, report: Report) -> None:
        """Add a report of one process."""
        self.counts.update(report.counts)
        self.ends.update(report.ends)
        for name, latencies in report.latencies.items():
            kept = self.latencies.setdefault(name, {})
            for bucket, count in latencies.items():
                kept[bucket] = kept.get(bucket, 0) + count
        for fault, ends in report.faults.items():
            self.expected[fault] += ends.expected
            self.otherwise.setdefault(fault, Counter()).update(ends.otherwise)
        self.established_now[report.index] = report.established
        self.max_established = max(self.max_established, self.established)
        self._add_own(report)

    def add_loss(self, process: int, cause: str, peers: int) -> None:
        """Note that a process is lost, with this many peers."""
        established = self.established_now.pop(process, 0)
        self.losses.append(Loss(process, cause, peers, established))
        if established:
            self.ends["lost with its process"] += established

    @property
    def established(self) -> int:
        """The current number of sessions."""
        return sum(self.established_now.values())

    def unexpected(self) -> list[str]:
        """Return the faulty peers that were not treated as expected, as text."""
        return [
            f"{fault.value} {end} {count}" for fault, ends in self.otherwise.items() for end, count in ends.most_common()
        ]

    def bottlenecks(self) -> list[str]:
        """Return a line for each process of the swarm that was too busy to measure the target."""
        return [
            f"the swarm is the bottleneck: process {index} was too busy in {own.busy_reports} of {own.reports} s "
            f"(CPU {own.cpu_seconds / own.seconds:.0%}, waiting for a core {own.waiting_seconds / own.seconds:.0%}, "
            f"its loop up to {own.lag_seconds * 1000:.0f} ms late)"
            for index, own in sorted(self.own.items())
            if own.is_bottleneck
        ]

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Return the summary as a JSON object."""
        return {
            "seconds": round(seconds, 3),
            "sessions": {
                "dials": self.counts["dials"],
                "connected": self.counts["connected"],
                "established": self.counts["established"],
                "most_at_a_time": self.max_established,
            },
            "latencies_ms": {name: self._percentiles(name) for name in _LATENCIES if name in self.latencies},
            "messages": {
                name: self.counts[name]
                for name in ("announcements", "transactions", "announcements_heard", "messages_out", "messages_in")
            },
            "requests": self._requests(),
            "ends": dict(self.ends.most_common()),
            "faults": {fault.value: self._fault(fault) for fault in self._faults()},
            "swarm": {str(index): _own(own) for index, own in sorted(self.own.items())},
            "bottlenecks": self.bottlenecks(),
            "lost": [msgspec.to_builtins(loss) for loss in self.losses],
        }

    def as_text(self, seconds: float) -> str:
        """Return the summary as text."""
        counts = self.counts
        opened = f"{counts['dials']} dials, {counts['connected']} connected, {counts['established']} established"
        lines = [f"{seconds:.1f} s: {opened}, {self.max_established} at a time", ""]
        rows = []
        for name in _LATENCIES:
            if name in self.latencies:
                values = self._percentiles(name)
                rows.append([name, *(f"{values[key]:.1f}" for key, _ in _PERCENTILES), str(values["count"])])
        lines += _table(["latency ms", *(name for name, _ in _PERCENTILES), "count"], rows)
        shown = {name.replace("_", " "): count for name, count in self._requests().items()}
        lines += [
            f"sent          {counts['announcements']} announcements, {counts['transactions']} transactions",
            f"requests      {', '.join(f'{count} {name}' for name, count in shown.items())}",
            "",
        ]
        lines += _table(["end", "visits"], [[end, str(count)] for end, count in self.ends.most_common()])
        rows = []
        for fault in self._faults():
            outcome = self._fault(fault)
            otherwise = ", ".join(f"{end} {count}" for end, count in outcome["otherwise"].items())
            rows.append([fault.value, str(outcome["as_expected"]), str(outcome["undecided"]), otherwise or "-"])
        lines += _table(["fault", "as expected", "undecided", "otherwise"], rows)
        rows = []
        for index, own in sorted(self.own.items()):
            cells = (own.cpu_seconds / own.seconds, own.waiting_seconds / own.seconds)
            late, memory = own.lag_seconds * 1000, own.memory_bytes / _MIB
            rows.append([f"swarm {index}", *(f"{cell:.0%}" for cell in cells), f"{late:.0f}", f"{memory:.0f}"])
        lines += _table(["process", "CPU", "waits for a core", "loop late ms", "MiB"], rows)
        lines += self.bottlenecks()
        lines += [
            f"lost: process {loss.process} {loss.cause}, with {loss.peers} peers, {loss.established} of them established"
            for loss in self.losses
        ]
        return "\n".join(lines).rstrip("\n") + "\n"

    def _percentiles(self, name: str) -> dict[str, float]:
        latencies = self.latencies[name]
        values = {key: round((percentile(latencies, share) or 0.0) * 1000, 3) for key, share in _PERCENTILES}
        return {**values, "count": sum(latencies.values())}

    def _requests(self) -> dict[str, int]:
        names = {"timed_out": "timed_out", "session_ended": "session_ended", "bad_response": "bad_response"}
        shown = {"sent": "sent", "answered": "answered", **names, "held_back": "held", "served": "served"}
        return {name: self.counts[f"requests_{counted}"] for name, counted in shown.items()}

    def _faults(self) -> list[Fault]:
        return [fault for fault in Fault if fault in self.otherwise or self.counts[f"undecided {fault}"]]

    def _fault(self, fault: Fault) -> dict[str, Any]:
        return {
            "as_expected": self.expected[fault],
            "undecided": self.counts[f"undecided {fault}"],
            "otherwise": dict(self.otherwise.get(fault, {})),
        }

    def _add_own(self, report: Report) -> None:
        own = self.own.setdefault(report.index, Own())
        own.cpu_seconds += report.cpu_seconds
        own.waiting_seconds += report.waiting_seconds
        own.seconds += max(report.seconds, 1e-9)
        own.lag_seconds = max(own.lag_seconds, report.lag_seconds)
        own.memory_bytes = max(own.memory_bytes, report.memory_bytes)
        if report.is_last:
            return
        own.reports += 1
        is_busy = report.cpu_seconds + report.waiting_seconds >= BUSY_SHARE * report.seconds
        own.busy_reports += is_busy or report.lag_seconds >= LATE_SECONDS


def _own(own: Own) -> dict[str, float]:
    return {
        "cpu_share": round(own.cpu_seconds / own.seconds, 4),
        "waiting_share": round(own.waiting_seconds / own.seconds, 4),
        "loop_lag_ms": round(own.lag_seconds * 1000, 3),
        "memory_bytes": own.memory_bytes,
        "seconds_busy": own.busy_reports,
    }


def _table(titles: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table and an empty line, or nothing if there are no rows."""
    if not rows:
        return []
    widths = [max(len(row[index]) for row in [titles, *rows]) for index in range(len(titles))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in [titles, *rows]]
    return [*(line.rstrip() for line in lines), ""]
