"""One question to the engine at a time, and an answer for everybody who asks."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.engine.watch.link import EngineLink
from rlpx.engine.watch.scrapes import Scrapes
from rlpx.protocol.bus.metrics import WorkerCounters, added
from tests.engine.watch.fake_link import FakeLink
from tests.metrics_sample import COUNTERS, METRICS


async def test_the_total_is_that_of_all_workers_those_that_have_ended_included() -> None:
    scrapes = Scrapes(cast("EngineLink", FakeLink(lambda _: METRICS)))
    figures = await scrapes.figures()
    assert figures.total == added(METRICS.ended, COUNTERS)
    assert (figures.result, figures.cause) == (METRICS, "")
    assert figures.watch.memory_bytes > 1 << 20
    await scrapes.close()


async def test_all_who_ask_at_the_same_time_get_one_answer_even_if_one_goes_away() -> None:
    let_go = asyncio.Event()

    async def answer() -> Any:
        await let_go.wait()
        return METRICS

    link = FakeLink(lambda _: answer())
    scrapes = Scrapes(cast("EngineLink", link))
    asking = [asyncio.create_task(scrapes.figures()) for _ in range(10)]
    await asyncio.sleep(0)
    asking[0].cancel()
    let_go.set()
    answers = await asyncio.gather(*asking[1:])
    assert all(figures is answers[0] for figures in answers)
    assert link.engine.calls == ["metrics"]
    assert await scrapes.figures() is not answers[0]
    await scrapes.close()


async def test_without_an_answer_the_cause_is_kept_and_only_this_process_has_figures() -> None:
    def answer(_: str) -> Any:
        raise EngineUnavailableError("no engine")

    scrapes = Scrapes(cast("EngineLink", FakeLink(answer)))
    figures = await scrapes.figures()
    assert (figures.result, figures.cause, figures.total) == (None, "no engine", WorkerCounters())
    await scrapes.close()
