"""Faults that the engine survives: lost workers, a lost engine, full descriptor tables, readers that do not read, crowds."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest
import zmq

from rlpx.engine.client.presence import EngineError
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol import rlp
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.harness import PATIENCE_SECONDS, EventLog, RunningEngine, eventually
from tests.system.peers import Peer

CHAIN = load_chain("dev")


def connect(engine: RunningEngine, stack: ExitStack, count: int) -> list[Peer]:
    """Connect this many peers and wait until they are active."""
    peers = [stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)) for _ in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Peer.establish, peers))
    eventually(lambda: engine.counts()[2] >= count, "all are active")
    return peers


def cpu_share(process: psutil.Process, seconds: float) -> float:
    """The share of one core that a process takes over some time."""
    before = sum(process.cpu_times()[:2])
    sleep(seconds)
    return float((sum(process.cpu_times()[:2]) - before) / seconds)


def lowest_free_descriptor(process: psutil.Process) -> int:
    """The number that a process' next descriptor gets, once it is no longer changing."""
    seen: list[set[str]] = []

    def is_at_rest() -> bool:
        seen.append({file.name for file in Path(f"/proc/{process.pid}/fd").iterdir()})
        sleep(0.1)
        return len(seen) > 2 and seen[-1] == seen[-2] == seen[-3]

    eventually(is_at_rest, "descriptors at rest")
    return next(number for number in range(4096) if str(number) not in seen[-1])


@pytest.mark.alone
def test_a_killed_worker_costs_its_own_sessions_only_and_is_replaced_within_two_seconds() -> None:
    with RunningEngine() as engine, ExitStack() as stack:
        log = engine.log("session.", "worker.", "eth.")
        peers = connect(engine, stack, 20)
        log.wait("session.established", count=20)
        sessions = {item["session"]: item["worker"] for item in engine.call("sessions")["sessions"]}
        lost = {session for session, worker in sessions.items() if worker == 0}
        assert len(lost) == 10
        engine.workers()[0].send_signal(signal.SIGKILL)
        killed_at = monotonic()
        log.wait("session.closed", count=10, ended_by="worker_lost")
        assert engine.counts() == (0, 0, 10, 0)
        eventually(lambda: len([w for w in engine.call("status")["workers"] if w["ready"]]) == 2, "two workers", 2.0)
        # The replacement has the least work, so that it gets the next one.
        connect(engine, stack, 1)
        assert monotonic() - killed_at < 4.0
        assert log.wait("session.opened", count=21).fields["worker"] == 0
        # The other peers lose nothing: every message of theirs arrives.
        for peer in peers:
            if peer.socket.fileno() >= 0:
                try:
                    peer.send(2, b"\xc1\x05")
                except OSError:
                    continue
        log.wait("eth.Transactions", count=10)
        closed = [event.fields["session"] for event in log.of("session.closed")]
        assert sorted(closed) == sorted(lost)
        assert log.of("worker.lost")[0].fields["sessions"] == 10
        assert log.gaps == []
    assert engine.process.returncode == 0


def test_a_killed_engine_takes_its_workers_along_and_blocks_no_restart() -> None:
    with RunningEngine() as engine, ExitStack() as stack:
        connect(engine, stack, 4)
        workers = engine.workers()
        engine.process.send_signal(signal.SIGKILL)
        engine.process.wait(PATIENCE_SECONDS)
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)
        assert alive == []
        assert list(engine.run_dir.glob("*.ipc"))
        with RunningEngine("--listen", f"127.0.0.1:{engine.address[1]}", run_dir=engine.run_dir) as again:
            assert again.node_id == engine.node_id
            connect(again, stack, 2)


def test_an_engine_out_of_descriptors_rests_recovers_and_loses_nobody() -> None:
    with RunningEngine("--timeouts.auth-s", "5", workers=1) as engine, ExitStack() as stack:
        process = psutil.Process(engine.process.pid)
        connect(engine, stack, 1)
        # One more descriptor than it has would be too many.
        process.rlimit(resource.RLIMIT_NOFILE, (lowest_free_descriptor(process), 4096))
        waiting = [stack.enter_context(socket.create_connection(engine.address)) for _ in range(20)]
        assert cpu_share(process, 2.0) < 0.1
        assert engine.stderr.count("cannot accept") == 1
        process.rlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        eventually(lambda: engine.unauthenticated() == 20, "the backlog is accepted")
        for sock in waiting:
            sock.close()
        eventually(lambda: engine.counts() == (0, 0, 1, 0), "and gone")
        connect(engine, stack, 1)


def test_a_worker_out_of_descriptors_rests_recovers_and_counts_each_lost_connection() -> None:
    with RunningEngine(workers=1) as engine, ExitStack() as stack:
        log = engine.log("session.")
        (worker,) = engine.workers()
        worker.rlimit(resource.RLIMIT_NOFILE, (lowest_free_descriptor(worker), 4096))
        sockets = [stack.enter_context(socket.create_connection(engine.address)) for _ in range(20)]
        log.wait("session.closed", count=20, cause="the worker is out of file descriptors", ended_by="engine")
        for sock in sockets:
            sock.close()
        assert sorted(event.fields["session"] for event in log.of("session.closed")) == list(range(1, 21))
        assert engine.counts() == (0, 0, 0, 0)
        assert cpu_share(worker, 2.0) < 0.1
        worker.rlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        connect(engine, stack, 2)
        # A peer that has our Status may be ahead of the engine's count.
        eventually(lambda: engine.counts() == (0, 0, 2, 0), "both are counted")


def test_a_stuck_worker_takes_no_engine_with_it() -> None:
    with RunningEngine("--throttle.per-ip-live", "1000") as engine, ExitStack() as stack:
        first, second = engine.workers()
        first.suspend()
        try:
            # Its queue holds what it can; the other responder serves.
            peers = [stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)) for _ in range(10)]
            status = engine.call("status")
            assert status["counts"]["unauthenticated"]["inbound"] == 10
            assert [worker["pid"] for worker in status["workers"]] == [first.pid, second.pid]
        finally:
            first.resume()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(Peer.establish, peers))
        eventually(lambda: engine.counts() == (0, 0, 10, 0), "all of them after all")


def test_a_subscriber_that_never_reads_is_noticed_by_nobody_else() -> None:
    payload = bytes([0xB9, 0x20, 0x00]) + bytes(8192)
    with RunningEngine("--events.queue-bytes", "4194304", workers=1) as engine, ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        lazy = stack.enter_context(context.socket(zmq.SUB))
        lazy.setsockopt(zmq.RCVHWM, 1)
        lazy.setsockopt_string(zmq.SUBSCRIBE, "")
        lazy.connect(f"ipc://{engine.run_dir}/events.ipc")
        log = engine.log("eth.")
        (peer,) = connect(engine, stack, 1)
        before = engine.call("status")["memory_bytes"]
        # 64 MiB, far more than the lazy reader's queue and sockets hold. The next ones are sent when the last have arrived.
        for sent in range(16, 8192 + 1, 16):
            for _ in range(16):
                peer.send(2, payload)
            while len(log.events) < sent:
                assert log.read(20.0)
        assert log.gaps == []
        assert [event.payload for event in log.of("eth.Transactions")] == [payload] * 8192
        assert engine.call("status")["memory_bytes"] - before < 48 * 1024 * 1024
        # A worker reports this once a second; before its first report it is unknown.
        dropped = eventually(
            lambda: [
                worker["dropped_events"]
                for worker in engine.call("status")["workers"]
                if worker["dropped_events"] is not None
            ],
            "the worker has reported",
        )
        assert dropped == [0]


def test_five_thousand_connections_leave_no_descriptor_and_no_memory_behind() -> None:
    with RunningEngine() as engine:
        processes = [psutil.Process(engine.process.pid), *engine.workers()]

        def come_and_go(count: int) -> None:
            for index in range(count):
                if index % 10:
                    socket.create_connection(engine.address).close()
                else:
                    Peer(engine.address, engine.node_id, CHAIN).establish().leave()

        def settle() -> list[tuple[int, int]]:
            eventually(lambda: engine.counts() == (0, 0, 0, 0), "everybody is gone")
            eventually(lambda: all(w["goodbyes"] == 0 for w in engine.call("status")["workers"]), "goodbyes are over")
            return [(process.num_fds(), process.memory_info().rss) for process in processes]

        come_and_go(1000)
        before = settle()
        threads = [threading.Thread(target=come_and_go, args=(1250,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = settle()
        for (fds_before, memory_before), (fds_after, memory_after) in zip(before, after, strict=True):
            assert fds_after <= fds_before + 1
            assert memory_after - memory_before < 8 * 1024 * 1024


def test_each_accepted_connection_is_opened_and_closed_exactly_once() -> None:
    with RunningEngine() as engine:
        log = engine.log("session.")
        for index in range(200):
            with socket.create_connection(engine.address) as sock:
                sock.sendall(bytes(index))
        log.wait("session.closed", count=200)
        log.read(0.5)
        opened = Counter(event.fields["session"] for event in log.of("session.opened"))
        closed = Counter(event.fields["session"] for event in log.of("session.closed"))
        assert opened == closed
        assert set(opened.values()) == {1}
        assert log.gaps == []


def test_before_the_auth_a_limit_leaves_the_rest_in_the_backlog_until_somebody_is_slow() -> None:
    with RunningEngine("--limits.max-unauthenticated", "5", "--timeouts.auth-s", "2") as engine, ExitStack() as stack:
        log: EventLog = engine.log("session.")
        for _ in range(12):
            stack.enter_context(socket.create_connection(engine.address))
        seen = 0
        while len(log.of("session.closed")) < 12:
            seen = max(seen, engine.unauthenticated())
            assert seen <= 5
            log.read(0.05)
        assert seen == 5
        assert not log.of("session.refused")
        causes = Counter(event.fields["cause"] for event in log.of("session.closed"))
        # The last ones have no newcomers after them, so they wait out their time.
        assert causes == {
            "it sent no auth, and others needed its place": 7,
            "the peer took too long at auth before it sent a byte": 5,
        }


def test_dials_that_are_called_off_at_once_end_and_give_their_places_back() -> None:
    with RunningEngine(workers=1) as engine, zmq.Context() as context, context.socket(zmq.DEALER) as user:
        log = engine.log("dial.")
        user.connect(f"ipc://{engine.run_dir}/control.ipc")
        ids = [PrivateKey(bytes([0] * 31 + [number])).id.hex() for number in range(1, 31)]
        for node_id in ids:
            # Nothing routes to this address: unless the dial is ended, it takes its 15 seconds.
            dial = {"jsonrpc": "2.0", "id": 1, "method": "dial", "params": {"enode": f"enode://{node_id}@240.0.0.1:1"}}
            user.send(json.dumps(dial).encode())
            user.send(b'{"jsonrpc": "2.0", "id": 2, "method": "disconnect-all"}')
        log.wait("dial.failed", count=30)
        assert engine.counts() == (0, 0, 0, 0)


def test_a_worker_that_hangs_is_replaced_and_its_sessions_are_ended() -> None:
    with RunningEngine() as engine, ExitStack() as stack:
        log = engine.log("session.", "worker.")
        connect(engine, stack, 4)
        log.wait("session.established", count=4)
        first, _ = engine.workers()
        first.suspend()
        log.wait("session.closed", count=2, ended_by="worker_lost")
        engine.says("a worker is stuck")
        log.wait("worker.started")
        assert engine.counts() == (0, 0, 2, 0)


def test_a_replacement_knows_the_head_that_was_set_while_it_was_starting() -> None:
    with RunningEngine(workers=1) as engine, ExitStack() as stack:
        log = engine.log("worker.")
        engine.workers()[0].send_signal(signal.SIGKILL)
        log.wait("worker.lost")
        engine.call("set-status", number=777, hash="0x" + "07" * 32)
        log.wait("worker.started")
        (peer,) = connect(engine, stack, 1)
        assert peer.session.status is not None
        assert peer.session.status.latest == 777


def test_a_request_that_cannot_be_framed_is_an_error_and_harms_no_worker() -> None:
    with RunningEngine(workers=1) as engine, ExitStack() as stack:
        connect(engine, stack, 1)
        oversized = rlp.encode([1, os.urandom(17 * 1024 * 1024)])
        with pytest.raises(EngineError, match="of a frame") as error:
            engine.client.call("request", attachment=oversized, session=1, capability="eth", message=3, raw=True)
        assert error.value.name == "invalid_params"
        engine.comes_to(0, 0, 1, 0)
