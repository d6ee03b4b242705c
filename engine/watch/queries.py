"""Queries of Prometheus, built from declared metrics, so that a name or label that does not exist cannot be written."""

from __future__ import annotations

from collections.abc import Iterable

from rlpx.engine.watch.declared import METRICS
from rlpx.engine.watch.metric import Kind

# Labels that Prometheus adds to every metric: the server that was scraped.
INSTANCE = "instance"


def select(name: str, **labels: str) -> str:
    """The samples of a metric with these values of labels; a value that starts with ~ is a regular expression.

    Raises `KeyError` if there is no such metric, and `ValueError` if it has no such label.
    """
    metric = METRICS[name]
    _check(name, labels)
    matchers = [
        f'{label}=~"{value[1:]}"' if value.startswith("~") else f'{label}="{value}"' for label, value in labels.items()
    ]
    return f"{metric.sample}{{{','.join(matchers)}}}" if matchers else metric.sample


def total(name: str, by: Iterable[str] = (), **labels: str) -> str:
    """The sum of a gauge. Raises as `select` does, and `ValueError` for another kind."""
    _check_kind(name, "gauge")
    return f"{_sum(name, by)} ({select(name, **labels)})"


def rate(name: str, window: str, by: Iterable[str] = (), **labels: str) -> str:
    """What a counter counts per second. Raises as `select` does, and `ValueError` for another kind."""
    _check_kind(name, "counter")
    return f"{_sum(name, by)} (rate({select(name, **labels)}[{window}]))"


def increase(name: str, window: str, by: Iterable[str] = (), **labels: str) -> str:
    """What a counter has counted in a time. Raises as `select` does, and `ValueError` for another kind."""
    _check_kind(name, "counter")
    return f"{_sum(name, by)} (increase({select(name, **labels)}[{window}]))"


def quantile(share: float, name: str, window: str, by: Iterable[str] = (), **labels: str) -> str:
    """The duration that this share does not exceed. Raises as `select` does, and `ValueError` for another kind."""
    _check_kind(name, "histogram")
    return f"histogram_quantile({share:g}, {_sum(name, ('le', *by))} (rate({select(name, **labels)}[{window}])))"


def _sum(name: str, by: Iterable[str]) -> str:
    labels = [INSTANCE, *by]
    _check(name, labels)
    return f"sum by ({', '.join(labels)})"


def _check(name: str, labels: Iterable[str]) -> None:
    """Raises `ValueError` if the metric has not all of these labels."""
    for label in labels:
        if label not in {*METRICS[name].labels, INSTANCE, "le"}:
            raise ValueError(f"{name} has no label {label}")


def _check_kind(name: str, kind: Kind) -> None:
    if METRICS[name].kind != kind:
        raise ValueError(f"{name} is a {METRICS[name].kind}")
