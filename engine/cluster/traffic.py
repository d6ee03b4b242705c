"""Messages of this host's peers on core NATS subjects, only while somebody listens: no listener, no byte.

Core NATS does not tell a publisher whether there are subscribers. So a listener asks for topics, at one host or at all, and
asks again before the time it has named is over. A message is a batch of one topic, as on `events.ipc`: the head on a line
of its own, then the payloads. Its numbers show every loss, wherever it happened.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Annotated, Final

import msgspec
import nats.errors
from msgspec import Meta
from nats.aio.client import Client
from nats.aio.msg import Msg

from rlpx.engine.hub.events import EventsHub
from rlpx.protocol.bus import zmtp

# These topics are in the fleet's stream, and these words are other subjects of a host.
TAKEN: Final = frozenset({"session", "dial", "worker", "engine", "command", "listen", "tap"})
# Most topics that a host publishes at the same time, whoever has asked for them.
MAX_TOPICS: Final = 64
# Bytes that wait for the connection. What does not fit is lost, and the numbers show it.
MAX_WAITING_BYTES: Final = 8 * 1024 * 1024

Topic = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9]{0,7}\.[A-Za-z0-9]{0,64}$", title="a topic or the beginning of one", examples=["eth."])
]


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a listener wants, and for how many seconds. A topic that ends with a dot is the beginning of many."""

    topics: Annotated[tuple[Topic, ...], Meta(min_length=1, max_length=MAX_TOPICS)]
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 15.0


class Traffic:
    """See the module."""

    def __init__(self, client: Client, fleet: str, host: str, events: EventsHub) -> None:
        self._client = client
        self._host = host
        self._subject = f"rlpx.{fleet}.{host}."
        self._subjects = (f"rlpx.{fleet}.{host}.listen", f"rlpx.{fleet}.listen")
        self._events = events
        # Until when each topic is wanted.
        self._wanted: dict[str, float] = {}
        self._waiting: deque[tuple[str, bytes]] = deque()
        self.waiting_bytes = 0
        self.sent_batches = self.sent_bytes = self.dropped_batches = 0
        self._is_waiting = asyncio.Event()
        self._last: zmtp.Wire = b""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take wishes."""
        for subject in self._subjects:
            await self._client.subscribe(subject, cb=self._on_wish)
        self._task = asyncio.get_running_loop().create_task(self._publish(), name="publish traffic to the fleet")

    def close(self) -> None:
        """Publish no more."""
        if self._task is not None:
            self._task.cancel()
        for topic in self._wanted:
            self._events.unlisten(topic.encode())

    def tick(self) -> None:
        """Stop to publish what nobody has asked for again."""
        now = monotonic()
        for topic in [topic for topic, until in self._wanted.items() if until <= now]:
            del self._wanted[topic]
            self._events.unlisten(topic.encode())

    async def _on_wish(self, message: Msg) -> None:
        answer: dict[str, object] = {"host": self._host, "run": self._events.run}
        try:
            wish = msgspec.json.decode(message.data, type=Wish)
            taken = [topic for topic in wish.topics if topic.partition(".")[0] in TAKEN]
            if taken:
                raise msgspec.ValidationError(f"{taken[0]} is in the fleet's stream, or is no traffic")
            if len({*self._wanted, *wish.topics}) > MAX_TOPICS:
                raise msgspec.ValidationError(f"listeners want {MAX_TOPICS} topics already")
        except msgspec.DecodeError as error:
            answer["error"] = str(error)
        else:
            for topic in wish.topics:
                if topic not in self._wanted:
                    self._events.listen(topic.encode(), self._on_batch)
                self._wanted[topic] = max(self._wanted.get(topic, 0.0), monotonic() + wish.seconds)
            answer["topics"] = wish.topics
        if message.reply:
            with suppress(nats.errors.Error):
                await message.respond(msgspec.json.encode(answer))

    def _on_batch(self, topic: str, wire: zmtp.Wire) -> None:
        if wire is self._last:
            return  # wanted by two beginnings of its topic
        self._last = wire
        _, head, body = zmtp.decode(wire)
        size = len(head) + 1 + len(body)
        if size > self._client.max_payload or self.waiting_bytes + size > MAX_WAITING_BYTES:
            self.dropped_batches += 1
            return
        self._waiting.append((topic, b"%b\n%b" % (head, body)))
        self.waiting_bytes += size
        self._is_waiting.set()

    async def _publish(self) -> None:
        while True:
            await self._is_waiting.wait()
            self._is_waiting.clear()
            while self._waiting:
                topic, data = self._waiting.popleft()
                self.waiting_bytes -= len(data)
                try:
                    if not self._client.is_connected:
                        raise nats.errors.ConnectionClosedError
                    await self._client.publish(self._subject + topic, data)
                except (nats.errors.Error, OSError):
                    self.dropped_batches += 1
                else:
                    self.sent_batches += 1
                    self.sent_bytes += len(data)
