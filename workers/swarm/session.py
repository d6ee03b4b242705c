"""A session that ends as go-ethereum's do: it answers a Disconnect with its own before it closes."""

from __future__ import annotations

from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx.p2p import Disconnect
from rlpx.protocol.session.session import Session


class EchoingSession(Session):
    """Answers a Disconnect that comes after both Hellos with one for the same reason."""

    __slots__ = ()

    def _end_by_peer(self, goodbye: Disconnect) -> None:
        # A Disconnect instead of a Hello is not answered, and a network error is never sent to anybody (go-ethereum).
        if self.stage is not Stage.HELLO and goodbye.reason is not DisconnectReason.TCP_ERROR:
            self._say_goodbye(goodbye.reason)
        super()._end_by_peer(goodbye)
