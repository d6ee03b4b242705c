"""How a peer's pings are answered, and how many meaningless messages it may send."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import DisconnectReason, MessageError, PingFloodError
from rlpx.protocol.session.pings import MAX_IGNORED, IgnoredBucket, PingBucket


def take(bucket: PingBucket, times: int, *, now: float) -> int:
    """How many of so many pings at one moment are answered at once."""
    return sum(bucket.take(now=now) for _ in range(times))


def test_sixteen_pings_are_answered_at_once_and_the_others_one_a_second() -> None:
    bucket = PingBucket(now=100.0)
    assert take(bucket, 20, now=100.0) == 16
    assert bucket.due == 101.0
    assert [bucket.release(now=now) for now in (100.5, 101.0, 101.5, 103.0, 104.0)] == [0, 1, 0, 2, 1]
    assert bucket.due == math.inf
    assert take(bucket, 3, now=105.0) == 1


def test_a_ping_does_not_pass_those_that_wait() -> None:
    bucket = PingBucket(now=0.0)
    take(bucket, 17, now=0.0)
    assert not bucket.take(now=1.0)
    assert [bucket.release(now=now) for now in (1.0, 2.0)] == [1, 1]


def test_a_flood_far_over_the_burst_is_a_breach() -> None:
    bucket = PingBucket(now=0.0)
    assert take(bucket, 16 + 256, now=0.0) == 16
    with pytest.raises(PingFloodError, match="256 pings more than the 16") as caught:
        bucket.take(now=0.0)
    assert caught.value.reason is DisconnectReason.PROTOCOL_BREACH


def test_two_pings_a_second_are_borne_for_minutes() -> None:
    bucket = PingBucket(now=0.0)
    answered = 0
    for half_seconds in range(480):
        now = half_seconds / 2
        answered += bucket.release(now=now) if now >= bucket.due else 0
        answered += bucket.take(now=now)
    assert 239 <= answered <= 16 + 240


def test_a_quiet_hour_saves_no_more_than_a_burst() -> None:
    bucket = PingBucket(now=0.0)
    assert take(bucket, 16, now=0.0) == 16
    assert take(bucket, 30, now=3600.0) == 16


def test_the_fraction_of_a_second_that_a_full_bucket_waited_is_lost() -> None:
    bucket = PingBucket(now=0.0)
    assert take(bucket, 16, now=0.75) == 16
    assert take(bucket, 1, now=1.0) == 0
    assert bucket.due == 1.75


@given(start=st.floats(0, 1e7), pings=st.integers(17, 40))
def test_a_pong_that_is_due_is_paid_whatever_the_clock_says(start: float, pings: int) -> None:
    bucket = PingBucket(now=start)
    answered = take(bucket, pings, now=start)
    while bucket.due < math.inf:
        paid = bucket.release(now=bucket.due)
        assert paid == 1
        answered += paid
    assert answered == pings


def test_messages_that_mean_nothing_are_counted_over_one_a_second() -> None:
    bucket = IgnoredBucket(now=1000.0)
    for _ in range(MAX_IGNORED):
        bucket.take(now=1000.0)
    with pytest.raises(MessageError, match="over 256 messages that mean nothing"):
        bucket.take(now=1000.9)
    bucket.take(now=1001.0)
    bucket = IgnoredBucket(now=1000.0)
    for second in range(1000):
        bucket.take(now=1000.0 + second)
    for _ in range(MAX_IGNORED - 1):
        bucket.take(now=1999.0)
    with pytest.raises(MessageError):
        bucket.take(now=1999.0)
