"""The door to the fleet of hosts that this one may be part of. A host alone has no such door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.metrics import FleetMetrics
from rlpx.protocol.bus.results import FleetStatus
from rlpx.protocol.lifecycle import Direction


class Membership(Protocol):
    """What the engine asks of the fleet."""

    def claim(self, session: SessionId, peer: bytes, direction: Direction, *, passes_limits: bool) -> None:
        """A session has a place here, and its peer is proved. Its verdict follows, as admitted or as refused."""

    def release(self, session: SessionId) -> None:
        """A session has ended; a second release is harmless."""

    def want_place(self) -> None:
        """A session waits for a place that the fleet has not leased to this host yet."""

    def may_dial(self, peer: bytes) -> bool:
        """Whether a static peer is this host's to dial, and no other host is known to have it."""

    def set_limits(self, limits: Mapping[Direction, int]) -> None:
        """Change the limits of active sessions of the whole fleet."""

    def status(self) -> FleetStatus:
        """The membership at a glance."""

    def metrics(self) -> FleetMetrics:
        """The counters of the membership."""
