"""Eth: which messages each version has."""

from __future__ import annotations

from typing import Any

import pytest

from rlpx.protocol import rlp
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol
from tests.vectors import load

VECTORS = load("eth_messages")
EXAMPLES = {example["name"]: example for example in VECTORS["computed_layout_examples"]}

ALWAYS = {*range(0x0B), 0x0F, 0x10}
IDS = {
    66: ALWAYS | {0x0D, 0x0E},
    67: ALWAYS,
    68: ALWAYS,
    69: ALWAYS | {0x11},
    70: ALWAYS | {0x11},
    71: ALWAYS | {0x11, 0x12, 0x13},
    72: ALWAYS | {0x11, 0x12, 0x13, 0x14, 0x15},
}
NAMES = {
    0x00: "Status",
    0x01: "NewBlockHashes",
    0x02: "Transactions",
    0x03: "GetBlockHeaders",
    0x04: "BlockHeaders",
    0x05: "GetBlockBodies",
    0x06: "BlockBodies",
    0x07: "NewBlock",
    0x08: "NewPooledTransactionHashes",
    0x09: "GetPooledTransactions",
    0x0A: "PooledTransactions",
    0x0D: "GetNodeData",
    0x0E: "NodeData",
    0x0F: "GetReceipts",
    0x10: "Receipts",
    0x11: "BlockRangeUpdate",
    0x12: "GetBlockAccessLists",
    0x13: "BlockAccessLists",
    0x14: "GetCells",
    0x15: "Cells",
}


@pytest.mark.parametrize("version", eth.VERSIONS)
def test_each_version_has_the_messages_of_its_specification(version: int) -> None:
    rows = [row for row in eth.MESSAGES if row.is_in(version)]
    assert {row.id for row in rows} == IDS[version]
    assert max(IDS[version]) < eth.MESSAGE_COUNTS[version]


def test_the_messages_have_the_names_of_the_specification() -> None:
    assert {row.id: row.name for row in eth.MESSAGES} == NAMES
    assert len(eth.MESSAGES) == len(NAMES)


def test_requests_are_the_messages_that_get_and_the_next_id_answers() -> None:
    rows = {row.id: row for row in eth.MESSAGES}
    requests = {row.id for row in eth.MESSAGES if row.role is MessageRole.REQUEST}
    assert requests == {number for number, name in NAMES.items() if name.startswith("Get")}
    assert {row.id - 1 for row in eth.MESSAGES if row.role is MessageRole.RESPONSE} == requests
    for number in requests:
        assert rows[number].name == "Get" + rows[number + 1].name
        assert (rows[number].since, rows[number].until) == (rows[number + 1].since, rows[number + 1].until)


def test_each_version_takes_its_number_of_codes() -> None:
    assert [eth.sub_protocol(version) for version in (66, 67, 68, 69, 70, 71, 72)] == [
        SubProtocol(Capability("eth", version), count, 10 << 20)
        for version, count in [(66, 17), (67, 17), (68, 17), (69, 18), (70, 18), (71, 20), (72, 22)]
    ]
    assert eth.VERSIONS == (66, 67, 68, 69, 70, 71, 72)


@pytest.mark.parametrize("case", VECTORS["go_ethereum_TestMessages"])
def test_the_request_id_of_each_published_message_is_its_first_element(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["rlp"])
    assert rlp.first_uint(payload) == case["request_id"] == 1111
    assert {row.id: row.role for row in eth.MESSAGES}[case["code"]] is not MessageRole.ANNOUNCEMENT


@pytest.mark.parametrize(
    ("name", "request_id"),
    [
        ("GetReceipts eth/70 id 1111 first index 0", 1111),
        ("GetReceipts eth/70 id 66 first index 55", 66),
        ("Receipts eth/70 id 7 incomplete, one empty-ish receipt", 7),
        ("GetBlockAccessLists eth/71 id 42 two hashes", 42),
    ],
)
def test_the_request_id_of_later_versions_stands_in_the_same_place(name: str, request_id: int) -> None:
    assert rlp.first_uint(bytes.fromhex(EXAMPLES[name]["rlp"])) == request_id
