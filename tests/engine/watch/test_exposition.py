"""What a scrape shows, read by the library's own strict parser of OpenMetrics, and checked by the rules of promtool."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.engine.watch.declared import METRICS
from rlpx.engine.watch.exposition import rendered
from rlpx.engine.watch.metric import LABEL_CHARACTERS
from rlpx.engine.watch.peer_metrics import OWN_MESSAGES_SHOWN
from rlpx.engine.watch.scrapes import Figures
from rlpx.protocol.bus.metrics import BOUNDS_SECONDS, MessageCounts, ProcessUse, WorkerCounters, added
from tests import metrics_sample
from tests.engine.watch.fake_link import FakeLink, served

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
FIGURES = Figures(
    metrics_sample.METRICS,
    "",
    added(metrics_sample.METRICS.ended, metrics_sample.COUNTERS),
    ProcessUse(4713, 1_700_000_000_000_000, 0.5, 30_000_000, 12, 1024),
    0.004,
)
DOWN = Figures(None, "no engine", WorkerCounters(), FIGURES.watch, 1.5)
replace = msgspec.structs.replace


def families(figures: Figures = FIGURES) -> dict[str, Metric]:
    """A scrape as the strict parser reads it."""
    text = rendered(figures, OPENMETRICS)[0].decode()
    assert text.endswith("# EOF\n")
    return {family.name: family for family in openmetrics.text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]  # the library has no types there


def value(found: dict[str, Metric], sample: str, **labels: str) -> float:
    """The figure of one sample."""
    values = [
        item.value for family in found.values() for item in family.samples if (item.name, item.labels) == (sample, labels)
    ]
    assert len(values) == 1, (sample, labels, values)
    return float(values[0])


def test_every_declared_metric_is_there_with_its_kind_help_unit_and_labels() -> None:
    found = families()
    assert set(found) == set(METRICS)
    for name, metric in METRICS.items():
        family = found[name]
        assert (family.type, family.documentation, family.unit) == (metric.kind, metric.text, metric.unit)
        assert family.samples
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_figures_are_those_of_the_engine_and_of_all_workers() -> None:
    found = families()
    assert value(found, "rlpx_up") == 1
    assert value(found, "rlpx_sessions", phase="active", direction="outbound") == 5
    assert value(found, "rlpx_sessions_limit", phase="active", direction="outbound") == 500
    assert value(found, "rlpx_peer_bytes_total", direction="in") == 1001
    traffic = {"capability": "eth", "version": "69", "message": "Transactions"}
    assert value(found, "rlpx_messages_total", **traffic, direction="in") == 5
    assert value(found, "rlpx_message_bytes_total", **traffic, direction="out") == 200
    assert value(found, "rlpx_process_cpu_seconds_total", process="worker-0") == 12.5
    assert value(found, "rlpx_process_resident_memory_bytes", process="watch") == 30_000_000
    assert value(found, "rlpx_queue_limit_bytes", process="worker-0", queue="progress") == 1000
    assert value(found, "rlpx_handshake_failures_total", direction="outbound", stage="connect", ended_by="network") == 2
    assert value(found, "rlpx_reader_events_missed_total", reader="local") == 3
    assert value(found, "rlpx_fleet_info", fleet="monitors", host="a") == 1
    assert value(found, "rlpx_fleet_places_leased", direction="outbound") == 128
    assert value(found, "rlpx_fleet_claims", state="unsettled") == 1
    assert value(found, "rlpx_fleet_claim_seconds_count") == 2
    assert value(found, "rlpx_queue_bytes", process="engine", queue="fleet_events") == 100
    assert value(found, "rlpx_loop_lag_seconds_count", loop="workers") == 4
    assert value(found, "rlpx_loop_lag_seconds_sum", loop="workers") == pytest.approx(0.121)


def test_an_engine_alone_has_no_metric_of_a_fleet() -> None:
    result = metrics_sample.METRICS
    alone = replace(FIGURES, result=replace(result, engine=replace(result.engine, fleet=None)))
    found = families(alone)
    assert {name for name in METRICS if name not in found} == {name for name in METRICS if name.startswith("rlpx_fleet")}


def test_buckets_of_histograms_are_cumulative_and_end_with_all() -> None:
    stage = {"direction": "inbound", "stage": "auth"}
    [family] = [family for name, family in families().items() if name == "rlpx_handshake_stage_seconds"]
    buckets = [
        item.value for item in family.samples if item.name.endswith("_bucket") and stage.items() <= item.labels.items()
    ]
    assert len(buckets) == len(BOUNDS_SECONDS) + 1
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-1]) == (0, 2)


def test_the_names_follow_the_conventions() -> None:
    """promtool check metrics: suffixes, base units, no type in a name, help, no duplicate."""
    for name, metric in METRICS.items():
        assert name.startswith("rlpx_")
        assert not name.endswith(("_total", "_info", "_count", "_sum", "_bucket")), "the library adds these"
        assert not any(kind in name.split("_") for kind in ("counter", "gauge", "histogram", "summary"))
        assert not any(word in name.split("_") for word in ("ms", "us", "milliseconds", "kb", "mb", "percent", "minutes"))
        assert name == name.lower()
        assert metric.text.endswith(".")
        assert metric.text[0].isupper()
        assert metric.unit in {"", "seconds", "bytes"}
        assert not metric.unit or name.endswith("_" + metric.unit)
        assert len(set(metric.labels)) == len(metric.labels)
        assert not set(metric.labels) & {"le", "quantile", "job", "instance"}
        if metric.kind == "histogram":
            assert metric.unit == "seconds"


def test_an_engine_that_does_not_answer_is_down_and_nothing_is_made_up() -> None:
    found = families(DOWN)
    assert value(found, "rlpx_up") == 0
    assert {sample.labels.get("process") for family in found.values() for sample in family.samples} == {None, "watch"}
    assert set(found) == {
        "rlpx_up",
        "rlpx_scrape_duration_seconds",
        *(name for name in METRICS if name.startswith("rlpx_process_")),
    }


def test_names_of_users_sub_protocols_are_bounded() -> None:
    messages = [MessageCounts(f"own{number % 10}/{number}", str(number), 1, 10, 0, 0) for number in range(1000)]
    total = replace(FIGURES.total, messages=[*messages, MessageCounts("other", "other", 5, 50, 0, 0)])
    found = families(replace(FIGURES, total=total))
    samples = [item for item in found["rlpx_messages"].samples if item.labels["direction"] == "in"]
    assert len(samples) == OWN_MESSAGES_SHOWN + 1
    assert sum(item.value for item in samples) == 1005
    assert (
        value(found, "rlpx_message_bytes_total", capability="other", version="", message="other", direction="in")
        == 10 * (1000 - OWN_MESSAGES_SHOWN) + 50
    )


def test_the_sum_of_further_messages_does_not_go_back_when_a_worker_ends() -> None:
    """The counters of ended workers come first, so the order in which kinds are found changes with a worker's end."""
    kinds = [MessageCounts("wit/0", str(code), code + 1, 0, 0, 0) for code in range(OWN_MESSAGES_SHOWN + 9)]
    shown = [families(replace(FIGURES, total=replace(FIGURES.total, messages=order))) for order in (kinds, kinds[::-1])]
    before, after = (
        {tuple(sorted(item.labels.items())): item.value for item in found["rlpx_messages"].samples} for found in shown
    )
    assert before == after


def test_a_label_is_cut_and_escaped() -> None:
    engine = replace(metrics_sample.METRICS.engine, version='a"b\\c\nd' + "x" * 1000)
    found = families(replace(FIGURES, result=replace(metrics_sample.METRICS, engine=engine)))
    [sample] = found["rlpx_build"].samples
    assert sample.labels["version"] == ('a"b\\c\nd' + "x" * 1000)[:LABEL_CHARACTERS]


def test_a_client_that_knows_no_openmetrics_gets_the_older_format() -> None:
    body, content_type = rendered(FIGURES, "text/plain")
    assert content_type.startswith("text/plain; version=0.0.4")
    found = {family.name for family in text_string_to_metric_families(body.decode())}
    assert "rlpx_messages" in found
    assert "rlpx_handshake_seconds" in found


async def test_a_scrape_over_http() -> None:
    async with served(FakeLink(lambda _: metrics_sample.METRICS)) as client:
        answer = await client.get("/metrics", headers={"Accept": OPENMETRICS})
        assert answer.status == 200
        assert answer.content_type == "application/openmetrics-text"
        assert "rlpx_up 1.0" in await answer.text()


async def test_a_scrape_of_an_engine_that_is_gone_answers_all_the_same() -> None:
    def answer(_: str) -> Any:
        raise EngineUnavailableError("no engine")

    async with served(FakeLink(answer)) as client:
        answer_text = await (await client.get("/metrics", headers={"Accept": OPENMETRICS})).text()
        assert "rlpx_up 0.0" in answer_text


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain; version=1.0.0; escaping=dots", False),
        ("application/openmetrics-text; version=a; escaping=allow-utf-8", True),
        ("application/openmetrics-text; version=1\udcff", True),
        ("application/openmetrics-text; version=" + "1" * 5000, True),
        ("application/openmetrics-text;version=9.9;q=nan", True),
        ("application/openmetrics-text;q=0", False),
        ("Application/OpenMetrics-Text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", True),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", False),
        (",;,;;q=,", False),
    ],
)
def test_any_accept_header_is_answered_in_a_format_that_we_have(accept: str, *, is_openmetrics: bool) -> None:
    body, content_type = rendered(FIGURES, accept)
    if is_openmetrics:
        assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    else:
        assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert body.endswith(b"# EOF\n") is is_openmetrics
    assert b"rlpx_up 1.0" in body
