"""The fleet's key-value store: a bucket of NATS JetStream, written by compare-and-set and watched.

Calls are pipelined: those that the owner sends together leave in one write, none waits for another's answer, and the answers
of one read are handed on together. They go over the connection of `wire.py`; nats-py makes the bucket and watches.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, KeyValueConfig, StorageType, StreamInfo

from rlpx.engine.client.complaints import Complaints
from rlpx.engine.client.nats_servers import STALLED, forget_consumer, is_flow
from rlpx.engine.cluster.wire import Wire
from rlpx.protocol.bus import nats_wire
from rlpx.protocol.cluster.steps import Answer, Call, Erase, Outcome, Put, Read
from rlpx.protocol.mistakes import ConfigError

# A call that is not answered within this time is lost.
CALL_SECONDS: Final = 2.0
# The marker of an erased key is kept this long, so that a write which comes late does not find the key missing.
MARKER_SECONDS: Final = 120
# A bucket with three servers or more is on three of them, so that one may fail.
REPLICAS: Final = 3
# Our own heartbeat comes back on the watch every 5 s. A watch that is silent for longer has ended.
WATCH_SECONDS: Final = 8.0
# The error codes of JetStream for a key that has another revision, and for one of which another write is under way.
WRONG_REVISIONS: Final = (10071, 10164)
_NO_MESSAGE: Final = 10037
# A key that is missing has its marker's revision, which changes if the key is written and erased again at the same time.
_MOST_TRIES: Final = 3
# The headers of a write and of an erasure; the revision that they replace is filled in.
_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_WRITING: Final = nats_wire.header_block({_EXPECTED: "%d"})
_ERASING: Final = nats_wire.header_block(
    {_EXPECTED: "%d", "KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": f"{MARKER_SECONDS}s"}
)

log = structlog.get_logger()


class StoreOwner(Protocol):
    """Whoever takes answers and changes."""

    def on_answers(self, answers: Sequence[Answer]) -> None:
        """Calls are answered."""

    def on_seen(self, key: str, revision: int, value: bytes | None) -> None:
        """A watched key has changed."""


class _Problem(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Stored(msgspec.Struct):
    subject: str
    seq: int
    hdrs: str = ""
    data: str = ""


class _Reply(msgspec.Struct):
    """The acknowledgement of a write, or the answer to a read."""

    seq: int = 0
    error: _Problem | None = None
    message: _Stored | None = None


_reply_decoder: Final = msgspec.json.Decoder(_Reply)


class _Open(msgspec.Struct, gc=False):
    """A call that is under way. `looks`: it met another revision, and asks for the key as it is."""

    call: Call
    due_at: float
    looks: bool = False
    tries: int = 0


class KvStore:
    """See the module. `now` is a monotonic clock."""

    def __init__(self, client: Client, wire: Wire, name: str, owner: StoreOwner, now: Callable[[], float]) -> None:
        self._client = client
        self._js = client.jetstream(timeout=CALL_SECONDS)
        self._bucket = name
        self._prefix = f"$KV.{name}."
        self._read_subject = f"$JS.API.STREAM.MSG.GET.KV_{name}"
        self._owner = owner
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._wire = wire
        self._inbox = wire.take_answers(client.new_inbox(), self._on_replies)
        self._open_calls: dict[int, _Open] = {}
        # Answers that the owner has not got yet.
        self._answers: list[Answer] = []
        # The bucket as it was found last.
        self._info: StreamInfo | None = None
        self._watch: Subscription | None = None
        self._consumer = ""
        self._refusals = Complaints(lambda cause: log.warning("the fleet's store refuses a write", cause=cause))
        self._watched_at = 0.0

    # -- life ---------------------------------------------------------------------------------------------------------------

    async def _found(self, servers: int) -> StreamInfo:
        """The bucket, made now if there is none. Raises `nats.errors.Error`."""
        stream = f"KV_{self._bucket}"
        with suppress(nats.js.errors.NotFoundError):
            return await self._js.stream_info(stream)
        config = KeyValueConfig(
            bucket=self._bucket,
            history=1,
            storage=StorageType.FILE,
            replicas=REPLICAS if servers >= REPLICAS else 1,
            limit_marker_ttl=float(MARKER_SECONDS),
            direct=True,
        )
        try:
            await self._js.create_key_value(config)
        except nats.js.errors.BadRequestError:
            # Another host has made it at the same moment, or else the error says what is wrong.
            with suppress(nats.js.errors.NotFoundError):
                return await self._js.stream_info(stream)
            raise
        if self._info is not None:
            log.warning("the fleet's store was deleted; it was made anew", fleet=self._bucket)
        return await self._js.stream_info(stream)

    def check(self) -> None:
        """See that the bucket, which others may have made, serves and forgets nothing. Raises `ConfigError`."""
        if self._info is None:
            raise RuntimeError("the bucket was not looked for")
        config = self._info.config
        problem = None
        if config.max_age:
            problem = f"forgets every key after {config.max_age:g} s; it must have no time to live"
        elif not config.allow_msg_ttl:
            problem = "has no time to live for each key; delete it, and let a host make it"
        if problem is not None:
            raise ConfigError(f"cluster: the bucket {self._bucket} {problem}")
        if not config.allow_direct:
            log.warning("what dead hosts have left is not erased: the bucket does not allow direct gets", fleet=self._bucket)

    async def watch(self, keys: tuple[str, ...]) -> None:
        """See every change of keys that match, beginning with what there is. Raises `nats.errors.Error`."""
        await self._end_watch()
        inbox = self._client.new_inbox()
        self._watch = await self._client.subscribe(inbox, cb=self._on_change)
        # We name it ourselves, so that it can be deleted even if the answer is lost.
        self._consumer = inbox.rpartition(".")[2]
        config = ConsumerConfig(
            name=self._consumer,
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            ack_policy=AckPolicy.NONE,
            filter_subjects=[self._prefix + key for key in keys],
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=60.0,
            max_deliver=1,
            flow_control=True,
            idle_heartbeat=WATCH_SECONDS / 2,
        )
        await self._js.add_consumer(f"KV_{self._bucket}", config)
        self._watched_at = self._now()

    async def restore(self, servers: int, keys: tuple[str, ...]) -> bool:
        """Watch, at the start and whenever the watch has ended, and make the bucket if there is none.

        It is on three of the servers, if there are so many. Returns whether it is another bucket than before, which knows
        nothing of what was written into that. Raises `nats.errors.Error`.
        """
        before, found = self._info, await self._found(servers)
        await self.watch(keys)
        self._info = found
        return before is not None and before.created != found.created

    @property
    def is_watching(self) -> bool:
        """Whether the watch is heard of: our own heartbeats at least."""
        return self._now() < self._watched_at + WATCH_SECONDS

    async def close(self) -> None:
        """End without waiting for answers."""
        await self._end_watch()

    async def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            with suppress(nats.errors.Error, OSError):
                await watch.unsubscribe()
                await forget_consumer(self._client, f"KV_{self._bucket}", self._consumer)

    # -- calls --------------------------------------------------------------------------------------------------------------

    @property
    def open_calls(self) -> int:
        """The calls that are under way."""
        return len(self._open_calls)

    def send(self, call: Call) -> None:
        """Carry a call out with the wire's next `flush`; its answer follows."""
        opened = self._open_calls[call.call] = _Open(call, self._now() + CALL_SECONDS)
        self._publish(opened)

    def tick(self) -> None:
        """Give up calls that nobody has answered in time."""
        now = self._now()
        while self._open_calls:
            number, opened = next(iter(self._open_calls.items()))
            if opened.due_at > now:
                break
            self._end(Answer(number, Outcome.LOST))
        self._hand_on()

    def _publish(self, opened: _Open) -> None:
        call = opened.call
        subject = self._prefix + call.key
        headers = body = b""
        if opened.looks or isinstance(call, Read):
            subject, body = self._read_subject, msgspec.json.encode({"last_by_subj": subject})
        elif isinstance(call, Erase):
            headers = _ERASING % call.expected
        else:
            headers, body = _headers_of(call), call.value
        if not self._wire.publish(subject.encode(), b"%b%d" % (self._inbox.prefix, call.call), headers, body):
            self._loop.call_soon(self._lose, call.call)

    def _lose(self, number: int) -> None:
        if number in self._open_calls:
            self._end(Answer(number, Outcome.LOST))
            self._hand_on()

    def _on_replies(self, replies: list[nats_wire.Message]) -> None:
        for number, body in replies:
            opened = self._open_calls.get(number)
            if opened is not None:
                self._on_reply(number, opened, body)
        self._hand_on()
        # Those that look at their keys now.
        self._wire.flush()

    def _on_reply(self, number: int, opened: _Open, body: bytes) -> None:
        try:
            reply = _reply_decoder.decode(body)
        except msgspec.DecodeError:
            # "No responders": JetStream is not available.
            self._end(Answer(number, Outcome.LOST))
            return
        if opened.looks or isinstance(opened.call, Read):
            self._on_read(number, opened, reply)
        elif reply.seq and reply.error is None:
            self._end(Answer(number, Outcome.DONE, reply.seq))
        elif reply.error is not None and reply.error.err_code in WRONG_REVISIONS:
            opened.looks = True
            self._publish(opened)
        else:
            self._refusals.hear("" if reply.error is None else reply.error.description)
            self._end(Answer(number, Outcome.LOST))

    def _on_read(self, number: int, opened: _Open, reply: _Reply) -> None:
        if reply.error is not None and reply.error.err_code != _NO_MESSAGE:
            self._end(Answer(number, Outcome.LOST))
            return
        stored = reply.message
        is_missing = stored is None or _is_marker(base64.b64decode(stored.hdrs))
        revision = 0 if stored is None else stored.seq
        call = opened.call
        if isinstance(call, Put) and call.expected == 0 and is_missing and opened.tries < _MOST_TRIES:
            # It is missing indeed, but has the marker of an earlier one.
            opened.call = Put(call.call, call.key, call.value, revision, call.ttl_s)
            opened.looks = False
            opened.tries += 1
            self._publish(opened)
            return
        outcome = Outcome.CONFLICT if opened.looks else Outcome.DONE
        if stored is None or is_missing:
            self._end(Answer(number, outcome))
        else:
            self._end(Answer(number, outcome, revision, base64.b64decode(stored.data)))

    def _end(self, answer: Answer) -> None:
        """A call has its answer. Another one to it, from a second stream that has its subject, is to nobody."""
        del self._open_calls[answer.call]
        self._answers.append(answer)

    def _hand_on(self) -> None:
        """Give the owner all answers at once."""
        answers, self._answers = self._answers, []
        if answers:
            self._owner.on_answers(answers)

    # -- changes ------------------------------------------------------------------------------------------------------------

    async def _on_change(self, message: Msg) -> None:
        # A server that waits for an answer about the flow says nothing of the keys. If we lack the right to answer, it
        # waits for ever. Another watch begins with all keys as they are.
        if STALLED not in (message.headers or {}):
            self._watched_at = self._now()
        if await is_flow(self._client, message) or not message.reply:
            return
        # $JS.ACK.[domain.account.]STREAM.CONSUMER.DELIVERED.STREAM_SEQUENCE.CONSUMER_SEQUENCE.TIME.PENDING[.token]
        parts = message.reply.split(".")
        revision = int(parts[5] if len(parts) == 9 else parts[7])  # noqa: PLR2004 - the parts of the shorter form
        headers: dict[str, Any] = message.headers or {}
        is_erased = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
        self._owner.on_seen(message.subject.removeprefix(self._prefix), revision, None if is_erased else message.data)


def _headers_of(call: Put) -> bytes:
    if call.ttl_s is not None:
        return nats_wire.header_block({_EXPECTED: str(call.expected), "Nats-TTL": f"{call.ttl_s:.0f}s"})
    return _WRITING % call.expected


def _is_marker(headers: bytes) -> bool:
    """Whether a stored message says that its key was erased or has expired."""
    return b"\r\nKV-Operation:" in headers or b"\r\nNats-Marker-Reason:" in headers
