"""`/metrics`: the declared metrics as OpenMetrics, or as Prometheus' older text format for a client that asks for that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Final, cast

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from rlpx.engine.watch import declared
from rlpx.engine.watch.keys import SCRAPES
from rlpx.engine.watch.metric import Metric as Declared
from rlpx.engine.watch.scrapes import Figures
from rlpx.protocol.bus.metrics import BOUNDS_SECONDS, Durations

# The formats that are served.
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
TEXT: Final = "text/plain; version=0.0.4"
_WEIGHT: Final = re.compile(r"q=[01](\.[0-9]{0,3})?")
_BOUNDS: Final = (*(f"{bound:g}" for bound in BOUNDS_SECONDS), "+Inf")

routes = web.RouteTableDef()


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Answer with all metrics. If the engine does not answer, `rlpx_up` is 0, and little else is there."""
    figures = await request.app[SCRAPES].figures()
    body, content_type = rendered(figures, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


def rendered(figures: Figures, accept: str) -> tuple[bytes, str]:
    """The metrics in the format that an Accept header asks for, and its content type."""
    # The library answers with whatever version the header asks for, or fails; there is one of each format.
    encode, content_type = choose_encoder(OPENMETRICS if _wants_openmetrics(accept) else TEXT)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures))
    return encode(registry), content_type


def _wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header (RFC 9110, 12.5.1) names OpenMetrics, and not plain text with a larger weight."""
    weights: dict[str, float] = {}
    for item in accept.lower().split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        weight = next((float(part[2:]) for part in parameters if _WEIGHT.fullmatch(part)), 1.0)
        weights[media] = max(weight, weights.get(media, 0.0))
    wanted = weights.get("application/openmetrics-text", 0.0)
    return wanted > 0 and wanted >= weights.get("text/plain", 0.0)


class _Figures(Collector):
    """The metrics of one scrape, for the library."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def describe(self) -> list[Metric]:
        """Nothing: names are checked where they are declared, and collecting twice would cost twice."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families, those without any sample left out."""
        for metric in declared.METRICS.values():
            family = _family(metric, self._figures)
            if family.samples:
                yield family


def _family(metric: Declared, figures: Figures) -> Metric:
    """One metric with its samples."""
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels, unit=metric.unit)
        for labels, durations in metric.read(figures):
            _add(histogram, labels, cast("Durations", durations))
        return histogram
    if metric.kind == "info":
        info = InfoMetricFamily(metric.name, metric.text)
        for labels, _ in metric.read(figures):
            info.add_metric([], dict(zip(metric.labels, labels, strict=True)))
        return info
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(metric.name, metric.text, labels=metric.labels, unit=metric.unit)
    for labels, value in metric.read(figures):
        family.add_metric(labels, cast("float", value))
    return family


def _add(histogram: HistogramMetricFamily, labels: tuple[str, ...], durations: Durations) -> None:
    """Add a histogram; its buckets are cumulative in the exposition."""
    buckets = list(zip(_BOUNDS, map(float, accumulate(durations.counts)), strict=True))
    histogram.add_metric(labels, buckets, durations.sum_seconds)
