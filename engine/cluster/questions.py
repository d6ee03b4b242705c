"""Requests of this host's peers, answered by programs over NATS: this host is a responder at its own workers for them.

A program asks to serve topics, at one host or at all, and asks again before the time it has named is over. A request then
goes to one of the programs that serve its topic. If none is there, NATS says so, and the peer has the empty answer at once.
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

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.responding import Request, Responder
from rlpx.engine.client.topics import REQUESTS
from rlpx.engine.cluster.own_engine import OwnEngine
from rlpx.engine.cluster.wanted import Wanted
from rlpx.protocol.cluster.addressing import ANSWER, HEADER_BYTES, Asked, asked_headers

# Requests of one topic that are at programs at the same time; each worker lets others wait.
AT_A_TIME: Final = 64


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a program serves, and for how many seconds."""

    requests: Annotated[tuple[str, ...], Meta(min_length=1, max_length=len(REQUESTS))]
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 15.0


class Questions:
    """See the module. A program has `seconds` for an answer."""

    def __init__(self, client: Client, address: tuple[str, str], engine: OwnEngine, seconds: float) -> None:
        fleet, self._host = address
        self._client = client
        self._subject = f"rlpx.{fleet}.{self._host}.asked."
        self._subjects = (f"rlpx.{fleet}.{self._host}.serve", f"rlpx.{fleet}.serve")
        self._engine = engine
        self._seconds = seconds
        self._served = Wanted(len(REQUESTS), self._end)
        self._responders: dict[str, Responder] = {}

    async def start(self) -> None:
        """Take offers."""
        for subject in self._subjects:
            await self._client.subscribe(subject, cb=self._on_offer)

    def close(self) -> None:
        """Ask programs nothing more."""
        self._served.expire(float("inf"))

    def tick(self) -> None:
        """Serve no more what no program has offered again."""
        self._served.expire(monotonic())

    async def _on_offer(self, message: Msg) -> None:
        answer: dict[str, object] = {"host": self._host}
        try:
            offer = msgspec.json.decode(message.data, type=Offer)
            unknown = [topic for topic in offer.requests if topic not in REQUESTS]
            if unknown:
                raise msgspec.ValidationError(f"no request of a peer has the topic {unknown[0]}")
            for topic in offer.requests:
                self._served.want(topic, monotonic() + offer.seconds)
                await self._serve(topic)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, EngineError, EngineUnavailableError) as error:
            answer["error"] = str(error)
        if message.reply:
            with suppress(nats.errors.Error):
                await message.respond(msgspec.json.encode(answer))

    async def _serve(self, topic: str) -> None:
        """Be the responder of a topic. Raises `EngineError`, `EngineUnavailableError`."""
        before = self._responders.get(topic)
        if before is not None and before.error is None:
            return
        engine = await self._engine.use(f"asked {topic}")
        responder = self._responders[topic] = engine.respond(topic, self._ask, at_a_time=AT_A_TIME)
        await responder.registered()

    def _end(self, topic: str) -> None:
        responder = self._responders.pop(topic, None)
        if responder is not None:
            responder.close()
        self._engine.leave(f"asked {topic}")

    async def _ask(self, request: Request) -> bytes | None:
        """Ask a program; none is the empty answer. So is a request that is too long for NATS."""
        if len(request.payload) > self._client.max_payload - HEADER_BYTES:
            return None
        asked = Asked(request.session, request.peer, request.version, request.request_id)
        try:
            reply = await self._client.request(
                self._subject + request.topic, request.payload, timeout=self._seconds, headers=asked_headers(asked)
            )
        except nats.errors.NoRespondersError:
            # The programs have gone. One that is there still offers again within seconds.
            asyncio.get_running_loop().call_soon(self._served.drop, request.topic)
            return None
        except (nats.errors.Error, OSError, TimeoutError):
            return None
        return reply.data if ANSWER in (reply.headers or {}) else None
