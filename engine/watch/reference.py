"""Makes what is made from the declared metrics: the table of all metrics, the Grafana dashboard, the alert rules.

`python -m rlpx.engine.watch.reference FOLDER` renews them in this clone; a test fails if they differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rlpx.engine.watch.alerts import RULES, rules_file
from rlpx.engine.watch.dashboard import dashboard
from rlpx.engine.watch.declared import METRICS


def files() -> dict[str, str]:
    """The texts of all files, by their paths in a clone."""
    return {
        "engine/watch/METRICS.md": table(),
        "conf/grafana/dashboard.json": json.dumps(dashboard(), indent=2) + "\n",
        "conf/grafana/alerts.yml": rules_file(),
    }


def table() -> str:
    """The page of all metrics and alerts."""
    suffixes = {"counter": "_total", "info": "_info"}
    metrics = "".join(
        f"| `{metric.name}{suffixes.get(metric.kind, '')}` | {metric.kind} | {_labels(metric.labels)} | {metric.text} |\n"
        for metric in METRICS.values()
    )
    alerts = "".join(
        f"| `{rule.name}` | {rule.severity} | {rule.summary}. | `{_cell(rule.expression)}` |\n" for rule in RULES
    )
    return _PAGE.format(metrics=metrics, alerts=alerts)


def _labels(labels: tuple[str, ...]) -> str:
    return " ".join(f"`{label}`" for label in labels) or "-"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_PAGE = """# Metrics

Made from the declarations by `python -m rlpx.engine.watch.reference .`; do not edit.

Counters begin at 0 with the engine. What workers count is summed over all of them, those that have ended included, so
it does not go back when a worker is replaced; what a worker counted in the last second before it was lost is missing.
`rlpx_process_cpu_seconds_total` begins again with each process, as Prometheus expects of counters. The label
`process` is `engine`, `watch` or `worker-N`. No label has a value that peers choose: clients are counted by family,
messages of your own sub-protocols by number.

| metric | kind | labels | meaning |
|---|---|---|---|
{metrics}
## Alerts

Those of `conf/grafana/alerts.yml`.

| alert | severity | meaning | condition |
|---|---|---|---|
{alerts}"""


def main(folder: str) -> None:
    """Renew all files in this clone."""
    for path, text in files().items():
        file = Path(folder) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
