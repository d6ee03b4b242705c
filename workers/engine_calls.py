"""The engine as a caller: its commands to send something, and the reports with their outcomes."""

from __future__ import annotations

from collections.abc import Hashable

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import CallId
from rlpx.protocol.errors import ErrorName
from rlpx.workers.reporter import Reporter
from rlpx.workers.sending import Broadcasts, Caller, Callers, Message, Sender


class EngineCall(Caller):
    """One command of the engine; two of the same number are the same call."""

    __slots__ = ("_reporter", "number")

    def __init__(self, number: CallId, reporter: Reporter) -> None:
        self.number = number
        self._reporter = reporter

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EngineCall) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    @property
    def origin(self) -> Hashable:
        """All calls of the engine have one origin."""
        return EngineCall

    def on_done(self) -> None:
        """The message is sent."""
        self._reporter.report(control.Reply(self.number))

    def on_answer(self, message: str, payload: bytes) -> None:
        """The peer has answered."""
        self._reporter.report(control.PeerResponse(self.number, message, payload))

    def on_broadcast(self, sent: int, refused: dict[int, ErrorName], complaint: str) -> None:
        """The broadcast is over."""
        self._reporter.report(control.Sent(self.number, sent, refused, complaint))

    def on_refused(self, name: ErrorName, text: str) -> None:
        """It was not sent, or no answer will come."""
        self._reporter.report(control.Reply(self.number, name, text))


class EngineCalls:
    """One method per command; each is answered by one report."""

    def __init__(self, sender: Sender, callers: Callers, broadcasts: Broadcasts, reporter: Reporter) -> None:
        self._sender = sender
        self._callers = callers
        self._broadcasts = broadcasts
        self._reporter = reporter

    def send(self, command: control.SendMessage) -> None:
        """Send one message; a `Reply` says whether it could be."""
        self._sender.send(command.session, _message(command), EngineCall(command.call, self._reporter))

    def request(self, command: control.RequestPeer) -> None:
        """Send a request; a `PeerResponse` follows, or a `Reply` with the error."""
        self._callers.request(command.session, _message(command), EngineCall(command.call, self._reporter))

    def broadcast(self, command: control.Broadcast) -> None:
        """Send one message to many sessions; a `Sent` follows when that is done."""
        self._broadcasts.broadcast(command.sessions, _message(command), EngineCall(command.call, self._reporter))

    def forget(self, command: control.Forget) -> None:
        """The caller has gone: nobody awaits the outcome."""
        call = EngineCall(command.call, self._reporter)
        self._callers.cancel(call)
        self._broadcasts.cancel(call)


def _message(command: control.SendMessage | control.RequestPeer | control.Broadcast) -> Message:
    return Message(command.capability, command.message, command.payload, command.is_checked)
