"""Many deadlines on one timer: each is called once, not early, at most a bucket late, wherever it moves meanwhile."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rlpx.workers.wheel import BUCKET_SECONDS, Wheel
from tests.generated import examples


class Item:
    """An item that notes when it is called, and has no deadline afterwards unless `then` gives another."""

    def __init__(self, deadline: float, then: list[float] | None = None) -> None:
        self.bucket: int | None = None
        self.deadline = deadline
        self.then = then or []
        self.called_at: list[float] = []

    def on_deadline(self, now: float) -> None:
        """Note the call."""
        self.called_at.append(now)
        self.deadline = self.then.pop(0) if self.then else math.inf


def turned(wheel: Wheel, *, start: float, end: float, step: float = BUCKET_SECONDS) -> None:
    """Turn the wheel as a worker does, step by step."""
    for index in range(1, round((end - start) / step) + 1):
        wheel.turn(start + index * step)


def entered(item: Item, *, now: float = 0.0) -> Wheel:
    """A wheel with one item."""
    wheel = Wheel(now=now)
    wheel.enter(item)
    return wheel


def test_a_deadline_is_called_once_not_early_and_not_late() -> None:
    item = Item(1.05)
    turned(entered(item), start=0, end=5)
    [called] = item.called_at
    assert 1.05 <= called <= 1.05 + 2 * BUCKET_SECONDS


def test_an_infinite_deadline_is_never_called() -> None:
    item = Item(math.inf)
    turned(entered(item), start=0, end=100)
    assert item.called_at == []
    assert item.bucket is None


def test_a_deadline_that_has_passed_is_called_by_the_next_turn() -> None:
    item = Item(1.0)
    wheel = entered(item, now=50.0)
    wheel.turn(50.1)
    wheel.turn(50.2)
    assert len(item.called_at) == 1


def test_a_deadline_that_moves_away_is_called_where_it_went() -> None:
    item = Item(1.0)
    wheel = entered(item)
    turned(wheel, start=0, end=0.5)
    item.deadline = 3.0
    turned(wheel, start=0.5, end=2.9)
    assert item.called_at == []
    turned(wheel, start=2.9, end=5)
    assert len(item.called_at) == 1


def test_a_deadline_that_moves_away_for_ever_is_never_called() -> None:
    item = Item(1.0)
    wheel = entered(item)
    item.deadline = math.inf
    turned(wheel, start=0, end=5)
    assert item.called_at == []


def test_a_deadline_that_moves_nearer_is_entered_again_and_called_once() -> None:
    item = Item(3.0)
    wheel = entered(item)
    item.deadline = 1.0
    wheel.enter(item)
    turned(wheel, start=0, end=5)
    [called] = item.called_at
    assert called < 1.3


def test_a_deadline_that_moved_nearer_and_away_again_is_called_once() -> None:
    item = Item(3.0)
    wheel = entered(item)
    item.deadline = 1.0
    wheel.enter(item)
    item.deadline = 3.0
    turned(wheel, start=0, end=5)
    [called] = item.called_at
    assert 3.0 <= called < 3.3


def test_entering_often_is_entering_once() -> None:
    item = Item(1.0)
    wheel = entered(item)
    for _ in range(10):
        wheel.enter(item)
    turned(wheel, start=0, end=5)
    assert len(item.called_at) == 1


def test_an_item_that_sets_itself_another_deadline_is_called_again() -> None:
    item = Item(1.0, then=[2.0, 3.0])
    turned(entered(item), start=0, end=5)
    assert len(item.called_at) == 3


def test_an_item_that_keeps_a_passed_deadline_is_called_once_a_bucket() -> None:
    item = Item(1.0, then=[1.0] * 9)
    wheel = entered(item)
    calls = []
    for tenth in range(12, 17):
        wheel.turn(tenth / 10 + 0.05)
        calls.append(len(item.called_at))
    assert [later - earlier for earlier, later in pairwise(calls)] == [1, 1, 1, 1]


def test_a_late_turn_calls_everything_that_is_due_once() -> None:
    items = [Item(index / 10) for index in range(100)]
    wheel = Wheel(now=0)
    for item in items:
        wheel.enter(item)
    wheel.turn(60.0)
    assert all(item.called_at == [60.0] for item in items)


def test_a_turn_back_in_time_does_nothing() -> None:
    item = Item(1.0)
    wheel = entered(item, now=10.0)
    wheel.turn(5.0)
    assert item.called_at == []


def test_an_item_may_be_entered_while_the_wheel_turns() -> None:
    late = Item(1.0)

    class Entering(Item):
        def on_deadline(self, now: float) -> None:
            super().on_deadline(now)
            wheel.enter(late)

    first = Entering(0.5)
    wheel = entered(first)
    turned(wheel, start=0, end=3)
    assert len(first.called_at) == len(late.called_at) == 1


def test_an_item_that_was_removed_is_neither_called_nor_kept() -> None:
    item = Item(1.0)
    wheel = entered(item)
    references = sys.getrefcount(item)
    wheel.remove(item)
    wheel.remove(item)
    assert sys.getrefcount(item) == references - 1
    turned(wheel, start=0, end=5)
    assert item.called_at == []


def test_an_item_that_moved_nearer_is_kept_once() -> None:
    item = Item(9.0)
    wheel = entered(item)
    references = sys.getrefcount(item)
    for deadline in (7.0, 5.0, 3.0):
        item.deadline = deadline
        wheel.enter(item)
    assert sys.getrefcount(item) == references


def test_what_is_due_is_judged_later_by_what_holds_then() -> None:
    missed, saved, gone = Item(1.0), Item(1.0), Item(1.0)
    wheel = Wheel(now=0)
    for item in (missed, saved, gone):
        wheel.enter(item)
    due = wheel.due(1.2)
    assert due == [missed, saved, gone]
    # The deadline of one of them has moved away in the meantime, another one was removed.
    saved.deadline = 3.0
    gone.deadline = math.inf
    wheel.remove(gone)
    wheel.judge(due, 1.2)
    assert [item.called_at for item in (missed, saved, gone)] == [[1.2], [], []]
    turned(wheel, start=1.2, end=5)
    [called] = saved.called_at
    assert called >= 3.0


moments = st.floats(0, 20, allow_nan=False) | st.just(math.inf)


class WheelMachine(RuleBasedStateMachine):
    """Items whose deadlines move in any way, against the plain rule: called once, when due and the bucket has come."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.wheel = Wheel(now=self.now)
        self.items: list[Item] = []
        # A due item is called by the first turn after its bucket.
        self.patience = 2 * BUCKET_SECONDS

    @rule(after=moments)
    def an_item_comes(self, after: float) -> None:
        item = Item(self.now + after)
        self.items.append(item)
        self.wheel.enter(item)

    @rule(index=st.integers(0, 5), after=moments)
    def a_deadline_moves(self, index: int, after: float) -> None:
        if index < len(self.items):
            item = self.items[index]
            is_nearer = self.now + after < item.deadline
            item.deadline = self.now + after
            if is_nearer:
                self.wheel.enter(item)

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = [item for item in self.items if item.deadline <= self.now]
        overdue = [item for item in self.items if item.deadline + self.patience <= self.now]
        before = {id(item): len(item.called_at) for item in self.items}
        self.wheel.turn(self.now)
        for item in self.items:
            calls = len(item.called_at) - before[id(item)]
            assert calls <= (item in due)
            assert calls >= (item in overdue)

    @invariant()
    def nothing_was_called_early(self) -> None:
        for item in self.items:
            assert all(at <= self.now for at in item.called_at)


TestWheelMachine = WheelMachine.TestCase
TestWheelMachine.settings = examples(100, steps=30)


@given(st.floats(0, 1e6), st.floats(0, 50), st.floats(0.001, 0.5))
def test_wherever_the_clock_began_a_deadline_is_called_within_two_buckets_of_the_turns(
    now: float, after: float, step: float
) -> None:
    item = Item(now + after)
    wheel = entered(item, now=now)
    at = now
    while not item.called_at:
        at += step
        wheel.turn(at)
        assert at <= now + after + 2 * BUCKET_SECONDS + step
    assert item.called_at[0] >= now + after
