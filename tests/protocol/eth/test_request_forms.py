"""What passes as the form of a request is what the full decoders read; what does not is named by its field."""

from __future__ import annotations

from typing import Any

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import MessageError, PeerError, RlpError
from rlpx.protocol.eth import eth, snap, snap_messages
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.kinds import MessageKind, message_table
from rlpx.protocol.eth.request_forms import check_request
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol, share

A, B = b"\xaa" * 32, b"\xbb" * 32
MASK = bytes(16)


def kind_of(capability: str, version: int, name: str) -> MessageKind:
    """A message of a version as a session knows it."""
    protocol = eth.sub_protocol(version) if capability == "eth" else snap.sub_protocol(version)
    table = message_table(share([protocol], [protocol.capability]))
    return next(kind for kind in table.by_code if kind is not None and kind.name == name)


RIGHT: list[tuple[str, int, str, Any]] = [
    *[("eth", version, "GetBlockHeaders", [1, [A, 5, 0, 1]]) for version in eth.VERSIONS],
    ("eth", 69, "GetBlockHeaders", [2**64 - 1, [2**64 - 1, 0, 0, 0]]),
    ("eth", 66, "GetNodeData", [1, [A]]),
    ("eth", 70, "GetBlockBodies", [1, [A, B]]),
    ("eth", 68, "GetPooledTransactions", [1, []]),
    ("eth", 69, "GetReceipts", [1, [A]]),
    ("eth", 70, "GetReceipts", [1, 7, [A]]),
    ("eth", 71, "GetBlockAccessLists", [1, [A] * 300]),
    ("eth", 72, "GetCells", [1, [A], MASK]),
    ("snap", 1, "GetAccountRange", [1, A, A, B, 1000]),
    ("snap", 2, "GetStorageRanges", [1, A, [A, B], b"", B, 1000]),
    ("snap", 1, "GetByteCodes", [1, [A], 1000]),
    ("snap", 1, "GetTrieNodes", [1, A, [[b"\x01"], [b"\x01", b"\x02"], []], 1000]),
    ("snap", 2, "GetBlockAccessLists", [1, [A], 1000]),
]


@pytest.mark.parametrize(("capability", "version", "name", "item"), RIGHT)
def test_the_form_of_each_version_passes(capability: str, version: int, name: str, item: Any) -> None:
    check_request(kind_of(capability, version, name), oracle.encode(item))


WRONG: list[tuple[str, int, str, Any, str]] = [
    ("eth", 69, "GetBlockHeaders", b"abc", "GetBlockHeaders: a string where a list belongs"),
    ("eth", 69, "GetBlockHeaders", [1, b""], "GetBlockHeaders.query: a string where a list belongs"),
    ("eth", 69, "GetBlockHeaders", [1, [A, [], 0, 0]], "GetBlockHeaders.query.limit: a list where a string belongs"),
    ("eth", 69, "GetBlockHeaders", [1, [b"\x01" * 9, 1, 0, 0]], "GetBlockHeaders.query.start: an integer of 9 bytes"),
    ("eth", 69, "GetBlockHeaders", [1, [A, 1, 0, 2]], "GetBlockHeaders.query.reverse: a flag that is neither 0 nor 1"),
    ("eth", 69, "GetBlockHeaders", [1, [A, 1, 0]], "GetBlockHeaders.query.reverse: the RLP ends early"),
    ("eth", 69, "GetBlockHeaders", [1, [A, 1, 0, 0, 0]], "GetBlockHeaders.query: more than the 4 fields"),
    ("eth", 69, "GetBlockHeaders", [1, [A, 1, 0, 0], 5], "GetBlockHeaders: more than the 2 fields"),
    ("eth", 69, "GetBlockHeaders", [], "GetBlockHeaders.request_id: the RLP ends early"),
    ("eth", 69, "GetBlockBodies", [1, A], "GetBlockBodies.hashes: a string where a list belongs"),
    ("eth", 69, "GetBlockBodies", [1, [A[:31]]], "GetBlockBodies.hashes: a list of something else than 32-byte hashes"),
    ("eth", 69, "GetBlockBodies", [1, [[b"x" * 31]]], "GetBlockBodies.hashes: a list of something else"),
    # The forms of other versions.
    ("eth", 69, "GetReceipts", [1, 0, [A]], "GetReceipts.hashes: a string where a list belongs"),
    ("eth", 70, "GetReceipts", [1, [A]], "GetReceipts.first_index: a list where a string belongs"),
    ("eth", 72, "GetCells", [1, [A], b"\x01"], "GetCells.mask: a string of 1 bytes where 16 belong"),
    ("eth", 72, "GetCells", [1, [A], []], "GetCells.mask: a list where a string belongs"),
    ("eth", 72, "GetCells", [1, [A]], "GetCells.mask: the RLP ends early"),
    ("snap", 1, "GetAccountRange", [1, A, A, b"", 1000], "GetAccountRange.limit: a string of 0 bytes where 32 belong"),
    ("snap", 1, "GetStorageRanges", [1, A, [A], b"1", b"", 5], "GetStorageRanges.origin: a string of 1 bytes where 0 or 32"),
    ("snap", 1, "GetTrieNodes", [1, A, b"", 5], "GetTrieNodes.paths: a string where a list belongs"),
    ("snap", 1, "GetTrieNodes", [1, A, [b"x"], 5], "GetTrieNodes.paths: a string where a list belongs"),
    ("snap", 1, "GetTrieNodes", [1, A, [[[b"x"]]], 5], "GetTrieNodes.paths: a list where a string belongs"),
    ("snap", 2, "GetBlockAccessLists", [1, [A]], "GetBlockAccessLists.response_bytes: the RLP ends early"),
]


@pytest.mark.parametrize(("capability", "version", "name", "item", "words"), WRONG)
def test_another_form_is_refused_with_the_name_of_the_field(
    capability: str, version: int, name: str, item: Any, words: str
) -> None:
    with pytest.raises((RlpError, MessageError)) as caught:
        check_request(kind_of(capability, version, name), oracle.encode(item))
    assert str(caught.value).startswith(words)


def test_bytes_behind_a_request_are_ignored() -> None:
    check_request(kind_of("eth", 69, "GetBlockBodies"), oracle.encode([1, [A]]) + b"\x00")


def test_a_sub_protocol_of_the_user_s_is_not_judged() -> None:
    wit = SubProtocol(Capability("wit", 0), 4)
    table = message_table(share([wit], [wit.capability]))
    check_request(table.find("wit", 1), b"\xff")


REQUESTS = sorted({(capability, version, name) for capability, version, name, _ in RIGHT})
LEAVES = st.one_of(st.just(A), st.just(MASK), st.integers(0, 2).map(lambda n: b"\x01" * n), st.binary(max_size=34))
ITEMS = st.recursive(LEAVES, lambda children: st.lists(children, max_size=5), max_leaves=12)


@given(request=st.sampled_from(REQUESTS), item=ITEMS, data=st.data())
def test_what_passes_is_what_the_full_decoder_reads(request: tuple[str, int, str], item: Any, data: st.DataObject) -> None:
    capability, version, _ = request
    kind = kind_of(*request)
    right = next(entry[3] for entry in RIGHT if entry[:3] == request)
    # A right one with one of its fields replaced, or anything.
    if data.draw(st.booleans()):
        item = list(right) + data.draw(st.lists(ITEMS, max_size=1))
        item[data.draw(st.integers(0, len(item) - 1))] = data.draw(ITEMS)
    payload = oracle.encode(item)
    module: Any = eth_messages if capability == "eth" else snap_messages
    try:
        module.decode(version, kind.id, payload)
    except PeerError:
        with pytest.raises(PeerError):
            check_request(kind, payload)
    else:
        check_request(kind, payload)
