"""`BlockingEngine`: the names of `Engine` for programs that wait for each call. Its loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar, Unpack

from rlpx.engine.client.calls import CALL_TIMEOUT_SECONDS, within
from rlpx.engine.client.commands import BlockingCommands
from rlpx.engine.client.connection import Engine
from rlpx.engine.client.feed import Feed, FeedClosedError
from rlpx.engine.client.feed_items import FeedItem
from rlpx.engine.client.feed_options import FeedOptions, opening_of
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.responding import Handler, Request, Responder, Response, requests_of
from rlpx.protocol.bus.results import BroadcastResult

if TYPE_CHECKING:
    from rlpx.engine.client.blocking_peer import BlockingPeer
    from rlpx.engine.client.fleet_responding import FleetResponder
    from rlpx.engine.client.forms import Sendable
    from rlpx.engine.client.typed_requests import Peer

T = TypeVar("T")
Item = TypeVar("Item")


class LoopThread:
    """A loop in a thread. `wait` may be called from any other thread, by many at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # What is given to the loop is given before it is told to end.
        self._lock = threading.Lock()
        self._is_closed = False
        # A fork of this process has no such thread.
        self._process = os.getpid()
        # A program that ends without closing is not kept alive.
        self._thread = threading.Thread(target=self._loop.run_forever, name="rlpx.engine.client", daemon=True)
        self._thread.start()
        self._handlers: list[HandlerThreads] = []

    def respond(
        self,
        handler: Callable[[Request], Response],
        at_a_time: int,
        begin: Callable[[Handler], Responder | FleetResponder],
    ) -> BlockingResponder:
        """Begin to respond in the loop, with a handler that runs in threads of its own, and wait until that is known."""
        threads = HandlerThreads(at_a_time)

        async def threaded(request: Request) -> Response:
            return await threads.run(handler, request)

        async def made() -> Responder | FleetResponder:
            responder = begin(threaded)
            await responder.registered()
            return responder

        responder = BlockingResponder(self.wait(made()), self.wait, threads)
        self._handlers.append(threads)
        return responder

    def wait(self, called: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop until it is done. An interrupt (Ctrl-C) cancels it.

        Raises `EngineUnavailableError` if the loop was closed, or is meanwhile, and in a fork of this process.
        """
        future = self._begin(called)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise EngineUnavailableError("the connection to the engine was closed") from None
        finally:
            future.cancel()

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run this coroutine, cancel what still runs, and end the thread; a second time and in a fork do nothing."""
        try:
            future = self._begin(last, is_last=True)
        except EngineUnavailableError:
            return
        try:
            future.result()
        finally:
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        for threads in self._handlers:
            threads.close()

    def _begin(self, called: Coroutine[Any, Any, T], *, is_last: bool = False) -> concurrent.futures.Future[T]:
        if self._process != os.getpid():
            called.close()
            raise EngineUnavailableError("this process was forked after it had connected: connect again in it")
        with self._lock:
            if self._is_closed:
                called.close()
                raise EngineUnavailableError("the connection to the engine was closed")
            self._is_closed = is_last
            return asyncio.run_coroutine_threadsafe(called, self._loop)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()


class HandlerThreads:
    """Runs handlers in up to `most` threads, which do not keep a program that ends alive as those of an executor do."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def run(self, handler: Callable[[Request], Response], request: Request) -> Response:
        """What a handler returns or raises."""
        future: concurrent.futures.Future[Response] = concurrent.futures.Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(handler(request))
            except Exception as error:  # noqa: BLE001 - whatever a program raises
                future.set_exception(error)
            except BaseException as error:  # noqa: BLE001 - it would end the loop's thread, where all calls wait
                future.set_exception(RuntimeError(f"the handler ended with {error!r}"))

        self._calls.put(call)
        if not self._idle.acquire(blocking=False) and self._count < self._most:
            self._count += 1
            name = f"rlpx.engine.client responder {self._count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the threads; a handler that runs goes on to its end."""
        for _ in range(self._most):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            self._idle.release()


class Wait(Protocol):
    """Waits until a call is done."""

    def __call__(self, called: Coroutine[Any, Any, T]) -> T:
        """See the class."""


class AsyncItems(Protocol[Item]):
    """A feed on asyncio, of one engine or of a fleet."""

    @property
    def received(self) -> int:
        """The events that were read."""

    @property
    def missed(self) -> int:
        """The events that are missing."""

    async def read(self) -> list[Item]:
        """The next items."""

    async def __aenter__(self) -> object:
        """Open it."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""


class BlockingItems(Iterator[Item]):
    """What both kinds of feeds have in common. `with` waits until it is open everywhere, and ends the feed at the end."""

    def __init__(self, feed: AsyncItems[Item], wait: Wait) -> None:
        self._feed = feed
        self._wait = wait
        self._items: deque[Item] = deque()

    @property
    def received(self) -> int:
        """The number of events that were read."""
        return self._feed.received

    @property
    def missed(self) -> int:
        """The number of events that are known to be missing, the sum of all gaps read so far."""
        return self._feed.missed

    def read(self, timeout: float | None = None) -> list[Item]:
        """The items of the next message, or none if it does not come within `timeout` seconds."""
        items: list[Item] = []
        # Another thread may take some at the same time.
        with suppress(IndexError):
            while True:
                items.append(self._items.popleft())
        return items or self._wait(self._read(timeout))

    def __next__(self) -> Item:
        while True:
            with suppress(IndexError):
                return self._items.popleft()
            try:
                self._items.extend(self._wait(self._feed.read()))
            except FeedClosedError:
                raise StopIteration from None

    def __enter__(self) -> Self:
        self._wait(self._opened())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the feed. What was not read yet is forgotten."""
        self._items.clear()
        with suppress(EngineUnavailableError):  # it ended with the connection
            self._wait(self._feed.__aexit__(None, None, None))

    async def _opened(self) -> None:
        await self._feed.__aenter__()

    async def _read(self, seconds: float | None) -> list[Item]:
        try:
            async with within(seconds):
                return await self._feed.read()
        except TimeoutError as error:
            if isinstance(error, EngineUnavailableError | EngineError):
                raise
            return []


class BlockingFeed(BlockingItems[FeedItem]):
    """See `Feed`. `with` waits until every worker has confirmed, and ends the feed at the end."""


class BlockingResponder:
    """See `Responder`. It answers in the background, with handlers in `threads`."""

    def __init__(self, responder: Responder | FleetResponder, wait: Wait, threads: HandlerThreads) -> None:
        self._responder = responder
        self._wait = wait
        self._threads = threads

    @property
    def answered(self) -> int:
        """The number of requests that were answered."""
        return self._responder.answered

    @property
    def refused(self) -> list[str]:
        """The last errors of workers about answers of this program."""
        return list(self._responder.refused)

    def wait(self) -> None:
        """Wait until it is closed. Raises `EngineUnavailableError` if there was no engine for ten seconds."""
        self._wait(self._responder.wait())

    def close(self) -> None:
        """Take no more requests. A handler that runs goes on to its end."""
        with suppress(EngineUnavailableError):  # it ended with the connection
            self._wait(_closed(self._responder))
        self._threads.close()


async def _closed(responder: Responder | FleetResponder) -> None:
    responder.close()


class BlockingEngine(BlockingCommands):
    """See the module, and `Engine`. Methods may be called from any thread; each waits for its own call alone."""

    def __init__(self, endpoint: str, key: Path | str | None = None, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> None:
        self.endpoint = endpoint
        self._thread = LoopThread()
        try:
            self._engine = self._thread.wait(Engine.opened(endpoint, key, timeout_seconds))
        except BaseException:
            self._thread.close(asyncio.sleep(0))
            raise
        self._commands = self._engine

    def feed(self, *topics: str, **options: Unpack[FeedOptions]) -> BlockingFeed:
        """See `Engine.feed`. Iterate with `for`, or `read` with a time."""
        opening = opening_of(topics, options)

        async def made() -> Feed:
            return Feed(self._engine.links, self._engine.open_events, opening)

        return BlockingFeed(self._thread.wait(made()), self._thread.wait)

    def respond(
        self, topics: str | Iterable[str], handler: Callable[[Request], Response], *, at_a_time: int = 64
    ) -> BlockingResponder:
        """See `Engine.respond`. It answers in the background; handlers run in threads of their own, up to `at_a_time`."""
        served = requests_of(topics)
        return self._thread.respond(
            handler, at_a_time, lambda threaded: self._engine.responding.add(served, threaded, at_a_time)
        )

    def peer(self, session: int) -> BlockingPeer:
        """See `Engine.peer`."""
        from rlpx.engine.client.blocking_peer import BlockingPeer  # noqa: PLC0415 - loads every message

        async def made() -> Peer:
            return self._engine.peer(session)

        return BlockingPeer(self._thread.wait(made()), self._thread.wait)

    def publish(  # noqa: PLR0913 - as the other face
        self,
        message: Sendable,
        *,
        but: int | Iterable[int] = (),
        client: str | None = None,
        direction: Literal["inbound", "outbound"] | None = None,
        raw: bool = False,
        timeout: float | None = None,
    ) -> BroadcastResult:
        """See `Engine.publish`."""
        return self._thread.wait(
            self._engine.publish(message, but=but, client=client, direction=direction, raw=raw, timeout=timeout)
        )

    def close(self) -> None:
        """Close all connections, and end the thread; a second time is harmless."""
        self._thread.close(self._engine.close())

    def _wait(self, called: Coroutine[Any, Any, T]) -> T:
        return self._thread.wait(called)
