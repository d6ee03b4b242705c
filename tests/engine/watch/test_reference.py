"""What is made from the declared metrics is as they are now, is valid, and names nothing that does not exist."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest

from rlpx.engine.watch import reference
from rlpx.engine.watch.alerts import RULES
from rlpx.engine.watch.dashboard import COLUMNS, ROWS, dashboard
from rlpx.engine.watch.declared import METRICS
from rlpx.engine.watch.metric import Metric

ROOT: Final = Path(__file__).resolve().parents[3]
# All that is no name of a metric or label in a query.
WORDS: Final = frozenset(
    [
        "sum",
        "by",
        "rate",
        "increase",
        "histogram_quantile",
        "absent",
        "min_over_time",
        "max_over_time",
        "time",
        "and",
        "or",
        "on",
        "ignoring",
        "label_values",
    ]
)
EXPRESSIONS: Final = [query.expression for row in ROWS.values() for panel in row for query in panel.queries]
CONDITIONS: Final = [rule.expression for rule in RULES]


def metric_of(sample: str) -> Metric:
    """The metric to which a sample belongs."""
    for metric in METRICS.values():
        if sample == metric.sample or (
            metric.kind == "histogram" and sample in (metric.name + "_count", metric.name + "_sum")
        ):
            return metric
    raise AssertionError(f"no metric has samples named {sample}")


def check(expression: str) -> set[str]:
    """Insist that an expression is well formed and names only what exists; returns its metrics."""
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)
    bare = re.sub(r'"[^"]*"', '""', expression)
    used = set()
    for sample, labels in re.findall(r"(rlpx_\w+)(?:\{([^}]*)\})?", bare):
        metric = metric_of(sample)
        used.add(metric.name)
        for label in re.findall(r"(\w+)\s*=~?", labels):
            assert label in {*metric.labels, "instance"}, (sample, label)
    allowed = {"instance", "le"} | {label for name in used for label in METRICS[name].labels}
    for labels in re.findall(r"(?:by|on) \(([^)]*)\)", bare):
        assert set(labels.split(", ")) <= allowed
    rest = re.sub(r"rlpx_\w+(\{[^}]*\})?|\[[^\]]*\]|(?:by|on) \([^)]*\)|\d+(\.\d+)?", " ", bare)
    assert set(re.findall(r"[a-z_]+", rest)) <= WORDS, rest
    # Every rate is of a counter or a histogram, and has a window; nothing else has one.
    for function, sample in re.findall(r"(rate|increase)\((rlpx_\w+)", bare):
        assert metric_of(sample).kind in {"counter", "histogram"}, (function, sample)
    return used


@pytest.mark.parametrize("path", reference.files())
def test_the_files_are_as_the_metrics_are_declared_now(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == reference.files()[path]


def test_the_files_are_renewed_in_a_folder(tmp_path: Path) -> None:
    reference.main(str(tmp_path))
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()} == set(reference.files())


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_panel_names_only_what_exists(expression: str) -> None:
    assert check(expression)
    assert 'instance=~"$instance"' in expression


@pytest.mark.parametrize("expression", CONDITIONS)
def test_an_alert_names_only_what_exists(expression: str) -> None:
    assert check(expression)


def test_the_check_itself() -> None:
    for wrong in (
        "rlpx_nothing",
        'rlpx_up{direction="in"}',
        "sum by (instance, nothing) (rlpx_readers)",
        "rate(rlpx_up[1m])",
        "sum by (instance) (rlpx_readers",
        "rtae(rlpx_commands_total[1m])",
    ):
        with pytest.raises(AssertionError):
            check(wrong)


def test_every_metric_is_on_the_dashboard_but_those_of_names() -> None:
    shown = set().union(*map(check, EXPRESSIONS))
    assert set(METRICS) - shown == {"rlpx_build", "rlpx_fleet"}


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    found = json.loads(json.dumps(dashboard()))
    panels = found["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS and place["w"] > 0 < place["h"] for place in places)
    for one, other in combinations(places, 2):
        assert not overlap(one, other)
    charts = [panel for panel in panels if panel["type"] != "row"]
    assert len({panel["title"] for panel in charts}) == len(charts)
    for panel in charts:
        assert (panel["type"], bool(panel["description"]), bool(panel["targets"])) == ("timeseries", True, True)
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
    assert found["__inputs"][0]["name"] == "DS_PROMETHEUS"
    assert [variable["name"] for variable in found["templating"]["list"]] == ["instance"]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    """Whether two panels cover each other."""
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


def test_the_rules_are_ones_that_prometheus_takes() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert re.fullmatch(r"Rlpx[A-Za-z]+", rule.name)
        assert re.fullmatch(r"\d+[smh]", rule.lasts)
        assert rule.description.endswith((".", "?"))
        # A label that an annotation names is one of the expression's result.
        named = set(re.findall(r"\$labels\.(\w+)", rule.description)) - {"instance"}
        grouped = re.findall(r"by \(([^)]*)\)", rule.expression)
        labels: Any = (
            set.intersection(*(set(group.split(", ")) for group in grouped))
            if grouped
            else {label for name in check(rule.expression) for label in METRICS[name].labels}
        )
        assert named <= labels, rule.name


def test_the_rules_are_yaml_of_the_form_that_prometheus_reads() -> None:
    lines = reference.files()["conf/grafana/alerts.yml"].splitlines()
    assert lines[1:4] == ["groups:", "  - name: rlpx-engine", "    rules:"]
    keys = [line.split(":")[0].strip(" -") for line in lines[4:]]
    assert keys == ["alert", "expr", "for", "labels", "severity", "annotations", "summary", "description"] * len(RULES)
    for line in lines[4:]:
        assert "\t" not in line
        value = line.partition(": ")[2]
        if value.startswith('"'):
            assert json.loads(value)
