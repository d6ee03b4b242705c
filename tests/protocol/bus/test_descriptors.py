"""Where a process stands back from its limit of file descriptors."""

from __future__ import annotations

import errno
import os

import pytest

from rlpx.protocol.bus.descriptors import RESERVE, Descriptors, ceiling


@pytest.mark.parametrize(("limit", "number"), [(1024, 960), (RESERVE, 0), (10, 0)])
def test_a_reserve_is_kept_below_the_limit(limit: int, number: int) -> None:
    assert ceiling(limit) == number


def test_there_is_room_until_the_lowest_free_number_is_at_the_ceiling() -> None:
    used = {0, 1, 2, 4}

    def dup(_: int) -> int:
        lowest_free = min(set(range(10)) - used)
        used.add(lowest_free)
        return lowest_free

    descriptors = Descriptors(RESERVE + 6, 0, dup, used.remove)
    for expected in (True, True, False):
        assert descriptors.has_room() is expected
        dup(0)
    assert used == set(range(7))


def test_a_full_table_has_no_room() -> None:
    def full(_: int) -> int:
        raise OSError(errno.EMFILE, "full")

    assert not Descriptors(1024, 0, full, os.close).has_room()
