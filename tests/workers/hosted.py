"""A worker inside the test's own loop: the engine's ends of its sockets, and peers on loopback connections.

async with hosted(folder) as engine:
    peer = await engine.accepted(SessionId(1))
    ...
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import orjson

from rlpx.protocol.bus import control, zmtp
from rlpx.protocol.bus.control import CallId, SessionId, Verdict, WorkerId
from rlpx.protocol.bus.metrics import WorkerCounters
from rlpx.protocol.bus.records import Configure, Handoff, Handoffs, NodeConfig, encode_record
from rlpx.protocol.bus.reports import Published, ReportReader
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.session.events import Authenticated, Closed, Established, Event
from rlpx.protocol.session.session import Session
from rlpx.protocol.settings import EventSettings, TimeoutSettings, WorkerSettings
from rlpx.workers import __main__ as process
from tests.pair import DEV, DIALER, HEAD, LISTENER, PROTOCOLS, SessionSpec

ONE, TWO = SessionId(1), SessionId(2)
QUITTING = DisconnectReason.CLIENT_QUITTING
DRAIN = control.Drain(QUITTING, "the engine is shutting down")
TRANSACTIONS, GET_BLOCK_HEADERS, BLOCK_HEADERS, GET_BLOCK_BODIES = 2, 3, 4, 5

PATIENCE_SECONDS = 60.0
# Long enough that no goodbye times out while a test looks at it, short enough to wait for.
GOODBYE_SECONDS = 0.3

R = TypeVar("R")
E = TypeVar("E")


def configuration(folder: Path, settings: WorkerSettings | None = None) -> Configure:
    """The worker's configuration; its node key is the listener's of `tests.pair`."""
    return Configure(
        worker=WorkerId(3),
        run="run",
        node=NodeConfig(
            key=LISTENER.key.secret,
            client="tests/worker",
            listen_port=30303,
        ),
        protocols=PROTOCOLS,
        required=(),
        chain=DEV,
        head=HEAD,
        is_head_known=True,
        settings=settings or SETTINGS,
        data_path=f"{folder}/worker-0.ipc",
    )


# A worker's batches leave soon, so that no test waits for them.
SETTINGS = WorkerSettings(
    timeouts=TimeoutSettings(auth_s=5, goodbye_s=GOODBYE_SECONDS), events=EventSettings(lifecycle_batch_ms=2)
)


def changed(**changes: float) -> WorkerSettings:
    """`SETTINGS` with other values, each by the name of its setting, or as `SECTION__NAME` if two have that name."""
    sections = {name: getattr(SETTINGS, name) for name in SETTINGS.__struct_fields__}
    for key, value in changes.items():
        name, _, setting = key.rpartition("__")
        if not name:
            (name,) = (name for name, section in sections.items() if setting in section.__struct_fields__)
        sections[name] = msgspec.structs.replace(sections[name], **{setting: value})
    return WorkerSettings(**sections)


class Peer:
    """A peer on a socket: a session of our own, driven by the test that waits for one of its events."""

    def __init__(self, session: Session, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.session = session
        self.events: list[Event] = []
        self.reader, self.writer = streams

    async def until(self, kind: type[E]) -> E:
        """Exchange bytes until the session gives an event of this kind."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                self._write()
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                await self._read()

    async def hear(self) -> None:
        """Take the next bytes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._read()

    async def until_closed(self) -> Closed:
        """Exchange bytes until the session is over, and close."""
        closed = await self.until(Closed)
        self.close()
        return closed

    def send(self, capability: str, message: int, payload: bytes) -> None:
        """Send one message."""
        self.session.send(capability, message, payload)
        self._write()

    async def ping(self) -> None:
        """Send a ping, as after a long silence, and wait for the pong."""
        self.keep(self.session.tick(now=self.session.deadline))
        self._write()
        while self.session.rtt_seconds is None:
            await self.hear()

    def leave(self, reason: DisconnectReason) -> None:
        """Say goodbye."""
        self.keep(self.session.disconnect(reason, "left"))
        self._write()

    def keep(self, events: list[Event]) -> None:
        """Keep the session's events. The peer approves the other side at once."""
        self.events += events
        if any(isinstance(event, Authenticated) for event in events):
            self.keep(self.session.approve(now=self.now))

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
        data = self.session.data_to_send()
        if data:
            self.writer.write(data)


class FakeEngine:
    """The engine's ends of a worker's two sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handoffs, self.inherited = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reports: list[control.Report] = []
        self.published: list[Published] = []
        self.peers: list[Peer] = []
        self._decoder = ReportReader()
        self._calls = 0
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        # Its result is the exit code.
        self.worker: asyncio.Task[object]

    async def begin(self, configure: Configure) -> None:
        """Start the worker, and wait until it is ready."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            socket.send_fds(self.handoffs, [encode_record(configure)], [theirs.fileno()])
        self.reader, self.writer = await asyncio.open_connection(sock=ours)
        self.worker = asyncio.get_running_loop().create_task(self._run())
        self.command(control.Begin(0, (), {}))
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

    async def until_that(self, is_wanted: Callable[[control.Report], bool]) -> Any:
        """The first report for which the condition holds; it is taken out of `reports`."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for report in self.reports:
                    if is_wanted(report):
                        self.reports.remove(report)
                        return report
                data = await self.reader.read(1 << 16)
                assert data, f"the worker has ended; its reports: {self.reports}"
                self._keep(data)

    async def rest(self) -> list[control.Report]:
        """All reports until the worker has ended, except for pulses."""
        return [report for report in await self.all_rest() if not isinstance(report, control.Pulse)]

    async def all_rest(self) -> list[control.Report]:
        """All reports until the worker has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while data := await self.reader.read(1 << 16):
                self._keep(data)
        rest, self.reports = self.reports, []
        return rest

    def _keep(self, data: bytes) -> None:
        for said in self._decoder.feed(data):
            if isinstance(said, Published):
                self.published.append(said)
            else:
                self.reports.append(said)

    async def subscribe(self, *prefixes: bytes) -> None:
        """Subscribe to these prefixes, and wait until that holds."""
        self.command(control.SetInterest(1, prefixes, ()))
        await self.until(control.InterestSet)

    async def batch(self, topic: str) -> tuple[dict[str, Any], bytes]:
        """The next batch of a topic: head and body."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for published in self.published:
                    if published.topic == topic and published.wire:
                        self.published.remove(published)
                        _, head, body = zmtp.decode(published.wire)
                        return orjson.loads(head), body
                data = await self.reader.read(1 << 16)
                assert data, "the worker has ended"
                self._keep(data)

    # -- what it is told ----------------------------------------------------------------------------------------------------

    def command(self, command: control.Command) -> None:
        """Send a command."""
        self.writer.write(control.encode(command))

    def call(self) -> CallId:
        """A new number for a command that is answered."""
        self._calls += 1
        return CallId(self._calls)

    def hand_over(self, handoff: Handoff, sock: socket.socket) -> None:
        """Pass an accepted socket, and close our copy."""
        self.hand_over_all([(handoff, sock)])

    def hand_over_all(self, accepted: list[tuple[Handoff, socket.socket]]) -> None:
        """Pass accepted sockets in one record, and close our copies."""
        record = encode_record(Handoffs(tuple(handoff for handoff, _ in accepted)))
        socket.send_fds(self.handoffs, [record], [sock.fileno() for _, sock in accepted])
        for _, sock in accepted:
            sock.close()

    async def accepted(
        self, session: SessionId, recipe: SessionSpec = DIALER, *, refusal: DisconnectReason | None = None
    ) -> Peer:
        """A peer that has connected, and whose socket was handed over."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            streams = await asyncio.open_connection(*server.getsockname())
            sock, _ = server.accept()
        self.hand_over(Handoff(session, refusal), sock)
        setup = recipe.setup(LISTENER.key.id)
        # Only the key of the peer may repeat: an auth that is sent again is refused.
        setup = msgspec.structs.replace(setup, node=msgspec.structs.replace(setup.node, entropy=os.urandom))
        peer = Peer(Session(setup, now=asyncio.get_running_loop().time()), streams)
        self.peers.append(peer)
        return peer

    async def established(self, session: SessionId, recipe: SessionSpec = DIALER) -> Peer:
        """A peer whose session is active on both sides."""
        peer = await self.accepted(session, recipe)
        established = asyncio.ensure_future(peer.until(Established))
        await self.until(control.SessionAuthenticated, session)
        self.command(Verdict(session))
        await self.until(control.SessionEstablished, session)
        await established
        return peer

    async def clear(self) -> None:
        """Close everything, whatever went wrong in the test."""
        self.writer.transport.abort()
        for peer in self.peers:
            peer.writer.transport.abort()
        # Without its engine the worker ends by itself.
        await asyncio.wait([self.worker], timeout=PATIENCE_SECONDS)
        # The transports close within the next loop iterations.
        for _ in range(3):
            await asyncio.sleep(0)
        self.handoffs.close()
        self.inherited.close()

    async def counters(self) -> WorkerCounters:
        """All that the worker has counted until now."""
        call = self.call()
        self.command(control.SendPulse(call))
        await self.until_that(lambda report: report == control.Reply(call))
        return [report for report in self.reports if isinstance(report, control.Pulse)][-1].counters

    async def asked(self, command: control.Command) -> control.Reply:
        """The reply to a command."""
        self.command(command)
        return await self.until(control.Reply)


@asynccontextmanager
async def hosted(folder: Path, **changes: float) -> AsyncIterator[FakeEngine]:
    """A worker that is ready. At the end the engine closes its sockets, and the worker must end."""
    engine = FakeEngine(folder)
    await engine.begin(configuration(folder, changed(**changes)))
    try:
        yield engine
        engine.writer.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await engine.worker == 0
    finally:
        await engine.clear()


def closed_once(reports: list[control.Report], session: int) -> control.SessionClosed:
    """The one end of a session."""
    [report] = [item for item in reports if isinstance(item, control.SessionClosed) and item.session == session]
    return report


@contextmanager
def listening(backlog: int = 5) -> Iterator[socket.socket]:
    """A listening socket on a port of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        server.setblocking(False)
        yield server


@contextmanager
def full_port() -> Iterator[tuple[str, int]]:
    """A port whose backlog is full: a connect to it gets no answer."""
    with listening(backlog=0) as server:
        waiting = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
            waiting.append(sock)
        try:
            yield server.getsockname()
        finally:
            for sock in waiting:
                sock.close()
