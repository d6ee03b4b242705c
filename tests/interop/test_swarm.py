"""The swarm's peers as go-ethereum sees them: each of the four clients' Hellos, and a Status that it accepts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.interop.clients import geth, write_chain_file
from tests.system.harness import IMPORT_PATH


def test_geth_takes_every_simulated_client_for_a_peer(tmp_path: Path) -> None:
    with geth("-listen", "-max-peers", "100", "-max-pending", "100", "-answer-empty", "-eth", "69") as peer:
        chain = write_chain_file(peer.wait("chain"), tmp_path / "interop.toml")
        scenario = tmp_path / "visit.toml"
        scenario.write_text(
            "description = 'a visit'\npeers = 12\nseconds = 6.0\n[messages]\nannouncements_per_s = 1.0\n"
            "requests_per_s = 1.0\nrequests = ['headers', 'bodies', 'transactions', 'receipts']\n"
        )
        flags = ["--target", peer.wait("listening")["enode"], "--chain", str(chain), "--scenario", str(scenario), "--json"]
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "rlpx.engine.swarm.command", *flags],
            env={**os.environ, "PYTHONPATH": IMPORT_PATH},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        told = json.loads(ended.stdout)
        assert told["sessions"]["established"] == 12, told
        assert told["ends"] == {"left": 12}
        assert told["requests"]["answered"] > 20
        assert len(peer.of("status", ok=True)) == 12
