from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.clients import geth_chain, write_chain_file
from tests.system.harness import RunningEngine, working_folder


@pytest.fixture(scope="module")
def chain_file() -> Iterator[Path]:
    """A chain file of our own for the Go program's chain."""
    with working_folder() as folder:
        yield write_chain_file(geth_chain(), folder / "interop.toml")


@pytest.fixture(scope="module")
def engine(chain_file: Path) -> Iterator[RunningEngine]:
    """One engine on the Go program's chain for all tests of a file that need nothing special."""
    flags = ["--protocols.snap", "1,2", "--timeouts.ping-interval-s", "0.5"]
    with RunningEngine(*flags, chain=str(chain_file)) as running:
        running.call("set-status", number=4000, hash="0x" + "ab" * 32, earliest=10)
        yield running
