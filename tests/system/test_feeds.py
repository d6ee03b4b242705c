"""Feeds of real workers: their order and joins, filters, credit, losses, programs that lie or die, and lossless ones."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from os import environ, urandom
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

import pytest
import rlp

from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.bus import zmtp
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx.p2p import PING_CODE, PONG_CODE
from tests.fake_endpoint import greeting, ready
from tests.system.feed_reader import FeedReader, Tally
from tests.system.flood import ETH, RawPeer
from tests.system.harness import IMPORT_PATH, RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.raw import RawConnection

CHAIN = load_chain("dev")
TRANSACTIONS, ANNOUNCED = ETH + 2, ETH + 8


def encode(item: object) -> bytes:
    return bytes(rlp.encode(item))


def raw_peer(engine: RunningEngine, version: int = 69) -> RawConnection:
    """An established peer of one version of eth, whose client is `raw/1.0`."""
    peer = RawConnection.to(engine.address, engine.node_id, CHAIN)
    peer.version = version
    return peer.reaches(Stage.ACTIVE)


def feeds_status(engine: RunningEngine) -> dict[str, Any]:
    """What `status` says of the feeds of the only worker, which reports once a second."""
    found: dict[str, Any] = eventually(lambda: engine.call("status")["workers"][0]["feeds"], "the first report")
    return found


# -- joins and order --------------------------------------------------------------------------------------------------------


def modelled(tally: Tally) -> dict[int, str]:
    """The sessions by the snapshot of a feed and the events behind it, each with its phase."""
    assert tally.confirmed is not None
    here = {item["session"]: item["phase"] for item in tally.confirmed["sessions"]}
    for event in tally.events:
        session = event["session"]
        if event["topic"] == "session.opened":
            assert session not in here
            here[session] = "pending"
        elif event["topic"] == "session.closed":
            del here[session]
        else:
            assert here[session] == "pending"
            if event["topic"] == "session.established":
                here[session] = "active"
    return here


def test_a_snapshot_and_the_events_behind_it_are_the_sessions_as_they_are() -> None:
    """Sessions come and go while feeds are opened: no event is in both, and none is missing."""
    with RunningEngine(workers=1, is_read=False) as engine, FeedReader(engine.run_dir) as reader:
        is_over = threading.Event()

        def come_and_go() -> None:
            peers: list[Peer] = []
            while not is_over.is_set():
                peers.append(Peer(engine.address, engine.node_id, CHAIN).establish())
                if len(peers) > 8:
                    peers.pop(0).leave()
            for peer in peers[::2]:
                peer.leave()
            kept.extend(peers[1::2])

        kept: list[Peer] = []
        threads = [threading.Thread(target=come_and_go) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(1, 31):
            reader.ask(number, ["session."], snapshot=True)
            reader.read(0.05)
        is_over.set()
        for thread in threads:
            thread.join()
        eventually(lambda: engine.counts() == (0, 0, len(kept), 0), "all have come or gone")
        final = {item["session"] for item in engine.call("sessions")["sessions"]}
        for number in range(1, 31):
            tally = reader.close_feed(number)
            assert tally.missed == 0
            assert set(modelled(tally)) == final
        for peer in kept:
            peer.close()


def test_one_order_holds_over_all_topics_of_a_session() -> None:
    with RunningEngine(workers=1) as engine, FeedReader(engine.run_dir) as reader:
        feed = reader.open(1, ["", "tap.eth."])
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            for number in range(3):
                peer.send(2, encode([bytes([2, number])]))
                peer.send(3, encode([number, [1, 1, 0, 0]]))
            peer.send(4, encode([99, []]))
            reader.until(lambda: feed.of("peer.bad_message"), "the unasked response")
            peer.leave()
        reader.until(lambda: feed.of("session.closed"), "the end")
        topics = [event["topic"] for event in feed.events]
        assert topics[:3] == ["session.opened", "session.authenticated", "session.established"]
        messages = [topic for topic in topics if topic.startswith("eth.")]
        assert messages == ["eth.Transactions", "eth.GetBlockHeaders"] * 3 + ["eth.BlockHeaders"]
        assert topics.index("peer.bad_message") > topics.index("eth.GetBlockHeaders")
        assert topics.count("tap.eth.BlockHeaders") == 3
        assert topics[-1] == "session.closed"
        assert feed.payloads[topics.index("eth.Transactions")] == encode([bytes([2, 0])])
        [established] = feed.of("session.established")
        assert established["shared"] == ["eth/72"]


def test_at_the_end_of_the_engine_a_feed_has_the_ends_of_all_sessions_and_its_own() -> None:
    with RunningEngine(workers=1, is_read=False) as engine, FeedReader(engine.run_dir) as reader, ExitStack() as stack:
        feed = reader.open(1, ["session."])
        for _ in range(20):
            stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)).establish()
        eventually(lambda: engine.counts()[2] == 20, "all are established")
        engine.process.terminate()
        reader.until(lambda: feed.closed, "the last word")
        assert feed.closed == "the worker is ending"
        assert modelled(feed) == {}
        assert (len(feed.of("session.closed")), feed.missed) == (20, 0)


# -- filters ----------------------------------------------------------------------------------------------------------------


def test_each_filter_lets_through_what_it_names_and_nothing_else() -> None:
    with RunningEngine(workers=1) as engine, FeedReader(engine.run_dir) as reader, ExitStack() as stack:
        first = stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)).establish()
        second = stack.enter_context(raw_peer(engine, 67))
        eventually(lambda: engine.counts()[2] == 2, "both are established")
        sessions = {item["client"]: item for item in engine.call("sessions")["sessions"]}
        one, two = sessions["test-peer"], sessions["raw/1.0"]
        wanted: list[dict[str, Any]] = [
            {},
            {"session": [one["session"]]},
            {"session": [two["session"], 999]},
            {"peer": one["peer"][:8]},
            {"client": "raw"},
            {"shared": "eth/67"},
            {"shared": "eth"},
            {"direction": "outbound"},
            {"types": [3]},
            {"types": [0, 1]},
            {"min_size": 100},
            {"max_size": 50},
            {"sample": 3},
            {"client": "test", "types": [3], "min_size": 100},
        ]
        for number, where in enumerate(wanted, 1):
            reader.open(number, ["eth.Transactions", "eth.NewPooled"], where=where, snapshot=True)
        # Who: a number, the message, and what it has.
        first.send(2, encode([b"\x02" + bytes(20)]))  # type 2, short
        first.send(2, encode([[b"legacy" * 30]]))  # type 0, long
        first.send(8, encode([b"\x02\x03", [100, 130_000], [b"\x01" * 32, b"\x02" * 32], bytes(16)]))
        second.says(TRANSACTIONS, encode([b"\x03" + bytes(200)]))  # type 3, long
        second.says(ANNOUNCED, encode([b"\x03" * 32]))  # eth/67: neither types nor sizes
        everything = reader.feeds[1]
        reader.until(lambda: everything.received == 5, "all messages")
        by_session = sorted(everything.events, key=lambda event: event["session"])
        assert [event["session"] for event in by_session] == [one["session"]] * 3 + [two["session"]] * 2
        expected = {1: 5, 2: 3, 3: 2, 4: 3, 5: 2, 6: 2, 7: 5, 8: 0, 9: 2, 10: 1, 11: 3, 12: 1, 13: 2, 14: 1}
        for number, count in expected.items():
            tally = reader.close_feed(number)
            assert (tally.received, tally.missed) == (count, 0), wanted[number - 1]
            assert tally.confirmed is not None
        listed = {
            number: sorted(item["session"] for item in (reader.feeds[number].confirmed or {})["sessions"])
            for number in expected
        }
        both = sorted((one["session"], two["session"]))
        assert listed[1] == listed[7] == listed[9] == listed[13] == both
        assert listed[2] == listed[4] == listed[14] == [one["session"]]
        assert listed[3] == listed[5] == listed[6] == [two["session"]]
        assert listed[8] == []


def test_a_filter_of_clients_begins_with_what_is_known_of_them() -> None:
    with RunningEngine(workers=1) as engine, FeedReader(engine.run_dir) as reader:
        named = reader.open(1, ["session.", "eth."], where={"client": "test-peer"})
        other = reader.open(2, ["session.", "eth."], where={"client": "raw"})
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            peer.send(2, encode([b"\x02x"]))
            reader.until(lambda: named.of("eth.Transactions"), "the message")
            peer.leave()
        reader.until(lambda: named.of("session.closed"), "the end")
        assert [event["topic"] for event in named.events] == ["session.established", "eth.Transactions", "session.closed"]
        assert other.events == []


def test_our_own_messages_come_only_to_those_who_name_them() -> None:
    with RunningEngine(workers=1) as engine, FeedReader(engine.run_dir) as reader:
        everything, taps = reader.open(1, [""]), reader.open(2, ["tap.eth.Trans"])
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            eventually(lambda: engine.counts()[2] == 1, "it is established")
            [session] = engine.call("sessions")["sessions"]
            engine.call("send", session=session["session"], capability="eth", message="Transactions", payload="0xc3820278")
            reader.until(lambda: taps.received, "our message")
            peer.leave()
        reader.until(lambda: everything.of("session.closed"), "the end")
        assert [event["topic"] for event in taps.events] == ["tap.eth.Transactions"]
        assert not any(event["topic"].startswith("tap.") for event in everything.events)


# -- credit and losses ------------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_credit_is_what_is_sent_and_what_is_lost_is_told_within_a_second() -> None:
    with (
        RunningEngine("--feeds.queue-bytes", "4096", workers=1) as engine,
        FeedReader(engine.run_dir) as reader,
        raw_peer(engine) as peer,
    ):
        feed = reader.open(1, ["eth.Transactions"], 3000)
        free = reader.open(2, ["eth.Transactions"], where={"direction": "inbound"})
        payload = encode([b"\x02" + urandom(900)])
        for number in range(60):
            peer.says(TRANSACTIONS, payload)
            reader.until(lambda: free.received == number + 1, "the other feed has it")  # noqa: B023 - called at once
        assert 3000 < feed.bytes <= 3000 + feed.largest
        assert feed.missed == 0
        sleep(0.3)
        reader.read()
        before = feed.received
        reader.grant(1, 1 << 20)
        started = monotonic()
        reader.until(lambda: feed.next == 60, "the queue, then the news of the loss")
        assert monotonic() - started < 2.0
        assert feed.received > before
        assert (feed.received + feed.missed, free.received, free.missed) == (60, 60, 0)
        assert feed.missed > 40
        eventually(lambda: feeds_status(engine)["missed_events"] == feed.missed, "the loss is counted")
        status = feeds_status(engine)
        assert (status["open"], status["held_sessions"], status["queued_bytes"]) == (2, 0, 0)
        peer.says(TRANSACTIONS, payload)
        reader.until(lambda: feed.next == 61, "the next one")
        assert feed.missed + feed.received == 61


def test_a_program_that_lies_about_its_credit_loses_its_own_events_only() -> None:
    """It grants without bound and reads nothing: its queues are bounded, and another program misses nothing."""
    with (
        RunningEngine(workers=1) as engine,
        FeedReader(engine.run_dir, keeps=False) as honest,
        FeedReader(engine.run_dir, keeps=False, queue=1) as liar,
        raw_peer(engine) as peer,
    ):
        for number in range(1, 9):
            liar.open(number, ["eth.", "session."], 1 << 48, where={"max_size": 1 << (20 + number)})
        feed = honest.open(1, ["eth."])
        [worker] = engine.workers()
        payload = encode([b"\x02" + urandom(60_000)])
        peer.says(TRANSACTIONS, payload)
        before = worker.memory_info().rss
        for number in range(1500):
            peer.says(TRANSACTIONS, payload)
            # No more is on the way than may wait for a program that reads, however busy the machine is.
            honest.until(lambda: feed.next > number - 50, "the honest program reads")  # noqa: B023 - called at once
            liar.grant(1, 1 << 48)
        honest.until(lambda: feed.received == 1501, "the honest program has everything")
        assert feed.missed == 0
        # 90 MB for each of eight feeds did not stay: eight times 8 MiB may wait, most of it the same payloads.
        assert worker.memory_info().rss - before < 64 << 20
        for number in range(1, 9):
            tally = liar.close_feed(number)
            assert (tally.closed, tally.received + tally.missed) == ("closed by its program", 1501)
            assert tally.missed > 1000


def test_two_hundred_feeds_are_each_exact() -> None:
    with RunningEngine(workers=1, is_read=False) as engine, ExitStack() as stack:
        readers = [stack.enter_context(FeedReader(engine.run_dir, keeps=False)) for _ in range(10)]
        feeds: list[tuple[FeedReader, int, Tally, int]] = []
        with raw_peer(engine) as peer:
            for index in range(200):
                reader, number, sample = readers[index % 10], 1 + index // 10, 1 + index % 7
                tally = reader.open(
                    number, ["eth.Transactions"], 20_000 if index % 3 == 0 else 1 << 40, where={"sample": sample}
                )
                feeds.append((reader, number, tally, sample))
            payload = encode([b"\x02" + urandom(300)])
            count = 2000
            for _ in range(count // 50):
                peer.gives(b"".join(peer.sealed(TRANSACTIONS, payload) for _ in range(50)))
                for reader in readers:
                    reader.read()
            status = eventually(lambda: (found := feeds_status(engine))["open"] == 200 and found, "all are told")
            assert status["held_sessions"] == 0
            last = readers[0].open(99, ["eth.Transactions"])
            peer.says(TRANSACTIONS, payload)
            readers[0].until(lambda: last.received == 1, "everything has been read")
        for reader, number, tally, sample in feeds:
            reader.close_feed(number)
            # The first of each `sample` messages.
            assert tally.received + tally.missed == -(-(count + 1) // sample)


@pytest.mark.long
def test_a_million_events_are_received_or_counted_by_feeds_that_read_lag_stop_and_lie() -> None:
    settings = ("--feeds.queue-bytes", str(1 << 20), "--timeouts.ping-interval-s", "600")
    with RunningEngine(*settings, workers=1, is_read=False) as engine, ExitStack() as stack:
        command = [sys.executable, "-P", "-m", "tests.system.flood", *map(str, engine.address), engine.node_id.hex()]
        flood = stack.enter_context(
            subprocess.Popen(
                [*command, "Transactions-64", "8", "120"],
                env={**environ, "PYTHONPATH": IMPORT_PATH},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert flood.stdin is not None
        assert flood.stdout is not None
        assert flood.stdout.readline() == "ready\n"
        window = 1 << 20
        reads, lags, stops, lies = (stack.enter_context(FeedReader(engine.run_dir, keeps=False, queue=20)) for _ in range(4))
        tallies = [reader.open(1, ["eth."], window) for reader in (reads, lags, stops)]
        tallies.append(lies.open(1, ["eth."], 1 << 48))
        granted = [window] * 3

        def read(index: int, reader: FeedReader, seconds: float) -> None:
            """Read, and let the worker send as much again."""
            reader.read(seconds)
            used = tallies[index].bytes + window - granted[index]
            if used > window // 4:
                reader.grant(1, used)
                granted[index] += used

        flood.stdin.write("\n")
        flood.stdin.flush()
        ends_at = monotonic() + 110
        rounds = 0
        while tallies[0].next < 1_000_000:
            assert monotonic() < ends_at
            read(0, reads, 0.05)
            rounds += 1
            if rounds % 50 == 0:
                read(1, lags, 0.0)
            if tallies[0].next < 200_000:
                read(2, stops, 0.0)
        flood.kill()
        flood.communicate()
        eventually(lambda: engine.counts() == (0, 0, 0, 0), "the peers are gone")
        sent = sum(item["messages_in"] - 2 for item in engine.call("history") if item["client"] == "flood")
        for reader in (reads, lags, stops, lies):
            reader.close_feed(1)
        assert sent >= 1_000_000
        for tally in tallies:
            assert tally.received + tally.missed == sent
        assert tallies[2].missed > sent // 4
        assert tallies[3].missed > sent // 2


# -- lossless ---------------------------------------------------------------------------------------------------------------


class Sender:
    """A peer that sends numbered transactions as fast as it is read, from `start` on."""

    def __init__(self, engine: RunningEngine, count: int) -> None:
        self.peer = RawPeer(engine.address, engine.node_id).establish()
        self.sent = 0
        self._count = count
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):
            for number in range(self._count):
                self.peer.say(TRANSACTIONS, encode([b"\x02" + number.to_bytes(8, "big") + urandom(1000)]))
                self.sent = number + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.peer.socket.close()
        self._thread.join()


def numbers_of(tally: Tally, session: int) -> list[int]:
    """The numbers of the transactions of one session, in order."""
    return [
        int.from_bytes(rlp.decode(payload)[0][1:9], "big")
        for event, payload in zip(tally.events, tally.payloads, strict=True)
        if event["session"] == session
    ]


@pytest.mark.long
@pytest.mark.alone
def test_a_lossless_feed_loses_nothing_while_its_reader_stops_and_other_peers_notice_nothing() -> None:
    count = 10_000
    settings = ("--feeds.queue-bytes", str(256 * 1024))
    with (
        RunningEngine(*settings, workers=1, is_read=False) as engine,
        FeedReader(engine.run_dir) as lossless,
        FeedReader(engine.run_dir) as plain,
        ExitStack() as stack,
    ):
        other = stack.enter_context(RawPeer(engine.address, engine.node_id)).establish()
        eventually(lambda: engine.counts()[2] == 1, "the other one is established")
        senders = [stack.enter_context(Sender(engine, count)) for _ in range(2)]
        eventually(lambda: engine.counts()[2] == 3, "all are established")
        others, *sessions = [item["session"] for item in engine.call("sessions")["sessions"]]
        feed = lossless.open(1, ["eth.Transactions"], 100_000, where={"session": sessions}, lossless=True)
        all_feed = plain.open(1, ["eth.Transactions"])
        for sender in senders:
            sender.start()
        # For ten seconds the lossless feed's program reads nothing and grants nothing.
        ends_at = monotonic() + 10
        pings: list[float] = []
        while monotonic() < ends_at:
            pings.append(other.ping())
            other.say(TRANSACTIONS, encode([b"\x02" + bytes(8) + b"other"]))
            plain.read()
            # A peer has a pong for 16 pings at once, and for one a second more.
            sleep(0.5)
        status = feeds_status(engine)
        assert status["held_sessions"] == 2
        [holding] = status["holding"]
        assert (holding["remote"], holding["user"], holding["feed"], holding["sessions"]) == ("ipc", None, 1, 2)
        assert holding["held_ms"] > 5000
        assert 256 * 1024 <= holding["queued_bytes"] < 4 << 20
        assert max(sender.sent for sender in senders) < count
        # The other peer was read all the time, and the feed without the filter had its events.
        assert len(pings) > 10
        assert max(pings) < 1.0
        plain.until(lambda: len(numbers_of(all_feed, others)) == len(pings), "all of the other one")
        assert engine.counts()[2] == 3
        lossless.grant(1, 1 << 40)
        lossless.until(lambda: feed.received == 2 * count, "everything", 60)
        assert feed.missed == 0
        for session in sessions:
            assert numbers_of(feed, session) == list(range(count))
        eventually(lambda: feeds_status(engine)["held_sessions"] == 0, "nobody is held")


def test_a_lossless_feed_whose_program_dies_lets_go_at_once() -> None:
    program = (
        "import sys, zmq, orjson, time\n"
        "sock = zmq.Context().socket(zmq.DEALER)\n"
        "sock.connect('ipc://' + sys.argv[1] + '/worker-0.ipc')\n"
        "sock.send(orjson.dumps({'feed': 1, 'topics': ['eth.'], 'lossless': True}))\n"
        "sock.recv_multipart()\n"
        "print('open', flush=True)\n"
        "time.sleep(600)\n"
    )
    with RunningEngine("--feeds.queue-bytes", "65536", workers=1, is_read=False) as engine, ExitStack() as stack:
        with subprocess.Popen(
            [sys.executable, "-c", program, str(engine.run_dir)], stdout=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "open\n"
            sender = stack.enter_context(Sender(engine, 20_000))
            sender.start()
            eventually(lambda: feeds_status(engine)["held_sessions"] == 1, "its peer is held")
            sleep(1.0)
            assert sender.sent < 20_000
            reader.send_signal(signal.SIGKILL)
            sender.finish()
        assert sender.peer.ping() < 5.0
        eventually(lambda: feeds_status(engine)["open"] == 0, "the feed is gone")
        assert feeds_status(engine)["queued_bytes"] == 0


def test_a_lossless_feed_over_the_workers_budget_ends_with_the_cause() -> None:
    """What many peers send before they are held has no room: the feed ends, and the peers stay."""
    settings = ("--feeds.queue-bytes", str(64 << 20), "--queues.worker-progress-bytes", str(32 << 20))
    with RunningEngine(*settings, workers=1, is_read=False) as engine, FeedReader(engine.run_dir) as reader:
        feed = reader.open(1, ["eth."], 0, lossless=True)
        with raw_peer(engine) as peer:
            payload = encode([b"\x02" + urandom(1 << 20)])
            for _ in range(40):
                peer.says(TRANSACTIONS, payload)
            reader.until(lambda: feed.closed, "the end of the feed")
            assert feed.closed is not None
            assert "wait for its program, the most of all feeds when a worker's 33554432 were used" in feed.closed
            assert feed.next == feed.missed
            assert feed.missed > 30
            eventually(lambda: feeds_status(engine)["open"] == 0, "the end is told")
            assert engine.call("status")["workers"][0]["progress_bytes"] < 1 << 20
            engine.comes_to(0, 0, 1, 0)


def test_so_many_peers_that_each_may_send_a_little_more_do_not_fill_the_budget() -> None:
    settings = ("--feeds.queue-bytes", str(1 << 20), "--queues.worker-progress-bytes", str(64 << 20))
    command = [sys.executable, "-P", "-m", "tests.system.flood"]
    with (
        RunningEngine(*settings, workers=1, is_read=False) as engine,
        FeedReader(engine.run_dir, keeps=False) as reader,
        subprocess.Popen(
            [*command, *map(str, engine.address), engine.node_id.hex(), "Transactions-16384", "300", "20"],
            env={**environ, "PYTHONPATH": IMPORT_PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as flood,
    ):
        assert flood.stdin is not None
        assert flood.stdout is not None
        assert flood.stdout.readline() == "ready\n"
        feed = reader.open(1, ["eth."], 0, lossless=True, where={"client": "flood"})
        flood.stdin.write("\n")
        flood.stdin.flush()
        eventually(lambda: feeds_status(engine)["held_sessions"] == 300, "all are held")
        [holding] = feeds_status(engine)["holding"]
        assert holding["queued_bytes"] < 10 << 20
        reader.grant(1, 8 << 20)
        reader.until(lambda: feed.received > 100, "some of it")
        assert (feed.missed, feed.closed, engine.counts()[2]) == (0, None, 300)
        reader.close_feed(1)
        eventually(lambda: feeds_status(engine)["held_sessions"] == 0, "nobody is held")
        flood.kill()


# -- programs that err ------------------------------------------------------------------------------------------------------


def test_what_a_program_says_wrongly_is_told_and_changes_nothing() -> None:
    with RunningEngine(workers=1) as engine, FeedReader(engine.run_dir) as reader:
        good = reader.open(1, ["session."])
        mistakes: list[dict[str, Any]] = [
            {"topics": []},
            {"topics": ["x"], "where": {"client": 5}},
            {"topics": ["x"], "where": {"nonsense": 5}},
            {"topics": ["x"], "credit": -1},
            {"topics": ["x" * 65]},
            {"credit": 5},
            {"close": True},
            {},
        ]
        for number, fields in enumerate(mistakes, 10):
            reader.feeds[number] = Tally()
            reader.say({"feed": number, **fields})
        for head in (b"{", b"[]", b"\xff", b'{"feed": 0}', b'{"feed": "one"}', b'{"feed": 1, "jsonrpc": "2.0"}', b""):
            reader.say(head)
        reader.until(lambda: all(reader.feeds[10 + index].error for index in range(len(mistakes))), "typed errors")
        assert {(reader.feeds[10 + index].error or {})["name"] for index in range(len(mistakes))} == {"invalid_params"}
        assert (reader.feeds[15].error or {})["message"] == "feed: no feed 15 is open in this connection"
        reader.until(lambda: len(reader.errors) == 7, "errors without a feed")
        reader.say({"feed": 1, "topics": ["eth."]})
        reader.until(lambda: good.error, "a number that is taken")
        assert (good.error or {})["message"] == "feed: feed 1 is open already in this connection"
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            reader.until(lambda: good.of("session.established"), "the good feed goes on")


def test_feeds_are_bounded_in_number() -> None:
    settings = ("--feeds.max-feeds", "5", "--feeds.max-of-connection", "3")
    with RunningEngine(*settings, workers=1) as engine, FeedReader(engine.run_dir) as one, FeedReader(engine.run_dir) as two:
        for number in range(1, 4):
            one.open(number, ["eth."])
            two.ask(number, ["eth."])
        refused = one.ask(4, ["eth."])
        one.until(lambda: refused.error, "the fourth is refused")
        assert refused.error == {"name": "refused", "message": "3 feeds are open in this connection, which is the limit"}
        two.until(lambda: two.feeds[3].error, "the sixth is refused")
        assert two.feeds[3].error == {"name": "refused", "message": "5 feeds are open at this worker, which is the limit"}
        one.close_feed(1)
        two.open(9, ["eth."])


@contextmanager
def deaf_program(engine: RunningEngine) -> Iterator[socket.socket]:
    """A connection that has shaken hands and from then on only talks."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(engine.run_dir / "worker-0.ipc"))
        sock.sendall(greeting() + ready(b"DEALER"))
        sock.settimeout(5)
        yield sock


@pytest.mark.alone
def test_a_program_that_opens_and_closes_without_reading_is_bounded() -> None:
    with RunningEngine(workers=1) as engine, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)).establish()
        sock = stack.enter_context(deaf_program(engine))
        [worker] = engine.workers()
        before = worker.memory_info().rss
        said = b"".join(
            zmtp.encode([b'{"feed":%d,"topics":["session.","eth."],"snapshot":true,"where":{"sample":%d}}' % (n, n)])
            + (zmtp.encode([b'{"feed":%d,"close":true}' % n]) if n % 2 else b"")
            for n in range(1, 400)
        )
        ends_at = monotonic() + 4
        while monotonic() < ends_at:
            try:
                sock.sendall(said)
            except TimeoutError:
                break
        assert worker.memory_info().rss - before < 60 << 20
        assert engine.call("status")["workers"][0]["loop_lag_ms"] < 3000
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
        sock.close()
        eventually(lambda: feeds_status(engine)["open"] == 0, "its feeds are gone")


def test_pings_of_held_peers_are_not_held_against_them() -> None:
    """A peer that a lossless feed holds for longer than a pong may take keeps its session."""
    settings = ("--feeds.queue-bytes", "65536", "--timeouts.ping-interval-s", "1", "--timeouts.ping-s", "1")
    with (
        RunningEngine(*settings, "--responders.answer-s", "0.5", workers=1, is_read=False) as engine,
        FeedReader(engine.run_dir) as reader,
        raw_peer(engine) as peer,
    ):
        feed = reader.open(1, ["eth."], 0, lossless=True)
        for _ in range(3):
            peer.says(TRANSACTIONS, encode([b"\x02" + urandom(40_000)]))
        eventually(lambda: feeds_status(engine)["held_sessions"] == 1, "it is held")
        sleep(4.0)
        assert engine.counts()[2] == 1
        reader.grant(1, 1 << 30)
        reader.until(lambda: feed.received == 3, "all has come")
        peer.says(PONG_CODE)
        peer.says(PING_CODE)
        peer.hears(PONG_CODE)
