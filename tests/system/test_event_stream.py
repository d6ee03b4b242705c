"""The event stream of real processes: readers that join, lag, stop or come back know the state and what they missed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Self

import pytest

from rlpx.engine.client.batch_reader import Event, Gap, Item
from rlpx.engine.client.joining import Snapshot, join
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.settings.chain import load_chain
from tests.reader_model import ReaderModel
from tests.system.harness import PATIENCE_SECONDS, RunningEngine, eventually, working_folder
from tests.system.peers import Peer

CHAIN = load_chain("dev")
TRANSACTIONS = 2
JOINS = 1000
OPEN = ("--limits.max-active-inbound", "500")


class Churn:
    """Peers that come, send something and go, until they are stopped."""

    def __init__(self, engine: RunningEngine, threads: int = 3) -> None:
        self._engine = engine
        self._stops = threading.Event()
        self.rounds = 0
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stops.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _run(self, number: int) -> None:
        while not self._stops.is_set():
            # A worker that is killed takes its peers along, at any moment.
            with suppress(OSError, AssertionError), Peer(self._engine.address, self._engine.node_id, CHAIN) as peer:
                self.rounds += 1
                if self.rounds % 3:
                    peer.establish()
                    for _ in range(number + 1):
                        peer.send(TRANSACTIONS, b"\xc1\xc0")
                    peer.leave()


@contextmanager
def reading(run_dir: Path, *topics: str) -> Iterator[tuple[Subscriber, ReaderModel]]:
    """A reader with a model, whose subscription holds."""
    with Subscriber.of(run_dir, topics) as subscriber:
        model = ReaderModel()
        model.take(subscriber.confirm(PATIENCE_SECONDS))
        yield subscriber, model


def drain(subscriber: Subscriber, model: ReaderModel) -> None:
    """Read until nothing comes any more."""
    while items := subscriber.poll(0.5):
        model.take(items)


def agrees(engine: RunningEngine, subscriber: Subscriber, model: ReaderModel) -> bool:
    """Whether the table agrees with the engine's answer, once nothing is on its way."""
    drain(subscriber, model)
    return model.differences(engine.call("sessions", limit=10_000)["sessions"]) == []


@pytest.mark.long
def test_a_thousand_joins_during_churn_leave_no_hole_and_no_double() -> None:
    with RunningEngine(*OPEN) as engine, reading(engine.run_dir, "") as (subscriber, model):
        with Churn(engine) as churn, join(["eth."], run_dir=engine.run_dir) as long_one:
            kept = ReaderModel()
            for number in range(JOINS):
                with join(["eth."], run_dir=engine.run_dir) as changes:
                    joined = ReaderModel()
                    first = changes.poll(PATIENCE_SECONDS)
                    assert isinstance(first[0], Snapshot)
                    joined.take(first)
                    for _ in range(number % 4):
                        joined.take(changes.poll(0.005))
                    assert joined.lost == 0
                kept.take(long_one.poll(0))
                model.take(subscriber.poll(0))
            assert churn.rounds > 100
        eventually(lambda: agrees(engine, subscriber, model), "the table agrees")
        assert model.lost == model.missed == 0


def test_each_opened_has_exactly_one_closed_though_workers_are_killed() -> None:
    with RunningEngine(*OPEN) as engine, reading(engine.run_dir, "") as (subscriber, model):
        items: list[Item] = []

        def read(seconds: float) -> None:
            ends_at = monotonic() + seconds
            while monotonic() < ends_at:
                read_now = subscriber.poll(0.05)
                model.take(read_now)
                items.extend(read_now)

        with Churn(engine):
            for _ in range(6):
                read(0.7)
                for worker in engine.call("status")["workers"]:
                    with suppress(ProcessLookupError):
                        os.kill(worker["pid"], signal.SIGKILL)
                    read(0.15)
            read(1.0)
        eventually(lambda: agrees(engine, subscriber, model), "the table agrees")
        assert model.lost == model.missed == 0
        lives: dict[int, list[str]] = {}
        for item in items:
            if isinstance(item, Event) and item.topic in {"session.opened", "session.closed"}:
                lives.setdefault(item.fields["session"], []).append(item.topic)
        assert len(lives) > 20
        assert {tuple(life) for life in lives.values()} <= {("session.opened", "session.closed"), ("session.opened",)}
        ends = [item.fields["ended_by"] for item in items if isinstance(item, Event) and item.topic == "session.closed"]
        assert "worker_lost" in ends
        assert sum(isinstance(item, Event) and item.topic == "worker.lost" for item in items) >= 6


def test_a_slow_reader_knows_exactly_what_it_missed_and_costs_a_bounded_amount() -> None:
    payload = bytes([0xB9, 0x20, 0x00]) + bytes(8192)
    flags = ("--events.queue-bytes", "2097152", "--events.total-queue-bytes", "4194304")
    with RunningEngine(*flags, workers=1) as engine, ExitStack() as stack:
        quick, quick_model = stack.enter_context(reading(engine.run_dir, "eth."))
        slow = Subscriber.of(engine.run_dir, ["eth."])
        stack.callback(slow.close)
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            slow_model = ReaderModel()
            slow_model.take(slow.confirm(PATIENCE_SECONDS))
            # Its socket holds few messages, and nobody reads them for now.
            sent = 0
            peer.establish()
            quick_model.lost = slow_model.lost = 1  # neither reads the lives
            while True:
                for _ in range(64):
                    peer.send(TRANSACTIONS, payload)
                sent += 64
                while quick_model.received + quick_model.missed < sent:
                    quick_model.take(quick.poll(1.0))
                if sent >= 64 * 160:
                    break
            assert (quick_model.received, quick_model.missed) == (sent, 0)
            status = engine.call("status")
            shown = max(status["subscribers"], key=lambda reader: int(reader["missed_events"]))
            assert shown["queued_bytes"] <= 2 << 20
            ends_at = monotonic() + PATIENCE_SECONDS
            while slow_model.received + slow_model.missed < sent and monotonic() < ends_at:
                slow_model.take(slow.poll(0.5))
            # The last loss shows without another event: nothing more is sent.
            assert slow_model.received + slow_model.missed == sent


def test_a_restart_shows_to_who_reads_anything_and_a_joined_reader_begins_anew() -> None:
    with working_folder() as folder, ExitStack() as stack:
        with RunningEngine(run_dir=folder, workers=1) as engine:
            subscriber = Subscriber.of(folder, ["eth."])
            stack.callback(subscriber.close)
            subscriber.confirm(PATIENCE_SECONDS)
            first = subscriber.run
            changes = join(run_dir=folder)
            stack.callback(changes.close)
            [before] = changes.poll(PATIENCE_SECONDS)
            assert isinstance(before, Snapshot)
            assert before.run == first
        engine = stack.enter_context(RunningEngine(run_dir=folder, workers=1))
        items: list[Item] = []
        while not items:
            items += subscriber.poll(PATIENCE_SECONDS)
        [started] = items
        assert isinstance(started, Event)
        assert (started.topic, started.fields["run"]) == ("engine.started", subscriber.run)
        assert subscriber.run != first
        stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)).establish()
        later: list[Any] = []
        ends_at = monotonic() + PATIENCE_SECONDS
        while not any(isinstance(change, Snapshot) for change in later) and monotonic() < ends_at:
            later += changes.poll(0.5)
        [snapshot] = [change for change in later if isinstance(change, Snapshot)]
        assert snapshot.run == subscriber.run
        assert not any(isinstance(change, Gap) for change in later)
