"""Programs that send commands to a worker without end: peers have their pongs, other programs their replies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from time import monotonic, sleep

import pytest
import zmq

from tests.pair import DEV
from tests.system.data_program import data_program
from tests.system.flood import RawPeer
from tests.system.harness import RunningEngine
from tests.system.peers import Peer
from tests.system.test_calls import QUESTION
from tests.system.threads import in_threads

FLOOD_SECONDS = 1.0
# The flood and this test share the cores with others.
MAX_MEDIAN_SECONDS = 0.1
MAX_SECONDS = 1.0
MAX_GROWTH_BYTES = 150 * 1024 * 1024
HONEST = 30
# What is sent without end, by what it is.
ABUSES: dict[str, list[bytes]] = {
    "heads that are no JSON": [b"\xff" * 1000],
    "heads that are no call": [b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 10_000 + b'"}'],
    "wrong parameters": [b'{"jsonrpc":"2.0","id":1,"method":"broadcast","params":{"capability":"eth","mesage":2}}', b"\xc0"],
    "unknown parameters with long names": [
        b'{"jsonrpc":"2.0","id":1,"method":"send","params":{"' + b"sess" * 50_000 + b'":1}}'
    ],
    "nested parameters": [b'{"jsonrpc":"2.0","id":1,"method":"send","params":{"a":' + b"[" * 100_000],
    "heads of megabytes": [b'{"jsonrpc":"2.0","id":1,"method":"send","params":{"payload":"' + b"0" * 4_000_000 + b'"}}'],
    "messages to nobody": [
        b'{"jsonrpc":"2.0","id":1,"method":"send","params":{"session":99999,"capability":"eth","message":2}}',
        b"\xc0",
    ],
    "messages to a peer": [
        b'{"jsonrpc":"2.0","id":1,"method":"send","params":{"session":1,"capability":"eth","message":2,"raw":true}}',
        b"\xc0",
    ],
    "large messages to a peer": [
        b'{"jsonrpc":"2.0","id":1,"method":"send","params":{"session":1,"capability":"eth","message":2,"raw":true}}',
        bytes(1_000_000),
    ],
    "broadcasts": [
        b'{"jsonrpc":"2.0","id":1,"method":"broadcast","params":{"capability":"eth","message":2,"raw":true}}',
        b"\xc0" * 5000,
    ],
    "requests": [
        b'{"jsonrpc":"2.0","id":1,"method":"request","params":{"session":1,"capability":"eth","message":3}}',
        QUESTION,
    ],
    "cancellations": [b'{"jsonrpc":"2.0","method":"cancel","params":{"id":5}}'],
    "goodbyes to nobody": [b'{"jsonrpc":"2.0","id":1,"method":"disconnect","params":{"session":99999}}'],
}


@contextmanager
def flooding(run_dir: Path, frames: list[bytes], *, reads: bool) -> Iterator[None]:
    """Two programs that send the same message as fast as the worker takes it; those that read nothing wait for room."""
    is_over = Event()

    def flood() -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        sock = context.socket(zmq.DEALER)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.RCVHWM, 1000 if reads else 1)
        sock.connect(f"ipc://{run_dir / 'worker-0.ipc'}")
        while not is_over.is_set():
            try:
                sock.send_multipart(frames, zmq.DONTWAIT)
            except zmq.Again:
                sock.poll(5, zmq.POLLOUT)
            while reads and sock.poll(0):
                sock.recv_multipart()
        sock.close()
        context.term()

    with in_threads(flood, flood, is_over=is_over):
        yield


@contextmanager
def reading(peer: Peer) -> Iterator[None]:
    """The target of a flood reads what it is sent."""
    is_over = Event()

    def run() -> None:
        peer.socket.settimeout(0.1)
        while not is_over.is_set():
            try:
                if not peer.socket.recv(1 << 20):
                    return
            except TimeoutError:
                pass

    with in_threads(run, is_over=is_over):
        yield


@pytest.mark.alone
@pytest.mark.parametrize("reads", [True, False], ids=["reads", "reads-nothing"])
def test_floods_of_programs_leave_peers_their_pongs_and_others_their_replies(*, reads: bool) -> None:
    with (
        RunningEngine(workers=1, is_read=False) as engine,
        Peer(engine.address, engine.node_id, DEV) as target,
        ExitStack() as stack,
    ):
        target.establish()
        # Each peer pings rarely enough for its bucket of pings.
        honest = [stack.enter_context(RawPeer(engine.address, engine.node_id)).establish() for _ in range(HONEST)]
        [worker] = engine.workers()
        before = worker.memory_info().rss
        friend = stack.enter_context(data_program(engine.run_dir))
        stack.enter_context(reading(target))
        for name, frames in ABUSES.items():
            pings: list[float] = []
            replies: list[float] = []
            with flooding(engine.run_dir, frames, reads=reads):
                sleep(0.2)
                ends_at = monotonic() + FLOOD_SECONDS
                while monotonic() < ends_at:
                    pings.append(honest[len(pings) % HONEST].ping())
                    began = monotonic()
                    assert friend.call("disconnect", session=99_999)[0] == "no_such_session"
                    replies.append(monotonic() - began)
                    sleep(0.05)
                grown = worker.memory_info().rss - before
            for times in (pings, replies):
                times.sort()
                assert times[len(times) // 2] < MAX_MEDIAN_SECONDS, (name, times)
                assert times[-1] < MAX_SECONDS, (name, times)
            assert grown < MAX_GROWTH_BYTES, name
