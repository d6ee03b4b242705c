"""Connections to the data endpoints of all workers, made as workers come and made again as they are replaced.

Each connection carries a program's feeds, its answers to peers and its calls at once. `WorkerLinks` compares what `status`
says with the connections that there are: at once if one has ended, and every second otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple, Protocol

import msgspec

from rlpx.engine.client.calls import Answer, Calls
from rlpx.engine.client.errors import own_error
from rlpx.engine.client.presence import EngineError, EngineForbiddenError, EngineUnavailableError
from rlpx.engine.client.wire import Wire
from rlpx.protocol.bus.results import StatusResult, WorkerStatus
from rlpx.protocol.errors import ErrorName

# How often workers are looked for: while all are there, which finds those that are added, and while one is missing.
LOOK_SECONDS: Final = 1.0
LOOK_SOON_SECONDS: Final = 0.05
# A worker takes 1,024 calls of a program at a time, and refuses more.
CALLS_AT_A_WORKER: Final = 512


class Routing(msgspec.Struct, frozen=True, gc=False):
    """The keys of a worker's message that tell whose it is. `error` without a feed concerns answers to peers."""

    feed: int | None = None
    token: int | None = None
    jsonrpc: str | None = None


_routing: Final = msgspec.json.Decoder(Routing)


class User(Protocol):
    """What uses the connections to workers: a feed, or the answers to peers."""

    def on_worker(self, link: WorkerLink) -> None:
        """A worker is there."""

    def on_worker_gone(self, link: WorkerLink, cause: EngineUnavailableError) -> None:
        """The connection to a worker has ended."""

    def on_failure(self, error: EngineUnavailableError | EngineError) -> None:
        """There is no engine, and was none for the time that it is waited for; or it refuses this program."""


class WorkerLink:
    """The connection to one worker process. `on_feed` gets the messages of the feed with its number."""

    def __init__(
        self, status: WorkerStatus, on_request: Callable[[WorkerLink, list[bytes]], None], call_seconds: float
    ) -> None:
        self.worker = status.worker
        self.pid = status.pid
        self.wire: Wire
        self.calls = Calls(call_seconds, CALLS_AT_A_WORKER)
        self.feeds: dict[int, Callable[[list[bytes]], None]] = {}
        self._on_request = on_request

    def on_message(self, frames: list[bytes]) -> None:
        """Give a message to what it concerns."""
        routing = _routing.decode(frames[0])
        if routing.feed is not None:
            on_feed = self.feeds.get(routing.feed)
            if on_feed is not None:  # otherwise it has been closed
                on_feed(frames)
        elif routing.jsonrpc is not None:
            self.calls.on_message(frames)
        else:
            self._on_request(self, frames)

    def send(self, head: Mapping[str, object], *payload: bytes) -> None:
        """Send a message. Raises `EngineUnavailableError` if the connection has ended."""
        self.wire.send([msgspec.json.encode(head), *payload])

    async def call(
        self, method: str, parameters: Mapping[str, object], payload: bytes | None, seconds: float | None = None
    ) -> Answer:
        """Carry out a command at the worker. Raises `WorkerLostError` if the worker ends meanwhile."""
        try:
            return await self.calls.call(self.wire, method, parameters, attachment=payload, timeout=seconds)
        except EngineUnavailableError as error:
            if isinstance(error, TimeoutError):
                raise
            raise own_error(ErrorName.WORKER_LOST, f"worker {self.worker}: {error}") from error


class Opener(Protocol):
    """Makes a wire to the data endpoint of a worker. Raises `NoDataEndpointError`."""

    def __call__(
        self,
        status: WorkerStatus,
        on_message: Callable[[list[bytes]], None],
        on_end: Callable[[EngineUnavailableError], None],
    ) -> Wire:
        """See the class."""


class NoDataEndpointError(EngineUnavailableError):
    """The engine serves its workers' data endpoints on its own machine only."""


class Times(NamedTuple):
    """How long an engine may be away before its users are told, and the time of a call that is given none."""

    patience_seconds: float
    call_seconds: float


class WorkerLinks:
    """See the module. It begins to look for workers when somebody uses them."""

    def __init__(
        self,
        ask_status: Callable[[], Awaitable[StatusResult]],
        open_wire: Opener,
        on_request: Callable[[WorkerLink, list[bytes]], None],
        times: Times,
    ) -> None:
        self._ask_status = ask_status
        self._open_wire = open_wire
        self._on_request = on_request
        self._times = times
        self._links: dict[int, WorkerLink] = {}
        self._users: list[User] = []
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        # Whether every worker of the last `status` is connected, and none was about to come; who waits for the first.
        self._is_complete = False
        self._is_settled = False
        self._waiting: list[asyncio.Future[None]] = []

    def add(self, user: User) -> None:
        """Tell a user of all workers, now and from now on."""
        if self._is_closed:
            user.on_failure(_closed())
            return
        self._start()
        self._users.append(user)
        for link in list(self._links.values()):
            user.on_worker(link)

    def remove(self, user: User) -> None:
        """Tell a user nothing more; a second time is harmless."""
        if user in self._users:
            self._users.remove(user)

    async def complete(self) -> list[WorkerLink]:
        """Wait until all workers of the engine are connected. Raises `EngineUnavailableError`, `EngineError`."""
        if self._is_closed:
            raise _closed()
        self._start()
        if not self._is_complete:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self._look.set()
            await future
        return list(self._links.values())

    async def find(self, worker: int) -> WorkerLink | None:
        """The connection to a worker; none if the engine has no such worker now."""
        await self.complete()
        return self._links.get(worker)

    async def close(self) -> None:
        """End all connections. Calls that are under way are cancelled."""
        self._is_closed = True
        links = list(self._links.values())
        for link in links:
            link.calls.cancel()
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            else:
                # Cancelled calls tell the worker in the next iteration of the loop.
                await asyncio.sleep(0)
        finally:
            self._links.clear()
            for link in links:
                link.wire.close()
            self._fail(_closed())

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._keep())
            self._task.add_done_callback(self._on_keeper_end)

    def _on_keeper_end(self, task: asyncio.Task[None]) -> None:
        """Nobody waits for ever if looking for workers has failed, such as by a key file that cannot be read any more."""
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._is_complete = self._is_settled = False
                self._fail(EngineUnavailableError(str(error)))

    async def _keep(self) -> None:
        """Look for workers, as long as there is a program."""
        missing_since: float | None = None
        seconds = LOOK_SOON_SECONDS
        while True:
            self._look.clear()
            try:
                await self._connect_all(await self._ask_status())
                missing_since = None
            except (EngineForbiddenError, NoDataEndpointError, EngineError) as error:
                self._fail(error)
            except EngineUnavailableError as error:
                missing_since = missing_since or monotonic()
                self._is_complete = self._is_settled = False
                if monotonic() - missing_since >= self._times.patience_seconds:
                    self._fail(EngineUnavailableError(f"{error} for {self._times.patience_seconds:g} s"))
            seconds = LOOK_SECONDS if self._is_settled else min(2 * seconds, LOOK_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._look.wait()
                    seconds = LOOK_SOON_SECONDS

    async def _connect_all(self, status: StatusResult) -> None:
        # A worker that is not ready has no sessions. One that is leaving has some, and will have no new ones.
        present = [worker for worker in status.workers if worker.ready or worker.leaving]
        missing = [worker for worker in present if not self._has(worker)]
        connected = await asyncio.gather(*map(self._connect, missing))
        self._is_complete = all(connected)
        self._is_settled = self._is_complete and len(present) == len(status.workers)
        if self._is_complete:
            self._answer(None)

    def _has(self, status: WorkerStatus) -> bool:
        link = self._links.get(status.worker)
        return link is not None and link.pid == status.pid

    async def _connect(self, status: WorkerStatus) -> bool:
        """Connect to a worker; returns whether it was there. Raises `EngineForbiddenError`."""
        before = self._links.get(status.worker)
        if before is not None:
            before.wire.close()
            self._on_end(before, EngineUnavailableError(f"worker {status.worker} was replaced"))
        link = WorkerLink(status, self._on_request, self._times.call_seconds)
        wire = self._open_wire(status, link.on_message, lambda cause: self._on_end(link, cause))
        link.wire = wire
        try:
            await wire.open()
        except EngineForbiddenError:
            raise
        except EngineUnavailableError:
            return False
        self._links[link.worker] = link
        for user in list(self._users):
            user.on_worker(link)
        return True

    def _on_end(self, link: WorkerLink, cause: EngineUnavailableError) -> None:
        if self._links.get(link.worker) is link:
            del self._links[link.worker]
        self._is_complete = False
        link.calls.fail(cause)
        for user in list(self._users):
            user.on_worker_gone(link, cause)
        self._look.set()

    def _fail(self, error: EngineUnavailableError | EngineError) -> None:
        users, self._users = self._users, []
        for user in users:
            user.on_failure(error)
        self._answer(error)

    def _answer(self, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


def _closed() -> EngineUnavailableError:
    return EngineUnavailableError("the connection to the engine was closed")
