"""The headers that the example serves, by number and hash, in steps and backwards."""

from __future__ import annotations

import pytest

from rlpx.engine.client import Request
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.chain import HEADER, Header
from rlpx.protocol.eth.messages import BlockHeaders, GetBlockHeaders, HeadersQuery
from rlpx.protocol.rlp import join
from tests.examples.chain_file import Chain
from tests.examples.full_node import FullNode, Pool

LENGTH = 1200


def header(number: int) -> Header:
    words = (bytes(32),) * 2, (bytes(32),) * 3
    return Header(*words[0], bytes(20), *words[1], bytes(256), 0, number, 0, 0, 0, b"", bytes(32), bytes(8))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> FullNode:
    blocks, receipts = (tmp_path_factory.mktemp("chain") / name for name in ("chain.rlp", "receipts.rlp"))
    empty = join([])
    blocks.write_bytes(b"".join(join([HEADER.write(header(number)), empty, empty]) for number in range(LENGTH)))
    receipts.write_bytes(empty * LENGTH)
    return FullNode(Chain(blocks, receipts), Pool())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (HeadersQuery(5, 3), [5, 6, 7]),
        (HeadersQuery(5, 3, skip=9), [5, 15, 25]),
        (HeadersQuery(5, 9, skip=1, reverse=True), [5, 3, 1]),
        (HeadersQuery(header(7).hash, 2, reverse=True), [7, 6]),
        (HeadersQuery(LENGTH - 1, 5), [LENGTH - 1]),
        (HeadersQuery(LENGTH, 5, reverse=True), []),
        (HeadersQuery(2**64 - 1, 2**64 - 1, skip=2**64 - 1), []),
        (HeadersQuery(0, 2**64 - 1, skip=2**64 - 1), [0]),
        (HeadersQuery(b"\x01" * 32, 1), []),
        (HeadersQuery(0, 0), []),
        (HeadersQuery(0, 2**64 - 1), list(range(1024))),
    ],
)
def test_headers_are_those_that_were_asked_for(node: FullNode, query: HeadersQuery, expected: list[int]) -> None:
    payload = eth_messages.encode(69, GetBlockHeaders(7, query))
    answer = node.answer(Request("eth.GetBlockHeaders", 1, "ab", 69, 7, payload))
    assert isinstance(answer, BlockHeaders)
    assert [item.number for item in answer.headers] == expected
