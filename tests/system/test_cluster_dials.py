"""Hosts of one fleet dial many peers at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest

from rlpx.engine.client.errors import RefusedError
from tests.system.cluster_fleet import Lives, Nats, fleet
from tests.system.harness import IMPORT_PATH, RunningEngine, eventually

PEERS = 2000
LIMIT = 500
SWARM = f"""
description = "peers that wait to be dialled, and say nothing"
peers = {PEERS}
processes = 2
seconds = 300.0
patience_s = 300.0
[clients]
geth = 1
"""


@contextmanager
def listening_peers(folder: Path) -> Iterator[list[str]]:
    """The addresses of a swarm of peers."""
    scenario = folder / "quiet.toml"
    scenario.write_text(SWARM)
    command = [sys.executable, "-P", "-m", "rlpx.engine.swarm.command", "--listen", "127.0.0.1:0", "--chain", "dev"]
    with subprocess.Popen(
        [*command, "--scenario", str(scenario)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
    ) as swarm:
        try:
            assert swarm.stdout is not None
            told = (line.removeprefix("listening ").strip() for line in swarm.stdout if line.startswith("listening "))
            yield list(islice(told, PEERS))
        finally:
            swarm.send_signal(signal.SIGINT)


@pytest.mark.long
def test_two_thousand_dials_at_once_against_a_limit_of_five_hundred(tmp_path: Path) -> None:
    limits = ("--limits.max-active-outbound", str(LIMIT), "--limits.max-pending-outbound", str(PEERS))
    with (
        listening_peers(tmp_path) as enodes,
        Nats(3) as nats,
        fleet(nats, "a", "b", "c", flags=limits, workers=2) as engines,
    ):
        assert len(enodes) == PEERS

        def dial_all() -> bool:
            """Dial each peer from one host; those that have a session already, or find no place, are refused."""
            for number, enode in enumerate(enodes):
                with suppress(RefusedError):
                    engines[number % 3].call("dial", enode=enode)
            eventually(lambda: all(engine.counts()[1] == 0 for engine in engines), "every dial has ended", 120.0)
            return outbound(engines) == LIMIT

        eventually(dial_all, "every place is taken", 120.0)
        eventually(lambda: len(Lives(nats).of("established")) == LIMIT, "the stream has them")
        assert Lives(nats).most_active("outbound") == LIMIT


def outbound(engines: list[RunningEngine]) -> int:
    """The sessions that the hosts have dialled."""
    return sum(engine.counts()[3] for engine in engines)
