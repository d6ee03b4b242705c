"""The run of a swarm as one SVG of four panels over time: sessions, rates, latencies, and the cost of the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

import msgspec

from rlpx.engine.swarm.moments import Moment

_WIDTH: Final = 900
_PANEL: Final = 190
_LEFT: Final = 70
_RIGHT: Final = 210
_TOP: Final = 40
_GAP: Final = 55
_TICKS: Final = 5
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")
_MIB: Final = 1024 * 1024


class Line(msgspec.Struct, frozen=True):
    """One line of a panel: a value, or none, for each moment."""

    name: str
    value: Callable[[Moment], float | None]


class Panel(msgspec.Struct, frozen=True):
    """One diagram with its unit."""

    title: str
    lines: tuple[Line, ...]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


_PANELS: Final = (
    Panel("sessions established", (Line("established", lambda moment: moment.established),)),
    Panel(
        "per second",
        (
            Line("sessions opened", lambda moment: moment.rates["established"]),
            Line("messages sent", lambda moment: moment.rates["messages"]),
            Line("requests answered", lambda moment: moment.rates["requests_answered"]),
        ),
    ),
    Panel(
        "latency, ms",
        (
            Line("handshake p50", lambda moment: _milliseconds(moment.handshake_p50)),
            Line("handshake p99", lambda moment: _milliseconds(moment.handshake_p99)),
            Line("request p99", lambda moment: _milliseconds(moment.request_p99)),
        ),
    ),
    Panel(
        "CPU, % of a core, and memory, MiB",
        (
            Line("swarm CPU", lambda moment: moment.swarm_cpu * 100),
            Line("engine CPU", lambda moment: None if moment.engine_cpu is None else moment.engine_cpu * 100),
            Line(
                "engine memory",
                lambda moment: None if moment.engine_memory_bytes is None else moment.engine_memory_bytes / _MIB,
            ),
        ),
    ),
)


def plot(title: str, moments: Sequence[Moment]) -> str:
    """Return the text of the SVG."""
    height = _TOP + len(_PANELS) * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif"',
        ' font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    last = max([moment.seconds for moment in moments], default=1.0)
    for index, panel in enumerate(_PANELS):
        parts += _panel(panel, moments, last, _TOP + index * (_PANEL + _GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, moments: Sequence[Moment], last: float, top: int) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, top + 20 + _PANEL - 20
    values = [value for line in panel.lines for moment in moments if (value := line.value(moment)) is not None]
    step = nice_step(max(values, default=1.0))
    most = step * max(1, math.ceil(max(values, default=1.0) / step))
    seconds_step = nice_step(last)

    def x(seconds: float) -> float:
        return round(_LEFT + (right - _LEFT) * seconds / last, 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - top - 20) * value / most, 1)

    parts = [f'<text x="{_LEFT}" y="{top + 10}" font-weight="bold">{escape(panel.title)}</text>']
    for tick in range(round(most / step) + 1):
        at = y(tick * step)
        parts.append(f'<line x1="{_LEFT}" y1="{at}" x2="{right}" y2="{at}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4}" text-anchor="end">{tick * step:g}</text>')
    for tick in range(int(last / seconds_step) + 1):
        at = x(tick * seconds_step)
        parts.append(f'<line x1="{at}" y1="{bottom}" x2="{at}" y2="{bottom + 4}" stroke="#444"/>')
        parts.append(f'<text x="{at}" y="{bottom + 17}" text-anchor="middle">{tick * seconds_step:g} s</text>')
    parts.append(f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="#444"/>')
    for number, line in enumerate(panel.lines):
        colour = _COLOURS[number]
        points = [(x(moment.seconds), y(value)) for moment in moments if (value := line.value(moment)) is not None]
        if not points:
            continue
        shown = " ".join(f"{left},{height}" for left, height in points)
        parts.append(f'<polyline points="{shown}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        row = top + 32 + 18 * number
        parts.append(
            f'<line x1="{right + 14}" y1="{row - 4}" x2="{right + 36}" y2="{row - 4}" stroke="{colour}" stroke-width="3"/>'
        )
        parts.append(f'<text x="{right + 42}" y="{row}">{escape(line.name)}</text>')
    return parts


def nice_step(most: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that divides `most` into only a few parts."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most / _TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if most <= _TICKS * power * factor * (1 + 1e-9))
