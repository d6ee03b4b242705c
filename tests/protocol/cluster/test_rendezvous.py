from __future__ import annotations

from collections import Counter

import pytest

from rlpx.protocol.cluster.rendezvous import owner_of, weight_of

TARGETS = [number.to_bytes(64, "big") for number in range(4000)]


def test_nobody_owns_anything_without_places() -> None:
    assert owner_of(TARGETS[0], {}) is None
    assert owner_of(TARGETS[0], {"a": 0.0}) is None


def test_targets_are_shared_by_weight() -> None:
    owners = Counter(owner_of(target, {"a": 1.0, "b": 1.0, "c": 2.0}) for target in TARGETS)
    assert 850 < owners["a"] < 1150
    assert 850 < owners["b"] < 1150
    assert 1850 < owners["c"] < 2150


def test_if_a_host_goes_only_its_targets_move() -> None:
    hosts = {"a": 4.0, "b": 4.0, "c": 8.0}
    fewer = {"a": 4.0, "b": 4.0}
    for target in TARGETS:
        before = owner_of(target, hosts)
        assert before == "c" or owner_of(target, fewer) == before


@pytest.mark.parametrize(("free", "weight"), [(-1, 0.0), (0, 0.0), (1, 1.0), (2, 2.0), (3, 2.0), (64, 64.0), (127, 64.0)])
def test_a_weight_is_the_power_of_two_below(free: int, weight: float) -> None:
    assert weight_of(free) == weight
