"""A fleet whose NATS servers admit only users with credentials."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

from rlpx.engine.client import connect
from tests.engine.client.credentials_files import operated
from tests.system.cluster_fleet import Nats, crowd, fleet
from tests.system.harness import PATIENCE_SECONDS, ROOT, eventually


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
            return subprocess.run(ctl, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)

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


def test_a_host_whose_user_was_taken_away_for_a_while_says_so_and_is_back() -> None:
    def users(*names: str) -> str:
        return f"authorization {{users: [{', '.join(f'{{user: {name}, password: p}}' for name in names)}]}}\n"

    def set_users(nats: Nats, *names: str) -> None:
        (nats.folder / "more.conf").write_text(users(*names))
        os.kill(nats.processes[0].pid, signal.SIGHUP)

    with Nats(settings=users("host", "other")) as nats:
        nats.user = "host:p@"
        with fleet(nats, "a") as (engine,):
            set_users(nats, "other")
            eventually(lambda: engine.call("status")["fleet"]["state"] == "away", "it is away")
            eventually(lambda: "authorization violation" in engine.stderr.lower(), "it says why")
            set_users(nats, "host", "other")
            eventually(lambda: engine.call("status")["fleet"]["state"] == "member", "it is a member again")
