"""The parts that tests of a running engine share: fake workers, peers that connect to it, and a subscriber."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

import msgspec
import pytest

from rlpx.engine.client.batch_reader import Event
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.engine import Engine, listen
from rlpx.engine.operations.handlers import Handlers
from rlpx.engine.settings.chain import load_chain
from rlpx.engine.settings.identity import Identity
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus import control, events
from rlpx.protocol.bus.batches import Batches, Publisher
from rlpx.protocol.bus.commands import DialParameters, NoParameters, SendParameters
from rlpx.protocol.bus.control import (
    Dial,
    GetStats,
    HandoffLost,
    SessionAuthenticated,
    SessionClosed,
    SessionConnected,
    SessionEstablished,
    SessionId,
    SessionKeyed,
    SessionStats,
    Stats,
    Verdict,
    WorkerId,
)
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.events import AUTHENTICATED, CLOSED, ESTABLISHED, OPENED
from rlpx.protocol.bus.records import Handoff
from rlpx.protocol.bus.reports import Published, encode_published
from rlpx.protocol.bus.results import RemoteChain
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.engine.fake_worker import FakeWorker, until

KEY = PrivateKey(b"\x11" * 32)
PEER, OTHER = PrivateKey(b"\x22" * 32).id, PrivateKey(b"\x33" * 32).id
ENODE = f"enode://{PEER.hex()}@127.0.0.1:30303"
CHAIN = RemoteChain(1, "0xaa", "0xbb", 0, "0xcc", earliest=0, latest=9)
HASH = "0x" + "ab" * 32
NOTHING = NoParameters()
C = TypeVar("C")
SETTINGS = Settings(workers=1, listen="127.0.0.1:0", chain="dev")


class Worker(FakeWorker):
    """A fake worker that becomes ready by itself. Tests ask it which commands it got."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.handoffs.setblocking(False)
        self.heard: list[control.Command] = []
        # It publishes the lives of its sessions when it reports them, as a worker does.
        self.views: dict[SessionId, SessionView] = {}
        self.publishes_lives = True
        self.batches = Batches(Publisher("", 0))
        self.adopted: list[tuple[Handoff, socket.socket]] = []
        self.begun: control.Begin | None = None
        # Whether it ends before it is ready.
        self.is_stillborn = False

    def has_begun(self) -> bool:
        """Whether the worker has its configuration; if so, it reports that it is ready."""
        if self.stream is None:
            with suppress(BlockingIOError):
                self.begin()
                self.its_stream.setblocking(False)
                assert self.configure is not None
                if self.is_stillborn:
                    # Not at once: no process ends before its socket is attached.
                    asyncio.get_running_loop().call_later(0.05, self.die, 70)
                    return False
                self.batches = Batches(Publisher(self.configure.run, self.configure.worker))
                self.report(control.Ready(self.pid))
        return self.stream is not None

    async def takes(self) -> Handoff:
        """The next handoff."""
        taken: list[tuple[Handoff, socket.socket]] = []

        def try_it() -> bool:
            with suppress(BlockingIOError):
                taken.append(self.taken())
            return bool(taken)

        await until(try_it)
        self.adopted += taken
        handoff = taken[0][0]
        if handoff.refusal is None:
            view = SessionView(
                handoff.session, self.index, Direction.INBOUND, handoff.remote, handoff.opened_us, monotonic()
            )
            self.views[handoff.session] = view
            self.tell(OPENED, view.session, view.opened(1))
        return handoff

    @property
    def index(self) -> WorkerId:
        """Which worker it is."""
        assert self.configure is not None
        return self.configure.worker

    def report(self, *reports: control.Report) -> None:
        """Report something, and publish the events of sessions' lives that follow from it."""
        super().report(*reports)
        for report in reports:
            view = self.views.get(getattr(report, "session", SessionId(0)))
            if view is None:
                continue
            if isinstance(report, SessionConnected):
                view.local, view.remote = report.local, report.remote
                self.tell(OPENED, view.session, view.opened(2))
            elif isinstance(report, SessionAuthenticated):
                view.peer = report.peer
                self.tell(AUTHENTICATED, None, events.SessionAuthenticated(3, view.session, view.peer.hex()))
            elif isinstance(report, SessionEstablished):
                view.establish(report)
                self.tell(ESTABLISHED, None, events.established(4, view.shown(report.stats)))
            elif isinstance(report, SessionClosed):
                del self.views[view.session]
                if report.stage is not Stage.CONNECT:
                    self.tell(CLOSED, view.session, view.closed(report, 5))
            elif isinstance(report, HandoffLost):
                del self.views[view.session]

    def tell(self, topic: str, session: SessionId | None, event: events.Event) -> None:
        """Publish an event of a session's life; give `session` if it is an opening or an end."""
        if not self.publishes_lives:
            return
        if session is not None:
            self.batches.mark(topic, session)
        self.batches.add(topic, event)
        for batch in self.batches.take():
            first, wire, sessions = batch.numbers.next, batch.wire(), tuple(map(SessionId, batch.sessions))
            batch.sent()
            published = Published(batch.topic, first, batch.numbers, sessions, wire)
            self.its_stream.sendall(b"".join(encode_published(published)))

    def listens(self) -> None:
        """Take the commands that have arrived. Requests for statistics are answered at once, with none."""
        with suppress(BlockingIOError):
            for command in self.decoder.feed(self.its_stream.recv(1 << 16)):
                if isinstance(command, GetStats):
                    self.report(Stats(command.call, {}))
                elif isinstance(command, control.SetInterest):
                    self.report(control.InterestSet(command.number))
                elif isinstance(command, control.Begin):
                    self.begun = command
                else:
                    self.heard.append(command)
                if isinstance(command, Dial):
                    view = SessionView(command.session, self.index, Direction.OUTBOUND, "", 1, monotonic(), command.peer)
                    self.views[command.session] = view

    async def is_told(self, kind: type[C]) -> C:
        """The next command, which must be of this kind."""
        await until(lambda: self.heard)
        command = self.heard.pop(0)
        assert isinstance(command, kind)
        return command

    def close(self) -> None:
        """Close all its sockets."""
        super().close()
        for _, sock in self.adopted:
            sock.close()


class EngineHarness:
    """A running engine, its fake workers, the peers that connect to it, and all events since its start."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.run_dir = RunDir(folder)
        self.engine = Engine(settings, Identity(KEY, load_chain("dev"), "9.9"), self.run_dir, self.start_process)
        self.workers: list[Worker] = []
        self.peers: list[socket.socket] = []
        self.subscriber: Subscriber
        self.events: list[Event] = []
        self.address = ("", 0)
        self._tending: asyncio.Task[None] | None = None
        # Whether the next worker ends before it is ready.
        self.next_is_stillborn = False
        # Whether the test has closed the engine itself.
        self.has_ended = False

    async def begin(self, settings: Settings) -> None:
        """Start it with workers that are ready, and read its events from the first one."""
        listening = listen(settings.listen)
        if listening is not None:
            self.address = listening.getsockname()
        self._tending = asyncio.get_running_loop().create_task(self._tend())
        await self.engine.start(listening)
        self.subscriber = Subscriber.of(self.run_dir.path, [""])
        # In a thread, because the loop must go on meanwhile.
        await asyncio.to_thread(self.subscriber.confirm, 10.0)

    def start_process(self, descriptor: int) -> subprocess.Popen[bytes]:
        """Start a fake worker in place of a process."""
        self.workers.append(Worker(descriptor))
        self.workers[-1].is_stillborn, self.next_is_stillborn = self.next_is_stillborn, False
        return cast("subprocess.Popen[bytes]", self.workers[-1])

    async def end(self) -> None:
        """End everything."""
        if not self.has_ended:
            # A worker ends after its drain; these have no goodbyes to say.
            closing = asyncio.ensure_future(self.engine.close())
            await asyncio.sleep(0)
            for worker in self.workers:
                worker.die()
            async with asyncio.timeout(60):
                await closing
        if self._tending is not None:
            self._tending.cancel()

    def clear(self) -> None:
        """Close what belongs to the test."""
        for peer in self.peers:
            peer.close()
        for worker in self.workers:
            worker.close()
        self.subscriber.close()

    async def _tend(self) -> None:
        while True:
            for worker in self.workers:
                with suppress(OSError):
                    if worker.has_begun():
                        worker.listens()
            await asyncio.sleep(0.001)

    @property
    def commands(self) -> Handlers:
        """The commands that users can call, without the sockets."""
        return self.engine.handlers

    @property
    def worker(self) -> Worker:
        """The worker, or its replacement."""
        return self.workers[-1]

    # -- peers --------------------------------------------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        """A peer connects."""
        sock = socket.create_connection(self.address)
        sock.setblocking(False)
        self.peers.append(sock)
        return sock

    async def accepted(self) -> SessionId:
        """A peer connects and is handed to the worker."""
        self.connect()
        handoff = await self.worker.takes()
        assert handoff.refusal is None
        return handoff.session

    async def pending(self) -> SessionId:
        """A peer connects, and sends its auth."""
        session = await self.accepted()
        self.worker.report(SessionKeyed(session))
        return session

    async def active(self, peer: bytes = PEER) -> SessionId:
        """A peer connects, and its session becomes active."""
        session = await self.accepted()
        self.worker.report(SessionKeyed(session), SessionAuthenticated(session, peer))
        verdict = await self.worker.is_told(Verdict)
        assert verdict == Verdict(session)
        self.worker.report(established(session))
        await self.event("session.established")
        return session

    # -- what it says -------------------------------------------------------------------------------------------------------

    async def event(self, topic: str) -> dict[str, Any]:
        """The next event of a topic; earlier events of other topics stay in the queue."""
        found: list[Event] = []

        def try_it() -> bool:
            for item in self.subscriber.poll(0):
                assert isinstance(item, Event)
                self.events.append(item)
            found.extend([item for item in self.events if item.topic == topic][:1])
            return bool(found)

        await until(try_it)
        self.events.remove(found[0])
        return found[0].fields

    async def counted(self) -> dict[str, Any]:
        """The counts in one line: accepts before their auth, pending and active sessions by direction."""
        counts = msgspec.to_builtins(await self.commands.running.counts(NOTHING))
        return {
            f"{phase} {way}": number
            for phase in ("unauthenticated", "pending", "active")
            for way, number in counts[phase].items()
            if number
        }


@asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[EngineHarness]:
    """An engine with these settings."""
    settings = msgspec.structs.replace(SETTINGS, **changes)
    harness = EngineHarness(folder, settings)
    await harness.begin(settings)
    try:
        yield harness
        await harness.end()
        await asyncio.sleep(0)
    finally:
        harness.clear()


MakeEngine = Callable[..., AbstractAsyncContextManager[EngineHarness]]


def established(session: SessionId) -> SessionEstablished:
    """The report of a session that is active."""
    return SessionEstablished(session, "geth/1", ("eth/69",), ("eth/69",), 30303, "127.0.0.1:30303", CHAIN, SessionStats())


def closed(session: SessionId, stage: Stage = Stage.ACTIVE) -> SessionClosed:
    """The report of a session that the peer ended."""
    return SessionClosed(
        session, EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS, "the peer said goodbye", stage, SessionStats(1, 2)
    )


async def refusal(asked: Awaitable[object]) -> tuple[str, str]:
    """The name and the text of a refused command's error."""
    with pytest.raises(CommandError) as caught:
        await asked
    return caught.value.name, str(caught.value)


def is_closed(sock: socket.socket) -> bool:
    """Whether the other side has closed a connection."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def dialled(harness: EngineHarness, enode: str = ENODE) -> SessionId:
    """A dial that the worker has been asked for."""
    result = await harness.commands.sessions.dial(DialParameters(enode=enode))
    dial = await harness.worker.is_told(Dial)
    assert dial.session == result.session
    return SessionId(result.session)


def sent(session: int, payload: bytes = b"\xc0") -> tuple[SendParameters, bytes]:
    """A message for a session, and its payload."""
    return SendParameters(session=session, capability="eth", message="Transactions", payload="0x"), payload
