"""Engines for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from tests.engine.harness import EngineHarness, MakeEngine, running


@pytest.fixture
def make_engine(tmp_path: Path) -> MakeEngine:
    """`async with make_engine(limits=…)`: an engine with these settings, whose log is kept from the output."""

    @asynccontextmanager
    async def made(**changes: Any) -> AsyncIterator[EngineHarness]:
        with structlog.testing.capture_logs():
            async with running(tmp_path, **changes) as harness:
                yield harness

    return made
