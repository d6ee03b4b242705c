"""Workers of a running engine are replaced one by one, started, and sent away, while peers come and go."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic, sleep
from typing import Any, Self

import psutil
import pytest

from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineError
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.session.events import Closed
from tests.reader_model import ReaderModel
from tests.system.harness import PATIENCE_SECONDS, RunningEngine, eventually
from tests.system.peers import Peer

CHAIN = load_chain("dev")
CONNECTS_PER_SECOND = 100


def connect(engine: RunningEngine, stack: ExitStack, count: int) -> list[Peer]:
    """Connect this many peers and wait until they are active."""
    peers = [stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)) for _ in range(count)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Peer.establish, peers))
    eventually(lambda: engine.counts()[2] >= count, "all are active")
    return peers


def workers(engine: RunningEngine) -> dict[int, dict[str, Any]]:
    """The workers of `status`, by number."""
    return {worker["worker"]: worker for worker in engine.call("status")["workers"]}


def is_restarted(engine: RunningEngine) -> bool:
    """Whether no restart is in progress and nobody leaves."""
    status = engine.call("status")
    return not status["workforce"]["restarting"] and not any(worker["leaving"] for worker in status["workers"])


class ConnectLoop:
    """Connects 100 times a second and closes, in a thread; counts what fails, and the longest connect."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.connects = 0
        self.failures: list[str] = []
        self._address = address
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        due = monotonic()
        while not self._is_over.is_set():
            due += 1 / CONNECTS_PER_SECOND
            try:
                with socket.create_connection(self._address, 5.0) as sock:
                    # A connection that the engine closes at once would be readable.
                    sock.settimeout(0.001)
                    with suppress(TimeoutError):
                        self.failures.append(f"said {sock.recv(1)!r}")
                self.connects += 1
            except OSError as error:
                self.failures.append(str(error))
            sleep(max(0.0, due - monotonic()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_SECONDS)


@contextmanager
def following(engine: RunningEngine) -> Iterator[tuple[Subscriber, ReaderModel]]:
    """A reader of everything, with its model."""
    with Subscriber.of(engine.run_dir, [""]) as subscriber:
        model = ReaderModel()
        model.take(subscriber.confirm(PATIENCE_SECONDS))
        yield subscriber, model


def test_a_restart_refuses_nobody_and_ends_each_session_politely_within_the_drain_time() -> None:
    with RunningEngine() as engine, ExitStack() as stack, following(engine) as (subscriber, model):
        log = engine.log("worker.", "session.closed")
        peers = connect(engine, stack, 24)
        before = {worker["pid"] for worker in workers(engine).values()}
        with ConnectLoop(engine.address) as loop:
            result = engine.call("restart-workers", drain_s=2, wait=True)
            sleep(0.3)
        assert result == {
            "workers": [0, 1],
            "drain_s": 2.0,
            "replaced": [{"worker": 0, "by": 2}, {"worker": 1, "by": 0}],
        }
        assert loop.failures == []
        assert loop.connects > CONNECTS_PER_SECOND
        after = {worker["pid"] for worker in workers(engine).values()}
        assert len(after) == 2
        assert not before & after
        # Every peer has read a goodbye, and every end was ours.
        for peer in peers:
            while not peer.session.is_closed:
                peer.step()
            [end] = [event for event in peer.events if isinstance(event, Closed)]
            assert (end.reason, end.ended_by) == (0x08, "peer")
        log.wait("worker.stopped", count=2)
        ends = [event.fields for event in log.of("session.closed") if event.fields["stage"] == "active"]
        assert {(end["ended_by"], end["reason"]) for end in ends} == {("engine", "client_quitting")}
        assert len(ends) == 24
        leaving = log.of("worker.leaving")
        assert [(event.fields["worker"], event.fields["heir"]) for event in leaving] == [(0, 2), (1, 0)]
        for number, event in enumerate(leaving):
            stopped = log.of("worker.stopped")[number].fields
            assert (stopped["worker"], stopped["cause"], stopped["sessions"]) == (event.fields["worker"], "exit code 0", 0)
            mine = [end["time_us"] - event.fields["time_us"] for end in ends if end["worker"] == event.fields["worker"]]
            # Spread over the drain time, not all at once, and never later.
            assert max(mine) < 2.5e6
            assert max(mine) - min(mine) > 0.5e6
        assert (log.gaps, model.lost, model.missed) == ([], 0, 0)
        eventually(lambda: _agrees(engine, subscriber, model), "the table agrees")
        assert model.lost == model.missed == 0
        connect(engine, stack, 4)
    assert engine.process.returncode == 0


def _agrees(engine: RunningEngine, subscriber: Subscriber, model: ReaderModel) -> bool:
    while items := subscriber.poll(0.3):
        model.take(items)
    return model.differences(engine.call("sessions", limit=10_000)["sessions"]) == []


def test_with_a_drain_time_of_zero_sessions_stay_until_they_end_and_a_leaving_worker_serves_them() -> None:
    with RunningEngine() as engine, ExitStack() as stack:
        log = engine.log("worker.", "eth.", "session.opened")
        peers = connect(engine, stack, 6)
        old = {worker["pid"] for worker in workers(engine).values()}
        engine.call("restart-workers", drain_s=0, wait=True)
        shown = workers(engine)
        assert [(number, worker["leaving"]) for number, worker in shown.items()] == [
            (0, True),
            (1, True),
            (2, False),
            (3, False),
        ]
        assert {worker["leaves_in_ms"] for worker in shown.values()} == {None}
        engine.comes_to(0, 0, 6, 0)
        # New sessions go to the new ones only.
        newcomers = connect(engine, stack, 6)
        log.wait("session.opened", count=12)
        opened = [event.fields["worker"] for event in log.of("session.opened")]
        assert set(opened[6:]) == {2, 3}
        # The old ones go on to publish and to be commanded.
        for peer in peers:
            peer.send(2, b"\xc1\x05")
        log.wait("eth.Transactions", count=6)
        with pytest.raises(EngineError) as caught:
            engine.call("restart-workers")
        assert caught.value.name == "busy"
        mine = [item for item in engine.call("sessions")["sessions"] if item["worker"] < 2]
        engine.call("disconnect", session=mine[0]["session"])
        for peer in peers:
            if not peer.session.is_closed:
                with suppress(OSError):
                    peer.leave()
        log.wait("worker.stopped", count=2)
        assert {event.fields["worker"] for event in log.of("worker.stopped")} == {0, 1}
        eventually(lambda: list(workers(engine)) == [2, 3], "the old ones are gone")
        assert not old & {worker["pid"] for worker in workers(engine).values()}
        assert sorted(path.name for path in engine.run_dir.glob("worker-*")) == ["worker-2.ipc", "worker-3.ipc"]
        engine.comes_to(0, 0, len(newcomers), 0)
        assert log.gaps == []


def test_workers_that_wait_for_ever_can_be_given_a_time() -> None:
    with RunningEngine() as engine, ExitStack() as stack:
        connect(engine, stack, 6)
        engine.call("restart-workers", drain_s=0, wait=True)
        assert engine.call("set-workers", workers=2, drain_s=0.5)["leaving"] == [0, 1]
        assert all(worker["leaves_in_ms"] is not None for worker in workers(engine).values() if worker["leaving"])
        eventually(lambda: list(workers(engine)) == [2, 3], "the old ones are gone")
        assert engine.counts() == (0, 0, 0, 0)


def test_a_second_restart_is_refused_with_its_name_and_a_signal_begins_one() -> None:
    with RunningEngine() as engine, ExitStack() as stack:
        log = engine.log("worker.")
        connect(engine, stack, 4)
        engine.process.send_signal(signal.SIGUSR2)
        log.wait("worker.leaving")
        for method, parameters in (("restart-workers", {}), ("set-workers", {"workers": 3})):
            with pytest.raises(EngineError) as caught:
                engine.call(method, **parameters)
            assert (caught.value.name, caught.value.code) == ("busy", -32011)
        # SIGUSR2 once more is a line in the log.
        engine.process.send_signal(signal.SIGUSR2)
        eventually(lambda: "the workers are not replaced" in engine.stderr, "the reason")
        assert engine.call("status")["workforce"]["restarting"]
        # It ends, although its workers wait for their peers without end.
        assert engine.stop() == 0


def test_limits_hold_over_old_and_new_workers_and_the_number_of_workers_can_be_changed() -> None:
    with RunningEngine("--limits.max-active-inbound", "6", workers=1) as engine, ExitStack() as stack:
        log = engine.log("worker.", "session.refused", "session.closed")
        connect(engine, stack, 6)
        engine.call("restart-workers", drain_s=0, wait=True)
        grown = engine.call("set-workers", workers=3)
        assert (grown["workers"], grown["started"], grown["leaving"]) == (3, [2, 3], [0])
        with suppress(OSError, AssertionError), Peer(engine.address, engine.node_id, CHAIN) as refused:
            refused.establish()
        engine.comes_to(0, 0, 6, 0)
        shrunk = engine.call("set-workers", workers=1, drain_s=0.3)
        assert (shrunk["workers"], shrunk["started"], shrunk["leaving"]) == (1, [], [0, 2, 3])
        eventually(lambda: list(workers(engine)) == [1], "one is left")
        log.wait("worker.leaving", count=3)
        assert [event.fields["heir"] for event in log.of("worker.leaving")] == [1, None, None]
        connect(engine, stack, 6)
        with pytest.raises(EngineError) as caught:
            engine.call("set-workers", workers=129)
        assert caught.value.name == "invalid_params"


def test_a_worker_that_dies_while_it_leaves_is_not_replaced() -> None:
    with RunningEngine() as engine, ExitStack() as stack:
        log = engine.log("worker.", "session.closed")
        connect(engine, stack, 6)
        engine.call("restart-workers", drain_s=0, wait=True)
        lost = workers(engine)[0]
        os.kill(lost["pid"], signal.SIGKILL)
        assert log.wait("worker.lost").fields["sessions"] == 3
        log.wait("session.closed", count=3, ended_by="worker_lost")
        sleep(1.0)
        assert list(workers(engine)) == [1, 2, 3]
        assert engine.call("status")["workforce"]["lost"] == 1
        # One that serves is.
        os.kill(workers(engine)[2]["pid"], signal.SIGKILL)
        eventually(lambda: engine.call("status")["workforce"]["respawned"] == 1, "a replacement")
        eventually(lambda: workers(engine)[2]["ready"], "ready")


def test_a_static_peer_of_a_leaving_worker_is_connected_once() -> None:
    with RunningEngine(workers=1) as peer, RunningEngine("--peers.static", peer.enode, workers=1) as engine:
        eventually(lambda: engine.counts()[3] == 1, "connected")
        log, theirs = engine.log("session.", "dial."), peer.log("session.")
        engine.call("restart-workers", drain_s=0, wait=True)
        sleep(2.5)
        assert engine.counts() == (0, 0, 0, 1)
        assert (log.read(), theirs.read()) == ([], [])
        [session] = engine.call("sessions")["sessions"]
        assert session["worker"] == 0
        engine.call("set-workers", workers=1, drain_s=0.2)
        assert log.wait("session.closed").fields["ended_by"] == "engine"
        # Its next dial is due after the usual time, as geth refuses an address that comes back within 30 s.
        [listed] = engine.call("peers")["peers"]
        assert 20 < listed["next_try_s"] < 40


def test_a_new_worker_that_does_not_become_ready_leaves_everything_as_it_was() -> None:
    with RunningEngine() as engine, ExitStack() as stack:
        peers = connect(engine, stack, 4)
        before = {number: worker["pid"] for number, worker in workers(engine).items()}
        killer = threading.Thread(target=_kill_the_next_child, args=(engine.process.pid, set(before.values())))
        killer.start()
        with pytest.raises(EngineError) as caught:
            engine.call("restart-workers", wait=True)
        killer.join()
        assert caught.value.name == "worker_lost"
        assert str(caught.value) == "worker 2 ended before it was ready: signal 9; worker 0 stays"
        status = engine.call("status")
        assert {worker["worker"]: worker["pid"] for worker in status["workers"]} == before
        assert not any(worker["leaving"] for worker in status["workers"])
        assert status["workforce"] | {"error": ""} == {
            "lost": 0,
            "respawned": 0,
            "replaced": 0,
            "failed": 1,
            "restarting": False,
            "error": "",
        }
        assert "worker 0 stays" in status["workforce"]["error"]
        engine.says("worker 0 stays")
        engine.comes_to(0, 0, 4, 0)
        assert not any(peer.session.is_closed for peer in peers)
        connect(engine, stack, 5)
        # The next one succeeds.
        assert len(engine.call("restart-workers", drain_s=0.2, wait=True)["replaced"]) == 2
        assert engine.call("status")["workforce"]["error"] is None


def _kill_the_next_child(pid: int, known: set[int]) -> None:
    """Kill the process that appears beside the known ones before it can be ready."""
    engine = psutil.Process(pid)
    ends_at = monotonic() + PATIENCE_SECONDS
    while monotonic() < ends_at:
        for child in engine.children():
            if child.pid not in known:
                child.kill()
                return
        sleep(0.005)


def test_restarts_during_churn_lose_no_event_and_leak_no_place() -> None:
    with RunningEngine() as engine, following(engine) as (subscriber, model):
        is_over = threading.Event()

        def churn() -> None:
            while not is_over.is_set():
                with suppress(OSError, AssertionError), Peer(engine.address, engine.node_id, CHAIN) as peer:
                    peer.establish()
                    peer.send(2, b"\xc1\xc0")
                    peer.leave()

        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                pool.submit(churn)
            try:
                for drain in (0.5, 0.0, 0.3):
                    eventually(lambda: is_restarted(engine), "nobody leaves")
                    with Client.of(engine.run_dir) as client:
                        client.call("restart-workers", drain_s=drain, wait=True)
                    model.take(subscriber.poll(0.1))
            finally:
                is_over.set()
        eventually(lambda: engine.counts() == (0, 0, 0, 0) and is_restarted(engine), "all is quiet")
        eventually(lambda: _agrees(engine, subscriber, model), "the table agrees")
        assert (model.lost, model.missed) == (0, 0)
        assert model.received > 50
