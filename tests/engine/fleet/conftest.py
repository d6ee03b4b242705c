"""A fleet for tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.fleet.harness import FleetHarness


@pytest.fixture
def harness() -> Iterator[FleetHarness]:
    made = FleetHarness()
    yield made
    for worker in made.workers:
        worker.close()
