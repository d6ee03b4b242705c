"""Programs that answer peers' requests: they serve, share, stall, leave, and serve a worker that replaces another."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import urandom
from time import monotonic, sleep

import pytest
import rlp as oracle

from rlpx.engine.client import BlockingResponder, Request, connect
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.session.events import Answered, MessageReceived
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer

CHAIN = load_chain("dev")
GET_HEADERS, HEADERS, GET_BODIES = 3, 4, 5


def encode(item: object) -> bytes:
    return bytes(oracle.encode(item))


@contextmanager
def serving(
    engine: RunningEngine,
    answer: Callable[[Request], bytes | None],
    at_a_time: int = 64,
    topic: str = "eth.GetBlockHeaders",
) -> Iterator[BlockingResponder]:
    """A responder for one topic."""
    with connect(engine.run_dir) as connected:
        responder = connected.respond(topic, answer, at_a_time=at_a_time)
        eventually(lambda: all(worker["responders"] for worker in engine.call("status")["workers"]), "workers know it")
        yield responder


def ask(peer: Peer, message: int, request_id: int) -> None:
    peer.send(message, encode([request_id, [bytes(32)] if message == GET_BODIES else [5, 1, 0, 0]]))


def answers(peer: Peer, count: int) -> list[bytes]:
    """Read the payloads of the next responses."""
    found: list[bytes] = []
    while len(found) < count:
        before = len(peer.events)
        peer.step()
        found += [
            e.payload for e in peer.events[before:] if isinstance(e, MessageReceived | Answered) and e.kind.id % 2 == 0
        ]
    return found


def headers(request: Request) -> bytes:
    """One header, under an id of ours: the engine gives it the peer's."""
    assert request.topic == "eth.GetBlockHeaders"
    return encode([99, [[b"\x01", request.session.to_bytes(4, "big")]]])


def test_a_responder_answers_under_the_peers_own_id_and_others_get_the_empty_answer() -> None:
    with RunningEngine() as engine, serving(engine, headers) as responder:
        peers = [Peer(engine.address, engine.node_id, CHAIN).establish() for _ in range(4)]
        for session, peer in enumerate(peers, 1):
            # Id 0, and one id twice in flight, are legal.
            for request_id in (7, 0, 7):
                ask(peer, GET_HEADERS, request_id)
            expected = [encode([i, [[b"\x01", session.to_bytes(4, "big")]]]) for i in (7, 0, 7)]
            assert answers(peer, 3) == expected
            ask(peer, GET_BODIES, 9)
            assert answers(peer, 1) == [encode([9, []])]
            peer.close()
        assert responder.answered == 12


def test_a_responder_that_says_nothing_useful_is_the_empty_answer() -> None:
    with (
        RunningEngine(workers=1) as engine,
        serving(engine, lambda _: None),
        Peer(engine.address, engine.node_id, CHAIN) as peer,
    ):
        peer.establish()
        ask(peer, GET_HEADERS, 7)
        assert answers(peer, 1) == [encode([7, []])]


@pytest.mark.alone
def test_a_stalled_responder_costs_its_time_then_the_peer_has_the_empty_answer() -> None:
    def stalled(_: Request) -> bytes | None:
        sleep(2.0)
        return None

    with RunningEngine("--responders.answer-s", "0.5", workers=1) as engine, serving(engine, stalled):
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            started = monotonic()
            ask(peer, GET_HEADERS, 7)
            assert answers(peer, 1) == [encode([7, []])]
            assert 0.4 < monotonic() - started < 1.9
        eventually(lambda: engine.call("status")["workers"][0]["unanswered"] == 1, "it is counted")


def test_more_requests_than_a_responder_takes_get_the_empty_answer_at_once() -> None:
    gate = threading.Event()

    def one_at_a_time(request: Request) -> bytes | None:
        gate.wait(4)
        return headers(request)

    with (
        RunningEngine(workers=1) as engine,
        serving(engine, one_at_a_time, at_a_time=1),
        Peer(engine.address, engine.node_id, CHAIN) as peer,
    ):
        peer.establish()
        ask(peer, GET_HEADERS, 1)
        ask(peer, GET_HEADERS, 2)
        assert answers(peer, 1) == [encode([2, []])]
        gate.set()
        assert answers(peer, 1) == [encode([1, [[b"\x01", (1).to_bytes(4, "big")]]])]


def test_a_flood_of_requests_is_left_in_the_peers_socket_and_harms_nobody_else() -> None:
    gate = threading.Event()

    def gated(request: Request) -> bytes | None:
        gate.wait(3)
        return headers(request)

    with RunningEngine(workers=1) as engine, serving(engine, gated):
        flood, other = (Peer(engine.address, engine.node_id, CHAIN).establish() for _ in range(2))
        for number in range(200):
            flood.session.send("eth", GET_HEADERS, encode([number, [5, 1, 0, 0]]))
        flood.flush()  # all in one write, so that they come in one chunk
        eventually(lambda: engine.call("session", session=1)["messages_in"] > 6, "the first were read")
        # The flood has four of the responder's places, so that another peer's request is served, not answered with nothing.
        ask(other, GET_HEADERS, 9)
        gate.set()
        assert answers(other, 1) == [encode([9, [[b"\x01", (2).to_bytes(4, "big")]]])]
        # Four handlers at a time, in threads: each answer once, in any order.
        served = sorted(answers(flood, 200))
        assert served == sorted(encode([number, [[b"\x01", (1).to_bytes(4, "big")]]]) for number in range(200))
        flood.close()
        other.close()


def test_a_slow_reader_of_large_answers_is_no_peer_that_does_not_read() -> None:
    answer = encode([1, bytes(1) * 2_000_000 + urandom(1_500_000)])
    with (
        RunningEngine(workers=1) as engine,
        serving(engine, lambda _: answer),
        Peer(engine.address, engine.node_id, CHAIN) as peer,
    ):
        peer.establish()
        for number in range(5):
            peer.session.send("eth", GET_HEADERS, encode([number, [5, 1, 0, 0]]))
        peer.flush()
        sleep(2.0)
        assert len(answers(peer, 5)) == 5
        engine.comes_to(0, 0, 1, 0)


def test_a_request_too_long_for_any_client_is_not_offered() -> None:
    with RunningEngine(workers=1) as engine, serving(engine, headers, topic="eth.GetBlockBodies") as responder:
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            peer.send(GET_BODIES, encode([7, [bytes(32)] * 9000]))
            assert answers(peer, 1) == [encode([7, []])]
        assert responder.answered == 0


def test_a_replaced_worker_learns_of_the_responder() -> None:
    with RunningEngine(workers=1) as engine, serving(engine, headers) as responder:
        log = engine.log("worker.")
        engine.workers()[0].send_signal(signal.SIGKILL)
        log.wait("worker.started")
        sleep(1.5)
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            ask(peer, GET_HEADERS, 3)
            assert answers(peer, 1)[0] == encode([3, [[b"\x01", (1).to_bytes(4, "big")]]])
        assert responder.answered == 1


@pytest.mark.alone
def test_a_responder_that_has_gone_is_no_responder() -> None:
    with RunningEngine(workers=1) as engine:
        with serving(engine, headers):
            pass
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            ask(peer, GET_HEADERS, 3)
            started = monotonic()
            assert answers(peer, 1) == [encode([3, []])]
            assert monotonic() - started < 2
