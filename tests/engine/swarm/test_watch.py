"""The watch of a swarm's engine: the test answers its commands, publishes events, and has a /proc of its own."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
import pytest
import zmq

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.swarm import watch as swarm_watch
from rlpx.engine.swarm.watch import Watch
from tests.engine.answering import answering, result

PATIENCE_SECONDS = 60.0
PAGE_BYTES = resource.getpagesize()
STATUS = {"pid": 10, "enode": "enode://ab@127.0.0.1:1", "workers": [{"worker": 0, "pid": 20}, {"worker": 1, "pid": 21}]}
CLOSED = {"messages_in": 3, "messages_out": 4, "stage": "active", "ended_by": "peer", "reason": "too_many_peers"}


class Harness:
    """A watch, its fake engine, and the processes in its /proc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[dict[str, Any]] = []
        self.error: dict[str, Any] | None = None
        self._first: dict[str, int] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._events = self._context.socket(zmq.XPUB)
        self._events.setsockopt(zmq.LINGER, 0)
        self._events.bind(RunDir(folder).endpoint("events"))
        self.watch: Watch

    def answer(self, request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        self.calls.append(request)
        if self.error is not None:
            return [orjson.dumps({"jsonrpc": "2.0", "id": request["id"], "error": self.error})]
        return [result(request, STATUS if request["method"] == "status" else {})]

    def is_subscribed(self) -> None:
        for _ in swarm_watch.TOPICS:
            assert self._events.poll(int(PATIENCE_SECONDS * 1000))
            self._events.recv()

    def confirm(self) -> None:
        """Confirm the subscriptions."""
        self.is_subscribed()
        head = {"v": 2, "run": "r", "worker": None, "seq": 0, "first": 0, "dropped": 0, "next": [], "events": []}
        for topic in swarm_watch.TOPICS:
            self._events.send_multipart([topic.encode(), orjson.dumps(head), b""])

    def publishes(self, topic: str, *events: dict[str, Any]) -> None:
        """Publish one batch of the engine itself."""
        head = {
            "v": 2,
            "run": "r",
            "worker": None,
            "seq": 1,
            "first": self._first.get(topic, 0),
            "dropped": 0,
            "events": events,
        }
        self._first[topic] = self._first.get(topic, 0) + len(events)
        self._events.send_multipart([topic.encode(), orjson.dumps(head), b""])

    def reads_until(self, name: str, count: int) -> None:
        """Read events until this many are counted."""
        ends_at = monotonic() + PATIENCE_SECONDS
        while self.watch.counts[name] < count:
            assert monotonic() < ends_at, self.watch.counts
            self.watch.read()

    def has_process(self, pid: int, cpu_ns: list[int], pages: int) -> None:
        """A process with threads that have used this much CPU."""
        for thread, cpu in enumerate(cpu_ns):
            task = self.folder / "proc" / str(pid) / "task" / str(pid + thread)
            task.mkdir(parents=True, exist_ok=True)
            (task / "schedstat").write_text(f"{cpu} 5 6\n")
        (self.folder / "proc" / str(pid) / "statm").write_text(f"999 {pages} 1 1 0 1 0\n")

    def loses_process(self, pid: int) -> None:
        (self.folder / "proc" / str(pid)).rename(self.folder / f"gone-{pid}")

    def close(self) -> None:
        self._events.close()
        self._context.term()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    confirming = threading.Thread(target=harness.confirm)
    with answering(tmp_path, harness.answer):
        confirming.start()
        with Watch(str(tmp_path), tmp_path / "proc") as harness.watch:
            confirming.join()
            yield harness
        harness.close()


def test_what_it_cost_is_the_sum_over_threads_and_processes(harness: Harness) -> None:
    harness.has_process(10, [1_000_000_000, 500_000_000], 100)
    harness.has_process(20, [2_000_000_000], 10)
    harness.has_process(21, [3_000_000_000], 1)
    harness.has_process(99, [7_000_000_000], 1000)
    cost = harness.watch.cost()
    assert cost.cpu_seconds == pytest.approx(6.5)
    assert cost.memory_bytes == 111 * PAGE_BYTES


def test_a_worker_that_is_replaced_is_followed_and_what_it_cost_stays(harness: Harness) -> None:
    for pid in (10, 20, 21):
        harness.has_process(pid, [1_000_000_000], 10)
    assert harness.watch.cost().cpu_seconds == pytest.approx(3)
    harness.loses_process(20)
    lost = harness.watch.cost()
    assert lost.cpu_seconds == pytest.approx(3)
    assert lost.memory_bytes == 20 * PAGE_BYTES
    harness.has_process(22, [250_000_000], 5)
    harness.publishes("worker.lost", {"worker": 0, "pid": 20, "cause": "killed", "sessions": 0})
    harness.publishes("worker.started", {"worker": 0, "pid": 22})
    harness.publishes("session.refused", {"cause": "behind the others"})
    harness.reads_until("refused", 1)
    assert harness.watch.counts["workers_lost"] == 1
    found = harness.watch.cost()
    assert found.cpu_seconds == pytest.approx(3.25)
    assert found.memory_bytes == 25 * PAGE_BYTES


def test_a_thread_that_ends_makes_nothing_cheaper(harness: Harness) -> None:
    harness.has_process(10, [1_000_000_000, 4_000_000_000], 1)
    assert harness.watch.cost().cpu_seconds == pytest.approx(5)
    harness.has_process(10, [1_500_000_000, 0], 1)
    assert harness.watch.cost().cpu_seconds == pytest.approx(5)


def test_sessions_and_messages_are_counted_and_ends_by_who_why_and_where(harness: Harness) -> None:
    harness.publishes("session.established", {}, {})
    harness.publishes("session.closed", CLOSED, CLOSED, {**CLOSED, "stage": "auth", "ended_by": "us", "reason": None})
    harness.reads_until("closed", 3)
    counts = harness.watch.counts
    assert (counts["established"], counts["closed_established"]) == (2, 2)
    assert (counts["messages_in"], counts["messages_out"]) == (9, 12)
    assert harness.watch.ends == {"peer too_many_peers at active": 2, "us - at auth": 1}


def test_at_the_end_it_waits_for_the_ends_of_all_that_were_established(harness: Harness) -> None:
    harness.publishes("session.established", {})
    harness.reads_until("established", 1)
    harness.publishes("session.closed", {**CLOSED, "stage": "auth"})
    late = threading.Timer(0.2, harness.publishes, ["session.closed", CLOSED])
    late.start()
    harness.watch.settle()
    late.join()
    assert harness.watch.counts["closed"] == 2


def test_it_does_not_wait_without_end(harness: Harness) -> None:
    harness.publishes("session.established", {})
    harness.reads_until("established", 1)
    harness.watch.settle(0.0)
    assert harness.watch.counts["closed"] == 0


def test_it_has_the_engine_dial_and_says_by_name_why_it_would_not(harness: Harness) -> None:
    assert harness.watch.dial("enode://cd") is None
    assert (harness.calls[-1]["method"], harness.calls[-1]["params"]) == ("dial", {"enode": "enode://cd"})
    harness.error = {"code": -32000, "message": "the peer has session 4 already", "data": {"name": "refused"}}
    assert harness.watch.dial("enode://cd") == "refused"


def test_where_it_listens_is_known_and_whether_it_is_there(harness: Harness) -> None:
    assert harness.watch.enode == STATUS["enode"]
    assert harness.watch.is_there


def test_an_engine_that_is_gone_is_no_error_but_said(harness: Harness) -> None:
    (harness.folder / "control.ipc").unlink()
    assert not harness.watch.is_there
    assert harness.watch.dial("enode://cd") == "no engine"


def test_where_there_is_no_engine_there_is_nothing_to_watch(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="no engine at"):
        Watch(str(tmp_path))


def test_an_engine_that_answers_with_an_error_is_not_watched(tmp_path: Path) -> None:
    error = {"code": -32000, "message": "not now", "data": {"name": "refused"}}
    with (
        answering(tmp_path, lambda request, _: [orjson.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error})]),
        pytest.raises(EngineError, match="not now"),
    ):
        Watch(str(tmp_path))
