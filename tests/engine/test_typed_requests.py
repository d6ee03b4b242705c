"""Typed requests: the form of the negotiated version, partial receipts put together, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.client import Client, EngineError
from engine.rpc import ERROR_CODES
from engine.typed_requests import MAX_ROUNDS, Peer
from protocol import eth_messages, rlp, snap_messages
from protocol.eth_messages import (
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
from protocol.eth_messages_chain import BlockBody, BloomReceipt, Receipt
from protocol.snap_messages import SnapMessage
from tests.engine.answering import answering, result

SESSION = 42
A, B, C = (bytes([value]) * 32 for value in (0xA, 0xB, 0xC))
MASK = b"\x01" + bytes(15)
CODECS: dict[str, Any] = {"eth": eth_messages, "snap": snap_messages}


class Played:
    """An engine with one session, whose peer answers by a function; what the peer was asked."""

    def __init__(self, shared: list[str], answer: Callable[[Any], EthMessage | SnapMessage | bytes]) -> None:
        self.shared = shared
        self.asked: list[EthMessage | SnapMessage] = []
        self.refused = ""
        self._answer = answer

    def serve(self, call: dict[str, Any], attachments: list[bytes]) -> list[bytes]:
        parameters = call["params"]
        assert parameters["session"] == SESSION
        if call["method"] == "session":
            # What was announced plays no part.
            return [result(call, {"shared": self.shared, "capabilities": ["eth/66", "eth/72", "snap/1", "snap/2"]})]
        if self.refused:
            error = {"code": ERROR_CODES[self.refused], "message": "no", "data": {"name": self.refused}}
            return [orjson.dumps({"jsonrpc": "2.0", "id": call["id"], "error": error})]
        name = parameters["capability"]
        [version] = [int(item.partition("/")[2]) for item in self.shared if item.startswith(name)]
        self.asked.append(CODECS[name].decode(version, parameters["message"], attachments[0]))
        answer = self._answer(self.asked[-1])
        payload = answer if isinstance(answer, bytes) else CODECS[name].encode(version, answer)
        return [result(call, {"message": "it is not looked at", "payload": "0x" + payload.hex()})]


@contextmanager
def asking(folder: Path, played: Played) -> Iterator[Peer]:
    """The peer of the engine's only session."""
    with answering(folder, played.serve), Client.of(folder) as client:
        yield Peer(client, SESSION)


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
    played = Played([f"eth/{version}"], lambda _: answer)
    with asking(tmp_path, played) as peer:
        assert peer.request(question) == answer
    assert played.asked == [question]


@pytest.mark.parametrize(("version", "question", "answer"), SNAP)
def test_every_snap_request_has_its_typed_answer(tmp_path: Path, version: int, question: Any, answer: SnapMessage) -> None:
    played = Played(["eth/69", f"snap/{version}"], lambda _: answer)
    with asking(tmp_path, played) as peer:
        assert peer.request(question) == answer
    assert played.asked == [question]


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
    played = Played(shared, lambda _: b"")
    with asking(tmp_path, played) as peer, pytest.raises(EngineError, match=words) as caught:
        peer.request(question)
    assert (caught.value.name, caught.value.code) == ("not_shared", ERROR_CODES["not_shared"])
    assert played.asked == []


def test_a_field_that_does_not_fit_is_not_sent(tmp_path: Path) -> None:
    played = Played(["eth/69"], lambda _: b"")
    with asking(tmp_path, played) as peer, pytest.raises(EngineError, match="hashes") as caught:
        peer.request(GetBlockBodies(0, (b"short",)))
    assert caught.value.name == "invalid_params"
    assert played.asked == []


@pytest.mark.parametrize("payload", [b"", b"\x80", rlp.encode([7, b"a string"]), rlp.encode([7, [[b"no body"]]])])
def test_a_malformed_answer_is_a_bad_response(tmp_path: Path, payload: bytes) -> None:
    with asking(tmp_path, Played(["eth/69"], lambda _: payload)) as peer, pytest.raises(EngineError) as caught:
        peer.request(GetBlockBodies(0, (A,)))
    assert caught.value.name == "bad_response"


def test_an_error_of_the_engine_keeps_its_name(tmp_path: Path) -> None:
    played = Played(["eth/69"], lambda _: b"")
    played.refused = "timed_out"
    with asking(tmp_path, played) as peer, pytest.raises(EngineError) as caught:
        peer.request(GetBlockBodies(0, (A,)))
    assert caught.value.name == "timed_out"


# -- partial receipts -------------------------------------------------------------------------------------------------------


def serving(blocks: dict[bytes, tuple[Receipt, ...]], at_once: int) -> Callable[[Any], Receipts70]:
    """A peer of eth/70 that puts so many receipts into an answer."""

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
    played = Played([f"eth/{version}"], serving(BLOCKS, 100))
    with asking(tmp_path, played) as peer:
        assert peer.request(GetReceipts(5, (A, B, C))) == Receipts70(5, False, tuple(BLOCKS.values()))
    assert played.asked == [GetReceipts70(5, 0, (A, B, C))]


def test_a_block_that_was_cut_off_is_completed_from_where_it_was_cut(tmp_path: Path) -> None:
    played = Played(["eth/70"], serving(BLOCKS, 5))
    with asking(tmp_path, played) as peer:
        assert peer.request(GetReceipts(5, (A, B, C))) == Receipts70(5, False, (BLOCKS[A], BLOCKS[B]))
        # The rest is the caller's to ask for, as where an answer of an earlier version is short.
        assert peer.request(GetReceipts(6, (C,))) == Receipts70(6, False, (BLOCKS[C],))
    assert played.asked == [
        GetReceipts70(5, 0, (A, B, C)),
        GetReceipts70(5, 3, (B,)),
        GetReceipts70(5, 8, (B,)),
        GetReceipts70(6, 0, (C,)),
    ]


def test_the_first_block_may_be_the_one_that_was_cut_off(tmp_path: Path) -> None:
    played = Played(["eth/70"], serving(BLOCKS, 1))
    with asking(tmp_path, played) as peer:
        assert peer.request(GetReceipts(0, (B,))) == Receipts70(0, False, (BLOCKS[B],))
    assert len(played.asked) == len(BLOCKS[B])


def test_a_block_may_turn_out_to_have_been_complete(tmp_path: Path) -> None:
    answers = iter([Receipts70(0, True, (BLOCKS[A], ())), Receipts70(0, False, ((),))])
    with asking(tmp_path, Played(["eth/70"], lambda _: next(answers))) as peer:
        assert peer.request(GetReceipts(0, (A, B))) == Receipts70(0, False, (BLOCKS[A], ()))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([Receipts70(0, True)], "incomplete, without a receipt"),
        ([Receipts70(0, True, ((),))], "incomplete, without a receipt"),
        ([Receipts70(0, False, (receipts(1),) * 3)], "3 blocks where 2 were asked for"),
        ([Receipts70(0, True, (receipts(1),) * 3)], "3 blocks where 2 were asked for"),
        ([Receipts70(0, True, (receipts(1),)), Receipts70(0, True, ((),))], "no receipt of it from index 1 on"),
        ([Receipts70(0, True, (receipts(1),)), Receipts70(0, False)], "0 blocks where the rest"),
        ([Receipts70(0, True, (receipts(1),)), Receipts70(0, False, (receipts(1), ()))], "2 blocks where the rest"),
        (
            [Receipts70(0, True, (receipts(1),)), Receipts70(0, False, (receipts(1) * (1 << 16),))],
            "over 65536 receipts of one block",
        ),
    ],
)
def test_a_peer_that_makes_no_progress_is_a_bad_response(tmp_path: Path, answers: list[Receipts70], words: str) -> None:
    left = iter(answers)
    with (
        asking(tmp_path, Played(["eth/70"], lambda _: next(left))) as peer,
        pytest.raises(EngineError, match=words) as caught,
    ):
        peer.request(GetReceipts(0, (A, B)))
    assert caught.value.name == "bad_response"
    assert next(left, None) is None


def test_a_peer_that_never_comes_to_an_end_is_left(tmp_path: Path) -> None:
    played = Played(["eth/72"], lambda _: Receipts70(0, True, (receipts(1),)))
    with asking(tmp_path, played) as peer, pytest.raises(EngineError, match=f"more than {MAX_ROUNDS} answers") as caught:
        peer.request(GetReceipts(0, (A,)))
    assert caught.value.name == "bad_response"
    assert len(played.asked) == MAX_ROUNDS


def test_one_question_for_partial_receipts_is_answered_as_it_is(tmp_path: Path) -> None:
    played = Played(["eth/70"], serving(BLOCKS, 4))
    with asking(tmp_path, played) as peer:
        assert peer.request(GetReceipts70(9, 2, (B, C))) == Receipts70(9, True, (BLOCKS[B][2:6],))
