"""What the doctor says of the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rlpx.engine.doctor import clock
from rlpx.engine.doctor.finding import State

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "found", "state"),
    [
        (NOW, (0, 0, 0.02), State.OK),
        (NOW, (clock.TIME_ERROR, 0, 0.02), State.WARN),
        (NOW, (0, clock.STA_UNSYNC, 0.02), State.WARN),
        (NOW, (0, 0, 16.0), State.WARN),
        (NOW, None, State.WARN),
        (datetime(1970, 1, 1, tzinfo=UTC), (0, 0, 0.02), State.FAIL),
    ],
)
def test_a_clock_that_nobody_keeps_is_a_warning(now: datetime, found: tuple[int, int, float] | None, state: State) -> None:
    assert clock.examine(now, found).state is state


def test_the_kernel_can_be_asked() -> None:
    found = clock.read()
    assert found is None or found[2] >= 0
