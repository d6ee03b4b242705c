"""Connections that have used their time are read in turn, a few in each loop iteration; the wait of a byte is measured."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import monotonic

import pytest

from rlpx.workers import turns
from rlpx.workers.turns import LEAST_SLICE_SECONDS, TURN_SECONDS, LagProbe, ReadQueue


class Loop:
    """A loop that runs one iteration at a time."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def turns(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()


class Sender:
    """A connection whose peer always sends more: it spends all time that it gets, and `costs` more."""

    def __init__(self, queue: ReadQueue, costs: float = 0.0) -> None:
        self.queue = queue
        self.costs = costs
        self.deferred_at = math.inf
        self.allowance_seconds = 0.0
        self.reads = 0
        self.spent_seconds = 0.0

    def read_on(self) -> None:
        self.reads += 1
        spends = self.allowance_seconds + self.costs
        self.spent_seconds += spends
        self.allowance_seconds -= spends
        self.queue.defer(self)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def queue(loop: Loop) -> ReadQueue:
    return ReadQueue(loop.call_soon)


def test_one_turn_serves_the_queue_for_its_time_and_no_longer(loop: Loop, queue: ReadQueue) -> None:
    senders = [Sender(queue) for _ in range(50)]
    for sender in senders:
        queue.defer(sender)
    assert len(queue) == 50
    loop.turns()
    assert sum(sender.spent_seconds for sender in senders) == pytest.approx(TURN_SECONDS)
    served = round(TURN_SECONDS / LEAST_SLICE_SECONDS)
    assert [sender.reads for sender in senders] == [1] * served + [0] * (50 - served)


def test_all_are_served_before_anybody_is_served_again(loop: Loop, queue: ReadQueue) -> None:
    senders = [Sender(queue) for _ in range(50)]
    for sender in senders:
        queue.defer(sender)
    for _ in range(50):
        loop.turns()
    reads = {sender.reads for sender in senders}
    assert max(reads) - min(reads) <= 1
    assert min(reads) > 1


def test_one_that_costs_more_than_its_slices_is_served_less_often_and_gets_no_more_time(
    loop: Loop, queue: ReadQueue
) -> None:
    cheap, costly = [Sender(queue) for _ in range(9)], Sender(queue, costs=4 * LEAST_SLICE_SECONDS)
    for sender in [*cheap, costly]:
        queue.defer(sender)
    for _ in range(400):
        loop.turns()
    assert costly.reads < cheap[0].reads / 4
    assert costly.spent_seconds == pytest.approx(cheap[0].spent_seconds, rel=0.1)


def test_one_alone_gets_the_whole_turn(loop: Loop, queue: ReadQueue) -> None:
    sender = Sender(queue)
    queue.defer(sender)
    loop.turns()
    assert sender.spent_seconds == TURN_SECONDS


def test_one_alone_in_debt_is_read_when_it_is_paid(loop: Loop, queue: ReadQueue) -> None:
    sender = Sender(queue)
    sender.allowance_seconds = -2.5 * TURN_SECONDS
    queue.defer(sender)
    for expected in (0, 0, 1):
        loop.turns()
        assert sender.reads == expected


def test_a_queue_that_is_empty_asks_for_no_turn(loop: Loop, queue: ReadQueue) -> None:
    queue.defer(Sender(queue))
    queue.defer(Sender(queue))
    assert len(loop.callbacks) == 1


def test_the_longest_wait_is_told_once_and_counts_those_who_wait(
    loop: Loop, queue: ReadQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(turns, "monotonic", lambda: now)
    sender = Sender(queue)
    queue.defer(sender)
    now = 100.25
    assert queue.take_worst_seconds(now=now) == 0.25
    loop.turns()
    assert queue.take_worst_seconds(now=now) == 0.25
    assert queue.take_worst_seconds(now=now) == 0.0


def test_the_lag_is_what_a_byte_waits_on_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(turns, "monotonic", lambda: now)
    observed: list[float] = []
    probe = LagProbe(observed.append)
    try:
        assert probe.take_worst_seconds(now=now) == 0.0
        probe.send(now=now)
        # A byte that has not come counts, and no other is sent meanwhile.
        now = 100.5
        probe.send(now=now)
        assert probe.take_worst_seconds(now=now) == 0.5
        now = 101.0
        probe.on_readable()
        assert probe.take_worst_seconds(now=now) == 1.0
        assert probe.take_worst_seconds(now=now) == 0.0
        assert observed == [1.0]
    finally:
        probe.close()


async def test_the_loop_finds_the_byte() -> None:
    probe = LagProbe(lambda _: None)
    loop = asyncio.get_running_loop()
    loop.add_reader(probe.fileno(), probe.on_readable)
    try:
        probe.send(now=monotonic())
        await asyncio.sleep(0.05)
        assert 0 < probe.take_worst_seconds(now=monotonic()) < 10
        assert probe.take_worst_seconds(now=monotonic()) == 0.0, "the byte is still on its way"
    finally:
        loop.remove_reader(probe.fileno())
        probe.close()
