"""A trial: a real engine and a few real peers, and what they cost."""

from __future__ import annotations

from pathlib import Path
from tempfile import gettempdir

import pytest

from rlpx.engine.swarm import trial
from rlpx.engine.swarm.trial import Trial
from rlpx.protocol.bus.swarm import Messages, Ramp, Scenario
from rlpx.protocol.mistakes import ConfigError


def leftovers() -> set[str]:
    """The folders of trials."""
    return {path.name for path in Path(gettempdir()).glob("rlpx-trial-*")}


def test_a_trial_connects_all_counts_what_they_cost_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SETTLE_SECONDS", 1.5)
    before = leftovers()
    told: list[str] = []
    scenario = Scenario(
        peers=12, processes=1, seconds=600.0, ramp=Ramp(200.0, 4), messages=Messages(announcements_per_s=5.0)
    )
    with Trial(1, 12, reads=("eth.",)) as running:
        found = running.run(scenario, 3.0, told.append)
    assert (found.established, found.peers, found.workers) == (12, 12, 1)
    assert found.establish_seconds > 0
    assert found.establish_worker_cpu > 0
    # Five a second each.
    assert 12 * 5 * 3 * 0.5 < found.messages_in < 12 * 5 * 3 * 2
    assert found.bytes_in > found.messages_in
    assert found.base_bytes > 1 << 20
    assert found.hold_seconds >= 3.0
    assert told[-1].startswith("12 of 12 sessions")
    assert leftovers() <= before


def test_an_engine_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = leftovers()
    monkeypatch.setattr("sys.executable", "/bin/true")
    with pytest.raises(ConfigError, match="did not start"):
        Trial(1, 1).__enter__()
    assert leftovers() <= before
