"""Runs the nemesis for a minute; to run it by hand, use `bin/nemesis --minutes N --seed S`."""

from __future__ import annotations

import pytest

from tests.system.nemesis import prepared

SEED = 12
SECONDS = 60.0


@pytest.mark.timeout(400)
@pytest.mark.long
def test_a_minute_of_everything_at_once_breaks_no_invariant() -> None:
    with prepared(SEED) as nemesis:
        nemesis.run(SECONDS, rounds=4)
