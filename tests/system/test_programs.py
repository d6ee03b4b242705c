"""Programs on `connect` and a real engine: workers and engines that die, slow readers, calls that end early, TCP."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import pytest
import rlp as oracle

from rlpx.engine.client import (
    Announcement,
    BlockingEngine,
    BlockingFeed,
    EngineForbiddenError,
    EngineSilentError,
    EngineUnavailableError,
    Event,
    Gap,
    Lost,
    NoSuchSessionError,
    RefusedError,
    Snapshot,
    WorkerLostError,
    connect,
)
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.eth.messages import BlockHeaders, GetBlockHeaders, HeadersQuery, Transactions
from rlpx.protocol.session.events import MessageReceived
from tests.pair import key
from tests.system.harness import PATIENCE_SECONDS, RunningEngine, eventually, working_folder
from tests.system.peers import Peer
from tests.system.test_users import free_port, keys

CHAIN = load_chain("dev")
TRANSACTIONS = 2
TRANSACTION = oracle.encode([b""] * 9)
T = TypeVar("T")
QUESTION = GetBlockHeaders(0, HeadersQuery(1, 1))


def until(feed: BlockingFeed, kind: type, topic: str = "") -> Any:
    """The next item of a kind, and of a topic."""
    for item in feed:
        if isinstance(item, kind) and (not topic or (isinstance(item, Event) and item.topic == topic)):
            return item
    raise AssertionError("the feed has ended")


def established(engine: RunningEngine) -> Peer:
    return Peer(engine.address, engine.node_id, CHAIN).establish()


def test_a_worker_that_is_killed_is_lost_and_its_successor_joins() -> None:
    with (
        RunningEngine(workers=2) as running,
        connect(running.run_dir) as engine,
        engine.feed("session.", "eth.") as feed,
        established(running) as first,
    ):
        before = until(feed, Event, "session.established")
        peer = engine.peer(before.fields["session"])
        peer.send(Transactions((TRANSACTION,)))
        asking = threading.Thread(target=lambda: failed.append(raised_by(lambda: peer.request(QUESTION))))
        failed: list[Exception] = []
        asking.start()
        sleep(0.2)
        running.workers()[before.worker].send_signal(signal.SIGKILL)
        lost = until(feed, Lost)
        assert (lost.worker, lost.run) == (before.worker, before.run)
        asking.join(PATIENCE_SECONDS)
        assert isinstance(failed[0], WorkerLostError)
        again = until(feed, Snapshot)
        assert (again.worker, again.run, again.sessions) == (before.worker, before.run, ())
        assert isinstance(raised_by(lambda: peer.request(QUESTION)), NoSuchSessionError | WorkerLostError)
        # Both workers are read again.
        peers = [established(running) for _ in range(4)]
        found = {until(feed, Event, "session.established").worker for _ in peers}
        assert found == {0, 1}
        for one in (*peers, first):
            one.close()


def raised_by(call: Any) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - the test compares it
        return error
    raise AssertionError("nothing was raised")


def test_an_engine_that_is_killed_and_started_again_is_joined_again() -> None:
    with working_folder() as run_dir, connecting_later(run_dir) as connected:
        with RunningEngine(run_dir=run_dir, workers=1, is_read=False) as running:
            engine = connected()
            engine.respond("eth.GetBlockHeaders", lambda _: BlockHeaders(0))
            feed = engine.feed("session.")
            first = until(feed, Snapshot)
            running.process.kill()
            running.process.wait()
        assert until(feed, Lost).run == first.run
        with pytest.raises(EngineUnavailableError, match="no engine at"):
            engine.counts()
        with RunningEngine(run_dir=run_dir, workers=1, is_read=False) as running:
            second = until(feed, Snapshot)
            assert second.run != first.run
            assert engine.counts().active.inbound == 0
            eventually(lambda: engine.status().workers[0].responders == 1, "the handler is back")
            with established(running):
                assert until(feed, Event, "session.established").run == second.run


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine an engine may need more time to start than a program waits for one."""
    monkeypatch.setattr("rlpx.engine.client.connection.PATIENCE_SECONDS", PATIENCE_SECONDS)


@contextmanager
def connecting_later(run_dir: Path) -> Iterator[Any]:
    context = connect(run_dir)
    made: list[BlockingEngine] = []

    def make() -> BlockingEngine:
        made.append(context.__enter__())
        return made[0]

    try:
        yield make
    finally:
        context.__exit__(None, None, None)


def send_all(peer: Peer, payload: bytes, count: int) -> None:
    for _ in range(count):
        peer.send(TRANSACTIONS, payload)


@pytest.mark.parametrize("is_lossless", [False, True])
def test_received_and_missed_are_what_was_sent_however_slow_the_reader(*, is_lossless: bool) -> None:
    count, payload = 3000, oracle.encode([oracle.encode([b""] * 8 + [bytes(20_000)])])
    with (
        RunningEngine(workers=1) as running,
        connect(running.run_dir) as engine,
        engine.feed("eth.Transactions", credit=200_000, lossless=is_lossless) as feed,
        established(running) as peer,
        established(running) as other,
    ):
        sending = threading.Thread(target=send_all, args=(peer, payload, count))
        sending.start()
        sleep(3.0)
        # Whoever does not read costs nobody else anything.
        other.send(TRANSACTIONS, oracle.encode([TRANSACTION]))
        assert engine.counts().active.inbound == 2
        gaps = received = 0
        ends_at = monotonic() + 2 * PATIENCE_SECONDS
        while received + gaps < count + 1:
            assert monotonic() < ends_at, (received, gaps)
            for item in feed.read(timeout=1.0):
                gaps += item.missed if isinstance(item, Gap) else 0
                received += isinstance(item, Event)
        sending.join()
        assert (feed.received, feed.missed) == (received, gaps)
        assert received + gaps == count + 1
        assert (gaps == 0) == is_lossless


async def eventually_in(ask: Callable[[], Awaitable[T]], condition: Callable[[T], bool]) -> None:
    """Ask until the answer is as it should be."""
    ends_at = monotonic() + PATIENCE_SECONDS
    while not condition(await ask()):
        assert monotonic() < ends_at
        await asyncio.sleep(0.05)


def test_a_request_that_is_given_up_is_given_up_in_the_worker() -> None:
    async def give_up(run_dir: Path) -> None:
        async with connect(run_dir) as engine:
            peer = engine.peer((await engine.sessions(phase="active")).sessions[0].session)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await peer.request(QUESTION)
            with pytest.raises(TimeoutError):
                await peer.request(QUESTION, timeout=0.3)
            tasks = [asyncio.create_task(peer.request(QUESTION)) for _ in range(50)]
            await asyncio.sleep(0.3)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await eventually_in(engine.status, lambda status: status.workers[0].calls == 0)
            # The peer has all its places for others: an answer comes though none of the earlier ones did.
            answers.set()
            assert (await peer.request(QUESTION, timeout=10)).headers == ()

    answers = threading.Event()
    with RunningEngine(workers=1) as running, established(running) as peer:
        eventually(lambda: running.counts()[2] == 1, "the peer is active")
        thread = threading.Thread(target=answer_at_last, args=(peer, answers))
        thread.start()
        asyncio.run(give_up(running.run_dir))
        running.call("disconnect-all")
        thread.join()


def answer_at_last(peer: Peer, answers: threading.Event) -> None:
    """Read requests, and answer those that come once it is told to."""
    seen = 0
    while not peer.session.is_closed:
        peer.step()
        for event in peer.events[seen:]:
            if isinstance(event, MessageReceived) and event.kind.name == "GetBlockHeaders" and answers.is_set():
                peer.send(4, oracle.encode([event.request_id or 0, []]))
        seen = len(peer.events)


def test_a_dial_that_is_given_up_is_called_off() -> None:
    async def give_up(run_dir: Path, enode: str) -> None:
        async with connect(run_dir) as engine:
            with pytest.raises(EngineSilentError):
                await engine.dial(enode, wait=True, timeout=0.3)
            await eventually_in(engine.counts, lambda counts: counts.pending.outbound == 0)

    # Somebody who listens and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent, RunningEngine(workers=1) as running:
        enode = f"enode://{key(3).id.hex()}@127.0.0.1:{silent.getsockname()[1]}"
        asyncio.run(give_up(running.run_dir, enode))


def test_an_engine_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.engine.client.wire.OPEN_SECONDS", 0.5)
    with RunningEngine(workers=1, is_read=False) as running, connect(running.run_dir, timeout_seconds=0.5) as engine:
        running.process.send_signal(signal.SIGSTOP)
        try:
            started = monotonic()
            with pytest.raises(EngineSilentError, match=r"no answer .* within 0\.5 s"):
                engine.status()
            with pytest.raises(EngineSilentError, match=r"within 0\.5 s"), connect(running.run_dir):
                pass
            assert monotonic() - started < PATIENCE_SECONDS
        finally:
            running.process.send_signal(signal.SIGCONT)
        assert engine.status(timeout=PATIENCE_SECONDS).workers


def test_what_only_the_engine_knows_is_in_a_feed_too() -> None:
    with (
        working_folder() as run_dir,
        connecting_later(run_dir) as connected,
        RunningEngine(run_dir=run_dir, workers=1, is_read=False) as running,
    ):
        engine = connected()
        with engine.feed("worker.", "dial.", "engine.") as feed:
            enode = f"enode://{key(3).id.hex()}@127.0.0.1:{free_port()}"
            with pytest.raises(RefusedError):
                engine.dial(enode, wait=True)
            failed = until(feed, Event, "dial.failed")
            assert (failed.worker, failed.fields["peer"]) == (None, key(3).id.hex())
            running.workers()[0].send_signal(signal.SIGKILL)
            assert until(feed, Event, "worker.lost").fields["worker"] == 0
            assert until(feed, Event, "worker.started").fields["worker"] == 0
            with engine.feed("dial.", direction="inbound") as other, engine.feed("dial.", peer="00") as another:
                with pytest.raises(RefusedError):
                    engine.dial(enode, wait=True)
                assert until(feed, Event, "dial.failed").ordinal == 1
                assert [item for one in (other, another) for item in one.read(0.5) if not isinstance(item, Snapshot)] == []
            running.stop()
            assert until(feed, Event, "engine.stopped").fields["run"] == failed.run
            with RunningEngine(run_dir=run_dir, workers=1, is_read=False):
                assert until(feed, Event, "engine.started").run != failed.run
                with pytest.raises(RefusedError):
                    engine.dial(enode, wait=True)
                assert until(feed, Event, "dial.failed").ordinal == 0


def test_workers_that_are_added_and_replaced_are_read_and_published_to() -> None:
    with RunningEngine(workers=1) as running, connect(running.run_dir) as engine, engine.feed("session.") as feed:
        assert until(feed, Snapshot).worker == 0
        engine.set_workers(2)
        assert until(feed, Snapshot).worker == 1
        peers = [established(running) for _ in range(4)]
        for _ in peers:
            until(feed, Event, "session.established")
        assert engine.publish(Announcement.of([TRANSACTION])).sent == 4
        [session, *_] = engine.sessions().sessions
        assert engine.publish(Announcement.of([TRANSACTION]), but=session.session).sent == 3
        # Those that are replaced in order lose nothing: the ends of their sessions come before the loss of the worker.
        engine.restart_workers(drain_s=0.5, wait=True)
        closed, snapshots, lost = 0, 0, 0
        while closed < 4 or snapshots < 2 or lost < 2:
            item = next(feed)
            closed += isinstance(item, Event) and item.topic == "session.closed"
            snapshots += isinstance(item, Snapshot)
            lost += isinstance(item, Lost)
        assert (closed, snapshots, lost, feed.missed) == (4, 2, 2, 0)
        for peer in peers:
            peer.close()


def test_over_tcp_a_program_finds_the_workers_and_each_use_needs_its_right() -> None:
    ports = free_port(), free_port()
    control, data = (f"tcp://127.0.0.1:{port}" for port in ports)
    with working_folder() as at:
        for name, rights in (("both", "events,control"), ("commander", "control"), ("reader", "events")):
            keys(at, "new", name, "--rights", rights, "--out", str(at / name))
        flags = ["--control.endpoint", control, "--curve.keys-dir", str(at / "keys")]
        with RunningEngine(*flags, "--data.endpoint", data, workers=2) as running:
            with connect(control, key=at / "both") as engine, engine.feed("session.", "eth.") as feed:
                engine.respond("eth.GetBlockHeaders", lambda _: BlockHeaders(0))
                with established(running) as peer:
                    session = until(feed, Event, "session.established").fields["session"]
                    engine.peer(session).send(Transactions((TRANSACTION,)))
                    assert engine.publish(Transactions((TRANSACTION,))).sent == 1
                    peer.send(3, oracle.encode([7, [5, 1, 0, 0]]))
                    eventually(lambda: any_answer(peer), "the handler's answer")
            with connect(control, key=at / "commander") as engine:
                assert engine.counts().active.inbound >= 0
                with pytest.raises(RefusedError, match="does not have the right events"), engine.feed("session."):
                    pass
            with pytest.raises(EngineForbiddenError, match="does not accept this key"), connect(control, key=at / "reader"):
                pass
            with pytest.raises(EngineForbiddenError, match="takes only users with a key"), connect(control):
                pass
        with RunningEngine(*flags, workers=1) as running, connect(control, key=at / "both") as engine:
            # Without data endpoints, what can go through the engine does.
            with pytest.raises(EngineUnavailableError, match=r"see data\.endpoint"), engine.feed("session."):
                pass
            with established(running):
                [session] = eventually(lambda: engine.sessions(phase="active").sessions, "the session")
                engine.peer(session.session).send(Transactions((TRANSACTION,)))
                assert engine.publish(Transactions((TRANSACTION,))).sent == 1
                engine.peer(session.session).disconnect()


def any_answer(peer: Peer) -> bool:
    peer.step()
    return any(event.kind.name == "BlockHeaders" for event in peer.events if hasattr(event, "kind"))
