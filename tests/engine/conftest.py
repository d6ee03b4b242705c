"""The scene as a fixture."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from tests.engine.scene import Scenario, running


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a scenario with an engine of these settings."""

    def run_it(scenario: Scenario, *, run: Callable[..., None] = asyncio.run, **changes: Any) -> None:
        async def scene() -> None:
            async with running(tmp_path, monkeypatch, **changes) as made:
                await scenario(made)

        with structlog.testing.capture_logs():
            run(scene())

    return run_it


Play = Callable[..., None]
