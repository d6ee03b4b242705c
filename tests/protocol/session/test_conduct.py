"""Bad messages in a row are too many at the number that the settings say; hours between them forgive."""

from __future__ import annotations

import pytest

from rlpx.protocol.session.conduct import BadMessages


def too_many_at(most: int, *pauses: float) -> int | None:
    """Which message is one too many, the first one at some moment and each later one after a pause."""
    messages, now = BadMessages(), 1000.0
    for number, pause in enumerate((0.0, *pauses), start=1):
        now += pause
        messages.add(now=now)
        assert messages.count == number
        if messages.is_over(most):
            return number
    return None


@pytest.mark.parametrize("most", [1, 2, 4, 10])
def test_so_many_in_a_row_are_too_many(most: int) -> None:
    assert too_many_at(most, *[0.0] * 20) == most


# reth: a point a second; the fourth message within 14,336 s of the first bans.
@pytest.mark.parametrize(("pause", "number"), [(14_335.0, 4), (14_336.0, 5), (20_000.0, 5)])
def test_time_forgives_as_reth_does(pause: float, number: int) -> None:
    assert too_many_at(4, 0.0, 0.0, pause, 0.0) == number


def test_a_bad_message_every_five_hours_is_borne_for_ever() -> None:
    assert too_many_at(4, *[5 * 3600.0] * 1000) is None


def test_good_conduct_saves_nothing_up() -> None:
    assert too_many_at(2, 1e6, 0.0) == 3
