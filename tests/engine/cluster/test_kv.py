from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from rlpx.engine.cluster.kv import KvStore
from rlpx.protocol.cluster.steps import Answer, Outcome, Put


class FakeMessage:
    """What a server answers to one call."""

    def __init__(self, subject: str, **reply: Any) -> None:
        self.subject = subject
        self.data = msgspec.json.encode(reply)


class FakeClient:
    """A connection whose messages the test reads, and answers."""

    is_connected = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def new_inbox(self) -> str:
        return "inbox"

    def jetstream(self, **_options: float) -> None:
        """The store makes no use of it here."""

    async def subscribe(self, _subject: str, cb: Callable[[FakeMessage], Coroutine[Any, Any, None]]) -> FakeClient:
        self.answer = cb
        return self

    async def unsubscribe(self) -> None:
        """The store ends."""

    async def publish(self, subject: str, _body: bytes, reply: str, _headers: dict[str, str] | None = None) -> None:
        self.sent.append((subject, reply))


class Owner:
    """Takes the answers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def on_answer(self, answer: Answer) -> None:
        self.answers.append(answer)

    def on_seen(self, key: str, revision: int, value: bytes | None) -> None:
        raise AssertionError((key, revision, value))


@pytest.mark.parametrize("code", [10071, 10164])
async def test_a_write_over_another_revision_or_beside_another_write_is_a_conflict(code: int) -> None:
    client, owner = FakeClient(), Owner()
    store = KvStore(client, "test", owner, lambda: 0.0)  # type: ignore[arg-type]  # all that the store uses of a client
    await store.start()
    store.send(Put(7, "peer.00", b"{}", expected=3))
    await asyncio.sleep(0)
    await client.answer(FakeMessage("inbox.7", error={"err_code": code, "description": "wrong last sequence"}))
    await asyncio.sleep(0)
    # It looks at the key then.
    assert client.sent == [("$KV.test.peer.00", "inbox.7"), ("$JS.API.STREAM.MSG.GET.KV_test", "inbox.7")]
    await client.answer(FakeMessage("inbox.7", message={"subject": "$KV.test.peer.00", "seq": 9, "data": "e30="}))
    assert owner.answers == [Answer(7, Outcome.CONFLICT, 9, b"{}")]
    await store.close()
