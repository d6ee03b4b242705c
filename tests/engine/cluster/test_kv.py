from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import nats as nats_client
import pytest
import structlog.testing
from nats.js.errors import APIError, NotFoundError

from rlpx.engine.cluster.kv import KvStore
from rlpx.engine.cluster.wire import OnAnswers, Way
from rlpx.protocol.cluster.steps import Answer, Erase, Outcome, Put, Read
from tests.system.cluster_fleet import Nats


class FakeClient:
    """A client that the store only asks for a name."""

    def new_inbox(self) -> str:
        return "inbox"

    def jetstream(self, **_options: float) -> None:
        """The store makes no use of it here."""


class FakeWire:
    """A connection whose messages the test reads, and answers."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.is_up = True

    def take_answers(self, inbox: str, on_answers: OnAnswers) -> Way:
        self._on_answers = on_answers
        return Way(inbox, on_answers)

    def publish(self, subject: bytes, reply: bytes, _headers: bytes, _body: bytes) -> bool:
        self.sent.append((subject.decode(), reply.decode()))
        return self.is_up

    def flush(self) -> None:
        """Everything is sent at once here."""

    def answer(self, *calls: int, **reply: Any) -> None:
        """All these calls get this answer in one read."""
        self._on_answers([(call, msgspec.json.encode(reply)) for call in calls])


class Owner:
    """Takes the answers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.turns = 0

    def on_answers(self, answers: Sequence[Answer]) -> None:
        self.turns += 1
        self.answers += answers

    def on_seen(self, key: str, revision: int, value: bytes | None) -> None:
        raise AssertionError((key, revision, value))


def a_store(wire: FakeWire, owner: Owner) -> KvStore:
    return KvStore(FakeClient(), wire, "test", owner, lambda: 0.0)  # type: ignore[arg-type]  # all that the store uses


@pytest.mark.parametrize("code", [10071, 10164])
async def test_a_write_over_another_revision_or_beside_another_write_is_a_conflict(code: int) -> None:
    wire, owner = FakeWire(), Owner()
    store = a_store(wire, owner)
    store.send(Put(7, "peer.00", b"{}", expected=3))
    wire.answer(7, error={"err_code": code, "description": "wrong last sequence"})
    # It looks at the key then.
    assert wire.sent == [("$KV.test.peer.00", "inbox.7"), ("$JS.API.STREAM.MSG.GET.KV_test", "inbox.7")]
    wire.answer(7, message={"subject": "$KV.test.peer.00", "seq": 9, "data": "e30="})
    assert owner.answers == [Answer(7, Outcome.CONFLICT, 9, b"{}")]


async def test_answers_of_one_read_are_handed_on_together_and_those_to_nobody_are_ignored() -> None:
    wire, owner = FakeWire(), Owner()
    store = a_store(wire, owner)
    for number in range(3):
        store.send(Erase(number, "peer.00", expected=3))
    wire.answer(0, 1, 9, 2, seq=5)
    wire.answer(1, seq=5)
    assert owner.answers == [Answer(number, Outcome.DONE, 5) for number in range(3)]
    assert owner.turns == 1


async def test_a_second_answer_to_a_call_in_the_same_read_is_ignored() -> None:
    wire, owner = FakeWire(), Owner()
    store = a_store(wire, owner)
    for number in range(2):
        store.send(Erase(number, "peer.00", expected=3))
    # Another stream, of another account say, takes the same writes and confirms them as well.
    wire.answer(0, 0, 1, seq=5)
    assert owner.answers == [Answer(number, Outcome.DONE, 5) for number in range(2)]


async def test_that_the_bucket_is_another_one_is_not_forgotten_if_it_cannot_be_watched_yet() -> None:
    class Client(FakeClient):
        """Its bucket is made anew after the first look; the first watch of that one fails."""

        created = 1
        failures = 0

        def jetstream(self, **_options: float) -> Any:
            return self

        async def subscribe(self, _subject: str, **_options: Any) -> Any:
            return SimpleNamespace(unsubscribe=self.publish)

        async def publish(self, *_: str) -> None:
            """Ends of watches interest nobody."""

        async def stream_info(self, _stream: str) -> Any:
            return SimpleNamespace(created=self.created)

        async def add_consumer(self, *_: object) -> None:
            if self.failures:
                self.failures -= 1
                raise TimeoutError

    client = Client()
    store = KvStore(client, FakeWire(), "test", Owner(), lambda: 0.0)  # type: ignore[arg-type]  # all that the store uses
    assert not await store.restore(1, ("host.*",))
    client.created, client.failures = 2, 1
    with pytest.raises(TimeoutError):
        await store.restore(1, ("host.*",))
    assert await store.restore(1, ("host.*",))
    assert not await store.restore(1, ("host.*",))


async def test_a_store_that_cannot_be_made_anew_is_said_to_be_once_it_is() -> None:
    class Client(FakeClient):
        """Its bucket is deleted after the first look, and cannot be made the first times."""

        is_there = True
        failures = 0

        def jetstream(self, **_options: float) -> Any:
            return self

        async def subscribe(self, _subject: str, **_options: Any) -> Any:
            return SimpleNamespace(unsubscribe=self.publish)

        async def publish(self, *_: str) -> None:
            """Ends of watches interest nobody."""

        add_consumer = publish

        async def stream_info(self, _stream: str) -> Any:
            if not self.is_there:
                raise NotFoundError
            return SimpleNamespace(created=1)

        async def create_key_value(self, _config: object) -> None:
            if self.failures:
                self.failures -= 1
                raise APIError(code=400, err_code=10005, description="no suitable peers for placement")
            self.is_there = True

    client = Client()
    store = KvStore(client, FakeWire(), "test", Owner(), lambda: 0.0)  # type: ignore[arg-type]  # all that the store uses
    await store.restore(1, ("host.*",))
    client.is_there, client.failures = False, 3
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            with pytest.raises(APIError):
                await store.restore(1, ("host.*",))
        assert logged == []
        await store.restore(1, ("host.*",))
    assert [line["event"] for line in logged] == ["the fleet's store was deleted; it was made anew"]


async def test_a_watch_whose_server_waits_for_an_answer_for_long_is_not_heard_of() -> None:
    clock = [0.0]
    told: list[Any] = []

    class Client(FakeClient):
        """The test has what the store does with messages."""

        def jetstream(self, **_options: float) -> Any:
            return SimpleNamespace(add_consumer=self.publish)

        async def subscribe(self, _subject: str, cb: Any) -> None:
            told.append(cb)

        async def publish(self, *_: object) -> None:
            """Answers about the flow go nowhere."""

    store = KvStore(Client(), FakeWire(), "test", Owner(), lambda: clock[0])  # type: ignore[arg-type]  # all that it uses
    await store.watch(("host.*",))
    idle: dict[str, str] = {"Status": "100", "Description": "Idle Heartbeat"}
    clock[0] = 4.0
    await told[0](SimpleNamespace(headers=idle, reply=""))
    clock[0] = 8.0
    assert store.is_watching
    await told[0](SimpleNamespace(headers={**idle, "Nats-Consumer-Stalled": "$JS.FC.test"}, reply=""))
    clock[0] = 12.0
    assert not store.is_watching


async def consumers_after(watches: int) -> tuple[int, int]:
    """The consumers of the bucket after so many watches, one after the other, and after the end of the last."""
    with Nats() as nats:
        client = await nats_client.connect(nats.url)
        js = client.jetstream()
        store = KvStore(client, FakeWire(), "test", Owner(), lambda: 0.0)  # type: ignore[arg-type]  # nothing is written here
        deleted = await client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.DELETED.>")
        await store.restore(1, ("host.*",))
        for _ in range(watches - 1):
            await store.watch(("host.*",))
            # By itself, the server would forget a consumer after a minute.
            await deleted.next_msg(30.0)
        found = len(await js.consumers_info("KV_test"))
        await store.close()
        await deleted.next_msg(30.0)
        left = len(await js.consumers_info("KV_test"))
        await client.close()
    return found, left


async def test_a_watch_leaves_nothing_behind() -> None:
    # A server keeps a thousand consumers of a bucket.
    assert await consumers_after(3) == (1, 0)


async def test_what_the_store_refuses_without_end_is_said_once() -> None:
    wire, owner = FakeWire(), Owner()
    store = a_store(wire, owner)
    with structlog.testing.capture_logs() as logged:
        for number in range(100):
            store.send(Put(number, "peer.00", b"{}", expected=0))
            wire.answer(number, error={"err_code": 10077, "description": "maximum bytes exceeded"})
    assert [line["cause"] for line in logged] == ["maximum bytes exceeded"]
    assert [answer.outcome for answer in owner.answers] == [Outcome.LOST] * 100


async def test_a_call_that_cannot_be_sent_is_lost_but_not_before_its_caller_is_done() -> None:
    wire, owner = FakeWire(), Owner()
    wire.is_up = False
    store = a_store(wire, owner)
    store.send(Read(1, "fleet"))
    assert owner.answers == []
    await asyncio.sleep(0)
    assert owner.answers == [Answer(1, Outcome.LOST)]
    assert store.open_calls == 0
