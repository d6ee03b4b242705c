from __future__ import annotations

import asyncio
from time import time_ns
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import structlog.testing
from nats.js.errors import APIError

from rlpx.engine.cluster import shared
from rlpx.engine.cluster.shared import REMOVED_SECONDS, Record, SharedCommands
from rlpx.protocol.bus.commands import BanParameters
from tests.engine.fake_worker import until


class FakeStore:
    """A client whose store refuses some keys."""

    def __init__(self) -> None:
        self.refused = ""
        self.written: list[str] = []
        self.repeated: list[tuple[str, float | None]] = []

    def jetstream(self, **_: Any) -> FakeStore:
        return self

    async def publish(self, subject: str, _value: bytes, **given: Any) -> None:
        if given["headers"] is not None:
            # Only if it is missing.
            self.repeated.append((subject.rpartition(".")[2][-1], given["msg_ttl"]))
            if subject in self.written:
                raise APIError(code=400, err_code=10071, description="wrong last sequence")
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


async def test_what_the_store_has_lost_is_written_again_unless_another_host_was_faster() -> None:
    store = FakeStore()
    commands = SharedCommands(cast("Any", store), "fleet", "host", cast("Any", Echoes()))
    bans = {f"ban.{digit * 128}": ban(digit, seconds) for digit, seconds in (("a", 600.0), ("b", 0.0), ("c", 600.0))}
    for key, value in bans.items():
        commands.on_seen(key, value)
    commands.on_seen("peer.d", b"nonsense")
    # It has expired.
    commands.on_seen(f"ban.{'c' * 128}", None)
    store.written = [f"$KV.fleet.shared.ban.{'b' * 128}"]
    commands.on_store_lost()
    await until(lambda: len(store.repeated) == 2)
    await asyncio.sleep(0)
    assert [subject[-1] for subject in store.written] == ["b", "a"]
    [(first, kept_s), (second, removed_s)] = store.repeated
    assert (first, second, removed_s) == ("a", "b", REMOVED_SECONDS)
    assert kept_s is not None
    assert 590 < kept_s <= 600
    # Neither is tried again.
    commands.on_store_lost()
    await until(lambda: len(store.repeated) == 4)
    commands.close()


async def test_no_more_than_so_many_records_are_remembered_and_that_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MAX_KNOWN", 2)
    monkeypatch.setattr(shared, "MAX_WAITING", 3)
    store = FakeStore()
    commands = SharedCommands(cast("Any", store), "fleet", "host", cast("Any", Echoes()))
    with structlog.testing.capture_logs() as logged:
        for digit in "abcdef":
            commands.on_seen(f"ban.{digit}", ban(digit, 600.0))
    assert [line["cause"] for line in logged if line["log_level"] == "warning"] == [
        "a record is not written again if the store loses it: too many are there",
        "another host's command is not carried out: too many wait",
    ]
    commands.on_store_lost()
    await until(lambda: len(store.repeated) == 2)
    assert [subject[-1] for subject in store.written] == ["a", "b"]
    commands.close()


def ban(digit: str, seconds: float) -> bytes:
    """The record of a ban that holds for so long."""
    params = msgspec.Raw(msgspec.json.encode(BanParameters(peer=digit * 128, seconds=seconds)))
    return msgspec.json.encode(Record("ban", params, "other", time_ns() // 1000 + int(seconds * 1e6)))


class Echoes:
    """Carries everything out."""

    async def call(self, _request: bytes, _attachments: list[bytes]) -> SimpleNamespace:
        return SimpleNamespace(body=b"{}")
