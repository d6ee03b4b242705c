"""`FleetResponder`: a program's answers to the requests of peers at all hosts of a fleet, over NATS.

Programs that serve the same topic share its requests. A request or an answer that NATS loses is the empty answer, as is one
that takes too long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from rlpx.engine.client.errors import own_error
from rlpx.engine.client.fleet_link import FleetLink
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.responding import REFUSED_KEPT, Handler, Request, answer_of
from rlpx.protocol.bus.responders import MAX_CREDIT
from rlpx.protocol.cluster.addressing import ANSWER, HEADER_BYTES, read_asked
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.wording import Expected, wrong

# Hosts ask the program for this time after it has offered to answer, and it offers again after a third of it.
OFFER_SECONDS: Final = 15.0
REFRESH_SECONDS: Final = 5.0
# All hosts answer an offer within this time, or get it again later.
ANSWER_SECONDS: Final = 5.0
# Requests that are on their way when a responder is closed are answered within this time, or get the empty answer.
LEAVE_SECONDS: Final = 2.0
# Programs that serve the same topic take turns under this name.
_GROUP: Final = "responders"


class FleetResponder:
    """One handler and the requests that it is answering. `close` ends it; so does the end of the connection.

    `answered` counts its answers, `refused` has the last that NATS does not carry, `error` is why a host refuses the offer.
    """

    def __init__(self, link: FleetLink, topics: tuple[str, ...], handler: Handler, at_a_time: int) -> None:
        if not 1 <= at_a_time <= MAX_CREDIT:
            raise ValueError(f"at_a_time: {wrong(at_a_time, Expected(f'a whole number from 1 to {MAX_CREDIT}', '64'))}")
        self.topics = topics
        self.answered = 0
        self.refused: deque[str] = deque(maxlen=REFUSED_KEPT)
        self.error: EngineError | EngineUnavailableError | None = None
        self._link = link
        self._handler = handler
        self._room = asyncio.Semaphore(at_a_time)
        self._subscriptions: list[Subscription] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._ended = asyncio.Event()
        self._opening = asyncio.get_running_loop().create_task(self._open())
        self._opening.add_done_callback(self._on_open_end)

    async def registered(self) -> None:
        """Wait until every host that there is knows of it. Raises `EngineUnavailableError`, `EngineError`."""
        await asyncio.wait({self._opening})
        if self._opening.cancelled():
            raise EngineUnavailableError("the responder was closed")
        self._opening.result()

    async def wait(self) -> None:
        """Wait until it is closed. Raises the error of a host that refuses the offer."""
        await self._ended.wait()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Take no more requests; those that are on their way are answered still."""
        if self._leaving is None:
            self._link.on_back.discard(self._again.set)
            self._opening.cancel()
            if self._refreshing is not None:
                self._refreshing.cancel()
            self._leaving = asyncio.get_running_loop().create_task(self._leave())

    # -- inside -------------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        prefix, client = f"rlpx.{self._link.place.name}.", self._link.client
        try:
            for topic in self.topics:
                subject = f"{prefix}*.asked.{topic}"
                self._subscriptions.append(await client.subscribe(subject, queue=_GROUP, cb=self._on_request))
            inbox = client.new_inbox()
            answers = await client.subscribe(inbox)
            try:
                hosts = await self._link.hosts()
                await self._offer(inbox)
                with suppress(nats.errors.TimeoutError, TimeoutError):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        for _ in hosts:
                            answer = msgspec.json.decode((await answers.next_msg(ANSWER_SECONDS)).data, type=dict[str, Any])
                            if "error" in answer:
                                raise own_error(ErrorName.INVALID_PARAMS, f"host {answer['host']}: {answer['error']}")
            finally:
                await answers.unsubscribe()
        except (nats.errors.Error, OSError) as error:
            raise EngineUnavailableError(f"NATS carries no requests to this program: {error}") from error
        self._link.on_back.add(self._again.set)
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    def _on_open_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), EngineError | EngineUnavailableError):
            self.error = error
            self.close()

    async def _refresh(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._again.wait()
            self._again.clear()
            with suppress(nats.errors.Error, OSError):
                await self._offer()

    async def _offer(self, inbox: str = "") -> None:
        if self._link.client.is_connected:
            offer = {"requests": self.topics, "seconds": OFFER_SECONDS}
            await self._link.client.publish(f"rlpx.{self._link.place.name}.serve", msgspec.json.encode(offer), inbox)

    async def _on_request(self, message: Msg) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(message))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, message: Msg) -> None:
        topic = message.subject.partition(".asked.")[2]
        try:
            asked = read_asked(message.headers or {})
        except ValueError:
            return  # no host of this fleet asks like that
        request = Request(topic, asked.session, asked.peer, asked.version, asked.request_id, message.data)
        async with self._room:
            answer = await answer_of(self._handler, request)
        client = self._link.client
        if answer is not None and len(answer) > client.max_payload - HEADER_BYTES:
            self.refused.append(f"{topic}: an answer of {len(answer)} bytes, more than NATS carries")
            answer = None
        self.answered += 1
        with suppress(nats.errors.Error, OSError):
            await client.publish(message.reply, answer or b"", headers=None if answer is None else {ANSWER: "1"})

    async def _leave(self) -> None:
        """Answer what NATS has sent us already, and end."""
        subscriptions, self._subscriptions = self._subscriptions, []
        with suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                for subscription in subscriptions:
                    await subscription.drain()  # type: ignore[no-untyped-call]  # it has no types
                await asyncio.gather(*self._serving)
        self._ended.set()
