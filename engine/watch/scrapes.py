"""The engine's counters for whoever asks over HTTP: one question to the engine at a time, whose answer all askers share."""

from __future__ import annotations

import asyncio
from time import monotonic

import msgspec

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.process.own import OwnProcess
from rlpx.engine.watch.link import EngineLink
from rlpx.protocol.bus.metrics import MetricsResult, ProcessUse, WorkerCounters, added


class Figures(msgspec.Struct, frozen=True):
    """What one scrape shows. Without an answer of the engine `result` is null, and `cause` says why.

    `total` is what all workers have counted since the engine's start.
    """

    result: MetricsResult | None
    cause: str
    total: WorkerCounters
    watch: ProcessUse
    seconds: float


class Scrapes:
    """See the module."""

    def __init__(self, link: EngineLink) -> None:
        self._link = link
        self._process = OwnProcess()
        self._asking: asyncio.Task[Figures] | None = None

    async def figures(self) -> Figures:
        """The counters as they are now. An answer that others wait for already is theirs too."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        # If one asker goes away, the others still wait.
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
        self._process.close()

    async def _ask(self) -> Figures:
        started = monotonic()
        result, cause = None, ""
        try:
            result = await self._link.ask(lambda engine: engine.metrics())
        except (EngineError, EngineUnavailableError) as error:
            cause = str(error)
        total = WorkerCounters() if result is None else result.ended
        for worker in [] if result is None else result.workers:
            total = added(total, worker.counters)
        return Figures(result, cause, total, self._process.use(), monotonic() - started)
