from __future__ import annotations

import pytest

from tests.system.cluster_nemesis import attack


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_a_fleet_is_in_order_after_whatever_has_failed(seed: int) -> None:
    assert attack(seed, 30.0)
