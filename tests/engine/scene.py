"""A running engine between played workers, peers that connect to it, and a subscriber: what tests of it share."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import pytest

from engine.client import Event, Gap, Subscriber
from engine.commands import DialParameters, NoParameters, SendParameters
from engine.config import RunDir, load_chain
from engine.engine import Engine, listen
from engine.identity import Identity
from engine.rpc import CommandError
from engine.settings import Settings
from protocol import control
from protocol.control import (
    AskSessions,
    Dial,
    Figures,
    Handoff,
    Judge,
    RemoteChain,
    SessionAuthenticated,
    SessionClosed,
    SessionEstablished,
    SessionId,
    Traffic,
)
from protocol.crypto import PrivateKey
from protocol.errors import DisconnectReason
from protocol.events import EndedBy, Stage
from tests.engine.played import PlayedWorker, until

KEY = PrivateKey(b"\x11" * 32)
PEER, OTHER = PrivateKey(b"\x22" * 32).id, PrivateKey(b"\x33" * 32).id
ENODE = f"enode://{PEER.hex()}@127.0.0.1:30303"
CHAIN = RemoteChain(1, "0xaa", "0xbb", 0, "0xcc", earliest=0, latest=9)
HASH = "0x" + "ab" * 32
NOTHING = NoParameters()
C = TypeVar("C")
SETTINGS = Settings(workers=1, listen="127.0.0.1:0", chain="dev")


class Worker(PlayedWorker):
    """A played worker that is ready by itself, and of which a test asks what it was told."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.handoffs.setblocking(False)
        self.heard: list[control.Command] = []
        self.adopted: list[tuple[Handoff, socket.socket]] = []

    def has_begun(self) -> bool:
        """Whether it has its configuration; if so, it is ready."""
        if self.stream is None:
            with suppress(BlockingIOError):
                self.begin()
                self.its_stream.setblocking(False)
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
        return taken[0][0]

    def listens(self) -> None:
        """Take the commands that have come. Figures are given at once: there are none."""
        with suppress(BlockingIOError):
            for command in self.decoder.feed(self.its_stream.recv(1 << 16)):
                if isinstance(command, AskSessions):
                    self.report(Figures(command.call, {}))
                else:
                    self.heard.append(command)

    async def is_told(self, kind: type[C]) -> C:
        """The next command, which has to be of this kind."""
        await until(lambda: self.heard)
        command = self.heard.pop(0)
        assert isinstance(command, kind)
        return command

    def close(self) -> None:
        """Close all its sockets."""
        super().close()
        for _, sock in self.adopted:
            sock.close()


class Scene:
    """A running engine, its played workers, the peers that connect to it, and all events since the beginning."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.run_dir = RunDir(folder)
        self.engine = Engine(settings, Identity(KEY, load_chain("dev"), "9.9"), self.run_dir)
        self.workers: list[Worker] = []
        self.peers: list[socket.socket] = []
        self.subscriber: Subscriber
        self.events: list[Event] = []
        self.address = ("", 0)
        self._tending: asyncio.Task[None] | None = None

    async def begin(self, settings: Settings) -> None:
        """Start it with workers that are ready, and hear its events from the first one."""
        listening = listen(settings.listen)
        if listening is not None:
            self.address = listening.getsockname()
        self._tending = asyncio.get_running_loop().create_task(self._tend())
        await self.engine.start(listening)
        self.subscriber = Subscriber.of(self.run_dir.path, [""])
        await until(lambda: self.engine._hub.wants("session.opened"))  # noqa: SLF001 - nothing is published before

    def start_process(self, descriptor: int) -> subprocess.Popen[bytes]:
        """In place of the real one."""
        self.workers.append(Worker(descriptor))
        return cast("subprocess.Popen[bytes]", self.workers[-1])

    async def end(self) -> None:
        """End everything."""
        # A worker ends at its drain; these have nothing to say goodbye to.
        closing = asyncio.ensure_future(self.engine.close())
        await asyncio.sleep(0)
        for worker in self.workers:
            worker.die()
        async with asyncio.timeout(10):
            await closing
        if self._tending is not None:
            self._tending.cancel()

    def clear(self) -> None:
        """Let go of what is the test's own."""
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
    def worker(self) -> Worker:
        """The worker, or the one that replaced it."""
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

    async def active(self, peer: bytes = PEER) -> SessionId:
        """A peer connects, and its session becomes active."""
        session = await self.accepted()
        self.worker.report(SessionAuthenticated(session, peer))
        judge = await self.worker.is_told(Judge)
        assert judge == Judge(session)
        self.worker.report(established(session))
        await self.event("session.established")
        return session

    # -- what it says -------------------------------------------------------------------------------------------------------

    async def event(self, topic: str) -> dict[str, Any]:
        """The next event of a topic; those of others before it are left where they are."""
        found: list[Event] = []

        def try_it() -> bool:
            for item in self.subscriber.poll(0):
                assert not isinstance(item, Gap)
                self.events.append(item)
            found.extend([item for item in self.events if item.topic == topic][:1])
            return bool(found)

        await until(try_it)
        self.events.remove(found[0])
        return found[0].fields

    async def counted(self) -> dict[str, Any]:
        """Pending and active by direction, in one line."""
        counts = await self.engine.operations.counts(NOTHING)
        return {
            f"{phase} {way}": counts[phase][way]
            for phase in ("pending", "active")
            for way in ("inbound", "outbound")
            if counts[phase][way]
        }


@asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> AsyncIterator[Scene]:
    """An engine with these settings."""
    settings = msgspec.structs.replace(SETTINGS, **changes)
    scene = Scene(folder, settings)
    monkeypatch.setattr("engine.fleet._start_process", scene.start_process)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    await scene.begin(settings)
    try:
        yield scene
        await scene.end()
        await asyncio.sleep(0)
    finally:
        scene.clear()
    assert faults == []


Play = Callable[..., None]
Scenario = Callable[[Scene], Coroutine[Any, Any, None]]


def established(session: SessionId) -> SessionEstablished:
    """The report of a session that is active."""
    return SessionEstablished(session, "geth/1", ("eth/69",), ("eth/69",), 30303, "127.0.0.1:30303", CHAIN, Traffic())


def closed(session: SessionId, stage: Stage = Stage.ACTIVE) -> SessionClosed:
    """The report of a session that the peer ended."""
    return SessionClosed(
        session, EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS, "the peer said goodbye", stage, Traffic(1, 2)
    )


async def refusal(asked: Awaitable[object]) -> tuple[str, str]:
    """Name and words of a command that is refused."""
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


async def dialled(scene: Scene, enode: str = ENODE) -> SessionId:
    """A dial that the worker has been told of."""
    result = await scene.engine.operations.dial(DialParameters(enode=enode))
    dial = await scene.worker.is_told(Dial)
    assert dial.session == result.session
    return SessionId(result.session)


def sent(session: int, payload: str = "0xc0") -> SendParameters:
    """A message for a session."""
    return SendParameters(session=session, capability="eth", message="Transactions", payload=payload)
