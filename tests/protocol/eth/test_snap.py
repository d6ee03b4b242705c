"""Snap: which messages each version has, and answers that hold nothing."""

from __future__ import annotations

import pytest

from rlpx.protocol.eth import snap
from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol

NAMES = {
    0x00: "GetAccountRange",
    0x01: "AccountRange",
    0x02: "GetStorageRanges",
    0x03: "StorageRanges",
    0x04: "GetByteCodes",
    0x05: "ByteCodes",
    0x06: "GetTrieNodes",
    0x07: "TrieNodes",
    0x08: "GetBlockAccessLists",
    0x09: "BlockAccessLists",
}
IDS = {1: {0, 1, 2, 3, 4, 5, 6, 7}, 2: {0, 1, 2, 3, 4, 5, 8, 9}}
ROOT = b"\x11" * 32
GET_ACCESS_LISTS = 0x08


@pytest.mark.parametrize("version", snap.VERSIONS)
def test_each_version_has_the_messages_of_its_specification(version: int) -> None:
    assert {row.id for row in snap.MESSAGES if row.is_in(version)} == IDS[version]


def test_the_messages_have_the_names_of_the_specification_and_the_next_id_answers() -> None:
    assert {row.id: row.name for row in snap.MESSAGES} == NAMES
    assert len(snap.MESSAGES) == len(NAMES)
    roles = {row.id: row.role for row in snap.MESSAGES}
    assert roles == {number: MessageRole.RESPONSE if number % 2 else MessageRole.REQUEST for number in NAMES}
    assert all(NAMES[number] == "Get" + NAMES[number + 1] for number in range(0, 10, 2))


def test_each_version_takes_its_number_of_codes() -> None:
    assert snap.VERSIONS == (1, 2)
    assert snap.sub_protocol(1) == SubProtocol(Capability("snap", 1), 8, 10 << 20)
    assert snap.sub_protocol(2) == SubProtocol(Capability("snap", 2), 10, 10 << 20)
