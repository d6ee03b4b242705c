"""Snap: which messages each version has, and answers that hold nothing."""

from __future__ import annotations

import pytest
import rlp as oracle

from protocol import snap
from protocol.capabilities import SubProtocol
from protocol.errors import RlpError
from protocol.eth import Role
from protocol.p2p import Capability

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
    assert {row.id for row in snap.MESSAGES if row.since <= version <= row.until} == IDS[version]


def test_the_messages_have_the_names_of_the_specification_and_the_next_id_answers() -> None:
    assert {row.id: row.name for row in snap.MESSAGES} == NAMES
    assert len(snap.MESSAGES) == len(NAMES)
    roles = {row.id: row.role for row in snap.MESSAGES}
    assert roles == {number: Role.RESPONSE if number % 2 else Role.REQUEST for number in NAMES}
    assert all(NAMES[number] == "Get" + NAMES[number + 1] for number in range(0, 10, 2))


def test_each_version_takes_its_number_of_codes() -> None:
    assert snap.VERSIONS == (1, 2)
    assert snap.sub_protocol(1) == SubProtocol(Capability("snap", 1), 8, 10 << 20)
    assert snap.sub_protocol(2) == SubProtocol(Capability("snap", 2), 10, 10 << 20)


@pytest.mark.parametrize(
    ("message_id", "answer"),
    [(0x00, "c305c0c0"), (0x02, "c305c0c0"), (0x04, "c205c0"), (0x06, "c205c0")],
)
def test_what_we_do_not_have_is_an_empty_list_with_an_empty_proof_where_one_belongs(message_id: int, answer: str) -> None:
    assert snap.empty_answer(5, message_id, oracle.encode([5, ROOT, b"", b"", 1000])).hex() == answer


@pytest.mark.parametrize(("hashes", "answer"), [(0, "c205c0"), (1, "c305c180"), (2, "c405c28080")])
def test_each_access_list_that_we_do_not_have_is_an_empty_string(hashes: int, answer: str) -> None:
    # Behind the hashes stands how many bytes the answer may have: nothing of it concerns an empty one.
    assert snap.empty_answer(5, GET_ACCESS_LISTS, oracle.encode([5, [ROOT] * hashes, 1000])).hex() == answer


@pytest.mark.parametrize("request_id", [0, 127, 128, 2**64 - 1])
def test_every_answer_carries_the_id_of_its_request(request_id: int) -> None:
    for row in snap.MESSAGES:
        if row.role is Role.REQUEST:
            answer = oracle.decode(snap.empty_answer(request_id, row.id, oracle.encode([request_id, []])))
            assert int.from_bytes(answer[0], "big") == request_id
            assert answer[1:] == [[]] * (len(answer) - 1)


def test_no_more_than_1024_access_lists_are_answered() -> None:
    payload = oracle.encode([5, [ROOT] * 1025, 1000])
    assert oracle.decode(snap.empty_answer(5, GET_ACCESS_LISTS, payload)) == [b"\x05", [b""] * 1024]


@pytest.mark.parametrize("payload", [b"", b"\x05", b"\xc0", b"\xc1\x05", b"\xc2\x05\x05", b"\xc3\x05\xc1"])
def test_a_malformed_request_for_access_lists_has_no_answer(payload: bytes) -> None:
    with pytest.raises(RlpError):
        snap.empty_answer(5, GET_ACCESS_LISTS, payload)
