"""Among a hundred peers, one reads nothing and one floods requests while the responder stalls: no other peer is affected."""

from __future__ import annotations

import selectors
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from os import urandom
from time import monotonic
from typing import Any

import pytest
import rlp as oracle

from rlpx.engine.client.blocking import BlockingResponder
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.session.events import MessageReceived
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.threads import in_threads

pytestmark = pytest.mark.alone

CHAIN = load_chain("dev")
GET_HEADERS, GET_BODIES, BODIES, TRANSACTIONS = 3, 5, 6, 2
PEERS = 100
MOST_OPEN = 4
WRITE_AHEAD_BYTES = 256 * 1024
ROUNDS = 30
NOISE_BYTES = 64 * 1024
# The kernel buffers some megabytes for a peer that reads nothing; then the engine's own queue of 1 MiB fills.
MOST_NOISE = 400
# That queue, what is sealed ahead of it, the flood's parked requests and answers, and Python's own arenas.
MAX_GROWTH_BYTES = 16 * 1024 * 1024
# The others wait for milliseconds. A machine busy with other tests may add tenths of a second, a stall seconds.
MAX_WAIT_SECONDS = 2.5


def encode(item: object) -> bytes:
    return bytes(oracle.encode(item))


@contextmanager
def reading(peers: list[Peer]) -> Iterator[None]:
    """Read everything that these peers get, in a thread."""
    is_over = threading.Event()
    ready = selectors.DefaultSelector()
    for peer in peers:
        peer.socket.setblocking(False)
        ready.register(peer.socket, selectors.EVENT_READ, peer)

    def run() -> None:
        while not is_over.is_set():
            for entry, _ in ready.select(0.05):
                entry.data.step()

    with ready, in_threads(run, is_over=is_over):
        yield


def stall(is_over: threading.Event) -> None:
    """Answer nothing for as long as the test goes on."""
    is_over.wait(60)


@contextmanager
def stalling(engine: RunningEngine) -> Iterator[BlockingResponder]:
    """A responder that takes requests for headers and answers none of them in time."""
    is_over = threading.Event()
    responder = engine.connected.respond("eth.GetBlockHeaders", lambda _: stall(is_over))
    try:
        yield responder
    finally:
        is_over.set()
        responder.close()


@contextmanager
def flooding(peer: Peer) -> Iterator[None]:
    """Ask for headers as fast as the socket takes it, and read no answer before the end."""
    is_over = threading.Event()
    peer.socket.settimeout(0.2)

    def run() -> None:
        number = 0
        while not is_over.is_set():
            for _ in range(500):
                number += 1
                peer.session.send("eth", GET_HEADERS, encode([number, [5, 1, 0, 0]]))
            data = peer.session.data_to_send()
            while data and not is_over.is_set():
                try:
                    data = data[peer.socket.send(data) :]
                except TimeoutError:
                    continue

    with in_threads(run, is_over=is_over):
        yield


def waits(peer: Peer, number: int) -> float:
    """The time that a peer waits for the answer to a request that nobody serves."""
    asked_at = monotonic()
    peer.send(GET_BODIES, encode([number, []]))

    def is_answered() -> bool:
        return any(
            isinstance(event, MessageReceived) and event.kind.id == BODIES and event.request_id == number
            for event in peer.events
        )

    eventually(is_answered, "an answer")
    return monotonic() - asked_at


def test_a_slow_reader_a_flood_and_a_stalled_responder_harm_nobody_else() -> None:
    flags = ["--responders.answer-s", "3", "--throttle.per-ip-live", "1000"]
    with RunningEngine(*flags, workers=1, is_read=False) as engine, ExitStack() as stack:
        peers = [stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)) for _ in range(PEERS)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Peer.establish, peers))
        lazy, flood, *others = peers
        (worker,) = engine.workers()
        stack.enter_context(reading(others))
        calm = [waits(peer, 1) for peer in others[:ROUNDS]]
        before = worker.memory_info().rss
        with stalling(engine), flooding(flood):
            eventually(lambda: engine.call("session", session=2)["messages_in"] > MOST_OPEN, "the flood is there")
            told = 0
            while not send(engine, urandom(NOISE_BYTES), peer=lazy.node_id.hex())["refused"]:
                told += 1
                assert told < MOST_NOISE
            storm: list[float] = []
            for number in range(ROUNDS):
                result = send(engine, urandom(NOISE_BYTES))
                # Refusals name the peer that reads nothing and, in time, the flooding one, which does not read either.
                assert {"1"} <= result["refused"].keys() <= {"1", "2"}
                storm.append(waits(others[number], 2))
            growth = worker.memory_info().rss - before
            queued = engine.call("session", session=1)["queued_bytes"]
        # `pytest -rP` shows it.
        sys.stdout.write(
            f"memory {growth >> 10} KiB more; the longest wait {max(calm):.4f} s calm, {max(storm):.4f} s not\n"
        )
        eventually(lambda: all(heard(peer) == ROUNDS for peer in others), "each broadcast at every peer that reads")
        assert queued <= 1024 * 1024 + WRITE_AHEAD_BYTES + NOISE_BYTES
        assert growth < MAX_GROWTH_BYTES
        assert max(storm) < MAX_WAIT_SECONDS


def send(engine: RunningEngine, payload: bytes, **filters: str) -> dict[str, Any]:
    """Send a broadcast."""
    return dict(
        engine.client.call("broadcast", attachment=payload, capability="eth", message=TRANSACTIONS, raw=True, **filters)
    )


def heard(peer: Peer) -> int:
    """The number of broadcasts that a peer has received."""
    return sum(isinstance(event, MessageReceived) and event.kind.id == TRANSACTIONS for event in peer.events)
