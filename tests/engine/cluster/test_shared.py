from __future__ import annotations

from typing import Any, cast

import pytest
import structlog.testing
from nats.js.errors import APIError

from rlpx.engine.cluster import shared
from rlpx.engine.cluster.shared import SharedCommands
from rlpx.protocol.bus.commands import BanParameters
from tests.engine.fake_worker import until


class FakeStore:
    """A client whose store refuses some keys."""

    def __init__(self) -> None:
        self.refused = ""
        self.written: list[str] = []

    def jetstream(self, **_: Any) -> FakeStore:
        return self

    async def publish(self, subject: str, _value: bytes, **_: Any) -> None:
        if self.refused and subject.endswith(self.refused):
            raise APIError(code=400, err_code=10054, description="message size exceeds maximum allowed")
        self.written.append(subject)


async def test_a_command_that_the_store_refuses_is_said_once_tried_again_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared, "RETRY_SECONDS", 0.001)
    store = FakeStore()
    first, second = (BanParameters(peer=digit * 128) for digit in "ab")
    store.refused = "a"
    commands = SharedCommands(cast("Any", store), "fleet", "host", cast("Any", None))
    with structlog.testing.capture_logs() as logged:
        commands.on_done("ban", first)
        commands.on_done("ban", second)
        await until(lambda: [subject[-1] for subject in store.written] == ["b"])
        commands.on_done("ban", second)
        await until(lambda: [subject[-1] for subject in store.written] == ["b", "b"])
        store.refused = ""
        await until(lambda: [subject[-1] for subject in store.written] == ["b", "b", "a"])
    [line] = logged
    assert "message size exceeds maximum allowed" in line["cause"]
    commands.close()
