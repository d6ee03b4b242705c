"""A fleet whose NATS servers admit only users with credentials."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from rlpx.engine.client import connect
from tests.engine.client.credentials_files import operated
from tests.system.cluster_fleet import Nats, crowd, fleet
from tests.system.harness import ROOT, eventually


def test_hosts_and_rlpx_ctl_show_their_credentials(tmp_path: Path) -> None:
    settings, creds = operated()
    file, other = tmp_path / "host.creds", tmp_path / "other.creds"
    file.write_text(creds)
    other.write_text(operated(number=9)[1].replace("eyJ", "eyK", 1))
    flags = ("--cluster-creds", str(file), "--limits.max-active-inbound", "3")
    with Nats(settings=settings) as nats, fleet(nats, "a", "b", flags=flags) as engines, crowd() as peers:
        for number in range(6):
            peers.connect(engines[number % 2])
        eventually(lambda: sum(sum(engine.counts()[2:]) for engine in engines) == 3, "the limit holds in sum")

        def hosts(*more: str) -> subprocess.CompletedProcess[str]:
            ctl = [str(ROOT / "bin" / "rlpx-ctl"), "--cluster", nats.url, "--cluster-name", "test", *more, "hosts"]
            return subprocess.run(ctl, capture_output=True, text=True, timeout=9, check=False)

        known = hosts("--cluster-creds", str(file))
        assert known.returncode == 0, known.stderr

        async def sessions() -> int:
            async with connect(nats.url, cluster="test", creds=file) as whole:
                found = await whole.sessions(phase="active")
                assert found.is_complete
                return sum(len(result.sessions) for result in found.results.values())

        assert asyncio.run(sessions()) == 3
        for refused in (hosts(), hosts("--cluster-creds", str(other))):
            assert refused.returncode == 69
            [line] = refused.stderr.splitlines()
            assert "Authorization Violation" in line
