"""Commands on sessions go to the worker that has the session, in the form of its version, and end with that worker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import rlp as oracle

from rlpx.engine.client import (
    Announcement,
    BadResponseError,
    EngineSilentError,
    InvalidParamsError,
    NotSharedError,
    QueueFullError,
    TimedOutError,
    WorkerLostError,
    connect,
)
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.eth import eth
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.announcements import MAX_HASHES
from rlpx.protocol.eth.messages import (
    BlockBodies,
    BlockRangeUpdate,
    GetBlockBodies,
    NewPooledTransactionHashes66,
    NewPooledTransactionHashes68,
    NewPooledTransactionHashes72,
    Receipts69,
    Transactions,
)
from tests.engine.client.fake_workers import FakeEngine, FakeWorker, fake_engine, shown_session

HASH = b"\x0a" * 32
TRANSACTION = oracle.encode([b""] * 9)
SENT = {"sessions": 1}


def with_session(fake: FakeEngine, *shared: str, worker: int = 0) -> None:
    fake.answer = lambda call, _: shown_session(call["params"]["session"], shared, worker)


async def reply(worker: FakeWorker, call: dict[str, Any], result: object, *payload: bytes) -> None:
    await worker.send({"jsonrpc": "2.0", "id": call["id"], "result": result}, *payload)


async def refuse(worker: FakeWorker, call: dict[str, Any], name: str) -> None:
    error = {"code": -32000, "message": f"it is {name}", "data": {"name": name}}
    await worker.send({"jsonrpc": "2.0", "id": call["id"], "error": error})


async def test_a_message_goes_to_the_worker_of_its_session_in_the_form_of_its_version(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        with_session(fake, "eth/68", worker=1)
        peer = engine.peer(7)
        announcement = Announcement.of([TRANSACTION])
        sending = asyncio.create_task(peer.send(announcement))
        call, payload = await fake.workers[1].take()
        assert (call["method"], call["params"]) == (
            "send",
            {"session": 7, "capability": "eth", "message": 8, "raw": False},
        )
        assert payload == [eth_messages.encode(68, announcement.in_version(68))]
        await reply(fake.workers[1], call, SENT)
        await sending
        sending = asyncio.create_task(peer.disconnect("useless_peer"))
        call, payload = await fake.workers[1].take()
        assert (call["method"], call["params"], payload) == ("disconnect", {"session": 7, "reason": "useless_peer"}, [])
        await reply(fake.workers[1], call, SENT)
        await sending
        # The session is looked up once.
        assert [call["method"] for call in fake.calls].count("session") == 1


async def test_a_question_and_its_answer_are_frames(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        with_session(fake, "eth/69")
        peer, worker = engine.peer(7), fake.workers[0]
        asking = asyncio.create_task(peer.request(GetBlockBodies(5, (HASH,)), timeout=9))
        call, payload = await worker.take()
        assert call["params"] == {"session": 7, "capability": "eth", "message": 5, "binary": True, "timeout_s": 9}
        assert payload == [eth_messages.encode(69, GetBlockBodies(5, (HASH,)))]
        await reply(worker, call, {"message": "BlockBodies"}, eth_messages.encode(69, BlockBodies(5)))
        assert await asking == BlockBodies(5)
        for answer, kind in ((b"\xc0", BadResponseError), (b"", BadResponseError)):
            asking = asyncio.create_task(peer.request(GetBlockBodies(5, (HASH,))))
            call, _ = await worker.take()
            assert "timeout_s" not in call["params"]
            await reply(worker, call, {"message": "BlockBodies"}, answer)
            with pytest.raises(kind):
                await asking
        asking = asyncio.create_task(peer.request(GetBlockBodies(5, (HASH,))))
        call, _ = await worker.take()
        await refuse(worker, call, "timed_out")
        with pytest.raises(TimedOutError, match="it is timed_out"):
            await asking


async def test_a_request_that_is_given_up_is_cancelled_at_the_worker(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        with_session(fake, "eth/69")
        peer, worker = engine.peer(7), fake.workers[0]
        with pytest.raises(TimeoutError):
            await peer.request(GetBlockBodies(5, (HASH,)), timeout=0.1)
        call, _ = await worker.take()
        assert await worker.take() == ({"jsonrpc": "2.0", "method": "cancel", "params": {"id": call["id"]}}, [])
        # Its place is free again, and its late answer is nobody's.
        asked = [asyncio.create_task(peer.request(GetBlockBodies(5, (HASH,)))) for _ in range(4)]
        calls = [(await worker.take())[0] for _ in asked]
        for late in (call, *calls):
            await reply(worker, late, {"message": "BlockBodies"}, eth_messages.encode(69, BlockBodies(5)))
        assert await asyncio.gather(*asked) == [BlockBodies(5)] * 4


async def test_what_the_version_lacks_is_not_sent(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        with_session(fake, "eth/68")
        peer = engine.peer(7)
        with pytest.raises(NotSharedError, match="eth/68 has no BlockRangeUpdate"):
            await peer.send(BlockRangeUpdate(1, 2, HASH))
        with pytest.raises(NotSharedError, match="blooms"):
            await peer.send(Receipts69(0))
        with pytest.raises(InvalidParamsError):
            await peer.send(Transactions((b"no transaction",)))
        assert await fake.workers[0].has_nothing()


async def test_a_peer_ends_with_its_worker_and_the_next_one_is_not_asked(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        with_session(fake, "eth/69")
        peer = engine.peer(7)
        asking = asyncio.create_task(peer.request(GetBlockBodies(5, (HASH,))))
        await fake.workers[0].take()
        fake.workers.pop(0).die()
        with pytest.raises(WorkerLostError, match="worker 0"):
            await asking
        worker = fake.start_worker(0)
        with pytest.raises(WorkerLostError, match="worker 0"):
            await peer.request(GetBlockBodies(5, (HASH,)))
        assert await worker.has_nothing()


async def broadcasts(worker: FakeWorker, count: int, **result: Any) -> dict[str, tuple[dict[str, Any], bytes]]:
    """Take broadcasts and answer them; returns their parameters and payloads by `shared`."""
    found: dict[str, tuple[dict[str, Any], bytes]] = {}
    for _ in range(count):
        call, [payload] = await worker.take()
        assert call["method"] == "broadcast"
        found[call["params"].pop("shared")] = call["params"], payload
        await reply(worker, call, {"sent": 0, "refused": {}, **result})
    return found


async def test_one_announcement_is_published_in_every_form_to_all_but_one(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        announcement = Announcement.of([TRANSACTION])
        publishing = asyncio.create_task(engine.publish(announcement, but=3, client="Geth"))
        first = await broadcasts(fake.workers[0], 7, sent=2, refused={"9": "queue_full"})
        second = await broadcasts(fake.workers[1], 7, sent=1)
        assert first == second
        assert list(first) == [f"eth/{version}" for version in eth.VERSIONS]
        for version, (parameters, payload) in zip(eth.VERSIONS, first.values(), strict=True):
            assert parameters == {"capability": "eth", "message": 8, "except": [3], "client": "Geth", "raw": False}
            assert eth_messages.decode(version, 8, payload) == announcement.in_version(version)
        kinds = {type(eth_messages.decode(int(shared[4:]), 8, payload)) for shared, (_, payload) in first.items()}
        assert kinds == {NewPooledTransactionHashes66, NewPooledTransactionHashes68, NewPooledTransactionHashes72}
        result = await publishing
        assert (result.sent, result.refused) == (21, {"9": ErrorName.QUEUE_FULL})


async def test_a_long_announcement_is_published_in_parts_one_after_the_other(tmp_path: Path) -> None:
    hashes = tuple(number.to_bytes(32, "big") for number in range(MAX_HASHES + 1))
    announcement = NewPooledTransactionHashes68(bytes(len(hashes)), (100,) * len(hashes), hashes)
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        publishing = asyncio.create_task(engine.publish(announcement))
        first = await broadcasts(fake.workers[0], 7, sent=2, refused={"9": "queue_full"})
        second = await broadcasts(fake.workers[0], 7, sent=1, refused={"8": "queue_full"})
        for part, named in ((first, hashes[:MAX_HASHES]), (second, hashes[MAX_HASHES:])):
            for shared, (_, payload) in part.items():
                decoded: Any = eth_messages.decode(int(shared[4:]), 8, payload)
                assert decoded.hashes == named
        result = await publishing
        assert (result.sent, result.refused) == (7, {"8": ErrorName.QUEUE_FULL, "9": ErrorName.QUEUE_FULL})


async def test_raw_leaves_in_one_piece(tmp_path: Path) -> None:
    hashes = tuple(number.to_bytes(32, "big") for number in range(MAX_HASHES + 1))
    announcement = NewPooledTransactionHashes68(bytes(len(hashes)), (100,) * len(hashes), hashes)
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        publishing = asyncio.create_task(engine.publish(announcement, raw=True))
        found = await broadcasts(fake.workers[0], 7)
        await publishing
        with_session(fake, "eth/69")
        sending = asyncio.create_task(engine.peer(7).send(announcement, raw=True))
        call, [payload] = await fake.workers[0].take()
        await reply(fake.workers[0], call, SENT)
        await sending
        assert eth_messages.decode(69, 8, payload) == eth_messages.decode(69, 8, found["eth/69"][1]) == announcement


async def test_transactions_beyond_a_message_go_to_a_peer_in_several(tmp_path: Path) -> None:
    large = oracle.encode([b"", b"", b"", b"", b"", bytes(100_000), b"", b"", b""])
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        with_session(fake, "eth/69")
        sending = asyncio.create_task(engine.peer(7).send(Transactions((TRANSACTION, large, large))))
        for expected in ((TRANSACTION, large), (large,)):
            call, [payload] = await fake.workers[0].take()
            assert eth_messages.decode(69, call["params"]["message"], payload) == Transactions(expected)
            assert await fake.workers[0].has_nothing()
            await reply(fake.workers[0], call, SENT)
        await sending


async def test_versions_without_the_message_are_left_out_and_a_worker_that_ends_has_no_sessions(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0, 1) as fake, connect(tmp_path) as engine:
        publishing = asyncio.create_task(engine.publish(BlockRangeUpdate(1, 2, HASH), but=[3, 4]))
        found = await broadcasts(fake.workers[0], 4, sent=1)
        assert list(found) == ["eth/69", "eth/70", "eth/71", "eth/72"]
        assert found["eth/69"][0]["except"] == [3, 4]
        await fake.workers[1].take()
        fake.workers.pop(1).die()
        assert (await publishing).sent == 4


async def test_what_cannot_be_published_is_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        with pytest.raises(InvalidParamsError, match="in the form of eth/68"):
            await engine.publish(NewPooledTransactionHashes66((HASH,)))
        with pytest.raises(InvalidParamsError):
            await engine.publish(Transactions((b"no transaction",)))
        assert await fake.workers[0].has_nothing()
        publishing = asyncio.create_task(engine.publish(Transactions((TRANSACTION,))))
        for _ in range(7):
            call, _ = await fake.workers[0].take()
            await refuse(fake.workers[0], call, "queue_full")
        with pytest.raises(QueueFullError):
            await publishing


async def test_a_call_that_is_given_no_time_has_that_of_the_connection(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path, timeout_seconds=0.3) as engine:
        with_session(fake, "eth/69")
        with pytest.raises(EngineSilentError, match=r"within 0\.3 s"):
            async with asyncio.timeout(60):
                await engine.peer(7).send(Transactions((TRANSACTION,)))
        with pytest.raises(TimeoutError):
            await engine.publish(Transactions((TRANSACTION,)), timeout=0.1)


async def test_a_peer_that_is_known_before_its_session_is_active_is_looked_at_again(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, 0) as fake, connect(tmp_path) as engine:
        fake.answer = lambda *_: {**shown_session(7, ()), "phase": "pending"}
        peer = engine.peer(7)
        with pytest.raises(NotSharedError):
            await peer.send(Transactions((TRANSACTION,)))
        with_session(fake, "eth/69")
        sending = asyncio.create_task(peer.send(Transactions((TRANSACTION,))))
        call, _ = await fake.workers[0].take()
        await reply(fake.workers[0], call, SENT)
        await sending
