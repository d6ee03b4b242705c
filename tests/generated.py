"""How many generated inputs a test tries: `bin/check quick` takes fewer, by `--hypothesis-profile=quick`."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

PROFILES: Final = {"all": 100, "quick": 20}


def register_profiles() -> None:
    """Make the profiles known to Hypothesis: the same inputs on every run, and no limit on the time that one input takes.

    Without a deadline a busy machine fails no test; pytest's timeout bounds the test as a whole.
    """
    for name, count in PROFILES.items():
        settings.register_profile(name, derandomize=True, deadline=None, max_examples=count)
    settings.load_profile("all")


def examples(count: int, *, steps: int = 50) -> settings:
    """`count` inputs, or in the quick profile a fifth of them; a state machine's input has up to `steps` steps."""
    share = settings().max_examples / PROFILES["all"]
    return settings(max_examples=max(1, round(count * share)), stateful_step_count=steps)
