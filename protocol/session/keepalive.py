"""Pings in both directions: is the peer alive, how long is the round trip, and how often may it ping us."""

from __future__ import annotations

import math
from typing import Final

from rlpx.protocol.rlpx import p2p
from rlpx.protocol.session.events import Alive, Event
from rlpx.protocol.session.pings import IgnoredBucket, PingBucket
from rlpx.protocol.session.send_queue import Rank
from rlpx.protocol.session.sender import Sender
from rlpx.protocol.settings import TimeoutSettings

# A peer that connects again while it has a session has most likely crashed. Its old session has this long to answer a ping,
# so that it can be gone before geth and reth try again, after 30 s.
PROBE_SECONDS: Final = 2.0


class KeepAlive:
    """See the module. `due` is when our next ping or the peer's pong is due; infinite until the session is active.

    `pongs` delays the pongs to a peer that pings too often; its own `due` is when the next of them leaves.
    `rtt_seconds` is the latest round trip, if there was one.
    """

    __slots__ = ("_ignored", "_is_probed", "_pinged_at", "_sender", "_timeouts", "due", "pongs", "rtt_seconds")

    def __init__(self, sender: Sender, timeouts: TimeoutSettings, *, now: float) -> None:
        self._sender = sender
        self._timeouts = timeouts
        self._pinged_at: float | None = None
        # Whether a probe waits for an answer.
        self._is_probed = False
        self._ignored: IgnoredBucket | None = None
        self.pongs = PingBucket(now=now)
        self.due = math.inf
        self.rtt_seconds: float | None = None

    def start(self, *, now: float) -> None:
        """The session is active: the first ping follows after the interval."""
        self.due = now + self._timeouts.ping_interval_s

    def stop(self) -> None:
        """The session has ended: nothing is due any more."""
        self.due = self.pongs.due = math.inf

    def probe(self, *, now: float) -> None:
        """Check that the peer is alive. `Alive` follows within `PROBE_SECONDS`, or `tick` returns a cause."""
        self._is_probed = True
        if self._pinged_at is None:
            self._send_ping(now)
        self.due = min(self.due, now + PROBE_SECONDS)

    def on_ping(self, payload: bytes, *, now: float) -> None:
        """Answer a ping, now or in its turn. Raises `MessageError`, `PingFloodError`."""
        p2p.check_ping_payload(payload)
        if self.pongs.take(now=now):
            self._send_pongs(1)

    def on_pong(self, payload: bytes, events: list[Event], *, now: float) -> None:
        """Take a pong. An unsolicited one is ignored, as in geth; many of them are a breach. Raises `MessageError`."""
        p2p.check_ping_payload(payload)
        if self._pinged_at is None:
            self.on_ignored(now=now)
            return
        self.rtt_seconds = now - self._pinged_at
        self._pinged_at = None
        self.due = now + self._timeouts.ping_interval_s
        self._report_alive(events)

    def on_ignored(self, *, now: float) -> None:
        """Count a meaningless message. Raises `MessageError` if there are too many."""
        if self._ignored is None:
            self._ignored = IgnoredBucket(now=now)
        self._ignored.take(now=now)

    def send_waiting_pongs(self, *, now: float) -> None:
        """Send the pongs whose turn has come; call it when `pongs.due` is reached."""
        self._send_pongs(self.pongs.release(now=now))

    def tick(self, events: list[Event], *, now: float, is_read: bool) -> str | None:
        """Send a ping, or return the reason for giving the peer up. Call this when `due` is reached.

        `is_read`: everything that had arrived from the peer by `now` has been received. Otherwise no pong is late.
        """
        if self._pinged_at is None:
            self._send_ping(now)
            self.due = now + self._timeouts.ping_s
        elif not is_read:
            # The pong may be among the bytes that we have not read.
            self.due = now + self._timeouts.ping_s
            self._report_alive(events)
        elif self._is_probed:
            return f"no pong within {PROBE_SECONDS:g} s after its peer connected anew"
        elif self._sender.queue.waiting(Rank.CONTROL):
            # Our ping may still be queued, so the pong is not late. A peer that reads nothing is the driver's concern.
            self.due = now + self._timeouts.ping_s
        else:
            return f"no pong within {self._timeouts.ping_s:g} s"
        return None

    def _report_alive(self, events: list[Event]) -> None:
        if self._is_probed:
            self._is_probed = False
            events.append(Alive())

    def _send_ping(self, now: float) -> None:
        self._pinged_at = now
        self._sender.send_base(p2p.PING_CODE, p2p.EMPTY_LIST)

    def _send_pongs(self, count: int) -> None:
        for _ in range(count):
            self._sender.send_base(p2p.PONG_CODE, p2p.EMPTY_LIST)
