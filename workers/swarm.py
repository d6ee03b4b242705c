"""`python -m workers.swarm FD`: one process of a swarm of simulated peers, on a stream to the command that started it."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import resource
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic, process_time, time
from typing import Any, Final, cast

import uvloop

from protocol import swarm
from protocol.eth import Head, LocalChain
from protocol.forkid import Forks
from protocol.swarm import Begin, Failed, Fault, Go, Leave, Order, Ready, Report, Returned
from workers.swarm_connection import SwarmConnection
from workers.swarm_fault import peer_class
from workers.swarm_peer import Bodies, Tally, World
from workers.swarm_plan import PeerPlan, plan
from workers.wheel import Wheel

REPORT_SECONDS: Final = 1.0
# Arrivals and deadlines are looked at so often: a burst of arrivals is spread this finely.
TURN_SECONDS: Final = 0.02
# Dials of one process at a time, so that a target that accepts nothing does not take all descriptors and memory.
DIALS_AT_ONCE: Final = 2000
# A peer that was not let in, or that churns without a pause, comes again no sooner.
LEAST_AWAY_SECONDS: Final = 0.2
# Goodbyes at the end take this long at most: the target has two seconds for each.
FAREWELL_SECONDS: Final = 3.0
# A slow reader's socket takes no more: the target's side fills instead.
_SLOW_BUFFER_BYTES: Final = 4096
_PAGE_BYTES: Final = resource.getpagesize()
# Linux: the kernel chooses the port at connect, when it knows the target, so that ports are no limit.
_IP_BIND_ADDRESS_NO_PORT: Final = 24
# A head that every client takes: neither genesis nor a zero hash.
_HEAD: Final = Head(1, b"\x01" * 32)


class Swarm:
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
        # By number: visits so far, connections of now, and who has left and is not back yet.
        self._visits: Counter[int] = Counter()
        self._present: Counter[int] = Counter()
        self._away: set[int] = set()
        # Who comes and when, the next one last.
        self._arrivals = sorted(((item.arrives_at, item.index, item) for item in self._plans), reverse=True)
        self._connections: dict[SwarmConnection, None] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
        self._is_leaving = False
        self._lag_seconds = 0.0
        self._cpu = process_time()
        self._waited = _waited_seconds()
        self._reported_at = monotonic()
        self._has_said_last = False
        self._is_loopback = ipaddress.ip_address(begin.address.host).is_loopback and ":" not in begin.address.host
        self.stopped = asyncio.Event()

    @property
    def is_listening(self) -> bool:
        """Whether the peers are dialled rather than dial."""
        return not self._begin.target

    async def prepare(self) -> None:
        """Listen, where the peers do; say that all is ready, or why it cannot be."""
        self._world = self._make_world(monotonic())
        enodes: dict[int, str] = {}
        if self.is_listening:
            self._arrivals.clear()
            host, first = self._begin.address.host, self._begin.address.port
            shown = f"[{host}]" if ":" in host else host
            for item in self._plans:
                port = first + item.index if first else 0
                try:
                    server = await self._loop.create_server(
                        lambda item=item: self._accept(item),  # type: ignore[misc]  # bound here, called later
                        host,
                        port,
                    )
                except OSError as error:
                    self._send(swarm.encode(Failed(f"--listen: {shown}:{port}: {os.strerror(error.errno or 0)}")))
                    self.stopped.set()
                    return
                self._listeners.append(server)
                enodes[item.index] = f"enode://{item.key.id.hex()}@{shown}:{server.sockets[0].getsockname()[1]}"
        self._send(swarm.encode(Ready(enodes)))

    def go(self, starts_at: float) -> None:
        """Begin."""
        self._world = self._make_world(starts_at)
        self._reported_at = starts_at
        self._turn(monotonic())
        self._loop.call_later(REPORT_SECONDS, self._on_report)

    def leave(self) -> None:
        """Everybody says goodbye."""
        if self._is_leaving:
            return
        self._is_leaving = True
        self._arrivals.clear()
        for dial in list(self._dials):
            dial.cancel()
        for server in self._listeners:
            server.close()
        # How things stood: what is told once more when all have gone.
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
        self._loop.call_later(FAREWELL_SECONDS, self._say_last)
        self._heed_end()

    def on_deadline_moved(self, connection: SwarmConnection) -> None:
        """Heed a deadline that may be nearer."""
        self._wheel.enter(connection)

    def on_connected(self, connection: SwarmConnection) -> None:
        """TCP is up."""
        self._connections[connection] = None
        self._present[connection.peer.plan.index] += 1
        self._tally.counts["connected"] += 1

    def on_gone(self, connection: SwarmConnection) -> None:
        """A visit is over; some come back."""
        self._connections.pop(connection, None)
        peer, index = connection.peer, connection.peer.plan.index
        if not (self._is_leaving and peer.plan.fault is not None and peer.end in {"closed", "reset"}):
            peer.judge()
        is_storming = peer.plan.fault is Fault.DISCONNECT_STORM
        self._present[index] -= 1
        if (peer.plan.is_churning or is_storming) and not self._present[index] and not self._is_leaving:
            away = max(LEAST_AWAY_SECONDS, 0.0 if is_storming else self._scenario.churn.away_s)
            self._away.add(index)
            self._loop.call_later(away, self._come_back, peer.plan)
        self._heed_end()

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
        while self._arrivals and self._arrivals[-1][0] <= since and len(self._dials) < DIALS_AT_ONCE:
            _, _, item = self._arrivals.pop()
            task = self._loop.create_task(self._dial(item))
            self._dials.add(task)
            task.add_done_callback(self._on_dialled)
        if not self._has_said_last:
            self._loop.call_later(TURN_SECONDS, self._turn, now + TURN_SECONDS)

    def _on_dialled(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        if not task.cancelled():
            task.result()
        self._heed_end()

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

    def _heed_end(self) -> None:
        if self._is_leaving and not self._connections and not self._dials:
            self._say_last()

    def _say_last(self) -> None:
        if self._has_said_last:
            return
        self._has_said_last = True
        for connection in list(self._connections):
            connection.peer.judge()
            connection.abort()
        self._report(is_last=True)
        self.stopped.set()

    def _on_report(self) -> None:
        if not self._has_said_last:
            self._report(is_last=False)
        if not self._is_leaving:
            self._loop.call_later(REPORT_SECONDS, self._on_report)

    def _report(self, *, is_last: bool) -> None:
        now, cpu, waited = monotonic(), process_time(), _waited_seconds()
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
            memory_bytes=_memory_bytes(),
            is_last=is_last,
        )
        for table in (tally.counts, tally.ends, tally.faults, tally.latencies):
            table.clear()
        self._cpu, self._waited, self._reported_at, self._lag_seconds = cpu, waited, now, 0.0
        self._send(swarm.encode(report))


class Absent(asyncio.Protocol):
    """Who dials a peer that is away finds nobody; its port stays taken, so that it can come back to it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close at once."""
        cast("asyncio.Transport", transport).abort()


def _waited_seconds() -> float:
    """How long this process was ready to run and had no core (proc(5), schedstat)."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


class CommandStream(asyncio.Protocol):
    """The stream to the command: orders come down it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._decoder = swarm.order_decoder()
        self._transport: asyncio.Transport | None = None
        self._swarm: Swarm | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The command is there."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Orders."""
        for order in self._decoder.feed(data):
            self._carry_out(order)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the end is the end, whatever the error
        """The command is gone, or we have said the last word."""
        self.end(None)

    def end(self, error: BaseException | None) -> None:
        """The process ends, by a fault or without."""
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

    def leave(self) -> None:
        """On a signal: as when the command says so."""
        if self._swarm is not None:
            self._swarm.leave()

    def _carry_out(self, order: Order) -> None:
        if isinstance(order, Begin):
            self._swarm = Swarm(order, self._loop, self._write)
            task = self._loop.create_task(self._run(self._swarm))
            self._tasks.add(task)
            task.add_done_callback(self._on_run)
        elif self._swarm is not None and isinstance(order, Go):
            self._swarm.go(order.starts_at)
        elif self._swarm is not None and isinstance(order, Leave):
            self._swarm.leave()

    async def _run(self, running: Swarm) -> None:
        await running.prepare()
        # What lives now lives as long as the process: the collector need not look at it again.
        gc.freeze()
        await running.stopped.wait()
        if self._transport is not None:
            self._transport.close()

    def _on_run(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.end(task.exception())

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def run(stream: socket.socket) -> None:
    """Live until the swarm has left or the command is gone."""
    loop = asyncio.get_running_loop()
    orders = CommandStream(loop)

    def on_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        _loop.default_exception_handler(context)
        orders.end(context.get("exception") or RuntimeError(context["message"]))

    loop.set_exception_handler(on_fault)
    loop.add_signal_handler(signal.SIGTERM, orders.leave)
    await loop.create_connection(lambda: orders, sock=stream)
    await orders.ended


def main() -> None:
    """Start on the inherited descriptor."""
    try:
        stream = socket.socket(fileno=int(sys.argv[1]))
    except (IndexError, ValueError, OSError):
        sys.exit("usage: python -m workers.swarm FD (rlpx-swarm starts these processes; nobody else needs to)")
    uvloop.run(run(stream))


if __name__ == "__main__":
    main()
