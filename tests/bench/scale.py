"""The curve of sessions: how fast they come, what they weigh and what they cost at rest, for 1,000 to 100,000 of them.

python -m tests.bench.scale 1000 10000 100000 --json scale.json     measure (the last takes about ten minutes)
python -m tests.bench.scale --from scale.json --svg tests/bench/scale.svg     draw

Loopback only; engine and swarm share the machine. Each size has a fresh engine.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Final

import msgspec

from rlpx.engine.swarm.plot import nice_step
from rlpx.engine.swarm.scenario import load_scenario, scenario_file
from rlpx.engine.swarm.trial import Costs, Trial
from rlpx.protocol.bus.swarm import Scenario

HOLD_SECONDS: Final = 20.0
# A worker has descriptors for this many sessions if a process may have 20,000: some are for programs and the reserve.
SESSIONS_PER_WORKER: Final = 6_250
PEERS_PER_PROCESS: Final = 12_500
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 900, 190, 70, 46, 46
# The room beside the first and the last point, for their labels.
_PAD: Final = 34
_KIB: Final = 1024
_PANELS: Final[tuple[tuple[str, Callable[[Costs], float]], ...]] = (
    ("sessions established per second", lambda cost: cost.established / cost.establish_seconds),
    ("memory per session, KiB", lambda cost: cost.session_bytes / _KIB),
    (
        "CPU of an idle session, µs per second",
        lambda cost: (cost.hold_engine_cpu + cost.hold_worker_cpu) / cost.hold_seconds / max(1, cost.established) * 1e6,
    ),
    ("worst delay of a worker's loop, ms", lambda cost: cost.worst_lag_ms),
)


def measure(peers: int) -> Costs:
    """Hold this many sessions."""
    workers = max(2, math.ceil(peers / SESSIONS_PER_WORKER))
    changes: dict[str, float | int] = {"peers": peers, "processes": max(2, math.ceil(peers / PEERS_PER_PROCESS))}
    scenario: Scenario = load_scenario(scenario_file("hold-100k"), changes)
    with Trial(workers, peers) as trial:
        return trial.run(scenario, HOLD_SECONDS, tell)


def tell(text: str) -> None:
    """Show progress."""
    sys.stderr.write(text + "\n")


def row(cost: Costs) -> str:
    """The figures of one size as a row of a table."""
    figures = " | ".join(f"{value(cost):,.1f}" for _, value in _PANELS)
    memory = (cost.base_bytes + cost.session_bytes * cost.established) / (1 << 20)
    return f"| {cost.established:,} of {cost.peers:,} | {cost.workers} | {figures} | {memory:,.0f} MiB |"


def shown_number(figure: float) -> str:
    """A figure with about three digits."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def svg(costs: list[Costs]) -> str:
    """Four small diagrams over the number of sessions, on a logarithmic axis."""
    width, height = (_WIDTH - 2 * _LEFT - _GAP) // 2, _HEIGHT
    least = math.floor(math.log10(min(cost.established for cost in costs)))
    most = math.ceil(math.log10(max(cost.established for cost in costs)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{2 * (height + _TOP) + 30}"',
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, value) in enumerate(_PANELS):
        left = _LEFT + (number % 2) * (width + _LEFT)
        top = _TOP + (number // 2) * (height + _TOP)
        values = [value(cost) for cost in costs]
        step = nice_step(max(values))
        top_value = step * max(1, math.ceil(max(values) / step))

        def x(sessions: float, left: int = left) -> float:
            inner = width - 2 * _PAD
            return round(left + _PAD + inner * (math.log10(sessions) - least) / max(1, most - least), 1)

        def y(figure: float, top: int = top, top_value: float = top_value) -> float:
            return round(top + (height - 40) * (1 - figure / top_value), 1)

        parts.append(f'<text x="{left}" y="{top - 10}" font-weight="bold">{escape(title)}</text>')
        for tick in range(round(top_value / step) + 1):
            at = y(tick * step)
            parts.append(f'<line x1="{left}" y1="{at}" x2="{left + width}" y2="{at}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 6}" y="{at + 4}" text-anchor="end">{tick * step:g}</text>')
        parts += [
            f'<text x="{x(10**power)}" y="{top + height - 22}" text-anchor="middle">{10**power:,}</text>'
            for power in range(least, most + 1)
        ]
        points = [(x(cost.established), y(figure)) for cost, figure in zip(costs, values, strict=True)]
        shown = " ".join(f"{across},{down}" for across, down in points)
        parts.append(f'<polyline points="{shown}" fill="none" stroke="#1f77b4" stroke-width="1.8"/>')
        for (across, down), figure in zip(points, values, strict=True):
            parts.append(f'<circle cx="{across}" cy="{down}" r="3" fill="#1f77b4"/>')
            parts.append(f'<text x="{across}" y="{down - 7}" text-anchor="middle">{shown_number(figure)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("peers", type=int, nargs="*")
    arguments.add_argument("--json", type=Path, help="add the figures to this file")
    arguments.add_argument("--from", dest="source", type=Path, help="read the figures from this file")
    arguments.add_argument("--svg", type=Path, help="draw the curve")
    given = arguments.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept = given.source or given.json
    costs = msgspec.json.decode(kept.read_bytes(), type=list[Costs]) if kept is not None and kept.exists() else []
    for peers in given.peers:
        cost = measure(peers)
        costs = sorted([*(old for old in costs if old.peers != peers), cost], key=lambda item: item.peers)
        sys.stdout.write(row(cost) + "\n")
        sys.stdout.flush()
        if given.json is not None:
            given.json.write_bytes(msgspec.json.format(msgspec.json.encode(costs)))
    if given.source is not None:
        sys.stdout.write("".join(row(cost) + "\n" for cost in costs))
    if given.svg is not None:
        given.svg.write_text(svg(costs), encoding="utf-8")


if __name__ == "__main__":
    main()
