from __future__ import annotations

import pytest

from rlpx.engine.client import complaints as module
from rlpx.engine.client.complaints import COMPLAINT_SECONDS, MAX_COMPLAINTS, Complaints


def test_each_complaint_is_told_once_a_minute_and_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    told: list[str] = []
    complaints = Complaints(told.append)
    for number in range(200):
        complaints.hear("no right to publish")
        complaints.hear(f"problem {number % 2}")
    assert told == ["no right to publish", "problem 0", "problem 1"]
    clock[0] += COMPLAINT_SECONDS
    complaints.hear("no right to publish")
    assert told[3:] == ["no right to publish"]
    assert len(told) == 4


def test_complaints_that_are_always_others_are_told_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    told: list[str] = []
    complaints = Complaints(told.append)
    for number in range(1000):
        complaints.hear(f"no right to publish to {number}")
    assert len(told) == MAX_COMPLAINTS
    clock[0] += COMPLAINT_SECONDS
    for number in range(1000):
        complaints.hear(f"no right to publish to {number}")
    assert len(told) == 2 * MAX_COMPLAINTS
