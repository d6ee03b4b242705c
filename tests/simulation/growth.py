"""What a fleet asks of the store as it grows: writes per second by kind, what hosts are told of them, and what is kept."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

import msgspec

from tests.simulation.world import Plan, World

HOSTS: Final = (1, 3, 10, 30, 100, 300, 1000)
# Each host begins and ends so many sessions a second, and has ten times as many.
SESSIONS_PER_S: Final = 10.0
STAY_SECONDS: Final = 10.0
# Sessions are half of this in each direction, so half of the places lie unused.
PLACES_A_HOST: Final = 100
# The first part, in which the fleet fills, is not counted.
WARM_SECONDS: Final = 30.0
COUNTED_SECONDS: Final = 10.0

_WIDTH, _HEIGHT, _EDGE = 760, 360, 60


class Growth(msgspec.Struct, frozen=True):
    """One size of fleet: its sessions, writes per second by kind, what all hosts together are told, and what is kept.

    Bytes are those of keys and values.
    """

    hosts: int
    sessions: int
    writes_per_s: dict[str, float]
    told_per_s: float
    told_bytes_per_s: float
    stored_bytes: int


def measure(sizes: Iterable[int]) -> list[Growth]:
    """Run each size of fleet, without faults."""
    grown = []
    for hosts in sizes:
        plan = Plan(
            hosts=hosts,
            peers=int(hosts * SESSIONS_PER_S * STAY_SECONDS * 20),
            limit=hosts * PLACES_A_HOST,
            attempts_per_s=SESSIONS_PER_S,
            stay_s=STAY_SECONDS,
            loss=0.0,
            faults=0,
            block=64,
        )
        growth = _measure(World(1, plan))
        grown.append(growth)
        shown = ", ".join(f"{kind} {rate:.1f}" for kind, rate in sorted(growth.writes_per_s.items()))
        told = f"hosts are told {growth.told_per_s:.0f} changes/s of {growth.told_bytes_per_s:.0f} bytes/s"
        sys.stdout.write(
            f"{hosts} hosts, {growth.sessions} sessions: {shown} writes/s, {told}, {growth.stored_bytes} bytes\n"
        )
        sys.stdout.flush()
    return grown


def _measure(world: World) -> Growth:
    kv = world.kv
    world.churn()
    world.run(WARM_SECONDS)
    writes, told, told_bytes = dict(kv.writes), kv.told, kv.told_bytes
    world.run(WARM_SECONDS + COUNTED_SECONDS)
    return Growth(
        hosts=len(world.hosts),
        sessions=sum(len(host.sessions) for host in world.hosts),
        writes_per_s={kind: (count - writes.get(kind, 0)) / COUNTED_SECONDS for kind, count in kv.writes.items()},
        told_per_s=(kv.told - told) / COUNTED_SECONDS,
        told_bytes_per_s=(kv.told_bytes - told_bytes) / COUNTED_SECONDS,
        stored_bytes=sum(len(key) + len(value) for key, (_, value) in kv.keys.items()),
    )


def plot(grown: list[Growth]) -> str:
    """An SVG with both axes logarithmic: rates per second and stored bytes, by the number of hosts."""
    kinds = sorted({kind for growth in grown for kind in growth.writes_per_s})
    lines = [(f"{kind}.* writes/s", [growth.writes_per_s.get(kind, 0.0) for growth in grown]) for kind in kinds]
    lines.append(("told to hosts/s", [growth.told_per_s for growth in grown]))
    lines.append(("told KiB/s", [growth.told_bytes_per_s / 1024 for growth in grown]))
    lines.append(("stored KiB", [growth.stored_bytes / 1024 for growth in grown]))
    colours = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#7f7f7f")
    top = max(max(values) for _, values in lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif"',
        ' font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    decades = len(str(int(top)))
    for decade in range(decades + 1):
        y = _place(10**decade, decades)
        parts.append(f'<line x1="{_EDGE}" x2="{_WIDTH - 170}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{_EDGE - 8}" y="{y + 4}" text-anchor="end">{10**decade}</text>')
    step = (_WIDTH - 170 - _EDGE) / (len(grown) - 1)
    for index, growth in enumerate(grown):
        parts.append(f'<text x="{_EDGE + index * step:.0f}" y="{_HEIGHT - 30}" text-anchor="middle">{growth.hosts}</text>')
    parts.append(f'<text x="{(_WIDTH - 110) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">hosts, 100 sessions each</text>')
    for number, (name, values) in enumerate(lines):
        points = " ".join(f"{_EDGE + index * step:.0f},{_place(value, decades)}" for index, value in enumerate(values))
        colour = colours[number % len(colours)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_WIDTH - 160}" y="{40 + 18 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _place(value: float, decades: int) -> int:
    """The height of a value on a logarithmic axis from 1 up."""
    share = 0.0 if value <= 1 else len(str(int(value))) - 1 + (value / 10 ** (len(str(int(value))) - 1) - 1) / 9
    return int(_HEIGHT - 50 - share / decades * (_HEIGHT - 80))
