"""Workers are looked for when somebody uses them, soon while one is missing, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rlpx.engine.client import EngineError, EngineUnavailableError, connect
from rlpx.engine.client.worker_links import Times, WorkerLinks
from tests.engine.client.fake_workers import fake_engine, shown_session
from tests.engine.fake_worker import until


async def test_a_program_of_commands_never_looks_for_workers(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        fake.answer = lambda *_: shown_session(1)
        await engine.session(1)
        await asyncio.sleep(0.1)
        assert [call["method"] for call in fake.calls] == ["session"]


async def test_they_are_looked_for_once_a_second_and_at_once_if_one_is_lost(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        assert [link.worker for link in await engine.links.complete()] == [0, 1]
        before = len(fake.calls)
        await asyncio.sleep(0.3)
        assert len(fake.calls) - before <= 1
        fake.workers.pop(1).die()
        await until(lambda: len(fake.calls) > before)
        fake.start_worker(1)
        await until(lambda: len(engine.links._links) == 2)  # noqa: SLF001 - there is nothing else to wait for
        link = await engine.links.find(1)
        assert link is not None
        assert link.pid == fake.workers[1].pid
        assert await engine.links.find(5) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [(RuntimeError("broken"), EngineUnavailableError), (EngineError("internal", "broken", -32603), EngineError)],
)
async def test_if_looking_fails_those_who_wait_are_told(error: Exception, kind: type[Exception]) -> None:
    async def ask() -> Any:
        raise error

    links = WorkerLinks(ask, lambda *_: pytest.fail("nobody is there"), lambda *_: None, Times(10.0, 10.0))
    for _ in range(2):
        with pytest.raises(kind, match="broken"):
            async with asyncio.timeout(60):
                await links.complete()
    await links.close()
