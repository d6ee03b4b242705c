"""The ends of sessions as events report them: no goodbye of a peer is lost, and no session ends without an event."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from time import sleep
from typing import Final

from rlpx.engine.client.client import Client
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.harness import PATIENCE_SECONDS, RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.threads import in_threads

CHAIN: Final = load_chain("dev")
# The number of peers that leave in each round while the engine writes to them: 1,000 in all.
ROUNDS: Final = 5
LEAVING: Final = 200
# The time between two of them, so that they leave in the midst of broadcasts.
LEAVE_SECONDS: Final = 0.001
DIALS: Final = 200
# Small, so that the peers' buffers, which nobody reads, do not fill.
SENT_BYTES: Final = 8000


@contextmanager
def broadcasting(engine: RunningEngine) -> Iterator[None]:
    """Broadcast continuously, so that writes are always on their way."""
    is_over, has_begun = threading.Event(), threading.Event()
    payload = b"\xb9" + SENT_BYTES.to_bytes(2, "big") + os.urandom(SENT_BYTES)

    def run() -> None:
        with Client.of(engine.run_dir) as client:
            while not is_over.is_set():
                client.call("broadcast", attachment=payload, capability="eth", message="Transactions", raw=True)
                has_begun.set()

    with in_threads(run, is_over=is_over):
        assert has_begun.wait(PATIENCE_SECONDS)
        yield


def leave(peer: Peer) -> None:
    """Say goodbye and close at once: the engine's last bytes are unread, so the kernel resets the connection."""
    peer.session.disconnect(DisconnectReason.USELESS_PEER, "of no use")
    with suppress(ConnectionError):
        peer.flush()
    peer.close()


def test_no_goodbye_of_a_peer_is_lost_though_writes_to_it_fail() -> None:
    with RunningEngine(workers=2) as engine, ThreadPoolExecutor(4) as pool:
        log = engine.log("session.closed")
        for _ in range(ROUNDS):
            peers = list(pool.map(lambda _: Peer(engine.address, engine.node_id, CHAIN).establish(), range(LEAVING)))
            with broadcasting(engine):
                for peer in peers:
                    leave(peer)
                    sleep(LEAVE_SECONDS)
            eventually(lambda: engine.counts()[2] == 0, "all have left")
        log.wait("session.closed", count=ROUNDS * LEAVING)
        ends = {(item.fields["ended_by"], item.fields["reason"]) for item in log.of("session.closed")}
        assert ends == {("peer", "useless_peer")}


@contextmanager
def hanging_up() -> Iterator[int]:
    """A port whose listener hangs up on whoever connects, at three different moments."""
    with socket.create_server(("127.0.0.1", 0), backlog=DIALS) as server:

        def run() -> None:
            with suppress(OSError):
                for number in count():
                    sock, _ = server.accept()
                    with sock, suppress(ConnectionError):
                        if number % 3 == 1:
                            sock.sendall(bytes(2))
                        elif number % 3:
                            sock.recv(4096)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_each_dial_that_ends_at_once_is_opened_and_closed() -> None:
    with RunningEngine("--limits.max-pending-outbound", str(DIALS), workers=2) as engine, hanging_up() as port:
        log = engine.log("session.", "dial.failed")
        sessions = [
            engine.call("dial", enode=f"enode://{PrivateKey.generate(os.urandom).id.hex()}@127.0.0.1:{port}")["session"]
            for _ in range(DIALS)
        ]
        log.wait("dial.failed", count=DIALS)
        for topic in ("session.opened", "session.closed"):
            log.wait(topic, count=DIALS)
        told: dict[int, list[str]] = {session: [] for session in sessions}
        for item in log.events:
            told[item.fields["session"]].append(item.topic)
        # The engine publishes the failure of the dial, which follows all the same.
        assert set(map(tuple, told.values())) == {("session.opened", "session.closed", "dial.failed")}
