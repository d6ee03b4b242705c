"""Reads the lives of a fleet's sessions from its JetStream stream: each event once, as fast as the program reads.

The consumer is the server's and may be lost with it. Another one then begins after the last event that was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from rlpx.engine.client.fleet_hosts import STORE_SECONDS
from rlpx.engine.client.fleet_items import FleetOpening
from rlpx.engine.client.fleet_link import FleetLink
from rlpx.engine.client.nats_servers import RETRY_SECONDS, failure, forget_consumer, is_refusal
from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.protocol.cluster.addressing import EVENTS_LOST

# The events that are asked for at a time, and how long the server waits for the first of them.
PULL_EVENTS: Final = 256
PULL_SECONDS: Final = 5.0
# A server forgets a consumer that has not asked for this time. Another one is made if the program reads on after that.
FORGOTTEN_SECONDS: Final = 60.0
_NOTHING: Final = frozenset({"404", "408"})


class Lives:
    """See the module. `start` fixes the place; `follow` reads from there on."""

    def __init__(self, link: FleetLink, opening: FleetOpening, on_lost: Callable[[str], None]) -> None:
        self._js = link.client.jetstream(timeout=STORE_SECONDS)
        self._client = link.client
        self._fleet = link.place.name
        self._stream = f"rlpx_{self._fleet}"
        self._subjects = [f"rlpx.{self._fleet}.*.{topic}" for topic in (*opening.tracked, EVENTS_LOST)]
        self._since = opening.since
        self._on_lost = on_lost
        # The place in the stream from which the next event comes; none until the first one if that is known by its time.
        self._next: int | None = None
        self._read: Subscription | None = None
        self._consumer = ""
        self._delivered = 0
        # Why the stream lets nobody read it, as far as the program knows already.
        self._refusal = ""
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Fix the place. Raises `EngineUnavailableError`."""
        try:
            if self._since is None:
                self._next = (await self._js.stream_info(self._stream)).state.last_seq + 1
            await self._begin()
        except nats.js.errors.NotFoundError as error:
            raise EngineUnavailableError(f"the fleet {self._fleet} has no stream of events") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise EngineUnavailableError(failure(f"the stream of the fleet {self._fleet}", error)) from error

    async def follow(self, take: Callable[[Msg], Awaitable[None]]) -> None:
        """Give every message to `take`, until it is closed. While NATS is away it waits."""
        # The library may answer a cancellation with an error of its own, so that alone does not end this.
        while not self._closed.is_set():
            with suppress(nats.errors.Error, OSError, TimeoutError):
                await self._follow(take)
            if self._closed.is_set():
                return
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await self._begin()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                refusal = str(error) if is_refusal(error) else self._refusal
                if refusal != self._refusal:
                    self._on_lost(failure("the stream", error))
                self._refusal = refusal

    async def close(self) -> None:
        """Ask for no more."""
        self._closed.set()
        await self._leave()

    async def _leave(self) -> None:
        read, self._read = self._read, None
        consumer, self._consumer = self._consumer, ""
        with suppress(nats.errors.Error, OSError, TimeoutError):
            if consumer:
                await forget_consumer(self._client, self._stream, consumer)
            if read is not None:
                await read.unsubscribe()

    async def _begin(self) -> None:
        """Make a consumer, with an inbox of its own so that nothing comes from one before."""
        await self._leave()
        self._inbox = self._client.new_inbox()
        # We name it ourselves, so that it can be deleted even if the answer is lost, or the program waits for it no more.
        consumer = self._inbox.rpartition(".")[2]
        config = ConsumerConfig(
            name=consumer,
            filter_subjects=self._subjects,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=FORGOTTEN_SECONDS,
            deliver_policy=DeliverPolicy.BY_START_TIME if self._next is None else DeliverPolicy.BY_START_SEQUENCE,
            opt_start_time=self._since if self._next is None else None,
            opt_start_seq=self._next,
        )
        first = (await self._js.stream_info(self._stream)).state.first_seq
        if self._next is not None and first > self._next:
            self._on_lost(f"events {self._next} to {first - 1} of the stream were deleted before they were read")
        self._consumer = consumer
        await self._js.add_consumer(self._stream, config)
        if self._closed.is_set():
            return
        self._refusal = ""
        self._delivered = 0
        self._read = await self._client.subscribe(self._inbox)

    async def _follow(self, take: Callable[[Msg], Awaitable[None]]) -> None:
        """Read until something does not fit: a status, silence, or a number that is not the next."""
        read = self._read
        if read is None:
            return
        while True:
            await self._pull()
            for _ in range(PULL_EVENTS):
                message = await read.next_msg(PULL_SECONDS + STORE_SECONDS)
                status = None if message.reply else (message.headers or {}).get("Status")
                if status in _NOTHING:
                    break
                if status is not None:
                    return
                sequence = message.metadata.sequence
                if sequence.consumer != self._delivered + 1:
                    return
                self._delivered += 1
                self._next = sequence.stream + 1
                await take(message)

    async def _pull(self) -> None:
        request = {"batch": PULL_EVENTS, "expires": int(PULL_SECONDS * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._client.publish(subject, msgspec.json.encode(request), self._inbox)
