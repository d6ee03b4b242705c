"""The filter of a fleet's feed on the lives of sessions, which come from the stream: what is known of each session.

Not every event of a session says all that a filter asks, so what earlier ones have said is kept until the session ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from rlpx.engine.client.engine_events import passes
from rlpx.engine.client.fleet_items import HostEvent
from rlpx.protocol.bus.events import CLOSED, ESTABLISHED, OPENED
from rlpx.protocol.bus.feed_filters import session_test
from rlpx.protocol.bus.feeds import Where
from rlpx.protocol.bus.results import SessionObject
from rlpx.protocol.lifecycle import Direction


class Known(msgspec.Struct, frozen=True):
    """What is known of a session at this moment."""

    session: int
    direction: Direction | None = None
    peer_hex: str | None = None
    client: str | None = None
    shared: tuple[str, ...] = ()


class SessionFilter:
    """See the module."""

    def __init__(self, where: Where) -> None:
        self._test = session_test(where)
        self._where: dict[str, Any] = msgspec.to_builtins(where)
        # By host and number.
        self._known: dict[str, dict[int, Known]] = {}

    def begin(self, host: str, sessions: Sequence[SessionObject]) -> tuple[SessionObject, ...]:
        """These are the sessions of a host now; returns those that match."""
        if self._test is None:
            return tuple(sessions)
        found = self._known[host] = {
            shown.session: Known(shown.session, shown.direction, shown.peer, shown.client, shown.shared)
            for shown in sessions
        }
        return tuple(shown for shown in sessions if self._test(found[shown.session]))

    def forget(self, host: str) -> None:
        """Nobody knows the sessions of a host any more."""
        self._known.pop(host, None)

    def passes(self, event: HostEvent) -> bool:
        """Learn from an event of the stream, and return whether it is wanted."""
        if self._test is None:
            return True
        if not event.topic.startswith("session."):
            return passes(self._where, event.fields)
        fields, of_host = event.fields, self._known.setdefault(event.host, {})
        session: int = fields["session"]
        known = of_host.get(session, Known(session))
        if event.topic in (OPENED, ESTABLISHED, CLOSED):
            known = msgspec.structs.replace(known, direction=Direction(fields["direction"]))
        if event.topic == ESTABLISHED:
            known = msgspec.structs.replace(known, client=fields["client"], shared=tuple(fields["shared"]))
        known = of_host[session] = msgspec.structs.replace(known, peer_hex=fields["peer"])
        if event.topic == CLOSED:
            del of_host[session]
        return self._test(known)
