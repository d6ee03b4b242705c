"""Silent connections do not hold pending places: the attacks themselves, and how many honest peers get in meanwhile."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from time import monotonic, sleep
from typing import Final

import pytest

from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.errors import HandshakeError
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.threads import in_threads

pytestmark = pytest.mark.alone

CHAIN: Final = load_chain("dev")
HONEST: Final = 40
# The number of honest peers, of 40, that must get in.
ENOUGH: Final = 38
# On a quiet machine it is 0.5 s at most; the one that runs the tests is busy.
PATIENCE_SECONDS: Final = 3.0
# The time between two connections: 51 come each second.
PACE_SECONDS: Final = 1 / 51
# The time until the attack has filled all that it can fill: longer than the deadline of an auth.
WARM_UP_SECONDS: Final = 6.0
SLOWLORISES: Final = 500

Source = Callable[[int], str]


def of_400_addresses(number: int) -> str:
    """One of 400 addresses in two networks."""
    return f"127.1.{number % 400 // 200}.{number % 200 + 1}"


def of_1500_addresses(number: int) -> str:
    """One of 1,500 addresses in six networks."""
    return f"127.1.{number % 1500 // 250}.{number % 250 + 1}"


@contextmanager
def attacking(engine: RunningEngine, source: Source, first_words: bytes = b"") -> Iterator[None]:
    """Open connections from all addresses that send these bytes and no more."""
    is_over = threading.Event()
    socks: list[socket.socket] = []

    def run() -> None:
        began_at = monotonic()
        for number in count():
            with suppress(OSError):
                sock = socket.create_connection(engine.address, timeout=2, source_address=(source(number), 0))
                socks.append(sock)
                sock.sendall(first_words)
            if is_over.wait(max(0.0, began_at + number * PACE_SECONDS - monotonic())):
                return

    try:
        with in_threads(run, is_over=is_over):
            yield
    finally:
        for sock in socks:
            sock.close()


@contextmanager
def dripping(engine: RunningEngine) -> Iterator[None]:
    """Connections that send a byte now and then, and come again when they are closed."""
    is_over = threading.Event()

    def run() -> None:
        socks: list[socket.socket] = []
        while not is_over.wait(0.25):
            while len(socks) < SLOWLORISES:
                source = of_400_addresses(len(socks))
                try:
                    socks.append(socket.create_connection(engine.address, timeout=2, source_address=(source, 0)))
                except OSError:
                    break
            alive = []
            for sock in socks:
                try:
                    sock.sendall(b"\x01")
                    alive.append(sock)
                except OSError:
                    sock.close()
            socks = alive
        for sock in socks:
            sock.close()

    with in_threads(run, is_over=is_over):
        yield


def waits(engine: RunningEngine, number: int) -> float | None:
    """The time that an honest peer in a network of its own takes to become active; `None` if it does not."""
    sleep(PACE_SECONDS)
    began_at = monotonic()
    try:
        with Peer(engine.address, engine.node_id, CHAIN, f"127.2.{number}.1") as peer:
            peer.establish()
            return monotonic() - began_at
    except (OSError, AssertionError, HandshakeError):
        return None


def honest_peers_get_in(engine: RunningEngine, what: str) -> None:
    """Forty honest peers come while the attack goes on."""
    with ThreadPoolExecutor(8) as pool:
        waited = [
            seconds for seconds in pool.map(lambda number: waits(engine, number), range(HONEST)) if seconds is not None
        ]
    # `pytest -rP` shows it.
    sys.stdout.write(f"{what}: {len(waited)} of {HONEST} in, the longest wait {max(waited, default=0.0):.3f} s\n")
    assert len(waited) >= ENOUGH
    assert sorted(waited)[ENOUGH - 1] < PATIENCE_SECONDS


THROTTLED: Final = ["--throttle.exempt-cidrs", ""]
# So few that an attack of 51 a second fills them in a moment, as 2,000 a second would fill the defaults.
NARROW: Final = ["--limits.max-unauthenticated", "50", "--limits.max-pending-inbound", "20"]


@pytest.mark.parametrize("narrow", [[], NARROW])
@pytest.mark.parametrize(("flags", "source"), [([], of_400_addresses), (THROTTLED, of_1500_addresses)])
def test_silent_connections_keep_nobody_out(flags: list[str], narrow: list[str], source: Source) -> None:
    with RunningEngine(*flags, *narrow, workers=2, is_read=False) as engine, attacking(engine, source):
        sleep(WARM_UP_SECONDS)
        honest_peers_get_in(engine, f"silence {flags} {narrow}")
        counts = engine.call("counts")
        assert counts["unauthenticated"]["inbound"] <= counts["limits"]["max_unauthenticated"]


def test_connections_that_send_a_byte_now_and_then_keep_nobody_out() -> None:
    with RunningEngine(workers=2, is_read=False) as engine, dripping(engine):
        eventually(lambda: engine.call("counts")["unauthenticated"]["inbound"] > SLOWLORISES // 2, "they are there")
        honest_peers_get_in(engine, "slowloris")


def test_peers_that_stop_after_their_auth_keep_nobody_out() -> None:
    with RunningEngine(*NARROW, workers=2, is_read=False) as engine, _stopping_after_the_auth(engine):
        eventually(lambda: engine.call("counts")["pending"]["inbound"] == 20, "all places are taken")
        honest_peers_get_in(engine, "auth and no more")
        assert engine.call("counts")["pending"]["inbound"] <= 20


@contextmanager
def _stopping_after_the_auth(engine: RunningEngine) -> Iterator[None]:
    is_over = threading.Event()
    peers: list[Peer] = []

    def run() -> None:
        number = 0
        while not is_over.wait(PACE_SECONDS):
            number += 1
            with suppress(OSError):
                peers.append(Peer(engine.address, engine.node_id, CHAIN, of_400_addresses(number)))
                peers[-1].flush()

    try:
        with in_threads(run, is_over=is_over):
            yield
    finally:
        for peer in peers:
            peer.close()


def test_a_crowd_of_honest_peers_larger_than_every_limit_gets_in() -> None:
    crowd = 60
    flags = ["--limits.max-unauthenticated", "10", "--limits.max-pending-inbound", "5"]
    with RunningEngine(*flags, workers=2, is_read=False) as engine, ThreadPoolExecutor(crowd) as pool:
        log = engine.log("session.closed", "session.refused")
        peers = list(pool.map(lambda _: Peer(engine.address, engine.node_id, CHAIN).establish(), range(crowd)))
        eventually(lambda: engine.counts() == (0, 0, crowd, 0), "all are active")
        assert log.read() == []
        for peer in peers:
            peer.close()
