"""Fixtures of all tests of workers."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_freezing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker freezes the objects that live at its start; this process lives on after the test."""
    monkeypatch.setattr("gc.freeze", lambda: None)
