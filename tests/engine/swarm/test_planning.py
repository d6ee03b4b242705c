"""`rlpx-swarm plan`: its arguments and its text; what it measures is scripted here, and real in tests/system."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from rlpx.engine.swarm import planning
from tests.engine.swarm.test_capacity import LIVELY, PRICE


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The trials that would run, with their results at hand."""
    asked: list[tuple[str, int]] = []

    def measure(profile: Any, _peers: int, _tell: object) -> Any:
        asked.append((profile.description, 0))
        return PRICE

    def hold(profile: Any, peers: int, *_: object) -> Any:
        asked.append((profile.description, peers))
        return LIVELY

    monkeypatch.setattr(planning, "measure", measure)
    monkeypatch.setattr(planning, "hold", hold)
    return asked


def test_the_text_has_the_plan_the_prices_and_what_is_assumed(
    capsys: pytest.CaptureFixture[str], scripted: list[tuple[str, int]]
) -> None:
    planning.main(["--peers", "1000"])
    text = capsys.readouterr().out
    assert text.startswith("1,000 peers need, at the prices of this machine:\n  workers      4 (")
    for part in ("memory", "Mbit/s in", "handshakes", "Assumed:", "The engine process alone would be too busy"):
        assert part in text
    assert "Checked" not in text
    assert len(scripted) == 1


def test_a_check_holds_as_many_and_shows_the_error(
    capsys: pytest.CaptureFixture[str], scripted: list[tuple[str, int]]
) -> None:
    planning.main(["--peers", "100", "--profile", "slots", "--check", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["check"]["established"] == 100
    assert abs(answer["check"]["errors"]["messages_in"]) < 0.01
    assert answer["plan"]["peers"] == 100
    assert [peers for _, peers in scripted] == [0, 100]
    planning.main(["--peers", "100", "--check"])
    assert "Checked with 100 sessions: the plan is off by memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--peers", "0"], os.EX_USAGE, "--peers: expected a whole number from 1 to 1000000"),
        (["--peers", "9000", "--check"], os.EX_USAGE, "from 1 to 5000"),
        (["--peers", "10", "--session-seconds", "0"], os.EX_USAGE, "--session-seconds"),
        (["--peers", "10", "--profile", "nowhere"], os.EX_CONFIG, "nowhere.toml: no such file"),
        ([], os.EX_USAGE, "--peers"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], code: int, part: str, capsys: pytest.CaptureFixture[str], scripted: list[tuple[str, int]]
) -> None:
    with pytest.raises(SystemExit) as ended:
        planning.main(arguments)
    assert ended.value.code == code
    assert part in capsys.readouterr().err
    assert scripted == []


def test_an_unknown_profile_is_one_line_that_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        planning.main(["--peers", "10", "--profile", "nowhere"])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (os.EX_CONFIG, "")
    assert printed.err.startswith("rlpx-swarm plan: --profile: ")
    assert printed.err.count("\n") == 1
