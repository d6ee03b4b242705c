"""A client's calls against an engine of a few lines, a subscriber's batches, and every loss that the numbers show."""

from __future__ import annotations

import gc
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.client import Client, EngineError, EngineUnavailableError, Event, Gap, GapTracker, Subscriber
from engine.config import RunDir
from protocol.batches import Batches
from tests.engine.answering import answering, result

# -- calls ------------------------------------------------------------------------------------------------------------------


def test_a_call_gives_its_result(tmp_path: Path) -> None:
    with answering(tmp_path, lambda request, _: [result(request, request["params"])]), Client.of(tmp_path) as client:
        assert client.call("dial", enode="enode://", wait=True) == {"enode": "enode://", "wait": True}
        assert client.call("counts") == {}


def test_a_call_is_json_rpc_with_an_id_of_its_own(tmp_path: Path) -> None:
    with answering(tmp_path, lambda request, _: [result(request, request)]), Client.of(tmp_path) as client:
        assert client.call("counts") == {"jsonrpc": "2.0", "id": 1, "method": "counts", "params": {}}
        assert client.call("status")["id"] == 2


def test_an_attachment_travels_as_it_is(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], attachments: list[bytes]) -> list[bytes]:
        return [result(request, [attachment.hex() for attachment in attachments])]

    with answering(tmp_path, answer), Client.of(tmp_path) as client:
        assert client.call("send", attachment=b"\x00\xff") == ["00ff"]


def test_an_error_is_raised_with_its_name(tmp_path: Path) -> None:
    error = {"code": -32001, "message": "there is no session 9", "data": {"name": "no_such_session"}}

    def answer(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        return [orjson.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error})]

    with answering(tmp_path, answer), Client.of(tmp_path) as client:
        with pytest.raises(EngineError, match="there is no session 9") as caught:
            client.call("session", session=9)
        assert (caught.value.name, caught.value.code) == ("no_such_session", -32001)


def test_an_error_without_an_id_is_this_calls(tmp_path: Path) -> None:
    error = {"code": -32603, "message": "a fault of the engine", "data": {"name": "internal"}}

    with (
        answering(tmp_path, lambda *_: [orjson.dumps({"jsonrpc": "2.0", "id": None, "error": error})]),
        Client.of(tmp_path) as client,
        pytest.raises(EngineError, match="a fault of the engine"),
    ):
        client.call("counts")


def test_the_late_answer_to_an_earlier_call_is_passed_over(tmp_path: Path) -> None:
    held: list[dict[str, Any]] = []

    def answer(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        if request["method"] == "dial":
            held.append(request)
            return []
        return [result(held[0], "late"), result(request, "right")]

    with answering(tmp_path, answer), Client.of(tmp_path, timeout_seconds=0.05) as client:
        with pytest.raises(EngineUnavailableError, match=r"no answer from ipc://.* within 0\.05 s"):
            client.call("dial")
        assert client.call("counts") == "right"


def test_where_there_is_no_socket_there_is_no_engine(tmp_path: Path) -> None:
    with Client.of(tmp_path) as client, pytest.raises(EngineUnavailableError, match="no engine at ipc://"):
        client.call("status")


def test_where_a_killed_engine_left_its_socket_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "control.ipc").touch()
    with (
        Client.of(tmp_path, timeout_seconds=0.05) as client,
        pytest.raises(EngineUnavailableError, match="no engine at"),
    ):
        client.call("status")


def test_where_nobody_listens_on_a_port_there_is_no_engine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    with Client(endpoint) as client, pytest.raises(EngineUnavailableError, match=endpoint):
        client.call("status")


def test_an_engine_over_tcp_is_found(tmp_path: Path) -> None:
    with answering(tmp_path, lambda request, _: [result(request, "here")], "tcp://127.0.0.1:*") as endpoint:
        with Client(endpoint) as client:
            assert client.call("status") == "here"
        with Subscriber(endpoint, []) as subscriber:
            assert not subscriber.is_missing


def raised_by(make: Callable[[], object]) -> str:
    """The name and words of what it raises, with no socket left that would be found unclosed in another test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            make()
        except (EngineUnavailableError, zmq.ZMQError) as error:
            raised = f"{type(error).__name__}: {error}"
        else:
            raised = "nothing"
        gc.collect()
    return raised


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://", "tcp://127.0.0.1", "foo://x"])
def test_an_endpoint_that_is_none_is_an_engine_that_is_not_there(endpoint: str) -> None:
    for make in (lambda: Client(endpoint), lambda: Subscriber(endpoint, [""])):
        raised = raised_by(make)
        assert raised.startswith("EngineUnavailableError: ")
        assert endpoint in raised


def test_by_default_it_is_the_engine_of_the_usual_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with Client.of() as client, Subscriber.of(None, []) as subscriber:
        assert client.endpoint == f"ipc://{tmp_path}/rlpx-engine/control.ipc"
        assert subscriber.endpoint == f"ipc://{tmp_path}/rlpx-engine/events.ipc"
        assert subscriber.is_missing


# -- events -----------------------------------------------------------------------------------------------------------------


@contextmanager
def publishing(folder: Path) -> Iterator[zmq.Socket[bytes]]:
    """The event socket of an engine."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.XPUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind(RunDir(folder).endpoint("events"))
        yield publisher
    context.term()


def head(
    seq: int, *, dropped: int = 0, worker: int | None = 0, sizes: tuple[int | None, ...] = (None,), since: int = 1
) -> dict[str, Any]:
    """The head of a batch of one event a size."""
    events = [{"n": index} | ({} if size is None else {"size": size}) for index, size in enumerate(sizes)]
    return {"v": 1, "worker": worker, "since_us": since, "seq": seq, "dropped": dropped, "events": events}


def test_a_subscriber_reads_events_one_by_one(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, ["eth."]) as subscriber:
        assert not subscriber.is_missing
        assert publisher.recv() == b"\x01eth."
        publisher.send_multipart([b"eth.Transactions", orjson.dumps(head(1, sizes=(2, 1))), b"abc"])
        assert subscriber.poll(5.0) == [
            Event("eth.Transactions", 0, {"n": 0, "size": 2}, b"ab"),
            Event("eth.Transactions", 0, {"n": 1, "size": 1}, b"c"),
        ]
        assert subscriber.poll(0.0) == []


def test_a_subscriber_can_be_iterated_over(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, [""]) as subscriber:
        publisher.recv()
        publisher.send_multipart([b"a.b", orjson.dumps(head(1)), b""])
        publisher.send_multipart([b"a.b", orjson.dumps(head(3)), b""])
        events = iter(subscriber)
        assert [next(events) for _ in range(3)] == [
            Event("a.b", 0, {"n": 0}, b""),
            Gap("a.b", 0, 1),
            Event("a.b", 0, {"n": 0}, b""),
        ]


def test_each_topic_is_a_subscription(tmp_path: Path) -> None:
    with publishing(tmp_path) as publisher, Subscriber.of(tmp_path, ["a.", "b."]):
        assert {publisher.recv(), publisher.recv()} == {b"\x01a.", b"\x01b."}


# -- gaps -------------------------------------------------------------------------------------------------------------------


def gaps(*heads: dict[str, Any], topic: str = "t") -> list[int]:
    """What a tracker says is missing before each of these batches."""
    tracker = GapTracker()
    found = []
    for item in heads:
        read = tracker.read(topic, item, b"")
        lost = [event for event in read if isinstance(event, Gap)]
        assert read[: len(lost)] == lost
        assert len(lost) <= 1
        found.append(lost[0].missed if lost else 0)
    return found


def test_where_nothing_is_missing_there_is_no_gap() -> None:
    assert gaps(head(1), head(2), head(3)) == [0, 0, 0]


def test_who_comes_later_has_missed_nothing() -> None:
    assert gaps(head(17, dropped=5), head(18, dropped=5)) == [0, 0]


def test_each_batch_that_never_came_is_at_least_one_event() -> None:
    assert gaps(head(1), head(4), head(5)) == [0, 2, 0]


def test_what_the_worker_dropped_is_counted_once() -> None:
    assert gaps(head(1), head(2, dropped=7), head(3, dropped=7), head(4, dropped=9)) == [0, 7, 0, 2]


def test_lost_batches_and_dropped_events_add_up() -> None:
    assert gaps(head(1, dropped=2), head(4, dropped=5)) == [0, 2 + 3]


def test_a_worker_that_was_replaced_counts_from_one_again() -> None:
    assert gaps(head(5), head(1, since=2), head(2, since=2)) == [0, 0, 0]


def test_a_replaced_worker_may_have_dropped_less_than_the_one_before() -> None:
    assert gaps(head(5, dropped=9), head(1, since=2), head(2, dropped=1, since=2)) == [0, 0, 1]


def test_what_a_replaced_worker_published_before_its_first_batch_here_is_missing() -> None:
    assert gaps(head(9), head(3, since=2)) == [0, 2]
    assert gaps(head(2), head(9, since=2)) == [0, 8]


def test_what_a_replaced_worker_dropped_before_its_first_batch_here_is_missing() -> None:
    assert gaps(head(9, dropped=4), head(1, dropped=3, since=2)) == [0, 3]


def test_workers_and_topics_are_counted_apart() -> None:
    tracker = GapTracker()
    for topic, worker in (("a", 0), ("a", 1), ("a", None), ("b", 0)):
        assert tracker.read(topic, head(1, worker=worker), b"") == [Event(topic, worker, {"n": 0}, b"")]
    assert tracker.read("a", head(3, worker=1), b"")[0] == Gap("a", 1, 1)
    assert tracker.read("a", head(2, worker=None), b"") == [Event("a", None, {"n": 0}, b"")]


def test_payloads_are_cut_by_their_sizes() -> None:
    read = GapTracker().read("t", head(1, sizes=(0, 3, 1)), b"abcd")
    assert [event.payload for event in read if isinstance(event, Event)] == [b"", b"abc", b"d"]


def test_events_without_payload_have_none() -> None:
    read = GapTracker().read("t", head(1, sizes=(None, None)), b"")
    assert [event.payload for event in read if isinstance(event, Event)] == [b"", b""]


def test_a_size_is_no_payload_where_there_is_no_body() -> None:
    """`size` may be a fact of its own in a topic without payload."""
    [event] = GapTracker().read("t", head(1, sizes=(10,)), b"")
    assert isinstance(event, Event)
    assert event.payload == b""


# Each step of a publisher: a batch of so many events that arrives, is lost on the way, or is refused by the socket.
fates = st.lists(st.tuples(st.sampled_from(["arrives", "is lost", "is refused"]), st.integers(1, 3)), max_size=30)


@settings(derandomize=True, deadline=None)
@given(fates)
def test_every_loss_between_two_batches_is_visible(steps: list[tuple[str, int]]) -> None:
    batches, tracker = Batches(3, 7), GapTracker()
    missing = -1  # before the first batch nobody can know
    for fate, count in steps:
        for number in range(count):
            batches.add_encoded("t", f'{{"n":{number},"size":1}}', b"x")
        [batch] = batches.take()
        _, packed, body = batch.frames()
        if fate == "is refused":
            batch.refused()
            missing += count if missing >= 0 else 0
            continue
        batch.sent()
        if fate == "is lost":
            missing += 1 if missing >= 0 else 0
            continue
        read = tracker.read("t", orjson.loads(packed), body)
        assert [event for event in read if isinstance(event, Gap)] == ([Gap("t", 3, missing)] if missing > 0 else [])
        assert [event.fields["n"] for event in read if isinstance(event, Event)] == list(range(count))
        missing = 0
