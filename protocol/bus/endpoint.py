"""A listening socket for users' programs: their connections, and bounds on what all of them may send and be sent.

The loop, the clock and the listening socket are passed in, so that the engine and the workers share this code. Each
connection is a `Link`. Reading is fair: a loop iteration handles a few frames of each user; the rest wait in `ReadTurns`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.clockwork import Clockwork, Listening
from rlpx.protocol.bus.descriptors import EXHAUSTED, GONE
from rlpx.protocol.bus.link import Limits, Link, Owner
from rlpx.protocol.bus.turns import ReadTurns
from rlpx.protocol.bus.zmtp import Kind, Mechanism
from rlpx.protocol.rlpx.host_port import format_host_port

# The most accepts in one loop iteration.
ACCEPT_BUDGET: Final = 16
# The first refusal is reported at once; of later ones only the number is reported, at this interval.
REFUSALS_SECONDS: Final = 10.0
# Without a descriptor or memory for another connection, accept again after this long. The listening socket stays readable.
EXHAUSTED_PAUSE_SECONDS: Final = 0.1

# Makes a mechanism for each connection, which has keys and nonces of its own.
Security: TypeAlias = Callable[[], Mechanism]


class Endpoint:
    """All connections of one kind, over one or more listening sockets."""

    def __init__(self, kind: Kind, owner: Owner, limits: Limits, clockwork: Clockwork) -> None:
        self.kind = kind
        self.owner = owner
        self.limits = limits
        self.clockwork = clockwork
        self.turns = ReadTurns(clockwork)
        # Links by number: ready ones, all of them, and those in their handshake, the oldest first.
        self.links: dict[int, Link] = {}
        self._all: dict[int, Link] = {}
        self._unready: dict[int, Link] = {}
        self._numbers = 0
        # Refused connections; those not yet reported to the owner, and when the next report is due.
        self.refused_connections = 0
        self._untold = 0
        self._tells_at = -math.inf
        self._listening: list[Listening] = []
        self._tasks: set[Any] = set()
        self._received_bytes = 0
        self._queued_bytes = 0
        self._is_closed = False

    @property
    def connections(self) -> int:
        """The number of connections, including those in their handshake."""
        return len(self._all)

    @property
    def queued_bytes(self) -> int:
        """The number of bytes queued for all users."""
        return sum(link.queued_bytes for link in self._all.values())

    @property
    def received_bytes(self) -> int:
        """The number of unfinished bytes from all users."""
        return self._received_bytes

    def listen(self, sock: Listening, remote: str, security: Security = zmtp.Null) -> None:
        """Accept from a bound, listening, non-blocking socket, and own it from now on. `remote` names it in logs."""
        self._listening.append(sock)
        self._accept_from(sock, remote, security)

    def has_queue_room(self, queued: int, more: int) -> bool:
        """Whether a user with `queued` waiting bytes may be queued `more`. If all queues together are full, only users below
        their share have room.
        """
        limits = self.limits
        if queued + more > limits.queue_bytes:
            return False
        if self._queued_bytes + more <= limits.total_queue_bytes:
            return True
        return queued + more <= limits.total_queue_bytes // len(self._all)

    def stop_listening(self) -> None:
        """Accept no more connections."""
        for sock in self._listening:
            self.clockwork.loop.remove_reader(sock.fileno())
            sock.close()
        self._listening.clear()

    def close(self) -> None:
        """Accept no more connections, and end each open one once its queue has left, or a second later."""
        self._is_closed = True
        self.stop_listening()
        for link in list(self._all.values()):
            link.close("the engine is ending")

    def abort(self) -> None:
        """End all connections at once."""
        self.close()
        for link in list(self._all.values()):
            link.abort()

    # -- accepting ----------------------------------------------------------------------------------------------------------

    def _accept_from(self, sock: Listening, remote: str, security: Security) -> None:
        self.clockwork.loop.add_reader(sock.fileno(), self._accept, sock, remote, security)

    def _accept(self, sock: Listening, remote: str, security: Security) -> None:
        for _ in range(ACCEPT_BUDGET):
            if not self.clockwork.has_room():
                self._stand_back(sock, remote, security, "the table of file descriptors is almost full")
                return
            try:
                accepted, address = sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in GONE:
                    continue
                if error.errno not in EXHAUSTED:
                    raise
                self._stand_back(sock, remote, security, error.strerror or str(error))
                return
            host_port = " " + format_host_port(*address[:2]) if isinstance(address, tuple) else ""
            self._admit(accepted, remote + host_port, security)

    def _admit(self, accepted: Any, remote: str, security: Security) -> None:  # noqa: ANN401 - a socket
        if len(self._all) >= self.limits.links and not self._make_room():
            accepted.close()
            self.refuse(remote, f"{self.limits.links} connections are open, which is the limit")
            return
        accepted.setblocking(False)
        self._numbers += 1
        link = Link(self, self._numbers, remote, security())
        self._all[link.number] = self._unready[link.number] = link
        task = self.clockwork.loop.create_task(self._adopt(link, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _make_room(self) -> bool:
        """Refuse the connection that has been in its handshake for longest; returns whether there was one."""
        oldest = next(iter(self._unready.values()), None)
        if oldest is None or not oldest.is_adopted:
            return False
        self.refuse(oldest.remote, "others wait, and it has not ended its handshake")
        self.forget(oldest)
        oldest.abort()
        return True

    async def _adopt(self, link: Link, accepted: Any) -> None:  # noqa: ANN401 - a socket
        try:
            await self.clockwork.loop.connect_accepted_socket(lambda: link, accepted)
        except OSError as error:
            accepted.close()
            self.forget(link)
            self.refuse(link.remote, f"the connection could not be taken: {error}")
            return
        link.is_adopted = True
        if self._is_closed:
            link.abort()

    def _stand_back(self, sock: Listening, remote: str, security: Security, cause: str) -> None:
        self.clockwork.loop.remove_reader(sock.fileno())
        self.refuse(remote, cause)

        def look_again() -> None:
            if sock in self._listening:
                self._accept_from(sock, remote, security)

        self.clockwork.loop.call_later(EXHAUSTED_PAUSE_SECONDS, look_again)

    def refuse(self, remote: str, cause: str) -> None:
        """Count a refused connection. The owner hears of it at once, and then at most every `REFUSALS_SECONDS`."""
        self.refused_connections += 1
        self._untold += 1
        now = self.clockwork.clock()
        if now >= self._tells_at:
            times, self._untold = self._untold, 0
            self._tells_at = now + REFUSALS_SECONDS
            self.owner.on_refused(remote, cause, times)

    def on_link_ready(self, link: Link) -> None:
        """Take note that the link's handshake is done."""
        del self._unready[link.number]
        self.links[link.number] = link

    # -- reading ------------------------------------------------------------------------------------------------------------

    def on_data(self, link: Link, held_bytes: int) -> None:
        """Work on the received data of the link, or let the link wait if others already do."""
        self.count_received(link, held_bytes)
        if self._received_bytes > self.limits.total_received_bytes:
            fullest = max(self._all.values(), key=lambda each: each.counted_received_bytes)
            fullest.close(f"of {self._received_bytes} unfinished bytes from all users its are the most")
        self.turns.on_data(link)

    # -- sums ---------------------------------------------------------------------------------------------------------------

    def count_queue(self, link: Link, queued: int) -> None:
        """Set the link's part of the sum of all queues."""
        self._queued_bytes += queued - link.counted_queue_bytes
        link.counted_queue_bytes = queued

    def count_received(self, link: Link, held: int) -> None:
        """Set the link's part of the sum of unfinished bytes."""
        self._received_bytes += held - link.counted_received_bytes
        link.counted_received_bytes = held

    def forget(self, link: Link) -> None:
        """Forget a link that is gone."""
        self._all.pop(link.number, None)
        self._unready.pop(link.number, None)
        self.count_queue(link, 0)
        self.count_received(link, 0)
        if self.links.pop(link.number, None) is not None:
            self.owner.on_gone(link)
