"""The plot is an SVG that any viewer reads: panels, axes from zero, a legend, whatever was measured."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from rlpx.engine.swarm.moments import Moment
from rlpx.engine.swarm.plot import nice_step, plot

MOMENTS = [
    Moment(
        seconds=float(second),
        established=10 * second,
        rates={"established": 10.0, "messages": 5.0, "requests_answered": 1.0},
        handshake_p50=0.01 if second < 5 else None,
        handshake_p99=0.05,
        request_p99=None,
        swarm_cpu=0.5,
        engine_cpu=None,
        engine_memory_bytes=None,
    )
    for second in range(10)
]


def texts(svg: str) -> list[str]:
    """All texts of the picture."""
    return [item.text or "" for item in ET.fromstring(svg).iter() if item.tag.endswith("text")]  # noqa: S314 - our own


def test_it_has_a_title_four_panels_and_a_legend_of_what_was_measured() -> None:
    words = texts(plot("a <title> & more", MOMENTS))
    assert "a <title> & more" in words
    assert {"sessions established", "per second", "latency, ms", "handshake p50", "swarm CPU"} <= set(words)
    assert "engine CPU" not in words
    assert {"0 s", "8 s"} <= set(words)


def test_nothing_measured_is_a_picture_too() -> None:
    assert "sessions established" in texts(plot("empty", []))


@pytest.mark.parametrize(("most", "step"), [(1, 0.2), (5, 1), (6, 2), (48, 10), (51, 20), (900, 200), (0, 1)])
def test_ticks_stand_at_round_numbers(most: float, step: float) -> None:
    assert nice_step(most) == pytest.approx(step)
