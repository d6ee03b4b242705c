"""A session that ends as go-ethereum's do: it answers a Disconnect with its own before it closes."""

from __future__ import annotations

from protocol.errors import DisconnectReason
from protocol.events import Stage
from protocol.session import Session


class EchoingSession(Session):
    """A goodbye of the other side, once both have said Hello, is answered with one for the same reason."""

    __slots__ = ()

    def _on_remote_disconnect(self, reason: DisconnectReason | None) -> None:
        stage = self.stage
        super()._on_remote_disconnect(reason)
        # In place of its Hello it is the end without a word, and a network error is never told to anybody.
        if stage is not Stage.HELLO and reason is not DisconnectReason.TCP_ERROR:
            self._say_goodbye(reason)
