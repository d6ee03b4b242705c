"""The simulated peers of one process: when they come, how they are connected, and what is reported about them."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import socket
from collections import Counter
from collections.abc import Callable
from time import monotonic, process_time, time
from typing import Final, cast

from rlpx.protocol.bus import swarm
from rlpx.protocol.bus.swarm import Begin, Failed, Fault, Ready, Report, Returned
from rlpx.protocol.eth.forkid import Forks
from rlpx.protocol.eth.status import Head, LocalChain
from rlpx.protocol.rlpx.host_port import format_host_port
from rlpx.workers.proc import ProcessMemory, waited_seconds
from rlpx.workers.swarm.bodies import Bodies
from rlpx.workers.swarm.connection import Host, SwarmConnection
from rlpx.workers.swarm.fault import peer_class
from rlpx.workers.swarm.plan import PeerPlan, plan
from rlpx.workers.swarm.world import Tally, World
from rlpx.workers.wheel import Wheel

REPORT_SECONDS: Final = 1.0
# The time between two looks at arrivals and deadlines: a burst of arrivals is spread this finely.
TURN_SECONDS: Final = 0.02
# Dials of one process at a time, so that a target that accepts nothing does not take all descriptors and memory.
DIALS_AT_ONCE: Final = 2000
# The least time before a peer comes again if it was not let in, or churns without a pause.
LEAST_AWAY_SECONDS: Final = 0.2
# The longest time for all goodbyes at the end: the target has two seconds for each.
FAREWELL_SECONDS: Final = 3.0
# The receive buffer of a slow reader: it is small, so that the target's side fills instead.
_SLOW_BUFFER_BYTES: Final = 4096
# Linux: the kernel chooses the port at connect, when it knows the target, so that ports are no limit.
_IP_BIND_ADDRESS_NO_PORT: Final = 24
# A head that every client accepts: neither genesis nor a zero hash.
_HEAD: Final = Head(1, b"\x01" * 32)


class Swarm(Host):
    """All simulated peers of one process. `stopped` is set when there is nothing left to do."""

    def __init__(self, begin: Begin, loop: asyncio.AbstractEventLoop, send: Callable[[bytes], None]) -> None:
        scenario, chain = begin.scenario, begin.chain
        self._begin = begin
        self._scenario = scenario
        self._loop = loop
        self._send = send
        self._tally = Tally()
        self._chain = LocalChain(chain.network_id, chain.genesis, Forks(chain), _HEAD, chain.proof_of_stake)
        self._world: World
        self._wheel = Wheel(now=monotonic())
        self._plans = plan(scenario, begin.seed, begin.index)
        # By index of the peer: visits so far, present connections, and peers that have left and are not back yet.
        self._visits: Counter[int] = Counter()
        self._present: Counter[int] = Counter()
        self._away: set[int] = set()
        # The arrivals: time, index and plan of each peer, the next arrival last.
        self._arrivals = sorted(((item.arrives_at, item.index, item) for item in self._plans), reverse=True)
        self._connections: dict[SwarmConnection, None] = {}
        # The connections whose handshake may not be done, and how many there may be.
        self._shaking: set[SwarmConnection] = set()
        at_once = self._scenario.ramp.handshakes_at_once
        self._handshakes_at_once = math.ceil(at_once / self._scenario.processes) if at_once else math.inf
        self._dials: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
        self._is_leaving = False
        self._lag_seconds = 0.0
        self._cpu = process_time()
        self._waited = waited_seconds()
        self._memory = ProcessMemory()
        self._reported_at = monotonic()
        self._has_reported_last = False
        self._is_loopback = ipaddress.ip_address(begin.address.host).is_loopback and ":" not in begin.address.host
        self.stopped = asyncio.Event()

    @property
    def is_listening(self) -> bool:
        """Whether the peers are dialled, instead of dialling."""
        return not self._begin.target

    async def prepare(self) -> None:
        """Listen if the peers are dialled; report that all is ready, or why it cannot be."""
        self._world = self._make_world(monotonic())
        enodes: dict[int, str] = {}
        if self.is_listening:
            self._arrivals.clear()
            host, first = self._begin.address.host, self._begin.address.port
            for item in self._plans:
                port = first + item.index if first else 0
                try:
                    server = await self._loop.create_server(
                        lambda item=item: self._accept(item),  # type: ignore[misc]  # bound here, called later
                        host,
                        port,
                    )
                except OSError as error:
                    place, why = format_host_port(host, port), os.strerror(error.errno or 0)
                    self._send(swarm.encode(Failed(f"--listen: {place}: {why}")))
                    self.stopped.set()
                    return
                self._listeners.append(server)
                place = format_host_port(host, server.sockets[0].getsockname()[1])
                enodes[item.index] = f"enode://{item.key.id.hex()}@{place}"
        self._send(swarm.encode(Ready(enodes)))

    def go(self, starts_at: float) -> None:
        """Begin."""
        self._world = self._make_world(starts_at)
        self._reported_at = starts_at
        self._turn(monotonic())
        self._loop.call_later(REPORT_SECONDS, self._on_report)

    def leave(self) -> None:
        """Let every peer say goodbye, then end."""
        if self._is_leaving:
            return
        self._is_leaving = True
        self._arrivals.clear()
        for dial in list(self._dials):
            dial.cancel()
        for server in self._listeners:
            server.close()
        # The state before the goodbyes; another report follows when all have gone.
        self._on_report()
        for connection in list(self._connections):
            peer = connection.peer
            if peer.plan.fault is None or "left" in peer.expected:
                peer.leave()
                connection.drive()
            else:
                if peer.end is None:
                    self._tally.counts[f"undecided {peer.plan.fault}"] += 1
                connection.abort()
        self._loop.call_later(FAREWELL_SECONDS, self._report_last)
        self._end_if_all_left()

    def close(self) -> None:
        """Close every socket at once, without a goodbye."""
        self._is_leaving = self._has_reported_last = True
        self._arrivals.clear()
        for dial in list(self._dials):
            dial.cancel()
        for server in self._listeners:
            server.close()
        for connection in list(self._connections):
            connection.abort()
        self.stopped.set()

    def on_deadline_moved(self, connection: SwarmConnection) -> None:
        """A deadline may be nearer than before."""
        self._wheel.enter(connection)

    def on_connected(self, connection: SwarmConnection) -> None:
        """TCP is up."""
        self._connections[connection] = None
        self._shaking.add(connection)
        self._present[connection.peer.plan.index] += 1
        self._tally.counts["connected"] += 1

    def on_gone(self, connection: SwarmConnection) -> None:
        """A visit is over; some come back."""
        self._connections.pop(connection, None)
        self._shaking.discard(connection)
        peer, index = connection.peer, connection.peer.plan.index
        if not (self._is_leaving and peer.plan.fault is not None and peer.end in {"closed", "reset"}):
            peer.count_end()
        is_storming = peer.plan.fault is Fault.DISCONNECT_STORM
        self._present[index] -= 1
        if (peer.plan.is_churning or is_storming) and not self._present[index] and not self._is_leaving:
            away = max(LEAST_AWAY_SECONDS, 0.0 if is_storming else self._scenario.churn.away_s)
            self._away.add(index)
            self._loop.call_later(away, self._come_back, peer.plan)
        self._end_if_all_left()

    # -- coming -----------------------------------------------------------------------------------------------------------

    def _come_back(self, item: PeerPlan) -> None:
        if self._is_leaving:
            return
        self._away.discard(item.index)
        if self.is_listening:
            self._send(swarm.encode(Returned(item.index)))
        else:
            self._arrivals.append((0.0, item.index, item))

    def _turn(self, due: float) -> None:
        now = monotonic()
        self._lag_seconds = max(self._lag_seconds, now - due)
        self._wheel.turn(now)
        since = now - self._world.starts_at
        self._shaking = {connection for connection in self._shaking if not connection.peer.is_established}
        while (
            self._arrivals
            and self._arrivals[-1][0] <= since
            and len(self._dials) < DIALS_AT_ONCE
            and len(self._dials) + len(self._shaking) < self._handshakes_at_once
        ):
            _, _, item = self._arrivals.pop()
            task = self._loop.create_task(self._dial(item))
            self._dials.add(task)
            task.add_done_callback(self._on_dialled)
        if not self._has_reported_last:
            self._loop.call_later(TURN_SECONDS, self._turn, now + TURN_SECONDS)

    def _on_dialled(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        if not task.cancelled():
            task.result()
        self._end_if_all_left()

    async def _dial(self, item: PeerPlan) -> None:
        """Connect; the connection lives on without a task."""
        address = self._begin.address
        self._tally.counts["dials"] += 1
        began_at = monotonic()
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                if self._is_loopback:
                    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                    sock.bind((item.source, 0))
                if item.fault is Fault.SLOW_READER:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER_BYTES)
                async with asyncio.timeout(self._scenario.patience_s):
                    await self._loop.sock_connect(sock, (address.host, address.port))
                self._tally.time("connect", monotonic() - began_at)
                await self._loop.create_connection(lambda: self._visit(item), sock=sock)
            except BaseException:
                sock.close()
                raise
        except TimeoutError:
            self._on_refused(item, "no connection in time")
        except OSError as error:
            self._on_refused(item, f"no connection: {os.strerror(error.errno or 0)}")

    def _on_refused(self, item: PeerPlan, end: str) -> None:
        self._tally.ends[end] += 1
        if item.is_churning and not self._is_leaving:
            self._loop.call_later(max(LEAST_AWAY_SECONDS, self._scenario.churn.away_s), self._come_back, item)

    def _accept(self, item: PeerPlan) -> asyncio.BaseProtocol:
        return Absent() if item.index in self._away else self._visit(item)

    def _visit(self, item: PeerPlan) -> SwarmConnection:
        visit = self._visits[item.index]
        self._visits[item.index] += 1
        return SwarmConnection(peer_class(item.fault)(item, self._world, now=monotonic(), visit=visit), self)

    def _make_world(self, starts_at: float) -> World:
        begin = self._begin
        bodies = Bodies(begin.scenario, begin.seed)
        target = begin.target or None
        return World(begin.scenario, begin.seed, self._chain, target, int(time()), starts_at, self._tally, bodies)

    # -- telling ----------------------------------------------------------------------------------------------------------

    def _end_if_all_left(self) -> None:
        if self._is_leaving and not self._connections and not self._dials:
            self._report_last()

    def _report_last(self) -> None:
        if self._has_reported_last:
            return
        self._has_reported_last = True
        for connection in list(self._connections):
            connection.peer.count_end()
            connection.abort()
        self._report(is_last=True)
        self.stopped.set()

    def _on_report(self) -> None:
        if not self._has_reported_last:
            self._report(is_last=False)
        if not self._is_leaving:
            self._loop.call_later(REPORT_SECONDS, self._on_report)

    def _report(self, *, is_last: bool) -> None:
        now, cpu, waited = monotonic(), process_time(), waited_seconds()
        tally = self._tally
        peers = [connection.peer for connection in self._connections]
        report = Report(
            index=self._begin.index,
            seconds=now - self._reported_at,
            counts=dict(tally.counts),
            ends=dict(tally.ends),
            faults=dict(tally.faults),
            latencies=dict(tally.latencies),
            established=sum(peer.is_established for peer in peers),
            cpu_seconds=cpu - self._cpu,
            waiting_seconds=waited - self._waited,
            lag_seconds=self._lag_seconds,
            memory_bytes=self._memory.resident_bytes(),
            is_last=is_last,
        )
        tally.clear()
        self._cpu, self._waited, self._reported_at, self._lag_seconds = cpu, waited, now, 0.0
        self._send(swarm.encode(report))


class Absent(asyncio.Protocol):
    """Answers connections to a peer that is away. Its port stays taken, so that the peer can come back to it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close at once."""
        cast("asyncio.Transport", transport).abort()
