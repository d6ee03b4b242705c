from __future__ import annotations

from rlpx.engine.overview.history import MINUTES_KEPT, SECONDS_KEPT, History


def test_a_second_that_was_missed_is_a_hole() -> None:
    history = History(["sessions"])
    history.add(1000, {"sessions": 1})
    history.add(1003, {"sessions": 4})
    columns = history.seconds()
    assert (columns.step_s, columns.ends_s) == (1, 1003)
    assert columns.values == {"sessions": [1, None, None, 4]}
    assert history.last() == {"sessions": 4}


def test_a_minute_is_the_mean_of_its_known_seconds() -> None:
    history = History(["sessions"])
    for second in range(120, 240):
        history.add(second, {"sessions": None if second < 150 else second})
    columns = history.minutes()
    assert (columns.step_s, columns.ends_s) == (60, 239)
    assert columns.values == {"sessions": [sum(range(150, 180)) / 30, sum(range(180, 240)) / 60]}


def test_it_keeps_ten_minutes_and_a_day() -> None:
    history = History(["sessions"])
    for second in range(60 * (MINUTES_KEPT + 2)):
        history.add(second, {"sessions": second})
    assert len(history.seconds().values["sessions"]) == SECONDS_KEPT
    assert len(history.minutes().values["sessions"]) == MINUTES_KEPT


def test_a_long_sleep_is_a_hole_of_as_many_minutes() -> None:
    history = History(["sessions"])
    for second in range(120):
        history.add(second, {"sessions": 1})
    history.add(7199, {"sessions": 5})
    assert history.seconds().values["sessions"] == [5]
    minutes = history.minutes()
    assert minutes.ends_s == 7199
    assert minutes.values["sessions"] == [1, 1, *[None] * 117, 5]


def test_a_clock_that_is_set_back_a_little_changes_nothing_and_far_begins_anew() -> None:
    history = History(["sessions"])
    history.add(5000, {"sessions": 1})
    history.add(5000, {"sessions": 2})
    history.add(4990, {"sessions": 3})
    assert history.seconds().values["sessions"] == [1]
    history.add(100, {"sessions": 4})
    assert history.seconds().values["sessions"] == [4]
    assert history.seconds().ends_s == 100
