"""A program with feeds, written on a plain DEALER socket and the frames alone, that checks what it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

import orjson
import zmq

from tests.declared import check_feed_event

PATIENCE_SECONDS: Final = 120.0
# Enough for a test that does not look at credit.
PLENTY: Final = 1 << 40


class Tally:
    """What is known of one feed: every event has its ordinal, and what was missed is exact."""

    def __init__(self) -> None:
        self.confirmed: dict[str, Any] | None = None
        self.next = 0
        self.received = 0
        self.missed = 0
        self.bytes = 0
        self.largest = 0
        self.messages = 0
        self.closed: str | None = None
        self.error: dict[str, str] | None = None
        self.events: list[dict[str, Any]] = []
        self.payloads: list[bytes] = []

    def take(self, head: dict[str, Any], body: bytes, size: int, *, keeps: bool) -> None:
        """Take a message to the program."""
        assert self.closed is None, "the end was the last word"
        if "sessions" in head:
            assert self.confirmed is None
            self.confirmed = head
        elif "error" in head:
            self.error = head["error"]
        else:
            first, events = head["first"], head.get("events", [])
            assert first >= self.next
            self.missed += first - self.next
            assert head["dropped"] == self.missed
            self.next = first + len(events)
            self.received += len(events)
            self.closed = head.get("closed")
            if self.closed is None:
                assert self.confirmed is not None, "events come behind the confirmation"
                self.messages += 1
                self.bytes += size
                self.largest = max(self.largest, size)
            if keeps:
                self._keep(events, body)

    def _keep(self, events: list[dict[str, Any]], body: bytes) -> None:
        start = 0
        for event in events:
            check_feed_event(event)
            size = event.get("size", 0)
            self.payloads.append(body[start : start + size])
            start += size
        assert start == len(body)
        self.events += events

    def of(self, topic: str) -> list[dict[str, Any]]:
        """The events of a topic so far."""
        return [event for event in self.events if event["topic"] == topic]


class FeedReader:
    """See the module. With `keeps=False` only the numbers of events are kept."""

    def __init__(self, run_dir: Path, worker: int = 0, *, keeps: bool = True, queue: int = 1000) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, queue)
        self._socket.connect(f"ipc://{run_dir}/worker-{worker}.ipc")
        self._keeps = keeps
        self.feeds: dict[int, Tally] = {}
        # Errors of messages that name no feed.
        self.errors: list[str] = []

    def say(self, head: Any, *frames: bytes) -> None:
        """Send a message."""
        self._socket.send_multipart([head if isinstance(head, bytes) else orjson.dumps(head), *frames])

    def ask(self, number: int, topics: list[str], credit: int = PLENTY, **more: Any) -> Tally:
        """Ask for a feed."""
        self.say({"feed": number, "topics": topics, "credit": credit, **more})
        tally = self.feeds[number] = Tally()
        return tally

    def open(self, number: int, topics: list[str], credit: int = PLENTY, **more: Any) -> Tally:
        """Open a feed, and wait for its confirmation."""
        tally = self.ask(number, topics, credit, **more)
        self.until(lambda: tally.confirmed or tally.error, "the feed is confirmed")
        assert tally.error is None, tally.error
        return tally

    def grant(self, number: int, credit: int) -> None:
        self.say({"feed": number, "credit": credit})

    def close_feed(self, number: int) -> Tally:
        """End a feed, and read up to its last word."""
        self.say({"feed": number, "close": True})
        tally = self.feeds[number]
        self.until(lambda: tally.closed, "the feed is closed")
        return tally

    def read(self, seconds: float = 0.0, most: int = 1 << 30) -> int:
        """Read what has come, waiting up to this long for the first message; returns how many there were."""
        count = 0
        while count < most and self._socket.poll(int(seconds * 1000)):
            seconds = 0.0
            frames = self._socket.recv_multipart()
            count += 1
            head = orjson.loads(frames[0])
            if "feed" in head:
                body = frames[1] if len(frames) > 1 else b""
                self.feeds[head["feed"]].take(head, body, sum(map(len, frames)), keeps=self._keeps)
            else:
                self.errors.append(head["error"])
        return count

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Read until the condition holds."""
        ends_at = monotonic() + seconds
        while not condition():
            assert monotonic() < ends_at, (
                f"not within {seconds} s: {what}; {[vars(tally) for tally in self.feeds.values()][:3]}"
            )
            self.read(0.05)

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
