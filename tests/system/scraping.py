"""rlpx-watch beside a real engine, as monitoring sees it: its answers and its metrics."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.openmetrics import parser as openmetrics

from rlpx.engine.watch.declared import METRICS
from tests.system.harness import PATIENCE_SECONDS, RunningEngine, eventually

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def get(address: str, path: str, **headers: str) -> tuple[int, str]:
    """The status and the text of an answer."""
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - loopback
            found = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            found = error.code, error.read().decode()
    return found


def scrape(address: str) -> dict[str, float]:
    """The samples of a scrape, by name and labels as they are written."""
    status, text = get(address, "/metrics", Accept=OPENMETRICS)
    assert status == 200
    return {
        sample.name + str(sorted(sample.labels.items())): float(sample.value)
        for family in openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # no types there
        for sample in family.samples
    }


def serving(engine: RunningEngine, but: int | None = None) -> dict[str, Any]:
    """What `status` says of rlpx-watch once it serves, in another process than `but`."""

    def found() -> dict[str, Any] | None:
        state: dict[str, Any] = engine.call("status")["watch"]
        return state if state["up"] and state["pid"] != but else None

    state: dict[str, Any] = eventually(found, "rlpx-watch serves")
    return state


@contextmanager
def watched(*flags: str) -> Iterator[tuple[RunningEngine, str]]:
    """An engine with rlpx-watch beside it, and the latter's address."""
    with RunningEngine("--watch", "127.0.0.1:0", *flags) as engine:
        yield engine, serving(engine)["address"]


class Scrapes:
    """Two scrapes, and which metrics have moved between them. Samples are found by the beginning of their labels' text."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.first = scrape(address)
        self.moved: set[str] = set()

    def total(self, found: dict[str, float], name: str, labels: dict[str, str]) -> float:
        wanted = [str(pair) for pair in labels.items()]
        sample = (
            METRICS[name].name
            + {"counter": "_total", "histogram": "_count", "gauge": "", "info": "_info"}[METRICS[name].kind]
        )
        return sum(
            value for key, value in found.items() if key.partition("[")[0] == sample and all(pair in key for pair in wanted)
        )

    def await_move(self, name: str, again: Callable[[], None] = lambda: None, **labels: str) -> None:
        """Scrape until the metric is higher than in the first scrape, and make the thing happen again before each scrape."""

        def is_higher(old: float, new: float) -> bool:
            again()
            return new > old

        self.await_that(name, is_higher, labels)

    def await_that(self, name: str, is_right: Callable[[float, float], bool], labels: dict[str, str]) -> None:
        """Scrape until the metric has moved as it should."""
        old = self.total(self.first, name, labels)
        eventually(
            lambda: is_right(old, self.total(scrape(self._address), name, labels)), f"{name} {labels} moves from {old}"
        )
        self.moved.add(name)
