"""A subscriber: its batches, every loss that the numbers show, and a missing engine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import orjson
import pytest
import zmq

from rlpx.engine.cli import tail
from rlpx.engine.client.batch_reader import Event, Gap, Malformed
from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineForbiddenError, EngineUnavailableError
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.settings.run_dir import RunDir


@contextmanager
def publishing(folder: Path) -> Iterator[zmq.Socket[bytes]]:
    """The event socket of an engine."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.XPUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind(RunDir(folder).endpoint("events"))
        yield publisher
    context.term()


def message(topic: bytes, first: int, sizes: tuple[int, ...], body: bytes) -> list[bytes]:
    """A batch of the engine itself."""
    events = [{"n": first + index, "size": size} for index, size in enumerate(sizes)]
    head = {"v": 2, "run": "r", "worker": 0, "seq": 1, "first": first, "dropped": 0, "events": events}
    return [topic, orjson.dumps(head), body]


def confirmation(prefix: bytes) -> list[bytes]:
    """The confirmation that a subscription holds everywhere."""
    head = {"v": 2, "run": "r", "worker": None, "seq": 0, "first": 0, "dropped": 0, "next": [], "events": []}
    return [prefix, orjson.dumps(head), b""]


def test_a_subscriber_reads_events_one_by_one(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, ["eth."]) as subscriber:
        assert not subscriber.is_missing
        assert publisher.recv() == b"\x01eth."
        publisher.send_multipart(message(b"eth.Transactions", 0, (2, 1), b"abc"))
        assert subscriber.poll(5.0) == [
            Event("eth.Transactions", 0, {"n": 0, "size": 2}, b"ab", "r", 0),
            Event("eth.Transactions", 0, {"n": 1, "size": 1}, b"c", "r", 1),
        ]
        assert subscriber.poll(0.0) == []
        assert subscriber.run == "r"


def test_a_subscriber_can_be_iterated_over(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, [""]) as subscriber:
        publisher.recv()
        publisher.send_multipart(message(b"a.b", 0, (0,), b""))
        publisher.send_multipart(message(b"a.b", 2, (0,), b""))
        events = iter(subscriber)
        assert [next(events) for _ in range(3)] == [
            Event("a.b", 0, {"n": 0, "size": 0}, b"", "r", 0),
            Gap("a.b", 0, 1, 1),
            Event("a.b", 0, {"n": 2, "size": 0}, b"", "r", 2),
        ]


def test_each_topic_is_a_subscription(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, ["a.", "b."]):
        assert {publisher.recv(), publisher.recv()} == {b"\x01a.", b"\x01b."}


def test_a_confirmation_is_no_event_and_does_not_end_the_wait_for_one(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, ["a."]) as subscriber:
        publisher.recv()
        publisher.send_multipart(confirmation(b"a."))
        publisher.send_multipart(message(b"a.b", 0, (0,), b""))
        [event] = subscriber.poll(5.0)
        assert isinstance(event, Event)


def test_who_waits_for_its_subscriptions_gets_what_comes_meanwhile(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, ["a.", "b."]) as subscriber:
        publisher.recv()
        publisher.recv()
        assert not subscriber.is_confirmed
        publisher.send_multipart(confirmation(b"a."))
        publisher.send_multipart(message(b"a.b", 0, (0,), b""))
        publisher.send_multipart(confirmation(b"b."))
        [event] = subscriber.confirm(5.0)
        assert isinstance(event, Event)
        assert subscriber.is_confirmed


def test_subscriptions_that_nobody_confirms_are_an_engine_that_is_not_there(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, ["a."]) as subscriber:
        publisher.recv()
        with pytest.raises(EngineUnavailableError, match="did not confirm"):
            subscriber.confirm(0.05)


def test_a_malformed_batch_is_an_item_and_the_next_one_is_read(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, ["a."]) as subscriber:
        publisher.recv()
        publisher.send_multipart([b"a.b", b"nonsense", b""])
        publisher.send_multipart(message(b"a.b", 0, (0,), b""))
        assert isinstance(subscriber.poll(5.0)[0], Malformed)
        assert isinstance(subscriber.poll(5.0)[0], Event)


def test_an_engine_that_was_heard_meanwhile_is_waited_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("rlpx.engine.client.presence.monotonic", lambda: clock[0])
    with Subscriber.of(tmp_path, [""]) as subscriber:
        assert subscriber.poll(0.0) == []
        with publishing(tmp_path) as publisher:
            publisher.recv()
            publisher.send_multipart(message(b"a.b", 0, (0,), b""))
            assert len(subscriber.poll(5.0)) == 1
        clock[0] = 200.0
        assert subscriber.poll(0.0) == []


def test_one_long_poll_notices_as_soon_that_nobody_is_there(tmp_path: Path) -> None:
    """It must not wait for the whole time first, and then once more."""
    began_at = monotonic()
    with (
        Subscriber.of(tmp_path, ["session."], timeout_seconds=0.1) as subscriber,
        pytest.raises(EngineUnavailableError, match="no engine at"),
    ):
        subscriber.poll(300.0)
    assert monotonic() - began_at < 150


def test_a_long_poll_outlasts_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.engine.client.subscriber.PRESENCE_SECONDS", 0.05)
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, ["a."]) as subscriber:
        publisher.recv()
        late = threading.Timer(0.5, publisher.send_multipart, [message(b"a.b", 0, (0,), b"")])
        late.start()
        assert len(subscriber.poll(30.0)) == 1
        late.join()
        assert subscriber.poll(0.2) == []


@contextmanager
def turning_away() -> Iterator[str]:
    """Yields the endpoint of a server that requires a key: it speaks CURVE (ZMTP 3.1, greeting)."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\x01" + bytes(31)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = server.accept()
                    with caller, suppress(OSError):
                        caller.sendall(greeting)
                        while caller.recv(4096):
                            pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_who_was_turned_away_before_he_asks_is_told_so() -> None:
    """ZeroMQ then has no connection to send on, and a send would wait forever."""
    for _ in range(5):
        with (
            turning_away() as endpoint,
            Client(endpoint, timeout_seconds=60.0) as client,
            pytest.raises(EngineForbiddenError, match="takes only users with a key"),
        ):
            client.call("status")


def test_a_reader_that_is_turned_away_ends_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with turning_away() as endpoint, pytest.raises(SystemExit) as ended:
        tail.main(["--connect", endpoint, "session."])
    assert ended.value.code == 77
    assert capsys.readouterr().err == (
        f"rlpx-tail: {endpoint} takes only users with a key; `rlpx-ctl keys new NAME` makes one on the engine's machine\n"
    )
