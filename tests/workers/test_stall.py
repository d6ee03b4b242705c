"""The stall timer: in each period something must be read, and only then another begins."""

from __future__ import annotations

from rlpx.workers.stall import StallTimer


def test_a_peer_that_has_read_anything_has_another_period() -> None:
    timer = StallTimer(1000, 20.0, now=100.0)
    assert timer.due == 120.0
    assert timer.renew(999, now=121.0)
    assert timer.due == 141.0


def test_a_peer_that_has_read_nothing_has_none() -> None:
    timer = StallTimer(1000, 20.0, now=100.0)
    assert not timer.renew(1000, now=120.0)
    assert timer.due == 120.0


def test_what_was_read_in_one_period_does_not_count_for_the_next() -> None:
    timer = StallTimer(1000, 20.0, now=100.0)
    assert timer.renew(500, now=120.0)
    assert not timer.renew(500, now=140.0)
    assert timer.renew(499, now=141.0)


def test_more_unread_than_before_is_nothing_read() -> None:
    timer = StallTimer(1000, 20.0, now=100.0)
    assert not timer.renew(2000, now=120.0)
