"""What a connection needs of its worker, as a fake that keeps every call."""

from __future__ import annotations

import math
from collections.abc import Callable

from rlpx.protocol.bus.batches import Interest
from rlpx.protocol.session.events import Event, MessageSent
from rlpx.protocol.settings import TimeoutSettings
from rlpx.workers.audience import Audience
from rlpx.workers.budget import Budget
from rlpx.workers.connection import MAX_READ_BYTES, Connection, Host

GOODBYE_SECONDS = 2.0
WRITE_SECONDS = 20.0


class FakeHost(Host):
    """A worker that keeps every call of a connection."""

    def __init__(self) -> None:
        self.timeouts = TimeoutSettings(goodbye_s=GOODBYE_SECONDS, write_s=WRITE_SECONDS)
        self.turn_due = math.inf
        self.turns: list[float] = []
        self.callbacks: list[Callable[[], None]] = []
        self.made = 0
        self.buffer = memoryview(bytearray(MAX_READ_BYTES))
        self.deferred: list[Connection] = []
        self.budget = Budget(1 << 28)
        self.audience = Audience(Interest(), tuple)
        self.relieved = 0
        self.rooms = 0
        self.events: list[Event] = []
        self.sent: list[MessageSent] = []
        self.deadlines_moved = 0
        self.goodbyes = 0
        self.gone = 0

    def turn(self, now: float) -> None:
        self.turns.append(now)
        self.turn_due = now + 0.1

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def on_made(self, _: Connection) -> None:
        self.made += 1

    def defer(self, connection: Connection) -> None:
        self.deferred.append(connection)

    def relieve(self) -> None:
        self.relieved += 1

    def on_room(self, _: Connection) -> None:
        self.rooms += 1

    def on_events(self, _: Connection, events: list[Event]) -> None:
        assert events, "an empty list is not worth a call"
        self.events += events

    def on_announcements(self, _: Connection, events: list[Event]) -> None:
        assert events, "an empty list is not worth a call"
        self.events += events

    def on_sent(self, _: Connection, sent: list[MessageSent]) -> None:
        assert sent
        self.sent += sent

    def on_deadline_moved(self, _: Connection) -> None:
        self.deadlines_moved += 1

    def on_goodbye(self, _: Connection) -> None:
        self.goodbyes += 1

    def on_gone(self, _: Connection) -> None:
        self.gone += 1
