"""Answers that hold nothing, in the form of each request."""

from __future__ import annotations

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol import rlp
from rlpx.protocol.errors import RlpError
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.empty import empty_answer
from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.rlpx.capabilities import Capability
from tests.vectors import load

VECTORS = load("eth_messages")
EXAMPLES = {example["name"]: example for example in VECTORS["computed_layout_examples"]}
HASHES = [bytes.fromhex(text) for text in VECTORS["hashes_used"]]
U64 = st.integers(0, 2**64 - 1)
HASH = st.binary(min_size=32, max_size=32)
ROOT = b"\x11" * 32
SNAP_GET_ACCESS_LISTS = 0x08


def of_eth(version: int, request_id: int, message_id: int, payload: bytes) -> bytes:
    return empty_answer(Capability("eth", version), request_id, message_id, payload)


def of_snap(request_id: int, message_id: int, payload: bytes) -> bytes:
    return empty_answer(Capability("snap", 2), request_id, message_id, payload)


# -- eth --------------------------------------------------------------------------------------------------------------------

REQUEST_ID = 2001
MASK = bytes(range(16))
TWO_HASHES = oracle.encode([REQUEST_ID, HASHES])
CELLS = oracle.encode([REQUEST_ID, HASHES, MASK])
GET_RECEIPTS, GET_ACCESS_LISTS, GET_CELLS = 0x0F, 0x12, 0x14


@pytest.mark.parametrize("request_code", [0x03, 0x05, 0x09])
@pytest.mark.parametrize("version", eth.VERSIONS)
def test_headers_bodies_and_transactions_that_we_do_not_have_are_an_empty_list(version: int, request_code: int) -> None:
    assert of_eth(version, REQUEST_ID, request_code, TWO_HASHES).hex() == "c48207d1c0"


@pytest.mark.parametrize(
    ("version", "answer"),
    [(version, "c48207d1c0" if version <= 69 else "c58207d180c0") for version in eth.VERSIONS],
)
def test_receipts_that_we_do_not_have_are_a_complete_empty_list(version: int, answer: str) -> None:
    assert of_eth(version, REQUEST_ID, GET_RECEIPTS, TWO_HASHES).hex() == answer


def test_node_data_that_we_do_not_have_is_an_empty_list() -> None:
    assert of_eth(66, REQUEST_ID, 0x0D, TWO_HASHES).hex() == "c48207d1c0"


@pytest.mark.parametrize("version", [71, 72])
def test_each_access_list_that_we_do_not_have_is_an_empty_string(version: int) -> None:
    assert of_eth(version, REQUEST_ID, GET_ACCESS_LISTS, TWO_HASHES).hex() == "c68207d1c28080"
    assert of_eth(version, REQUEST_ID, GET_ACCESS_LISTS, oracle.encode([REQUEST_ID, []])).hex() == "c48207d1c0"


@pytest.mark.parametrize("mask", [MASK, bytes(16), b"\xff" * 16])
def test_cells_that_we_do_not_have_are_answered_with_the_mask_of_the_request(mask: bytes) -> None:
    answer = of_eth(72, REQUEST_ID, GET_CELLS, oracle.encode([REQUEST_ID, HASHES, mask]))
    assert answer.hex() == "d68207d1c0c090" + mask.hex()


def test_our_empty_answers_are_those_of_the_vectors() -> None:
    empty = VECTORS["go_ethereum_TestEmptyMessages"]
    for version, request_code in [(69, 0x03), (69, 0x05), (69, 0x09), (69, GET_RECEIPTS)]:
        assert of_eth(version, empty["request_id"], request_code, b"\xc0").hex() == empty["rlp"]
    none = EXAMPLES["Receipts eth/70 id 7 complete, none"]["rlp"]
    assert of_eth(70, 7, GET_RECEIPTS, b"\xc0").hex() == none
    request = bytes.fromhex(EXAMPLES["GetBlockAccessLists eth/71 id 42 two hashes"]["rlp"])
    missing = EXAMPLES["BlockAccessLists eth/71 id 42 two missing"]["rlp"]
    assert of_eth(71, 42, GET_ACCESS_LISTS, request).hex() == missing


@given(request_id=U64, version=st.sampled_from(eth.VERSIONS), hashes=st.lists(HASH, max_size=5))
def test_every_answer_carries_the_id_of_its_request(request_id: int, version: int, hashes: list[bytes]) -> None:
    payload = oracle.encode([request_id, hashes, MASK])
    for row in eth.MESSAGES:
        if row.role is MessageRole.REQUEST and row.is_in(version):
            answer = of_eth(version, request_id, row.id, payload)
            assert rlp.first_uint(answer) == request_id
            assert oracle.encode(oracle.decode(answer)) == answer


@pytest.mark.parametrize(("asked", "answered"), [(1023, 1023), (1024, 1024), (1025, 1024), (4096, 1024)])
def test_no_more_than_1024_access_lists_are_answered(asked: int, answered: int) -> None:
    payload = oracle.encode([REQUEST_ID, [b"\x01" * 32] * asked])
    answer = oracle.decode(of_eth(71, REQUEST_ID, GET_ACCESS_LISTS, payload))
    assert answer == [b"\x07\xd1", [b""] * answered]


@pytest.mark.parametrize(
    ("request_code", "payload"),
    [
        (GET_ACCESS_LISTS, b""),
        (GET_ACCESS_LISTS, b"\x07"),
        (GET_ACCESS_LISTS, oracle.encode([])),
        (GET_ACCESS_LISTS, oracle.encode([REQUEST_ID])),
        (GET_ACCESS_LISTS, oracle.encode([REQUEST_ID, HASHES[0]])),
        (GET_ACCESS_LISTS, TWO_HASHES[:-1]),
        (GET_CELLS, b""),
        (GET_CELLS, oracle.encode([REQUEST_ID, HASHES])),
        (GET_CELLS, oracle.encode([REQUEST_ID, HASHES, MASK[1:]])),
        (GET_CELLS, oracle.encode([REQUEST_ID, HASHES, MASK + b"\x01"])),
        (GET_CELLS, oracle.encode([REQUEST_ID, HASHES, [MASK]])),
        (GET_CELLS, CELLS[:-1]),
    ],
)
def test_a_malformed_request_has_no_answer(request_code: int, payload: bytes) -> None:
    with pytest.raises(RlpError):
        of_eth(72, REQUEST_ID, request_code, payload)


# -- snap -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message_id", "answer"),
    [(0x00, "c305c0c0"), (0x02, "c305c0c0"), (0x04, "c205c0"), (0x06, "c205c0")],
)
def test_what_we_do_not_have_is_an_empty_list_with_an_empty_proof_where_one_belongs(message_id: int, answer: str) -> None:
    assert of_snap(5, message_id, oracle.encode([5, ROOT, b"", b"", 1000])).hex() == answer


@pytest.mark.parametrize(("hashes", "answer"), [(0, "c205c0"), (1, "c305c180"), (2, "c405c28080")])
def test_each_access_list_of_snap_that_we_do_not_have_is_an_empty_string(hashes: int, answer: str) -> None:
    # Behind the hashes stands how many bytes the answer may have: nothing of it concerns an empty one.
    assert of_snap(5, SNAP_GET_ACCESS_LISTS, oracle.encode([5, [ROOT] * hashes, 1000])).hex() == answer


@pytest.mark.parametrize("request_id", [0, 127, 128, 2**64 - 1])
def test_every_answer_of_snap_carries_the_id_of_its_request(request_id: int) -> None:
    for row in snap.MESSAGES:
        if row.role is MessageRole.REQUEST:
            answer = oracle.decode(of_snap(request_id, row.id, oracle.encode([request_id, []])))
            assert int.from_bytes(answer[0], "big") == request_id
            assert answer[1:] == [[]] * (len(answer) - 1)


def test_no_more_than_1024_access_lists_of_snap_are_answered() -> None:
    payload = oracle.encode([5, [ROOT] * 1025, 1000])
    assert oracle.decode(of_snap(5, SNAP_GET_ACCESS_LISTS, payload)) == [b"\x05", [b""] * 1024]


@pytest.mark.parametrize("payload", [b"", b"\x05", b"\xc0", b"\xc1\x05", b"\xc2\x05\x05", b"\xc3\x05\xc1"])
def test_a_malformed_request_of_snap_for_access_lists_has_no_answer(payload: bytes) -> None:
    with pytest.raises(RlpError):
        of_snap(5, SNAP_GET_ACCESS_LISTS, payload)
