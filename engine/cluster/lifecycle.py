"""The lives of this host's sessions in a stream of the fleet: durable, replayed from any time, each event once.

Events are published in groups, over the connection of `wire.py`, the next when all of one are confirmed. While NATS does
not confirm, events wait in a file, which is bounded; what does not fit is counted, and the count is published as an event of
its own. The file outlives an engine that is killed, and its next start publishes it. Each event has an id that follows from
the engine's run, so that one which is published twice is stored once.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from time import time_ns
from typing import Any, Final

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from rlpx.engine.client.complaints import Complaints
from rlpx.engine.client.nats_servers import is_refusal
from rlpx.engine.cluster.kv import REPLICAS
from rlpx.engine.cluster.wire import Wire
from rlpx.engine.hub.events import EventsHub
from rlpx.protocol.bus import nats_wire, zmtp
from rlpx.protocol.bus.events import AUTHENTICATED, CLOSED, DIAL_FAILED, ESTABLISHED, OPENED
from rlpx.protocol.cluster.addressing import EVENTS_LOST, HOST_BACK, HOST_LOST, command_subject, covers
from rlpx.protocol.mistakes import ConfigError

# Connections that are refused before their peer is known are not among them: strangers can make any number of those.
TOPICS: Final = (OPENED, AUTHENTICATED, ESTABLISHED, CLOSED, DIAL_FAILED, "worker.", "engine.")
# An event is recognised as published already for this long. Events wait longer only if NATS is away for longer.
DUPLICATE_SECONDS: Final = 3600.0
# What the stream keeps, if whoever made it has not decided otherwise.
KEPT_SECONDS: Final = 7 * 86_400.0
KEPT_BYTES: Final = 10 * 1024**3
GROUP_EVENTS: Final = 256
# Events of this time are published together.
GATHER_SECONDS: Final = 0.02
MEMORY_EVENTS: Final = 4096
SPOOL_BYTES: Final = 256 * 1024**2
RETRY_SECONDS: Final = 1.0
_CALL_SECONDS: Final = 2.0

# The id of an event is filled in.
_HEADERS: Final = nats_wire.header_block({"Nats-Msg-Id": "%b"})

log = structlog.get_logger()


class Life(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event: its id, its topic, its fields as JSON, and the host that it is about, if that is another one."""

    id: str
    topic: str
    fields: msgspec.Raw
    host: str = ""


class _Head(msgspec.Struct):
    run: str
    worker: int | None
    first: int
    events: list[msgspec.Raw]


_head_decoder: Final = msgspec.json.Decoder(_Head)


class _Problem(msgspec.Struct, frozen=True):
    description: str = "its answer is not understood"


class _Refusal(msgspec.Struct, frozen=True):
    """What the stream answers if it does not take an event."""

    error: _Problem = _Problem()


_refusal_decoder: Final = msgspec.json.Decoder(_Refusal)


class Spool:
    """Events that wait in a file, in order. It outlives the engine."""

    def __init__(self, path: Path, max_bytes: int = SPOOL_BYTES) -> None:
        self._path = path
        self.max_bytes = max_bytes
        self._read_at = self._size = 0
        with suppress(OSError):
            self._size = path.stat().st_size
            with path.open("ab+") as file:
                file.seek(max(0, self._size - 1))
                if self._size and file.read() != b"\n":
                    # The end of an engine cut its last line off.
                    self._size += file.write(b"\n")

    def __bool__(self) -> bool:
        return self._size > self._read_at

    @property
    def size_bytes(self) -> int:
        """The size of the file, which also has events that are published already, until all are."""
        return self._size

    def append(self, *lives: Life) -> bool:
        """Keep events, all or none; `False` if there is no room, or the file cannot be written."""
        lines = b"".join(msgspec.json.encode(life) + b"\n" for life in lives)
        if self._size + len(lines) > self.max_bytes:
            return False
        try:
            with self._path.open("ab") as file:
                file.write(lines)
        except OSError:
            # A part may have been written, and another event must not follow in the same line.
            with suppress(OSError):
                os.truncate(self._path, self._size)
            return False
        self._size += len(lines)
        return True

    def take(self, count: int) -> list[Life]:
        """The oldest events; they stay in the file until all are taken."""
        lives: list[Life] = []
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_at)
                while len(lives) < count and (line := file.readline()):
                    self._read_at += len(line)
                    with suppress(msgspec.DecodeError):  # a line that an end of the engine cut off
                        lives.append(msgspec.json.decode(line, type=Life))
        except OSError:
            self._read_at = self._size
        return lives

    def clear(self) -> None:
        """All is published."""
        if self._size:
            self._size = self._read_at = 0
            self._path.unlink(missing_ok=True)


class LifecycleStream:
    """See the module."""

    def __init__(self, client: Client, wire: Wire, fleet: str, host: str, spool: Spool) -> None:
        self._js = client.jetstream(timeout=_CALL_SECONDS)
        self._fleet = fleet
        self._host = host
        self.spool = spool
        self._waiting: deque[Life] = deque()
        self._is_waiting = asyncio.Event()
        if spool:
            self._is_waiting.set()
        # Batches as the workers publish them.
        self._batches: list[tuple[str, zmtp.Wire]] = []
        self._is_gathering = False
        # The group that is being published, by a number that its answers have.
        self._wire = wire
        self._inbox = wire.take_answers(client.new_inbox(), self._on_confirmed)
        self._unconfirmed: dict[int, Life] = {}
        self._last_number = 0
        self._is_confirmed = asyncio.Event()
        self._is_without_stream = False
        self._refusals = Complaints(
            lambda cause: log.warning("the fleet's stream refuses events, which wait in a file", cause=cause)
        )
        self._losses = 0
        self.lost_events = 0
        self.published_events = 0
        self._task: asyncio.Task[None] | None = None
        # Set while everything is published.
        self._idle = asyncio.Event()
        if not spool:
            self._idle.set()
        self._servers = 1

    async def start(self, events: EventsHub, servers: int) -> None:
        """Make the stream if there is none, and publish from now on. Raises `nats.errors.Error`, `ConfigError`."""
        self._servers = servers
        await self._make_stream()
        self._check_subjects((await self._js.stream_info(f"rlpx_{self._fleet}")).config.subjects or [])
        for topic in TOPICS:
            events.listen(topic.encode(), self._on_batch)
        self._task = asyncio.get_running_loop().create_task(self._publish(), name="publish lifecycle events to the fleet")

    async def _make_stream(self) -> None:
        name = f"rlpx_{self._fleet}"
        with suppress(nats.js.errors.NotFoundError):
            await self._js.stream_info(name)
            return
        config = StreamConfig(
            name=name,
            description="lives of the sessions of a fleet",
            subjects=self._subjects("*"),
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType.FILE,
            max_age=KEPT_SECONDS,
            max_bytes=KEPT_BYTES,
            duplicate_window=DUPLICATE_SECONDS,
            num_replicas=REPLICAS if self._servers >= REPLICAS else 1,
        )
        try:
            await self._js.add_stream(config)
        except nats.js.errors.BadRequestError:
            # Another host has made it at the same moment, or else the error says what is wrong.
            with suppress(nats.js.errors.NotFoundError):
                await self._js.stream_info(name)
                return
            raise

    def _subjects(self, host: str) -> list[str]:
        return [f"rlpx.{self._fleet}.{host}.{topic}" for topic in ("session.*", "dial.*", "worker.*", "engine.*")]

    def _check_subjects(self, taken: list[str]) -> None:
        """See that the stream, which others may have made, takes our lives, and no requests. Raises `ConfigError`.

        A stream answers what it takes, before a host could.
        """
        requests = (command_subject(self._fleet, self._host), f"rlpx.{self._fleet}.listen")
        takes_all = all(any(covers(pattern, subject) for pattern in taken) for subject in self._subjects(self._host))
        if not takes_all or any(covers(pattern, request) for pattern in taken for request in requests):
            raise ConfigError(
                f"cluster: the stream rlpx_{self._fleet} must have the subjects {', '.join(self._subjects('*'))};"
                f" it has {', '.join(taken)}"
            )

    async def close(self, seconds: float) -> None:
        """Publish what waits, within this time; the rest stays in the file for the next start."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        if self._task is not None:
            self._task.cancel()
        self._read_batches()
        for life in [*self._unconfirmed.values(), *self._waiting]:
            self.spool.append(life)

    @property
    def waiting_events(self) -> int:
        """The events in memory that are not confirmed yet."""
        return len(self._waiting) + len(self._unconfirmed)

    def host_lost(self, host: str, run: str, heartbeat: int) -> None:
        """Say of another host that nobody hears its run since this revision of its heartbeat."""
        self._tell(HOST_LOST, run, heartbeat, host)

    def host_back(self, run: str, heartbeat: int) -> None:
        """Say that this host is heard again by this heartbeat. A word of its loss that comes later is told by its number."""
        self._tell(HOST_BACK, run, heartbeat)

    def _tell(self, topic: str, run: str, heartbeat: int, host: str = "") -> None:
        fields = {"time_us": time_ns() // 1000, "session": None, "peer": None, "run": run, "heartbeat": heartbeat}
        self._add(Life(f"{run}-e-{topic}-{heartbeat}", topic, msgspec.Raw(msgspec.json.encode(fields)), host))
        self._wake()

    # -- events -------------------------------------------------------------------------------------------------------------

    def _on_batch(self, topic: str, wire: zmtp.Wire) -> None:
        self._batches.append((topic, wire))
        if not self._is_gathering or len(self._batches) >= GROUP_EVENTS:
            self._read_batches()
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._is_waiting.set()

    def _read_batches(self) -> None:
        batches, self._batches = self._batches, []
        for topic, wire in batches:
            head = _head_decoder.decode(zmtp.decode(wire)[1])
            publisher = "e" if head.worker is None else head.worker
            id_start = f"{head.run}-{publisher}-{topic}-"
            for ordinal, fields in enumerate(head.events, head.first):
                self._add(Life(f"{id_start}{ordinal}", topic, fields))

    def _add(self, life: Life) -> None:
        # While there is a file, what is in memory is older.
        if len(self._waiting) < MEMORY_EVENTS and self.spool.size_bytes == 0:
            self._waiting.append(life)
        elif not self.spool.append(life):
            self._losses += 1
            self.lost_events += 1

    def _keep(self) -> None:
        """Move what waits in memory to the file, if it has room: the engine may be killed at any moment."""
        if self.spool.size_bytes == 0 and self.spool.append(*self._unconfirmed.values(), *self._waiting):
            self._unconfirmed.clear()
            self._waiting.clear()

    def _next_group(self) -> list[Life]:
        """The oldest events that wait: those in memory came before those in the file."""
        if self._waiting:
            return [self._waiting.popleft() for _ in range(min(GROUP_EVENTS, len(self._waiting)))]
        return self.spool.take(GROUP_EVENTS) if self.spool else []

    async def _publish(self) -> None:
        while True:
            self._is_gathering = True
            await self._is_waiting.wait()
            await asyncio.sleep(GATHER_SECONDS)
            # From now on this may be held up for long, so what comes is counted and bounded at once.
            self._is_gathering = False
            self._is_waiting.clear()
            self._read_batches()
            while group := self._next_group():
                await self._publish_group(group)
                if not self.spool:
                    self.spool.clear()
                    await self._tell_losses()
            if not self._is_waiting.is_set():
                self._idle.set()

    async def _publish_group(self, group: list[Life]) -> None:
        """Publish until every event of the group is confirmed, or is in the file."""
        self._unconfirmed = dict(enumerate(group, self._last_number + 1))
        self._last_number += len(group)
        while self._unconfirmed:
            self._is_confirmed.clear()
            with suppress(nats.errors.Error, OSError, TimeoutError):
                self._send()
                async with asyncio.timeout(_CALL_SECONDS):
                    await self._is_confirmed.wait()
            if self._unconfirmed:
                self._keep()
                await asyncio.sleep(RETRY_SECONDS)
                if self._is_without_stream:
                    self._is_without_stream = False
                    try:
                        await self._make_stream()
                    except (nats.errors.Error, OSError, TimeoutError) as error:
                        if is_refusal(error):
                            self._refusals.hear(str(error))

    def _send(self) -> None:
        """Send what is not confirmed, in one go: their answers come one by one."""
        # By topic and host, of which a group has few.
        subjects: dict[tuple[str, str], bytes] = {}
        for number, life in self._unconfirmed.items():
            about = life.topic, life.host
            subject = subjects.get(about)
            if subject is None:
                subject = subjects[about] = self._subject(*about).encode()
            reply = b"%b%d" % (self._inbox.prefix, number)
            if not self._wire.publish(subject, reply, _HEADERS % life.id.encode(), bytes(life.fields)):
                raise nats.errors.ConnectionClosedError
        self._wire.flush()

    def _on_confirmed(self, answers: list[nats_wire.Message]) -> None:
        for number, body in answers:
            if body.startswith(b'{"stream"'):
                if self._unconfirmed.pop(number, None) is not None:
                    self.published_events += 1
            elif not body:
                # "No responders": there is no such stream, or no server leads it at this moment.
                self._is_without_stream = True
            else:
                self._hear_refusal(body)
        if not self._unconfirmed:
            self._is_confirmed.set()

    def _hear_refusal(self, body: bytes) -> None:
        try:
            refusal = _refusal_decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            refusal = _Refusal()
        self._refusals.hear(refusal.error.description)

    async def _tell_losses(self) -> None:
        """Say in the stream how many events did not fit while NATS was away."""
        lost, self._losses = self._losses, 0
        if lost:
            log.warning("lifecycle events are lost to the fleet: they did not fit while NATS was away", events=lost)
            fields: dict[str, Any] = {"lost": lost, "lost_in_all": self.lost_events}
            with suppress(nats.errors.Error, OSError, TimeoutError):
                await self._js.publish(self._subject(EVENTS_LOST), msgspec.json.encode(fields))

    def _subject(self, topic: str, host: str = "") -> str:
        return f"rlpx.{self._fleet}.{host or self._host}.{topic}"
