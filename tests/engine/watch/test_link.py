"""The way to the engine: a deadline over everything, whatever the engine does, and a reason for every failure."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rlpx.engine.client.presence import EndpointError, EngineUnavailableError
from rlpx.engine.watch import link as module
from rlpx.engine.watch.link import EngineLink
from rlpx.protocol.mistakes import ConfigError
from tests.engine.harness import MakeEngine


async def test_an_engine_is_asked_by_the_clients_own_methods_or_by_name(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        link = EngineLink(harness.engine.run_dir.endpoint("control"))
        counts = await link.ask(lambda engine: engine.counts())
        assert counts.active.inbound == 0
        assert (await link.call("counts"))["active"] == {"inbound": 0, "outbound": 0}
        await link.close()


async def test_without_an_engine_the_reason_is_said_at_once(tmp_path: Path) -> None:
    link = EngineLink(f"ipc://{tmp_path}/control.ipc")
    with pytest.raises(EngineUnavailableError, match="no engine at"):
        await link.ask(lambda engine: engine.counts())
    await link.close()


async def test_an_engine_that_accepts_and_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_SECONDS", 0.2)
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_unix_server(lambda _, writer: writers.append(writer), tmp_path / "control.ipc")
    link = EngineLink(f"ipc://{tmp_path}/control.ipc")
    for _ in range(2):
        with pytest.raises(EngineUnavailableError, match=r"no answer from .* within 0.2 s"):
            await link.ask(lambda engine: engine.counts())
    await link.close()
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    silent.close()


async def test_a_wrong_endpoint_or_key_file_is_a_mistake_of_the_start_and_later_a_reason(tmp_path: Path) -> None:
    with pytest.raises(EndpointError):
        EngineLink("http://127.0.0.1:5555")
    key = tmp_path / "key"
    with pytest.raises(ConfigError, match="no such file"):
        EngineLink("tcp://127.0.0.1:5555", key=key)
    key.write_text(f'secret = "{"11" * 32}"\nserver = "{"22" * 32}"\n')
    key.chmod(0o600)
    link = EngineLink("tcp://127.0.0.1:5555", key=key)
    key.unlink()
    with pytest.raises(EngineUnavailableError, match="no such file"):
        await link.ask(lambda engine: engine.counts())
    await link.close()
