"""Static peers of a running engine: all are dialled as fast as places come free, by host name, and at their new address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import pytest

from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.harness import IMPORT_PATH, ROOT, RunningEngine, eventually

PEERS: Final = 300
# It takes 3 s on a quiet machine. Before, every hundred peers waited for the next half minute.
MOST_SECONDS: Final = 20.0


@contextmanager
def listening_peers(count: int) -> Iterator[list[str]]:
    """The enodes of this many honest peers that wait to be dialled."""
    command = [sys.executable, "-P", "-m", "rlpx.engine.swarm.command", "--chain", "dev", "--listen", "127.0.0.1:0"]
    command += ["--scenario", str(ROOT / "conf" / "swarm" / "hold-10k.toml"), "--processes", "1"]
    with subprocess.Popen(
        [*command, "--peers", str(count), "--seconds", "600"],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as swarm:
        assert swarm.stdout is not None
        try:
            yield [swarm.stdout.readline().split()[1] for _ in range(count)]
        finally:
            swarm.kill()


@pytest.mark.alone
def test_three_hundred_static_peers_are_connected_as_fast_as_places_come_free() -> None:
    with listening_peers(PEERS) as enodes, RunningEngine("--peers.static", ",".join(enodes), workers=2) as engine:
        began_at = monotonic()
        eventually(lambda: engine.counts()[3] == PEERS, "all are connected", MOST_SECONDS)
        # `pytest -rP` shows it.
        sys.stdout.write(f"{PEERS} static peers within {monotonic() - began_at:.1f} s of the ready line\n")


@pytest.mark.alone
def test_a_static_peer_whose_old_address_hangs_is_connected_at_its_new_one_at_once() -> None:
    with RunningEngine(workers=1) as peer, RunningEngine(workers=1) as engine, socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()
        host, port = hanging.getsockname()
        # It accepts the connection and answers nothing.
        engine.call("peers-add", enode=f"enode://{peer.node_id.hex()}@{host}:{port}")
        eventually(lambda: engine.counts()[1] == 1, "it is being dialled")
        began_at = monotonic()
        engine.call("peers-add", enode=peer.enode)
        eventually(lambda: engine.counts() == (0, 0, 0, 1), "connected")
        # The old dial would have taken 5 s, and the new one would have waited for half a minute more.
        assert monotonic() - began_at < 4.0
        [listed] = engine.call("peers")["peers"]
        assert (listed["last_end"], listed["why_not"], len(listed["endpoints"])) == (None, None, 2)


def test_a_peer_is_dialled_by_its_host_name_and_one_of_two_addresses_is_enough() -> None:
    with RunningEngine(workers=1) as peer, RunningEngine(workers=1) as engine:
        name = f"enode://{peer.node_id.hex()}@localhost:{peer.address[1]}"
        established = engine.call("dial", enode=name, wait=True)["established"]
        assert (established["enode"], established["peer"]) == (name, peer.node_id.hex())
        engine.call("disconnect-all")
        eventually(lambda: peer.counts() == engine.counts() == (0, 0, 0, 0), "ended")
        nobody = f"enode://{peer.node_id.hex()}@127.0.0.1:1"
        with RunningEngine("--peers.static", f"{nobody},{peer.enode}", workers=1) as other:
            eventually(lambda: other.counts() == (0, 0, 0, 1), "connected at its other address")


def test_a_peer_that_we_do_not_dial_says_why_in_the_list_the_events_and_the_history() -> None:
    denied = f"enode://{PrivateKey(bytes([0x22]) * 32).id.hex()}@127.0.0.9:30303"
    with RunningEngine("--access.deny-cidrs", "127.0.0.9/32", workers=1) as engine:
        log = engine.log("dial.failed")
        engine.call("peers-add", enode=denied)
        cause = "the address is on the deny list"
        assert log.wait("dial.failed").fields["why_not"] == cause
        assert engine.call("peers")["peers"][0]["why_not"] == cause
        assert engine.call("history")[0]["cause"] == cause
        log.read(2.5)
        assert len(log.of("dial.failed")) == 1
