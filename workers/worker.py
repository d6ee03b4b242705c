"""The process: its life, its turn of the loop, and the part that takes each thing that connections report.

It wires the parts together and knows as little as possible of what they do: `intake.py` and `dials.py` bring sockets,
`connections.py` keeps them, `lifecycle.py` reports their lives, `serving.py` answers peers' requests, `commands.py` and
`sending.py` carry out what the engine asks for.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import socket
import traceback
from collections.abc import Callable, Sequence
from time import monotonic, process_time, time_ns
from typing import Any, Final

from rlpx.protocol.bus import control
from rlpx.protocol.bus.batches import Publisher
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.data_heads import Use
from rlpx.protocol.bus.descriptors import Descriptors
from rlpx.protocol.bus.records import Configure
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy
from rlpx.protocol.session.events import (
    Alive,
    Answered,
    Authenticated,
    Closed,
    Established,
    Event,
    MessageReceived,
    MessageSent,
    Misconduct,
    RequestFailed,
)
from rlpx.workers.budget import Budget, largest
from rlpx.workers.calls import Calls, Outlets
from rlpx.workers.commands import SessionCommands
from rlpx.workers.connection import MAX_READ_BYTES, Connection, Host
from rlpx.workers.connections import Connections
from rlpx.workers.counters import Counters
from rlpx.workers.data_endpoint import DataEndpoint, Part, Place
from rlpx.workers.dials import Dials
from rlpx.workers.engine_calls import EngineCalls
from rlpx.workers.feeds import Clock, Feeds
from rlpx.workers.intake import Intake
from rlpx.workers.lifecycle import Lifecycle
from rlpx.workers.messages import Messages
from rlpx.workers.proc import ProcessMemory, open_descriptors
from rlpx.workers.publication import Publication
from rlpx.workers.publisher import WRITE_AHEAD_BYTES, Outbox
from rlpx.workers.reporter import Reporter
from rlpx.workers.sending import Broadcasts, Callers, Sender
from rlpx.workers.serving import Serving
from rlpx.workers.setups import Setups
from rlpx.workers.turns import LagProbe, ReadQueue
from rlpx.workers.wheel import BUCKET_SECONDS, Wheel

PULSE_SECONDS: Final = 1.0
# The longest time for all goodbyes of a drained worker together. Each also has its own deadline.
DRAIN_GRACE_SECONDS: Final = 0.5
# A turn this late means that the process or its machine was stopped. Everything that came meanwhile is read before any
# deadline counts. As packets may have been lost, the kernels have time to send them again: with TCP's doubling, about a
# quarter of 8 s.
STOPPED_SECONDS: Final = 1.0
AFTER_STOP_SECONDS: Final = 2.0


class Worker(Host):
    """All state of one worker process. `stopped` is set when there is nothing left to do."""

    def __init__(
        self,
        handoffs: socket.socket,
        configure: Configure,
        loop: asyncio.AbstractEventLoop,
        listening: Sequence[socket.socket] = (),
    ) -> None:
        settings = configure.settings
        self._loop = loop
        self._engine: asyncio.Transport | None = None
        self._reporter = Reporter(loop.call_soon)
        self._outbox = Outbox(
            Publisher(configure.run, configure.worker), settings.events, loop.call_later, self._reporter.flush
        )
        self._started_us = time_ns() // 1000
        self._counters = Counters()
        self._memory = ProcessMemory()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._descriptors = Descriptors(limit, self._memory.fileno(), os.dup, os.close)

        # The attributes of `Host`, which connections use.
        self.timeouts = settings.timeouts
        self.buffer = memoryview(bytearray(MAX_READ_BYTES))
        self.budget = Budget(settings.queues.worker_progress_bytes)
        self._read_queue = ReadQueue(loop.call_soon)
        self._wheel = Wheel(now=monotonic())

        self._feeds = Feeds(
            Publisher(configure.run, configure.worker),
            (settings.events, settings.feeds),
            self.budget,
            Clock(loop.call_soon, loop.call_later),
            self._outbox.interest,
        )
        self.audience = self._feeds.widest
        self._messages = Messages(self._outbox, self._feeds)
        publication = Publication(self._outbox, self._feeds)
        self._setups = Setups(configure, self.audience, self._counters)
        self._connections = Connections(self, self._wheel, self._setups, configure, self._counters)
        known = self._connections.by_id
        self._feeds.begin(known)
        self._intake = Intake(handoffs, loop, self._connections, self._descriptors, self._reporter)
        self._dials = Dials(loop, settings.timeouts.connect_s, self._connections, self._descriptors, self._reporter)
        self._lifecycle = Lifecycle(settings.conduct, self._connections, self._dials, self._reporter, publication)
        self._serving = Serving(configure, known, loop.call_soon, self._counters.requests_in)
        sender = Sender(known, self.budget, self._setups)
        callers = Callers(sender, self._counters.requests_out)
        broadcasts = Broadcasts(known, sender, loop)
        commands = SessionCommands(self._connections, self._intake, self._dials, self._reporter, self._outbox)
        engine_calls = EngineCalls(sender, callers, broadcasts, self._reporter)
        outlets = Outlets(sender, callers, broadcasts, commands)
        self._calls = Calls(configure.worker, outlets, self._connections, settings.queues, loop)
        clockwork = Clockwork(loop, monotonic, self._descriptors.has_room)
        parts: dict[Use, Part] = {
            Use.RESPONDER: self._serving.responders,
            Use.FEED: self._feeds,
            Use.CALL: self._calls,
        }
        self._data = DataEndpoint(settings.responders, clockwork, parts, self._on_program_refused)
        self._place = Place(configure.data_path, tuple(listening), configure.data_keys)
        self._handlers: dict[type, Callable[[Connection, Any], list[Event] | None]] = {
            Answered: callers.on_answered,
            RequestFailed: callers.on_request_failed,
            Misconduct: self._lifecycle.on_misconduct,
            Authenticated: self._lifecycle.on_authenticated,
            Alive: self._lifecycle.on_alive,
            Established: self._lifecycle.on_established,
            Closed: self._lifecycle.on_closed,
        }
        self._commands: dict[type, Callable[[Any], None]] = {
            control.Begin: self._begin,
            control.SetInterest: self._set_interest,
            control.SetUsers: self._data.set_users,
            control.TakeSnapshot: commands.take_snapshot,
            control.Verdict: commands.take_verdict,
            control.Dial: self._dials.dial,
            control.DisconnectSession: commands.disconnect,
            control.MakeRoom: commands.make_room,
            control.Probe: commands.probe,
            control.SendMessage: engine_calls.send,
            control.Broadcast: engine_calls.broadcast,
            control.RequestPeer: engine_calls.request,
            control.Forget: engine_calls.forget,
            control.GetStats: commands.report_stats,
            control.SendPulse: self._send_pulse,
            control.SetHead: self._set_head,
            control.SetProtocols: self._set_protocols,
            control.Drain: self._drain,
        }

        self._lag_probe = LagProbe(self._counters.loop_lag.observe)
        self._late_seconds = 0.0
        # The longest waits in the last whole second.
        self._lag_seconds = self._deferred_seconds = 0.0
        # The time before which no deadline counts, because this process was stopped.
        self._judges_from = 0.0
        self._turn_timer: asyncio.TimerHandle | None = None
        self.turn_due = math.inf
        self._pulse_due = 0.0
        self._is_draining = False
        self.stopped = asyncio.Event()
        self.has_failed = False

    # -- life -------------------------------------------------------------------------------------------------------------

    def start(self, engine: asyncio.Transport) -> None:
        """Begin to take handoffs; `engine` is the stream that carries reports and batches."""
        self._engine = engine
        # With this mark the transport calls back once it has room again (see `on_engine_room`).
        engine.set_write_buffer_limits(high=WRITE_AHEAD_BYTES - 1)
        self._reporter.start(engine)
        self._data.start(self._place)
        self._loop.add_reader(self._intake.fileno(), self._on_handoffs)
        self._loop.add_reader(self._lag_probe.fileno(), self._lag_probe.on_readable)
        now = monotonic()
        self._pulse_due = now + PULSE_SECONDS
        self._await_turn(now)

    def command(self, command: control.Command) -> None:
        """Carry out one command of the engine."""
        self._commands[type(command)](command)

    def on_engine_room(self) -> None:
        """The engine has read: batches that wait may follow."""
        self._outbox.write()

    def engine_lost(self) -> None:
        """The engine is gone, and no one is left to decide, count or command. End at once."""
        self.stopped.set()

    def on_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback has raised, because of a fault of ours.

        In a connection's callback that costs the connection, which its transport has closed by now. Anywhere else the
        state of the worker is unknown, so it ends and is replaced.
        """
        if "protocol" not in context:
            self.has_failed = True
            self.stopped.set()
        exception = context.get("exception")
        trace = "".join(traceback.format_exception(exception)) if isinstance(exception, BaseException) else ""
        self._reporter.report(control.LogLine("error", context["message"], trace))

    @property
    def programs_gone(self) -> asyncio.Event:
        """Set after `close` once all programs have read what waited for them, or had a second for it."""
        return self._data.programs_gone

    def close(self) -> None:
        """Close everything, and send the last reports and events, and what was counted."""
        self._report_pulse()
        self._reporter.flush()
        # No turn is due while the connections are read for the last time.
        self.turn_due = math.inf
        self._loop.remove_reader(self._intake.fileno())
        self._loop.remove_reader(self._lag_probe.fileno())
        self._lag_probe.close()
        self._feeds.close()
        self._data.close()
        self._connections.close()
        self._outbox.close()
        self._memory.close()
        if self._turn_timer is not None:
            self._turn_timer.cancel()

    def _on_program_refused(self, remote: str, cause: str, times: int) -> None:
        text = f"{times} programs were turned away, the last one from {remote}: {cause}"
        self._reporter.report(control.LogLine("warning", text))

    def _on_handoffs(self) -> None:
        if not self._intake.take():
            self.engine_lost()

    # -- what connections say (Host) ----------------------------------------------------------------------------------------

    def on_made(self, connection: Connection) -> None:
        """A socket is up: its session is opened."""
        self._lifecycle.on_made(connection)

    def on_events(self, connection: Connection, events: list[Event]) -> None:
        """Pass on the events of a session, each by its type."""
        start = ""
        for index, event in enumerate(events):
            end: list[Event] | None
            if type(event) is MessageReceived:
                start = self._messages.publish(connection, event, start)
                if event.kind.answer is None:
                    continue
                end = self._serving.on_request(connection, event)
            else:
                end = self._handlers[type(event)](connection, event)
            if end:
                # This event made us close the session. Of the events after it only answers matter: their callers wait.
                answers = [later for later in events[index + 1 :] if isinstance(later, Answered | RequestFailed)]
                self.on_events(connection, [*answers, *end])
                return

    def on_announcements(self, connection: Connection, events: list[Event]) -> None:
        """Publish announcements: nothing else is to be done with them."""
        self._messages.publish_announcements(connection, events)

    def on_sent(self, connection: Connection, sent: list[MessageSent]) -> None:
        """Publish our own messages to those who subscribed to them."""
        self._messages.publish_sent(connection, sent)

    def on_room(self, connection: Connection) -> None:
        """Answers have left: parked requests may have their turn."""
        self._serving.on_room(connection)

    def defer(self, connection: Connection) -> None:
        """A connection has used its time: it is read again when its turn comes."""
        self._read_queue.defer(connection)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next loop iteration."""
        self._loop.call_soon(callback)

    def relieve(self) -> None:
        """While more is in progress than the budget allows, disconnect the peer that holds the most."""
        budget = self.budget
        while budget.is_over:
            connection = largest(self._connections.by_id.values())
            if self._feeds.relieve(budget, connection.booked_bytes if connection is not None else 0):
                continue
            if connection is None:
                return
            held = connection.booked_bytes
            cause = f"{held} bytes in progress, the most of all when a worker's {budget.limit_bytes} were used"
            connection.drive(connection.session.disconnect(DisconnectReason.TOO_MANY_PEERS, cause))
            if connection.is_write_paused:
                # The peer reads nothing, not even a goodbye: free what was written to it now.
                connection.abort()

    def on_deadline_moved(self, connection: Connection) -> None:
        """A deadline may be nearer than before."""
        self._wheel.enter(connection)

    def on_goodbye(self, connection: Connection) -> None:
        """The session is over; its socket stays for the goodbye."""
        self._connections.keep_goodbye(connection)

    def on_gone(self, connection: Connection) -> None:
        """The socket is closed."""
        self._connections.forget(connection)
        self._stop_if_drained()

    # -- commands that concern the whole process ----------------------------------------------------------------------------

    def _begin(self, command: control.Begin) -> None:
        if self._engine is not None:
            self._outbox.begin(self._engine, command)
            self._feeds.on_subscriptions_changed()
        self._reporter.report(control.Ready(os.getpid()))

    def _set_interest(self, command: control.SetInterest) -> None:
        self._outbox.interest.change(command.added, command.removed)
        self._feeds.on_subscriptions_changed()
        self._outbox.report(control.InterestSet(command.number))

    def _set_head(self, command: control.SetHead) -> None:
        self._setups.set_head(command.head)
        self._reporter.report(control.Reply(command.call))

    def _set_protocols(self, command: control.SetProtocols) -> None:
        self._setups.offer(command.protocols, command.required)
        self._reporter.report(control.Reply(command.call))

    def _drain(self, command: control.Drain) -> None:
        self._is_draining = True
        self._dials.call_off_all(self._stop_if_drained)
        for connection in list(self._connections.by_id.values()):
            connection.drive(connection.session.disconnect(command.reason, command.cause, by=EndedBy.ENGINE))
        self._loop.call_later(self.timeouts.goodbye_s + DRAIN_GRACE_SECONDS, self.stopped.set)
        self._stop_if_drained()

    def _stop_if_drained(self) -> None:
        if self._is_draining and self._connections.is_empty and self._dials.is_empty:
            self.stopped.set()

    # -- time -------------------------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Do what is due by time. `turn_due` says when that is.

        Connections call it as well as its timer: with over 1024 readable sockets libuv keeps reading and looks at no timer.
        """
        if self._turn_timer is not None:
            self._turn_timer.cancel()
        late = now - self.turn_due
        self._late_seconds = max(self._late_seconds, late)
        if late > STOPPED_SECONDS:
            self._judges_from = now + AFTER_STOP_SECONDS
        self._await_turn(now)
        self._lag_probe.send(now=now)
        self._lifecycle.report_unauthenticated(now)
        self._reporter.flush()
        self.relieve()
        self._turn_wheel(now)
        self._serving.responders.expire(now=now)
        self._feeds.turn()
        if now >= self._pulse_due:
            self._pulse_due = now + PULSE_SECONDS
            self._on_pulse(now)

    def _turn_wheel(self, now: float) -> None:
        """Call each item past its deadline, but only after the sockets were read: the awaited bytes may be in them.

        The loop reads sockets between two of its iterations, and makes its calls first. So the second `call_soon` comes
        after a read.
        """
        if now < self._judges_from:
            return
        due = self._wheel.due(now)
        if due:
            self._loop.call_soon(self._loop.call_soon, self._wheel.judge, due, now)

    def _await_turn(self, now: float) -> None:
        self.turn_due = now + BUCKET_SECONDS
        self._turn_timer = self._loop.call_later(BUCKET_SECONDS, lambda: self.turn(monotonic()))

    def _on_pulse(self, now: float) -> None:
        self._outbox.remind()
        # The longest wait of a byte on a socket. If the whole process was stopped, only the timer is late.
        self._lag_seconds = max(self._lag_probe.take_worst_seconds(now=now), self._late_seconds)
        self._late_seconds = 0.0
        self._deferred_seconds = self._read_queue.take_worst_seconds(now=now)
        self._report_pulse()

    def _send_pulse(self, command: control.SendPulse) -> None:
        """Report everything as it is now, except the longest waits, which are those of the last whole second."""
        self._report_pulse()
        self._reporter.report(control.Reply(command.call))

    def _report_pulse(self) -> None:
        responders = self._serving.responders
        sessions = (connection.session for connection in self._connections.by_id.values())
        dropped_events = self._outbox.dropped_events
        feeds = self._feeds.pulse(now=monotonic())
        self._reporter.report(
            control.Pulse(
                goodbyes=len(self._connections.goodbyes),
                loop_lag_ms=round(self._lag_seconds * 1000, 3),
                deferred=len(self._read_queue),
                progress_bytes=self.budget.used_bytes,
                deferred_ms=round(self._deferred_seconds * 1000, 3),
                memory_bytes=self._memory.resident_bytes(),
                dropped_events=dropped_events,
                queued_event_bytes=self._outbox.queued_bytes,
                unanswered=responders.unanswered,
                responders=responders.count,
                calls=self._calls.in_progress,
                responder_queued_bytes=self._data.endpoint.queued_bytes,
                has_descriptors=self._descriptors.has_room(),
                feeds=feeds,
                started_us=self._started_us,
                cpu_seconds=process_time(),
                descriptors=open_descriptors(),
                descriptor_limit=self._descriptors.limit,
                counters=self._counters.totals(sessions, dropped_events, feeds),
                program_queue_limit_bytes=self._data.endpoint.limits.total_queue_bytes,
            )
        )
