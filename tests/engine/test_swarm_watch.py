"""What a swarm sees of its engine: commands answered by the test, events that it publishes, costs in a /proc of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
import pytest
import zmq

from engine import swarm_watch
from engine.client import EngineError, EngineUnavailableError
from engine.config import RunDir
from engine.swarm_watch import Watch
from tests.engine.answering import answering, result

PATIENCE_SECONDS = 10.0
PAGE_BYTES = 4096
STATUS = {"pid": 10, "enode": "enode://ab@127.0.0.1:1", "workers": [{"worker": 0, "pid": 20}, {"worker": 1, "pid": 21}]}
CLOSED = {"messages_in": 3, "messages_out": 4, "stage": "active", "ended_by": "peer", "reason": "too_many_peers"}


class Scene:
    """A watch, the engine that the test plays for it, and the processes in its /proc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[dict[str, Any]] = []
        self.error: dict[str, Any] | None = None
        self._seq = 0
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

    def publishes(self, topic: str, *events: dict[str, Any]) -> None:
        """One batch of the engine's."""
        self._seq += 1
        head = {"v": 1, "worker": None, "since_us": 1, "seq": self._seq, "dropped": 0, "events": events}
        self._events.send_multipart([topic.encode(), orjson.dumps(head), b""])

    def reads_until(self, name: str, count: int) -> None:
        """Read events until so many are counted."""
        ends_at = monotonic() + PATIENCE_SECONDS
        while self.watch.counts[name] < count:
            assert monotonic() < ends_at, self.watch.counts
            self.watch.read()

    def has_process(self, pid: int, cpu_ns: list[int], pages: int) -> None:
        """A process with threads that have used so much CPU."""
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
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(swarm_watch, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(swarm_watch, "_PAGE_BYTES", PAGE_BYTES)
    scene = Scene(tmp_path)
    with answering(tmp_path, scene.answer):
        with Watch(str(tmp_path)) as scene.watch:
            scene.is_subscribed()
            yield scene
        scene.close()


def test_what_it_cost_is_the_sum_over_threads_and_processes(scene: Scene) -> None:
    scene.has_process(10, [1_000_000_000, 500_000_000], 100)
    scene.has_process(20, [2_000_000_000], 10)
    scene.has_process(21, [3_000_000_000], 1)
    scene.has_process(99, [7_000_000_000], 1000)
    cost = scene.watch.cost()
    assert cost.cpu_seconds == pytest.approx(6.5)
    assert cost.memory_bytes == 111 * PAGE_BYTES


def test_a_worker_that_is_replaced_is_followed_and_what_it_cost_stays(scene: Scene) -> None:
    for pid in (10, 20, 21):
        scene.has_process(pid, [1_000_000_000], 10)
    assert scene.watch.cost().cpu_seconds == pytest.approx(3)
    scene.loses_process(20)
    lost = scene.watch.cost()
    assert lost.cpu_seconds == pytest.approx(3)
    assert lost.memory_bytes == 20 * PAGE_BYTES
    scene.has_process(22, [250_000_000], 5)
    scene.publishes("worker.lost", {"worker": 0, "pid": 20, "cause": "killed", "sessions": 0})
    scene.publishes("worker.started", {"worker": 0, "pid": 22})
    scene.publishes("session.refused", {"cause": "behind the others"})
    scene.reads_until("refused", 1)
    assert scene.watch.counts["workers_lost"] == 1
    found = scene.watch.cost()
    assert found.cpu_seconds == pytest.approx(3.25)
    assert found.memory_bytes == 25 * PAGE_BYTES


def test_a_thread_that_ends_makes_nothing_cheaper(scene: Scene) -> None:
    scene.has_process(10, [1_000_000_000, 4_000_000_000], 1)
    assert scene.watch.cost().cpu_seconds == pytest.approx(5)
    scene.has_process(10, [1_500_000_000, 0], 1)
    assert scene.watch.cost().cpu_seconds == pytest.approx(5)


def test_sessions_and_messages_are_counted_and_ends_by_who_why_and_where(scene: Scene) -> None:
    scene.publishes("session.established", {}, {})
    scene.publishes("session.closed", CLOSED, CLOSED, {**CLOSED, "stage": "auth", "ended_by": "us", "reason": None})
    scene.reads_until("closed", 3)
    counts = scene.watch.counts
    assert (counts["established"], counts["closed_established"]) == (2, 2)
    assert (counts["messages_in"], counts["messages_out"]) == (9, 12)
    assert scene.watch.ends == {"peer too_many_peers at active": 2, "us - at auth": 1}


def test_at_the_end_it_waits_for_the_ends_of_all_that_were_established(scene: Scene) -> None:
    scene.publishes("session.established", {})
    scene.reads_until("established", 1)
    scene.publishes("session.closed", {**CLOSED, "stage": "auth"})
    late = threading.Timer(0.2, scene.publishes, ["session.closed", CLOSED])
    late.start()
    scene.watch.settle()
    late.join()
    assert scene.watch.counts["closed"] == 2


def test_it_does_not_wait_without_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_watch, "_SETTLE_SECONDS", 0.0)
    scene.publishes("session.established", {})
    scene.reads_until("established", 1)
    scene.watch.settle()
    assert scene.watch.counts["closed"] == 0


def test_it_has_the_engine_dial_and_says_by_name_why_it_would_not(scene: Scene) -> None:
    assert scene.watch.dial("enode://cd") is None
    assert (scene.calls[-1]["method"], scene.calls[-1]["params"]) == ("dial", {"enode": "enode://cd"})
    scene.error = {"code": -32000, "message": "the peer has session 4 already", "data": {"name": "refused"}}
    assert scene.watch.dial("enode://cd") == "refused"


def test_where_it_listens_is_known_and_whether_it_is_there(scene: Scene) -> None:
    assert scene.watch.enode == STATUS["enode"]
    assert scene.watch.is_there


def test_an_engine_that_is_gone_is_no_error_but_said(scene: Scene) -> None:
    (scene.folder / "control.ipc").unlink()
    assert not scene.watch.is_there
    assert scene.watch.dial("enode://cd") == "no engine"


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
