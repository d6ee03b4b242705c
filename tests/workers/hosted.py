"""A worker inside the test's own loop: the engine's ends of its sockets, and peers on loopback connections.

async with hosted(folder) as engine:
    peer = await engine.accepted(SessionId(1))
    ...
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from protocol import control
from protocol.control import CallId, Configure, Handoff, Handoffs, Judge, SessionId, WorkerId
from protocol.errors import DisconnectReason
from protocol.events import Authenticated, Closed, Established, Event
from protocol.session import Session
from tests.pair import DEV, DIALER, HEAD, LISTENER, PROTOCOLS, Recipe
from workers import __main__ as process

PATIENCE_SECONDS = 10.0
# Long enough that a goodbye never ends by it while a test looks, short enough to wait for.
GOODBYE_SECONDS = 0.3

R = TypeVar("R")
E = TypeVar("E")


def configuration(folder: Path, session: control.SessionConfig | None = None) -> Configure:
    """What the worker is told; its node key is the listener's of `tests.pair`."""
    return Configure(
        worker=WorkerId(3),
        node=control.NodeConfig(
            key=LISTENER.key.secret,
            client="tests/worker",
            listen_port=30303,
        ),
        protocols=PROTOCOLS,
        required=(),
        chain=DEV,
        head=HEAD,
        is_head_known=True,
        session=session or SESSIONS,
        outbox=control.OutboxConfig(f"ipc://{folder}/traffic.ipc", 0.002, 1 << 17, 1000),
        responder=control.ResponderConfig(f"ipc://{folder}/worker-0.ipc", 5, 4),
    )


SESSIONS = control.SessionConfig(
    handshake_seconds=5,
    pending_inbound_seconds=10,
    pending_outbound_seconds=20,
    connect_seconds=15,
    ping_interval_seconds=15,
    ping_seconds=15,
    goodbye_seconds=GOODBYE_SECONDS,
    max_goodbyes=256,
    max_bad_messages=4,
    ends_on_breach=True,
    queue_bytes=1 << 20,
    write_seconds=20,
)


class Peer:
    """A peer on a socket: a session of our own, driven by whoever waits for one of its events."""

    def __init__(self, session: Session, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.session = session
        self.events: list[Event] = []
        self.reader, self.writer = streams

    async def until(self, kind: type[E]) -> E:
        """Go on until it tells an event of this kind."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                self._write()
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                await self._read()

    async def hear(self) -> None:
        """Take what comes next."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._read()

    async def until_closed(self) -> Closed:
        """Go on until the session is over, and close."""
        closed = await self.until(Closed)
        self.close()
        return closed

    def send(self, capability: str, message: int, payload: bytes) -> None:
        """Send one message."""
        self.session.send(capability, message, payload)
        self._write()

    async def ping(self) -> None:
        """Ask whether the other side is there, as after a long silence, and hear that it is."""
        self.keep(self.session.tick(now=self.session.deadline))
        self._write()
        while self.session.rtt_seconds is None:
            await self.hear()

    def leave(self, reason: DisconnectReason) -> None:
        """Say goodbye."""
        self.keep(self.session.disconnect(reason, "left"))
        self._write()

    def keep(self, events: list[Event]) -> None:
        """Gather what the session told. The peer's own verdict is yes, at once."""
        self.events += events
        if any(isinstance(event, Authenticated) for event in events):
            self.keep(self.session.admit(now=self.now))

    def close(self) -> None:
        """Close the socket."""
        self.writer.close()

    @property
    def now(self) -> float:
        """The loop's clock."""
        return asyncio.get_running_loop().time()

    async def _read(self) -> None:
        try:
            data = await self.reader.read(1 << 16)
        except ConnectionError:
            data = b""
        if data:
            self.keep(self.session.receive(data, now=self.now))
        else:
            self.keep(self.session.connection_lost("the other side closed"))

    def _write(self) -> None:
        data = self.session.outgoing()
        if data:
            self.writer.write(data)


class PlayedEngine:
    """The engine's ends of a worker's two sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handoffs, self.inherited = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reports: list[control.Report] = []
        self.peers: list[Peer] = []
        self._decoder = control.report_decoder()
        self._calls = 0
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        # Its result is the exit code.
        self.worker: asyncio.Task[object]

    async def begin(self, configure: Configure) -> None:
        """Start the worker; it is ready then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            socket.send_fds(self.handoffs, [control.encode_record(configure)], [theirs.fileno()])
        self.reader, self.writer = await asyncio.open_connection(sock=ours)
        self.worker = asyncio.get_running_loop().create_task(self._run())
        await self.until(control.Ready)

    async def _run(self) -> object:
        try:
            await process.run(self.inherited)
        except SystemExit as end:
            return end.code
        return 0

    # -- what the worker says -----------------------------------------------------------------------------------------------

    async def until(self, kind: type[R], session: int | None = None) -> R:
        """The first report of a kind, of one session if that is given; it is taken out of `reports`."""
        report: R = await self.until_that(
            lambda report: isinstance(report, kind) and session in (None, getattr(report, "session", None))
        )
        return report

    async def until_that(self, is_it: Callable[[control.Report], bool]) -> Any:
        """The first report that a test wants."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for report in self.reports:
                    if is_it(report):
                        self.reports.remove(report)
                        return report
                data = await self.reader.read(1 << 16)
                assert data, f"the worker has ended; it said {self.reports}"
                self.reports += self._decoder.feed(data)

    async def rest(self) -> list[control.Report]:
        """All that it says until it has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while data := await self.reader.read(1 << 16):
                self.reports += self._decoder.feed(data)
        rest, self.reports = self.reports, []
        return [report for report in rest if not isinstance(report, control.Pulse)]

    # -- what it is told ----------------------------------------------------------------------------------------------------

    def command(self, command: control.Command) -> None:
        """Tell it something."""
        self.writer.write(control.encode(command))

    def call(self) -> CallId:
        """A number for a command that is answered."""
        self._calls += 1
        return CallId(self._calls)

    def hand_over(self, handoff: Handoff, sock: socket.socket) -> None:
        """Pass an accepted socket, and close our copy."""
        self.hand_over_all([(handoff, sock)])

    def hand_over_all(self, accepted: list[tuple[Handoff, socket.socket]]) -> None:
        """Pass accepted sockets in one record, and close our copies."""
        record = control.encode_record(Handoffs(tuple(handoff for handoff, _ in accepted)))
        socket.send_fds(self.handoffs, [record], [sock.fileno() for _, sock in accepted])
        for _, sock in accepted:
            sock.close()

    async def accepted(
        self, session: SessionId, recipe: Recipe = DIALER, *, refusal: DisconnectReason | None = None
    ) -> Peer:
        """A peer that has connected, and was handed over."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            streams = await asyncio.open_connection(*server.getsockname())
            sock, _ = server.accept()
        self.hand_over(Handoff(session, refusal), sock)
        peer = Peer(Session(recipe.setup(LISTENER.key.id), now=asyncio.get_running_loop().time()), streams)
        self.peers.append(peer)
        return peer

    async def established(self, session: SessionId, recipe: Recipe = DIALER) -> Peer:
        """A peer whose session is active on both sides."""
        peer = await self.accepted(session, recipe)
        established = asyncio.ensure_future(peer.until(Established))
        await self.until(control.SessionAuthenticated, session)
        self.command(Judge(session))
        await self.until(control.SessionEstablished, session)
        await established
        return peer

    async def clear(self) -> None:
        """Leave nothing behind for other tests, whatever went wrong in this one."""
        self.writer.transport.abort()
        for peer in self.peers:
            peer.writer.transport.abort()
        # Without its engine it ends by itself.
        await asyncio.wait([self.worker], timeout=PATIENCE_SECONDS)
        # The transports close within the next turns.
        for _ in range(3):
            await asyncio.sleep(0)
        self.handoffs.close()
        self.inherited.close()

    async def asked(self, command: control.Command) -> control.Reply:
        """The reply to a command."""
        self.command(command)
        return await self.until(control.Reply)


@asynccontextmanager
async def hosted(folder: Path, **changes: float) -> AsyncIterator[PlayedEngine]:
    """A worker that is ready; at the end the engine goes, and so has the worker to."""
    engine = PlayedEngine(folder)
    await engine.begin(configuration(folder, msgspec.structs.replace(SESSIONS, **changes)))
    try:
        yield engine
        engine.writer.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await engine.worker == 0
    finally:
        await engine.clear()
