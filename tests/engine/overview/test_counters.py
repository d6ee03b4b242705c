from __future__ import annotations

from rlpx.engine.overview.counters import PART_SECONDS, WINDOW_SECONDS, Rates, Window


def test_a_rate_is_the_mean_of_the_last_seconds() -> None:
    rates: Rates[str] = Rates(seconds=5)
    assert rates.per_second() == {}
    for second in range(20):
        # Ten a second at first, then a hundred.
        rates.add({"in": 10 * second if second < 10 else 100 + 100 * (second - 10)}, now=float(second))
    assert rates.per_second() == {"in": 100}


def test_a_key_that_is_new_counts_from_zero() -> None:
    rates: Rates[str] = Rates()
    rates.add({}, now=0.0)
    rates.add({"in": 8}, now=2.0)
    assert rates.per_second() == {"in": 4}


def test_a_counter_that_fell_begins_anew() -> None:
    rates: Rates[str] = Rates()
    rates.add({"in": 1000}, now=0.0)
    rates.add({"in": 2000}, now=1.0)
    rates.add({"in": 5}, now=2.0)
    assert not rates.is_known
    rates.add({"in": 15}, now=3.0)
    assert rates.per_second() == {"in": 10}


def test_a_window_forgets_what_is_older_than_it() -> None:
    window: Window[str] = Window("other", 8)
    window.add("old", now=0.0)
    window.add("new", now=WINDOW_SECONDS / 2)
    assert window.counts(now=WINDOW_SECONDS - 1) == {"old": 1, "new": 1}
    assert window.counts(now=WINDOW_SECONDS + 1) == {"new": 1}
    assert window.counts(now=WINDOW_SECONDS * 3) == {}
    assert window.total == 2


def test_keys_beyond_the_bound_are_summed_up() -> None:
    window: Window[str] = Window("other", 3)
    for part in range(4):
        for number in range(100):
            window.add(f"{part}-{number}", now=part * PART_SECONDS)
    counts = window.counts(now=4 * PART_SECONDS)
    assert counts.total() == 400
    assert len(counts) <= 4
    assert counts["other"] >= 388
