"""All metrics, by name. The exposition, the table of metrics, the dashboard and the alerts are made from this list."""

from __future__ import annotations

from rlpx.engine.watch import fleet_metrics, peer_metrics, process_metrics, program_metrics
from rlpx.engine.watch.metric import DECLARED, Metric

# Each module declares its metrics when it is imported.
MODULES = (process_metrics, peer_metrics, program_metrics, fleet_metrics)
METRICS: dict[str, Metric] = DECLARED
