"""Typed requests: the form of the negotiated version, partial receipts put together, and refused answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from rlpx.engine.client import EngineError, connect
from rlpx.engine.client.blocking_peer import BlockingPeer
from rlpx.engine.client.typed_requests import MAX_OPEN_REQUESTS, MAX_ROUNDS
from rlpx.protocol import rlp
from rlpx.protocol.bus.error_codes import ERROR_CODES
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth import snap_messages
from rlpx.protocol.eth.chain import BlockBody, BloomReceipt, Receipt
from rlpx.protocol.eth.messages import (
    BlockBodies,
    BlockHeaders,
    Cells,
    EthMessage,
    GetBlockAccessLists,
    GetBlockBodies,
    GetBlockHeaders,
    GetCells,
    GetNodeData,
    GetPooledTransactions,
    GetReceipts,
    GetReceipts70,
    HeadersQuery,
    NodeData,
    PooledTransactions,
    Receipts,
    Receipts69,
    Receipts70,
)
from rlpx.protocol.eth.snap_messages import SnapMessage
from tests.engine.answering import answering, result
from tests.engine.client.fake_workers import shown_session, shown_status

SESSION = 42
A, B, C = (bytes([value]) * 32 for value in (0xA, 0xB, 0xC))
MASK = b"\x01" + bytes(15)
CODECS: dict[str, Any] = {"eth": eth_messages, "snap": snap_messages}


class FakeEngine:
    """An engine with one session, whose peer answers by a function; it records the requests."""

    def __init__(self, shared: list[str], answer: Callable[[Any], EthMessage | SnapMessage | bytes]) -> None:
        self.shared = shared
        self.asked: list[EthMessage | SnapMessage] = []
        self.refused = ""
        self._answer = answer

    def serve(self, call: dict[str, Any], attachments: list[bytes]) -> list[bytes] | list[tuple[bytes, ...]]:
        parameters = call["params"]
        if call["method"] == "cancel":
            return []
        if call["method"] == "status":
            # It has no workers, so the commands on sessions are its own.
            return [result(call, shown_status([]))]
        assert parameters["session"] == SESSION
        if call["method"] == "session":
            return [result(call, shown_session(SESSION, tuple(self.shared)))]
        if self.refused:
            error = {"code": ERROR_CODES[ErrorName(self.refused)], "message": "no", "data": {"name": self.refused}}
            return [orjson.dumps({"jsonrpc": "2.0", "id": call["id"], "error": error})]
        name = parameters["capability"]
        [version] = [int(item.partition("/")[2]) for item in self.shared if item.startswith(name)]
        self.asked.append(CODECS[name].decode(version, parameters["message"], attachments[0]))
        answer = self._answer(self.asked[-1])
        payload = answer if isinstance(answer, bytes) else CODECS[name].encode(version, answer)
        assert parameters["binary"] is True
        replies: list[tuple[bytes, ...]] = [(result(call, {"message": "it is not looked at"}), payload)]
        return replies


@contextmanager
def asking(folder: Path, engine: FakeEngine) -> Iterator[BlockingPeer]:
    """The peer of the engine's only session."""
    with answering(folder, engine.serve), connect(folder) as connected:
        yield connected.peer(SESSION)


def receipts(*gas: int) -> tuple[Receipt, ...]:
    """Receipts that can be told apart."""
    return tuple(Receipt(2, outcome=True, cumulative_gas=value, logs=()) for value in gas)


ETH = [
    (66, GetNodeData(7, (A,)), NodeData(7, (b"node",))),
    (66, GetBlockHeaders(7, HeadersQuery(A, 1, 2, reverse=True)), BlockHeaders(7)),
    (68, GetBlockBodies(7, (A, B)), BlockBodies(7, (BlockBody(()),))),
    (69, GetPooledTransactions(7, (A,)), PooledTransactions(7)),
    (66, GetReceipts(7, (A,)), Receipts(7, ((BloomReceipt(True, 21000, bytes(256), ()),),))),
    (69, GetReceipts(7, (A,)), Receipts69(7, (receipts(1),))),
    (70, GetReceipts70(7, 5, (A,)), Receipts70(7, True, (receipts(6),))),
    (71, GetBlockAccessLists(7, (A, B)), eth_messages.BlockAccessLists(7, (b"", b"\xc0"))),
    (72, GetCells(7, (A,), MASK), Cells(7, (A,), ((bytes(2048),),), MASK)),
]
SNAP = [
    (1, snap_messages.GetAccountRange(7, A, B, C, 1000), snap_messages.AccountRange(7)),
    (2, snap_messages.GetStorageRanges(7, A, (B,), b"", b"", 1000), snap_messages.StorageRanges(7)),
    (2, snap_messages.GetByteCodes(7, (A,), 1000), snap_messages.ByteCodes(7, (b"code",))),
    (1, snap_messages.GetTrieNodes(7, A, ((b"\x00",),), 1000), snap_messages.TrieNodes(7, (b"node",))),
    (2, snap_messages.GetBlockAccessLists(7, (A,), 1000), snap_messages.BlockAccessLists(7, (b"\xc0",))),
]


@pytest.mark.parametrize(("version", "question", "answer"), ETH)
def test_every_eth_request_has_its_typed_answer(tmp_path: Path, version: int, question: Any, answer: EthMessage) -> None:
    engine = FakeEngine([f"eth/{version}"], lambda _: answer)
    with asking(tmp_path, engine) as peer:
        assert peer.request(question) == answer
    assert engine.asked == [question]


@pytest.mark.parametrize(("version", "question", "answer"), SNAP)
def test_every_snap_request_has_its_typed_answer(tmp_path: Path, version: int, question: Any, answer: SnapMessage) -> None:
    engine = FakeEngine(["eth/69", f"snap/{version}"], lambda _: answer)
    with asking(tmp_path, engine) as peer:
        assert peer.request(question) == answer
    assert engine.asked == [question]


@pytest.mark.parametrize(
    ("shared", "question", "words"),
    [
        (["eth/67"], GetNodeData(0, (A,)), "eth/67 has no GetNodeData"),
        (["eth/69"], GetReceipts70(0, 5, (A,)), "eth/69 has no GetReceipts70"),
        (["eth/70", "snap/2"], GetBlockAccessLists(0, (A,)), "eth/70 has no GetBlockAccessLists"),
        (["eth/71"], GetCells(0, (A,), MASK), "eth/71 has no GetCells"),
        (["eth/71", "snap/1"], snap_messages.GetBlockAccessLists(0, (A,), 1), "snap/1 has no GetBlockAccessLists"),
        (["eth/71", "snap/2"], snap_messages.GetTrieNodes(0, A, (), 1), "snap/2 has no GetTrieNodes"),
        (["eth/71"], snap_messages.GetByteCodes(0, (A,), 1), "snap is not shared with the peer of session 42"),
        ([], GetReceipts(0, (A,)), "eth is not shared with the peer of session 42"),
    ],
)
def test_what_the_negotiated_version_lacks_is_not_sent(tmp_path: Path, shared: list[str], question: Any, words: str) -> None:
    engine = FakeEngine(shared, lambda _: b"")
    with asking(tmp_path, engine) as peer, pytest.raises(EngineError, match=words) as caught:
        peer.request(question)
    assert (caught.value.name, caught.value.code) == (ErrorName.NOT_SHARED, ERROR_CODES[ErrorName.NOT_SHARED])
    assert engine.asked == []


def test_a_field_that_does_not_fit_is_not_sent(tmp_path: Path) -> None:
    engine = FakeEngine(["eth/69"], lambda _: b"")
    with asking(tmp_path, engine) as peer, pytest.raises(EngineError, match="hashes") as caught:
        peer.request(GetBlockBodies(0, (b"short",)))
    assert caught.value.name == "invalid_params"
    assert engine.asked == []


@pytest.mark.parametrize("payload", [b"", b"\x80", rlp.encode([7, b"a string"]), rlp.encode([7, [[b"no body"]]])])
def test_a_malformed_answer_is_a_bad_response(tmp_path: Path, payload: bytes) -> None:
    with asking(tmp_path, FakeEngine(["eth/69"], lambda _: payload)) as peer, pytest.raises(EngineError) as caught:
        peer.request(GetBlockBodies(0, (A,)))
    assert caught.value.name == "bad_response"


def test_an_error_of_the_engine_keeps_its_name(tmp_path: Path) -> None:
    engine = FakeEngine(["eth/69"], lambda _: b"")
    engine.refused = "timed_out"
    with asking(tmp_path, engine) as peer, pytest.raises(EngineError) as caught:
        peer.request(GetBlockBodies(0, (A,)))
    assert caught.value.name == "timed_out"


# -- partial receipts -------------------------------------------------------------------------------------------------------


def serving(blocks: dict[bytes, tuple[Receipt, ...]], at_once: int) -> Callable[[Any], Receipts70]:
    """A peer of eth/70 that puts this many receipts into an answer."""

    def answer(asked: GetReceipts70) -> Receipts70:
        left, found = at_once, []
        for index, block in enumerate(asked.hashes):
            rest = blocks[block][asked.first_index if index == 0 else 0 :]
            found.append(rest[:left])
            if len(rest) > left:
                return Receipts70(asked.request_id, True, tuple(found))
            left -= len(rest)
            if left == 0:
                break
        return Receipts70(asked.request_id, False, tuple(found))

    return answer


BLOCKS = {A: receipts(1, 2), B: receipts(*range(100, 110)), C: receipts(7)}


@pytest.mark.parametrize("version", [70, 71, 72])
def test_an_answer_that_is_complete_is_one_question(tmp_path: Path, version: int) -> None:
    engine = FakeEngine([f"eth/{version}"], serving(BLOCKS, 100))
    with asking(tmp_path, engine) as peer:
        assert peer.request(GetReceipts(5, (A, B, C))) == Receipts70(5, False, tuple(BLOCKS.values()))
    assert engine.asked == [GetReceipts70(5, 0, (A, B, C))]


def test_a_block_that_was_cut_off_is_completed_from_where_it_was_cut(tmp_path: Path) -> None:
    engine = FakeEngine(["eth/70"], serving(BLOCKS, 5))
    with asking(tmp_path, engine) as peer:
        assert peer.request(GetReceipts(5, (A, B, C))) == Receipts70(5, False, (BLOCKS[A], BLOCKS[B]))
        # The caller must ask for the rest, as after a short answer of an earlier version.
        assert peer.request(GetReceipts(6, (C,))) == Receipts70(6, False, (BLOCKS[C],))
    assert engine.asked == [
        GetReceipts70(5, 0, (A, B, C)),
        GetReceipts70(5, 3, (B,)),
        GetReceipts70(5, 8, (B,)),
        GetReceipts70(6, 0, (C,)),
    ]


def test_the_first_block_may_be_the_one_that_was_cut_off(tmp_path: Path) -> None:
    engine = FakeEngine(["eth/70"], serving(BLOCKS, 1))
    with asking(tmp_path, engine) as peer:
        assert peer.request(GetReceipts(0, (B,))) == Receipts70(0, False, (BLOCKS[B],))
    assert len(engine.asked) == len(BLOCKS[B])


def test_a_server_that_passes_over_the_block_it_cut_is_a_bad_response(tmp_path: Path) -> None:
    answers = iter([Receipts70(0, True, (BLOCKS[A], receipts(100))), Receipts70(0, False, ((),))])
    with (
        asking(tmp_path, FakeEngine(["eth/70"], lambda _: next(answers))) as peer,
        pytest.raises(EngineError, match="no receipt of it from index 1 on") as caught,
    ):
        peer.request(GetReceipts(0, (A, B)))
    assert caught.value.name == "bad_response"


async def test_four_requests_are_open_at_a_peer_at_a_time_whoever_asks(tmp_path: Path) -> None:
    engine = FakeEngine(["eth/69"], lambda _: BlockBodies(0))

    def serve(call: dict[str, Any], attachments: list[bytes]) -> list[bytes] | list[tuple[bytes, ...]]:
        replies = engine.serve(call, attachments)
        if call["method"] == "request":
            held.append(replies)
            return [reply for each in held for reply in each] if len(held) == MAX_OPEN_REQUESTS else []
        return replies

    held: list[Any] = []
    with answering(tmp_path, serve):
        async with connect(tmp_path) as connected:
            peers = [connected.peer(SESSION) for _ in range(MAX_OPEN_REQUESTS + 1)]
            asked = [asyncio.create_task(peer.request(GetBlockBodies(0, (A,)))) for peer in peers]
            done, waiting = await asyncio.wait(asked, timeout=0.5)
            assert (len(done), len(waiting)) == (MAX_OPEN_REQUESTS, 1)
            assert len(engine.asked) == MAX_OPEN_REQUESTS + 1
            [last] = waiting
            last.cancel()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([Receipts70(0, True)], "incomplete, without a receipt"),
        ([Receipts70(0, True, ((),))], "incomplete, without a receipt"),
        ([Receipts70(0, False, (receipts(1),) * 3)], "3 blocks of receipts where 2 were asked for"),
        ([Receipts70(0, True, (receipts(1),) * 3)], "3 blocks of receipts where 2 were asked for"),
        ([Receipts70(0, True, (receipts(1, 1),))], "block 0: receipt 1: 1 gas so far, after 1"),
        ([Receipts70(0, True, (receipts(5),)), Receipts70(0, False, (receipts(3),))], "does not follow on what came before"),
        ([Receipts70(0, True, (receipts(5),)), Receipts70(0, True, (receipts(5),))], "does not follow on what came before"),
        ([Receipts70(0, True, (receipts(1),)), Receipts70(0, True, ((),))], "no receipt of it from index 1 on"),
        ([Receipts70(0, True, (receipts(1),)), Receipts70(0, False)], "0 blocks where the rest"),
        (
            [Receipts70(0, True, (receipts(1),)), Receipts70(0, False, (receipts(1), ()))],
            "2 blocks of receipts where 1 were asked for",
        ),
        (
            [Receipts70(0, True, (receipts(1),)), Receipts70(0, False, (receipts(*range(2, (1 << 16) + 2)),))],
            "over 65536 receipts of one block",
        ),
    ],
)
def test_a_peer_that_makes_no_progress_is_a_bad_response(tmp_path: Path, answers: list[Receipts70], words: str) -> None:
    left = iter(answers)
    with (
        asking(tmp_path, FakeEngine(["eth/70"], lambda _: next(left))) as peer,
        pytest.raises(EngineError, match=words) as caught,
    ):
        peer.request(GetReceipts(0, (A, B)))
    assert caught.value.name == "bad_response"
    assert next(left, None) is None


def test_a_peer_that_never_comes_to_an_end_is_left(tmp_path: Path) -> None:
    engine = FakeEngine(["eth/72"], lambda asked: Receipts70(0, True, (receipts(asked.first_index + 1),)))
    with asking(tmp_path, engine) as peer, pytest.raises(EngineError, match=f"more than {MAX_ROUNDS} answers") as caught:
        peer.request(GetReceipts(0, (A,)))
    assert caught.value.name == "bad_response"
    assert len(engine.asked) == MAX_ROUNDS


def test_one_question_for_partial_receipts_is_answered_as_it_is(tmp_path: Path) -> None:
    engine = FakeEngine(["eth/70"], serving(BLOCKS, 4))
    with asking(tmp_path, engine) as peer:
        assert peer.request(GetReceipts70(9, 2, (B, C))) == Receipts70(9, True, (BLOCKS[B][2:6],))
