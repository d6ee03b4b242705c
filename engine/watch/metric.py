"""What a metric is, and how one is declared: name, kind, labels, what it counts, and where its figures come from.

Names follow Prometheus' conventions: the prefix, base units at the end, `_total` for counters. Every label has a bounded set
of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, TypeAlias

import msgspec

from rlpx.engine.watch.scrapes import Figures
from rlpx.protocol.bus.metrics import Durations, EngineMetrics, WorkerMetrics

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info"]
# The values of the labels, in their order, and the figure.
Sample: TypeAlias = tuple[tuple[str, ...], float | Durations]
Read: TypeAlias = Callable[[Figures], Iterable[Sample]]

# Names in labels that users and the engine choose are cut to this; peers choose none.
LABEL_CHARACTERS: Final = 64


class Metric(msgspec.Struct, frozen=True):
    """One metric. `name` is that of its family in OpenMetrics, where the samples of counters have `_total` behind it."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str
    unit: str
    read: Read

    @property
    def sample(self) -> str:
        """The name of its samples, as queries use it; of a histogram, that of its buckets."""
        suffix = {"counter": "_total", "histogram": "_bucket", "info": "_info", "gauge": ""}[self.kind]
        return self.name + suffix


# By name, in the order of the exposition.
DECLARED: Final[dict[str, Metric]] = {}


def metric(name: str, kind: Kind, labels: str, text: str) -> Callable[[Read], Read]:
    """Declare the decorated reader as a metric. `labels` are separated by spaces; the unit is at the end of the name."""
    unit = next((unit for unit in ("seconds", "bytes") if name.endswith("_" + unit)), "")

    def declare(read: Read) -> Read:
        DECLARED[name] = Metric(name, kind, tuple(labels.split()), text, unit, read)
        return read

    return declare


def of_engine(read: Callable[[EngineMetrics], Iterable[Sample]]) -> Read:
    """A reader of what the engine itself counts; without an answer of it there is nothing."""

    def wrapped(figures: Figures) -> Iterable[Sample]:
        return () if figures.result is None else read(figures.result.engine)

    return wrapped


def of_workers(read: Callable[[WorkerMetrics], Iterable[tuple[tuple[str, ...], float]]]) -> Read:
    """A reader of each worker, whose process is the first label."""

    def wrapped(figures: Figures) -> Iterator[Sample]:
        for worker in [] if figures.result is None else figures.result.workers:
            for labels, value in read(worker):
                yield (worker_name(worker), *labels), value

    return wrapped


def worker_name(worker: WorkerMetrics) -> str:
    """The value of the label `process` of a worker."""
    return f"worker-{worker.worker}"


def single(figures: Figures, count: int) -> Iterable[Sample]:
    """A counter without labels, of all workers."""
    return [] if figures.result is None else [((), float(count))]


def by_name(counts: dict[str, int]) -> Iterable[Sample]:
    """Counts by their names."""
    return [((cut(name),), float(count)) for name, count in counts.items()]


def cut(text: str) -> str:
    """A name as the value of a label."""
    return text[:LABEL_CHARACTERS]
