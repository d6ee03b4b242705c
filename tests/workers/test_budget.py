"""The budget: the sum of what connections hold, and the one that holds the most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlpx.workers.budget import Budget, largest


class Holder:
    """A connection."""

    def __init__(self) -> None:
        self.booked_bytes = 0


@given(changes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1000)), max_size=50))
def test_the_sum_is_always_that_of_what_each_one_booked_last(changes: list[tuple[int, int]]) -> None:
    budget = Budget(1500)
    holders = [Holder() for _ in range(5)]
    last = [0] * 5
    for index, held in changes:
        budget.book(holders[index], held)
        last[index] = held
        assert budget.used_bytes == sum(last)
        assert budget.is_over == (sum(last) > 1500)
        assert budget.has_room(500) == (sum(last) <= 1000)
        most = largest(holders)
        assert (0 if most is None else most.booked_bytes) == max(last)


def test_nobody_holds_the_most_where_nobody_holds_anything() -> None:
    assert largest([]) is None
    assert largest([Holder(), Holder()]) is None
