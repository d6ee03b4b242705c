"""Programs as callers: their commands on the worker's data endpoint, carried out here, and exactly one reply to each.

The forms of requests, replies and errors are those of the engine's `control.ipc` (`protocol/bus/json_rpc.py`), and the
commands are those that concern the sessions of this worker. A payload is the second frame, both ways.

    {"jsonrpc": "2.0", "id": 7, "method": "send", "params": {"session": 3, "capability": "eth", "message": 2}} · payload
    {"jsonrpc": "2.0", "id": 7, "result": {"sessions": 1}}
    {"jsonrpc": "2.0", "method": "cancel", "params": {"id": 7}}

A call that is cancelled is answered with the error `cancelled`. The calls of a program that disconnects are cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Final

import msgspec

from rlpx.protocol.bus import control, zmtp
from rlpx.protocol.bus.arguments import message_of, reason_of
from rlpx.protocol.bus.broadcasts import check_size, result_of
from rlpx.protocol.bus.commands import (
    COMMANDS,
    BroadcastParameters,
    DisconnectParameters,
    RequestParameters,
    SendParameters,
)
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.json_rpc import (
    REFUSALS,
    Cancel,
    Identifier,
    find_command,
    identifier_of,
    read_cancel,
    read_parameters,
    read_request,
    refused,
    succeeded,
)
from rlpx.protocol.bus.link import Link
from rlpx.protocol.bus.results import AnswerResult, DoneResult
from rlpx.protocol.bus.sessions import receivers
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.settings import QueueSettings
from rlpx.workers.commands import SessionCommands
from rlpx.workers.connections import Connections
from rlpx.workers.sending import Broadcasts, Caller, Callers, Message, Sender

# The commands that a worker carries out for programs.
CARRIED_OUT: Final = {name: COMMANDS[name] for name in ("send", "request", "broadcast", "disconnect")}
# Calls of one program that are in progress, the bytes that they hold, and the bytes that all hold. Beyond these, a call is
# refused; the connection is read on, as its cancellations, answers and credit come the same way.
MAX_OPEN_CALLS: Final = 1024
MAX_OPEN_BYTES: Final = 64 * 1024 * 1024
MAX_OPEN_BYTES_OF_ALL: Final = 256 * 1024 * 1024
# What a call holds besides its payload, and for each session of a broadcast.
CALL_BYTES: Final = 1024
SESSION_BYTES: Final = 128
# A program that leaves this much unread is not read either until it has read all, so that no reply has to be dropped.
UNREAD_BYTES: Final = 1024 * 1024


class ProgramCall(Caller):
    """A call in progress: a request or a broadcast. It is over with its reply."""

    __slots__ = ("_calls", "_timer", "held_bytes", "id", "link")

    def __init__(self, calls: Calls, link: Link, request_id: Identifier, held_bytes: int) -> None:
        self.link = link
        self.id = request_id
        self.held_bytes = held_bytes
        self._calls = calls
        self._timer: asyncio.TimerHandle | None = None

    @property
    def origin(self) -> Hashable:
        """The program."""
        return self.link

    def end_after(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Give up after this time."""
        self._timer = loop.call_later(seconds, self._on_late, seconds)

    def stop_timer(self) -> None:
        """Wait as long as it takes, or no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def on_done(self) -> None:
        """Send the reply to a message that was sent."""
        self._calls.finish(self, succeeded(self.id, DoneResult(1)))

    def on_answer(self, message: str, payload: bytes) -> None:
        """Send the peer's answer."""
        self._calls.finish(self, succeeded(self.id, AnswerResult(message)), payload)

    def on_broadcast(self, sent: int, refused: dict[int, ErrorName], complaint: str) -> None:
        """Send the result of a broadcast."""
        try:
            result = result_of(sent, refused, complaint)
        except CommandError as error:
            self.on_refused(error.name, str(error))
        else:
            self._calls.finish(self, succeeded(self.id, result))

    def on_refused(self, name: ErrorName, text: str) -> None:
        """Send the error."""
        self._calls.finish(self, refused(self.id, CommandError(name, text)))

    def _on_late(self, seconds: float) -> None:
        self._calls.cancel(self)
        self.on_refused(ErrorName.TIMED_OUT, f"no answer within {seconds:g} s, by way of worker {self._calls.index}")


class Program:
    """The calls in progress of one connected program."""

    __slots__ = ("by_id", "calls", "held_bytes", "is_held")

    def __init__(self) -> None:
        self.calls: dict[ProgramCall, None] = {}
        # The latest call with each id, for its cancellation.
        self.by_id: dict[Identifier, ProgramCall] = {}
        self.held_bytes = 0
        # Whether it is not read, because it does not read.
        self.is_held = False


class Outlets(msgspec.Struct, frozen=True):
    """The parts of the worker that carry out calls."""

    sender: Sender
    callers: Callers
    broadcasts: Broadcasts
    sessions: SessionCommands


class Calls:
    """The part of the data endpoint that takes calls. `index` is this worker's number."""

    def __init__(
        self,
        index: WorkerId,
        outlets: Outlets,
        connections: Connections,
        queues: QueueSettings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.index = index
        self._outlets = outlets
        self._connections = connections
        self._broadcast_bytes = queues.broadcast_bytes
        self._loop = loop
        # The programs that have called.
        self._programs: dict[Link, Program] = {}
        self._held_bytes = 0
        self._handlers: dict[str, Callable[[Link, Identifier, Any, Any], None]] = {
            "send": self._send,
            "request": self._request,
            "broadcast": self._broadcast,
            "disconnect": self._disconnect,
        }

    @property
    def in_progress(self) -> int:
        """The number of calls in progress."""
        return sum(len(program.calls) for program in self._programs.values())

    # -- the data endpoint's part -------------------------------------------------------------------------------------------

    def on_message(self, link: Link, frames: list[bytes]) -> None:
        """Begin a call, or cancel one."""
        request_id: Identifier = None
        try:
            request = read_request(frames[0])
            request_id = request.id
            if request.method == Cancel.METHOD and request_id is None:
                self._cancel(link, read_cancel(request))
                return
            command = find_command(request.method, CARRIED_OUT)
            parameters, payload = read_parameters(command, request, frames[1:])
            self._handlers[command.name](link, request_id, parameters, payload)
        except REFUSALS as error:
            self._reply(link, refused(request_id, error))

    def refuse(self, link: Link, frames: list[bytes], text: str) -> None:
        """Refuse a call of a program that has not the right to call."""
        self._reply(link, refused(identifier_of(frames[0]), CommandError(ErrorName.REFUSED, text)))

    def on_room(self, link: Link) -> None:
        """A program has read all that waited for it, and is read again."""
        program = self._programs.get(link)
        if program is not None and program.is_held:
            program.is_held = False
            link.release()

    def on_gone(self, link: Link) -> None:
        """Cancel the calls of a program that has disconnected."""
        program = self._programs.get(link)
        if program is not None:
            for call in list(program.calls):
                self.cancel(call)
                self._forget(call)
            del self._programs[link]

    # -- calls in progress --------------------------------------------------------------------------------------------------

    def finish(self, call: ProgramCall, reply: bytes, payload: bytes | None = None) -> None:
        """End a call with its reply."""
        self._forget(call)
        self._reply(call.link, reply, payload, call.id)

    def cancel(self, call: ProgramCall) -> None:
        """Stop what a call does; it will not be told the outcome."""
        self._outlets.callers.cancel(call)
        self._outlets.broadcasts.cancel(call)

    def _begin(self, link: Link, request_id: Identifier, held_bytes: int) -> ProgramCall:
        """A new call that is in progress for some time. Raises `CommandError` if too many are."""
        program = self._programs.setdefault(link, Program())
        if len(program.calls) >= MAX_OPEN_CALLS:
            raise CommandError(ErrorName.QUEUE_FULL, f"{len(program.calls)} calls of this connection are in progress")
        held_bytes += CALL_BYTES
        if program.held_bytes + held_bytes > MAX_OPEN_BYTES or self._held_bytes + held_bytes > MAX_OPEN_BYTES_OF_ALL:
            raise CommandError(
                ErrorName.QUEUE_FULL,
                f"{program.held_bytes} bytes of calls of this connection are in progress, {self._held_bytes} of all",
            )
        call = ProgramCall(self, link, request_id, held_bytes)
        program.calls[call] = None
        program.by_id[request_id] = call
        program.held_bytes += held_bytes
        self._held_bytes += held_bytes
        return call

    def _forget(self, call: ProgramCall) -> None:
        call.stop_timer()
        program = self._programs.get(call.link)
        if program is None or call not in program.calls:
            return
        del program.calls[call]
        program.held_bytes -= call.held_bytes
        self._held_bytes -= call.held_bytes
        if program.by_id.get(call.id) is call:
            del program.by_id[call.id]

    def _cancel(self, link: Link, request_id: Identifier) -> None:
        program = self._programs.get(link)
        call = None if program is None or request_id is None else program.by_id.get(request_id)
        if call is not None:
            self.cancel(call)
            call.on_refused(ErrorName.CANCELLED, "cancelled by its caller")

    # -- commands -----------------------------------------------------------------------------------------------------------

    def _send(self, link: Link, request_id: Identifier, parameters: SendParameters, payload: bytes) -> None:
        # It is over at once, so it is not counted.
        call = ProgramCall(self, link, request_id, 0)
        self._outlets.sender.send(SessionId(parameters.session), _message(parameters, payload), call)

    def _request(self, link: Link, request_id: Identifier, parameters: RequestParameters, payload: bytes) -> None:
        message = _message(parameters, payload)
        call = self._begin(link, request_id, 0)
        if parameters.timeout_s is not None:
            call.end_after(self._loop, parameters.timeout_s)
        self._outlets.callers.request(SessionId(parameters.session), message, call)

    def _broadcast(self, link: Link, request_id: Identifier, parameters: BroadcastParameters, payload: bytes) -> None:
        message = _message(parameters, payload)
        views = (connection.view for connection in self._connections.by_id.values())
        sessions = [view.session for view in receivers((view for view in views if view is not None), parameters)]
        check_size(len(payload), len(sessions), self._broadcast_bytes)
        call = self._begin(link, request_id, len(payload) + SESSION_BYTES * len(sessions))
        self._outlets.broadcasts.broadcast(sessions, message, call)

    def _disconnect(self, link: Link, request_id: Identifier, parameters: DisconnectParameters, _payload: None) -> None:
        session = SessionId(parameters.session)
        command = control.DisconnectSession(session, reason_of(parameters.reason), "disconnected by command")
        if not self._outlets.sessions.end(command):
            raise CommandError(ErrorName.NO_SUCH_SESSION, f"there is no session {session} in worker {self.index}")
        self._reply(link, succeeded(request_id, DoneResult(1)))

    # -- replies ------------------------------------------------------------------------------------------------------------

    def _reply(self, link: Link, body: bytes, payload: bytes | None = None, request_id: Identifier = None) -> None:
        """Send a reply. It is never dropped, but an answer for which there is no room becomes an error."""
        if payload is None:
            link.append(zmtp.encode([body]))
        elif not link.offer(zmtp.encode([body, payload])):
            text = f"an answer of {len(payload)} bytes has come; this connection has left {link.queued_bytes} bytes unread"
            link.append(zmtp.encode([refused(request_id, CommandError(ErrorName.QUEUE_FULL, text))]))
        if link.queued_bytes > UNREAD_BYTES and not link.is_closing:
            self._programs.setdefault(link, Program()).is_held = True
            link.hold()


def _message(parameters: SendParameters | BroadcastParameters, payload: bytes) -> Message:
    return Message(parameters.capability, message_of(parameters), payload, not parameters.raw)
