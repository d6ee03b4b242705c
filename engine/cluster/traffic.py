"""Messages of this host's peers on core NATS subjects, only while somebody listens: no listener, no byte.

Core NATS does not tell a publisher whether there are subscribers. So a listener asks for topics, at one host or at all, and
asks again before the time it has named is over. Without a filter, a message is a batch of one topic, as on `events.ipc`: the
head on a line of its own, then the payloads. With a filter it is a message of a feed (`relay.py`).

The numbers in the messages show every loss, wherever it happened. Where nothing comes that would show it, a message without
events does: a second after the last event, and when a listener asks again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Annotated, Final

import msgspec
import nats.errors
from msgspec import Meta
from nats.aio.client import Client
from nats.aio.msg import Msg

from rlpx.engine.cluster.outlet import Outlet
from rlpx.engine.cluster.own_engine import OwnEngine
from rlpx.engine.cluster.relay import Choice, Relay
from rlpx.engine.cluster.wanted import Wanted
from rlpx.engine.hub.events import EventsHub, Source
from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.batches import Numbers
from rlpx.protocol.bus.feeds import Where, key_of

# These topics are in the fleet's stream, and these words are other subjects of a host.
TAKEN: Final = frozenset({"session", "dial", "worker", "engine", "command", "listen", "tap", "feed", "serve", "asked"})
# Most topics that a host publishes at the same time, whoever has asked for them.
MAX_TOPICS: Final = 64
# Most choices with a filter: each costs every worker a feed.
MAX_CHOICES: Final = 16
# A source that has published nothing for this time says where it is.
QUIET_SECONDS: Final = 1.0
# While NATS is away no wish can come, so what is wanted stays wanted, and is counted, until this long after it is back...
BACK_SECONDS: Final = 15.0
# ...unless it was away for so long that nobody waits for the count any more.
AWAY_SECONDS: Final = 600.0

Topic = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9]{0,7}\.[A-Za-z0-9]{0,64}$", title="a topic or the beginning of one", examples=["eth."])
]


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a listener wants, and for how many seconds. A topic that ends with a dot is the beginning of many."""

    topics: Annotated[tuple[Topic, ...], Meta(min_length=1, max_length=MAX_TOPICS)]
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 15.0
    where: Where = Where()


class Traffic:
    """See the module."""

    def __init__(self, client: Client, address: tuple[str, str], events: EventsHub, engine: OwnEngine) -> None:
        fleet, self._host = address
        self._client = client
        self._subject = f"rlpx.{fleet}.{self._host}."
        self._subjects = (f"rlpx.{fleet}.{self._host}.listen", f"rlpx.{fleet}.listen")
        self._events = events
        self.outlet = Outlet(client)
        self._relay = Relay(engine)
        self._topics = Wanted(MAX_TOPICS, lambda topic: events.unlisten(topic.encode()))
        self._choices = Wanted(MAX_CHOICES, self._relay.close_feed)
        self._last: zmtp.Wire = b""
        # The position of each source a second ago, and the one that listeners know.
        self._seen: dict[Source, Numbers] = {}
        self._told: dict[Source, Numbers] = {}
        self._next_look = 0.0
        self._away_since: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take wishes."""
        for subject in self._subjects:
            await self._client.subscribe(subject, cb=self._on_wish)
        self.outlet.start()

    def close(self) -> None:
        """Publish no more."""
        for task in self._tasks:
            task.cancel()
        self._topics.expire(float("inf"))
        self._choices.expire(float("inf"))
        self.outlet.close()

    def tick(self) -> None:
        """Stop to publish what nobody has asked for again, and say where quiet sources are."""
        now = monotonic()
        if self._client.is_connected:
            self._away_since = None
        else:
            self._away_since = self._away_since or now
            if now - self._away_since < AWAY_SECONDS:
                self._topics.keep(now + BACK_SECONDS)
                self._choices.keep(now + BACK_SECONDS)
        self._topics.expire(now)
        self._choices.expire(now)
        if now >= self._next_look:
            self._next_look = now + QUIET_SECONDS
            self._tell_positions()
            self._relay.tell_positions()

    # -- wishes -------------------------------------------------------------------------------------------------------------

    async def _on_wish(self, message: Msg) -> None:
        try:
            wish = msgspec.json.decode(message.data, type=Wish)
            taken = [topic for topic in wish.topics if topic.partition(".")[0] in TAKEN]
            if taken:
                raise msgspec.ValidationError(f"{taken[0]} is in the fleet's stream, or is no traffic")
            if wish.where == Where():
                await self._answer(message, self._want_topics(wish))
                return
            key = key_of(wish.topics, wish.where)
            if not self._choices.has_room((key,)):
                raise msgspec.ValidationError(f"listeners have {MAX_CHOICES} other filters already")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            await self._answer(message, {"error": str(error)})
            return
        self._choices.want(key, monotonic() + wish.seconds)
        # Other wishes do not wait until all workers have confirmed this one.
        task = asyncio.get_running_loop().create_task(self._open(message, wish, key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _want_topics(self, wish: Wish) -> dict[str, object]:
        if not self._topics.has_room(wish.topics):
            raise msgspec.ValidationError(f"listeners want {MAX_TOPICS} topics already")
        for topic in wish.topics:
            if self._topics.want(topic, monotonic() + wish.seconds):
                self._events.listen(topic.encode(), self._on_batch)
        # Each listener learns where the topics are.
        self._told = {source: numbers for source, numbers in self._told.items() if not source[0].startswith(wish.topics)}
        return {"topics": wish.topics, "begun": {topic: self._topics.begun(topic) for topic in wish.topics}}

    async def _open(self, message: Msg, wish: Wish, key: str) -> None:
        subject = f"{self._subject}feed.{key}"
        problem = await self._relay.open(
            key, Choice(wish.topics, wish.where), lambda head, body: self.outlet.offer(subject, head, body)
        )
        if problem is not None:
            self._choices.drop(key)
            await self._answer(message, {"error": problem})
            return
        if self._choices.begun(key) is None:
            # The wish was over before the workers had confirmed.
            self._relay.close_feed(key)
            return
        self._relay.tell_positions(key)
        await self._answer(message, {"subject": subject, "begun": {key: self._choices.begun(key)}})

    async def _answer(self, message: Msg, answer: dict[str, object]) -> None:
        if message.reply:
            with suppress(nats.errors.Error):
                await message.respond(msgspec.json.encode({"host": self._host, "run": self._events.run, **answer}))

    # -- batches ------------------------------------------------------------------------------------------------------------

    def _on_batch(self, topic: str, wire: zmtp.Wire) -> None:
        if wire is self._last:
            return  # wanted by two beginnings of its topic
        self._last = wire
        _, head, body = zmtp.decode(wire)
        self.outlet.offer(self._subject + topic, head, body)

    def _tell_positions(self) -> None:
        """Say where each source is that was quiet for a second, if its listeners do not know."""
        sources = self._events.sources(self._topics.names) if self._topics.names else {}
        for source, numbers in sources.items():
            if self._seen.get(source) == numbers and self._told.get(source) != numbers:
                topic, head, _ = zmtp.decode(self._events.reminder(source))
                if self.outlet.offer(self._subject + topic.decode(), head, b""):
                    self._told[source] = numbers
        self._seen = sources
