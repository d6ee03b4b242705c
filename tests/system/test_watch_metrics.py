"""Every metric moves when its thing happens, on a real engine, and none goes back when a worker is lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from os import urandom
from pathlib import Path
from threading import Event, Thread
from typing import Final

import pytest
import rlp as oracle
import zmq

from rlpx.engine.client import EngineError, connect
from rlpx.engine.settings.chain import load_chain
from rlpx.engine.watch.declared import METRICS
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.session.events import MessageReceived
from tests.system.feed_reader import FeedReader
from tests.system.harness import RunningEngine
from tests.system.peers import Peer
from tests.system.scraping import Scrapes, scrape, watched

CHAIN: Final = load_chain("dev")
TRANSACTIONS, GET_HEADERS, HEADERS, GET_BODIES = 2, 3, 4, 5
# Metrics whose thing this test does not make happen, and the test that does.
ELSEWHERE: Final = {
    "rlpx_worker_events_dropped": "tests/system/test_million.py; here it is there and zero",
    "rlpx_worker_deferred_connections": "tests/system/test_fairness.py; here it is there",
    "rlpx_log_lines_lost": "tests/engine/process/test_stdio.py; here it is there and zero",
    "rlpx_worker_held_sessions": "tests/system/test_feeds.py; here it is there and zero",
    "rlpx_build": "it is a name",
    "rlpx_sessions_limit": "it is a setting",
    "rlpx_queue_limit_bytes": "it is a setting",
    "rlpx_process_max_fds": "it is a limit",
    "rlpx_process_start_time_seconds": "it is a moment",
}
# An engine alone has none of these; tests/system/test_watch_fleet.py makes them move.
OF_FLEET: Final = {name for name in METRICS if name.startswith("rlpx_fleet")}


def encode(item: object) -> bytes:
    return bytes(oracle.encode(item))


@contextmanager
def answering(peer: Peer) -> Iterator[None]:
    """A peer that answers requests for headers, in a thread of its own."""
    is_over = Event()

    def run() -> None:
        peer.socket.settimeout(0.05)
        done = 0
        while not is_over.is_set() and not peer.session.is_closed:
            try:
                peer.step()
            except TimeoutError:
                continue
            requests = [item for item in peer.events if isinstance(item, MessageReceived) and item.kind.id == GET_HEADERS]
            for request in requests[done:]:
                peer.session.send("eth", HEADERS, encode([request.request_id, []]))
            done = len(requests)
            peer.flush()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def slow_reader(run_dir: Path, stack: ExitStack) -> None:
    """A program that subscribes to everything and reads nothing."""
    context = stack.enter_context(zmq.Context())
    reader = stack.enter_context(context.socket(zmq.SUB))
    reader.setsockopt(zmq.RCVHWM, 1)
    reader.setsockopt(zmq.RCVBUF, 4096)
    reader.setsockopt(zmq.LINGER, 0)
    reader.setsockopt_string(zmq.SUBSCRIBE, "eth.")
    reader.connect(f"ipc://{run_dir}/events.ipc")


def establish(scrapes: Scrapes) -> None:
    """What has happened once a peer's session is active."""
    for name, labels in (
        ("rlpx_accepted_connections", {}),
        ("rlpx_sessions", {"phase": "active", "direction": "inbound"}),
        ("rlpx_sessions_by_client", {"client": "other"}),
        ("rlpx_sessions_by_capability", {"capability": "eth"}),
        ("rlpx_handshake_seconds", {"direction": "inbound"}),
        *(("rlpx_handshake_stage_seconds", {"stage": stage}) for stage in ("auth", "hello", "status", "verdict")),
        ("rlpx_peer_bytes", {"direction": "in"}),
        ("rlpx_peer_bytes", {"direction": "out"}),
        ("rlpx_messages", {"message": "Status", "direction": "in"}),
        ("rlpx_message_bytes", {"message": "Status", "direction": "out"}),
        ("rlpx_readers", {"reader": "local"}),
        ("rlpx_reader_events_sent", {"reader": "local"}),
        ("rlpx_endpoint_connections", {"endpoint": "events"}),
        ("rlpx_commands", {"command": "metrics"}),
        ("rlpx_loop_lag_seconds", {"loop": "workers"}),
        ("rlpx_loop_lag_seconds", {"loop": "engine"}),
        *(("rlpx_process_cpu_seconds", {"process": process}) for process in ("engine", "watch", "worker-0")),
    ):
        scrapes.await_that(name, lambda old, new: new > old, labels)
    for name in ("rlpx_process_resident_memory_bytes", "rlpx_process_open_fds", "rlpx_worker_up", "rlpx_up"):
        scrapes.await_that(name, lambda _, new: new > 0, {})
    for name in ("rlpx_scrape_duration_seconds", "rlpx_worker_report_age_seconds", "rlpx_worker_lag_max_seconds"):
        scrapes.await_that(name, lambda old, new: new not in {0, old}, {})


def ask(scrapes: Scrapes, engine: RunningEngine, peer: Peer, session: int) -> None:
    """Requests: a peer's without and with a responder, ours, and an answer that nobody asked for."""
    peer.send(GET_BODIES, encode([1, [bytes(32)]]))
    scrapes.await_move("rlpx_requests_received", message="GetBlockBodies", outcome="empty")
    with connect(engine.run_dir) as program:
        responder = program.respond("eth.GetBlockHeaders", lambda _request: encode([0, []]))
        with closing(responder), answering(peer):
            scrapes.await_move("rlpx_worker_responders")
            peer.send(GET_HEADERS, encode([2, [5, 1, 0, 0]]))
            scrapes.await_move("rlpx_response_seconds", message="GetBlockHeaders")
            question = {"session": session, "capability": "eth", "message": "GetBlockHeaders"}
            engine.call("request", **question, payload="0x" + encode([7, [5, 1, 0, 0]]).hex())
            scrapes.await_move("rlpx_requests_sent", message="GetBlockHeaders", outcome="answered")
            scrapes.await_move("rlpx_request_seconds", message="GetBlockHeaders")
            peer.send(HEADERS, encode([99, []]))
            scrapes.await_move("rlpx_misconduct", conduct="bad_message")


def read_too_slowly(scrapes: Scrapes, engine: RunningEngine, peer: Peer, worker: int) -> None:
    """A subscriber that reads nothing, and a feed whose credit is used up."""
    with ExitStack() as stack:
        slow_reader(engine.run_dir, stack)
        feeds = stack.enter_context(FeedReader(engine.run_dir, worker, keeps=False))
        feeds.open(1, ["eth."], credit=100_000)
        scrapes.await_move("rlpx_worker_feeds")

        def announce() -> None:
            peer.send(TRANSACTIONS, encode([[urandom(1000)] * 100]))

        for _ in range(60):
            announce()
        for name in ("rlpx_feed_events_sent", "rlpx_feed_events_missed"):
            scrapes.await_move(name)
        for name in ("rlpx_reader_events_missed", "rlpx_reader_queue_bytes"):
            # The subscriber may be known only after the first events.
            scrapes.await_move(name, announce, reader="local")
        scrapes.await_move("rlpx_queue_bytes", process="engine", queue="events")


def connect_and_dial(scrapes: Scrapes, engine: RunningEngine) -> None:
    """Connections that are refused or fail, dials, and ends."""
    engine.call("ban", address="127.0.0.9", seconds=60)
    with socket.create_connection(engine.address, source_address=("127.0.0.9", 0)) as banned:
        assert banned.recv(1) == b""
    scrapes.await_move("rlpx_refused_connections", reason="address")
    with socket.create_connection(engine.address) as stranger:
        stranger.sendall(bytes(400))
    scrapes.await_move("rlpx_handshake_failures", stage="auth")
    with socket.socket() as unused:
        # It is bound, and does not listen.
        unused.bind(("127.0.0.1", 0))
        peer = PrivateKey(bytes([9]) * 32).id.hex()
        engine.call("peers-add", enode=f"enode://{peer}@127.0.0.1:{unused.getsockname()[1]}")
        scrapes.await_move("rlpx_dials_started")
        scrapes.await_move("rlpx_dials", outcome="failed")
        scrapes.await_move("rlpx_session_ends", ended_by="network", direction="outbound")
        scrapes.await_move("rlpx_static_peers", state="waiting")
        scrapes.await_move("rlpx_next_static_dial_seconds")
    with pytest.raises(EngineError, match="this very node"):
        engine.call("dial", enode=engine.enode)
    scrapes.await_move("rlpx_dials_refused", reason="connected_to_self")
    with Peer(engine.address, engine.node_id, CHAIN).establish() as silent:
        sessions = engine.call("sessions", peer=silent.node_id.hex())["sessions"]
        engine.call("disconnect", session=sessions[0]["session"])
        # It reads nothing, so its goodbye stays for two seconds.
        scrapes.await_move("rlpx_worker_goodbyes")
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(engine.run_dir / "control.ipc"))
        scrapes.await_move("rlpx_endpoint_refused", endpoint="control")


@pytest.mark.long
def test_every_metric_moves_when_its_thing_happens() -> None:
    flags = ["--events.queue-bytes", "65536", "--feeds.queue-bytes", "65536", "--control.max-connections", "16"]
    with watched(*flags) as (engine, address):
        scrapes = Scrapes(address)
        log = engine.log()
        with Peer(engine.address, engine.node_id, CHAIN).establish() as peer:
            session = log.wait("session.established").fields["session"]
            worker = engine.call("session", session=session)["worker"]
            establish(scrapes)
            ask(scrapes, engine, peer, session)
            read_too_slowly(scrapes, engine, peer, worker)
            connect_and_dial(scrapes, engine)
            # A worker is lost: it is counted, and nothing that workers count goes back.
            before = scrape(address)
            engine.workers()[worker].kill()
            scrapes.await_move("rlpx_worker_ends", how="lost")
            scrapes.await_move("rlpx_worker_starts")
        after = scrape(address)
        for key, value in before.items():
            if key.partition("[")[0].endswith(("_total", "_count", "_bucket")) and "process_cpu" not in key:
                assert after.get(key, 0) >= value, key
        assert set(METRICS) - scrapes.moved == set(ELSEWHERE) | OF_FLEET
        there = {key.partition("[")[0].removesuffix("_total").removesuffix("_info") for key in after}
        assert there >= set(ELSEWHERE)
        assert not any(name.startswith("rlpx_fleet") for name in there)
