"""Every snap message of both versions: the `rlp` library as a second opinion, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import MessageError, RlpError, UsageError
from rlpx.protocol.eth import snap
from rlpx.protocol.eth import snap_messages as messages
from rlpx.protocol.eth.empty import empty_answer
from rlpx.protocol.eth.snap_messages import AccountData, SlimAccount, SnapMessage, StorageData
from rlpx.protocol.eth.table import MAX_MESSAGE_BYTES, MessageRole
from rlpx.protocol.rlpx.capabilities import Capability
from tests.generated import examples
from tests.protocol.layouts import Fields, listed, raw, wrongs

HASHES = (b"\x11" * 32, b"\x22" * 32)
U64 = st.integers(0, 2**64 - 1)
WORD = st.integers(0, 2**256 - 1)
HASH = st.binary(min_size=32, max_size=32)
BOUND = st.just(b"") | HASH

BOTH: dict[int, type] = {
    0x00: messages.GetAccountRange,
    0x01: messages.AccountRange,
    0x02: messages.GetStorageRanges,
    0x03: messages.StorageRanges,
    0x04: messages.GetByteCodes,
    0x05: messages.ByteCodes,
}
EXPECTED: dict[int, dict[int, type]] = {
    1: BOTH | {0x06: messages.GetTrieNodes, 0x07: messages.TrieNodes},
    2: BOTH | {0x08: messages.GetBlockAccessLists, 0x09: messages.BlockAccessLists},
}


def account_item(account: SlimAccount) -> Any:
    fields = Fields([account.nonce, account.balance, account.root, account.code_hash])
    return oracle.encode(fields) if account.in_string else fields


LAYOUTS: dict[type, Callable[[Any], Fields]] = {
    messages.GetAccountRange: lambda m: Fields(msgspec.structs.astuple(m)),
    messages.AccountRange: lambda m: Fields(
        [m.request_id, [Fields([item.hash, account_item(item.account)]) for item in m.accounts], list(m.proof)]
    ),
    messages.GetStorageRanges: lambda m: Fields(
        [m.request_id, m.root, list(m.accounts), m.origin, m.limit, m.response_bytes]
    ),
    messages.StorageRanges: lambda m: Fields(
        [m.request_id, [[Fields([slot.hash, slot.data]) for slot in slots] for slots in m.slots], list(m.proof)]
    ),
    messages.GetByteCodes: lambda m: Fields([m.request_id, list(m.hashes), m.response_bytes]),
    messages.ByteCodes: lambda m: Fields([m.request_id, list(m.codes)]),
    messages.GetTrieNodes: lambda m: Fields([m.request_id, m.root, [list(paths) for paths in m.paths], m.response_bytes]),
    messages.TrieNodes: lambda m: Fields([m.request_id, list(m.nodes)]),
    messages.GetBlockAccessLists: lambda m: Fields([m.request_id, list(m.hashes), m.response_bytes]),
    messages.BlockAccessLists: lambda m: Fields([m.request_id, [raw(item) for item in m.access_lists]]),
}


def several(strategy: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=most).map(tuple)


BLOBS = several(st.binary(max_size=70))
ACCOUNT = st.builds(SlimAccount, U64, WORD, BOUND, BOUND, st.booleans())
ACCESS_LIST = st.just(b"") | st.lists(st.lists(st.binary(max_size=40), max_size=3), max_size=3).map(oracle.encode)
STRATEGIES: dict[type, st.SearchStrategy[Any]] = {
    messages.GetAccountRange: st.builds(messages.GetAccountRange, U64, HASH, HASH, HASH, U64),
    messages.AccountRange: st.builds(messages.AccountRange, U64, several(st.builds(AccountData, HASH, ACCOUNT)), BLOBS),
    messages.GetStorageRanges: st.builds(messages.GetStorageRanges, U64, HASH, several(HASH), BOUND, BOUND, U64),
    messages.StorageRanges: st.builds(
        messages.StorageRanges, U64, several(several(st.builds(StorageData, HASH, st.binary(max_size=40)))), BLOBS
    ),
    messages.GetByteCodes: st.builds(messages.GetByteCodes, U64, several(HASH), U64),
    messages.ByteCodes: st.builds(messages.ByteCodes, U64, BLOBS),
    messages.GetTrieNodes: st.builds(messages.GetTrieNodes, U64, HASH, several(BLOBS), U64),
    messages.TrieNodes: st.builds(messages.TrieNodes, U64, BLOBS),
    messages.GetBlockAccessLists: st.builds(messages.GetBlockAccessLists, U64, several(HASH), U64),
    messages.BlockAccessLists: st.builds(messages.BlockAccessLists, U64, several(ACCESS_LIST)),
}

PROOF = (b"\xf8 one node", b"another node")
# One of each, with everything in it. No byte string of a free length has the length of a fixed one.
SAMPLES: list[SnapMessage] = [
    messages.GetAccountRange(1111, *HASHES, b"\xff" * 32, 2**20),
    messages.AccountRange(
        1111,
        (
            AccountData(HASHES[0], SlimAccount(5, 10**20, *HASHES)),
            AccountData(HASHES[1], SlimAccount(0, 0, b"", HASHES[0])),
        ),
        PROOF,
    ),
    messages.GetStorageRanges(1111, HASHES[0], HASHES, HASHES[1], b"\xff" * 32, 2**20),
    messages.StorageRanges(1111, ((StorageData(HASHES[0], b"\x84many"),), ()), PROOF),
    messages.GetByteCodes(1111, HASHES, 2**20),
    messages.ByteCodes(1111, (b"\x60\x00", b"")),
    messages.GetTrieNodes(1111, HASHES[0], ((b"\x01\x02",), (b"\x20" + HASHES[0], b"\x03")), 2**20),
    messages.TrieNodes(1111, PROOF),
    messages.GetBlockAccessLists(1111, HASHES, 2**20),
    messages.BlockAccessLists(1111, (b"", b"\xc0", oracle.encode([[b"\x55" * 20, [], []]]))),
]

KINDS = [(version, number, struct) for version, table in EXPECTED.items() for number, struct in table.items()]
every_kind = pytest.mark.parametrize(
    ("version", "number", "struct"), KINDS, ids=[f"snap{version}-{struct.__name__}" for version, _, struct in KINDS]
)


def layout(message: SnapMessage) -> Fields:
    return LAYOUTS[type(message)](message)


def sample(struct: type) -> SnapMessage:
    [message] = [message for message in SAMPLES if type(message) is struct]
    return message


def refuses(version: int, number: int, payload: bytes, why: str | None = None) -> None:
    with pytest.raises((RlpError, MessageError), match=why):
        messages.decode(version, number, payload)


# -- the table --------------------------------------------------------------------------------------------------------------


def test_each_version_has_the_messages_of_its_specification_and_no_other() -> None:
    assert {version: dict(table) for version, table in messages.MESSAGES.items()} == EXPECTED
    for version, table in EXPECTED.items():
        for number in {*range(0x10), 0xFF, -1} - set(table):
            refuses(version, number, b"\xc0", f"snap/{version} has no message")


@every_kind
def test_a_message_knows_its_id_and_only_its_versions_write_it(version: int, number: int, struct: type) -> None:
    message = sample(struct)
    assert messages.id_of(version, message) == number
    other = 3 - version
    if struct not in BOTH.values():
        with pytest.raises(UsageError, match=f"snap/{other} has no {struct.__name__}"):
            messages.encode(other, message)


@pytest.mark.parametrize("version", [0, 3])
def test_a_version_that_nobody_speaks_is_our_own_mistake(version: int) -> None:
    with pytest.raises(UsageError, match="not spoken here"):
        messages.decode(version, 0, b"\xc0")
    with pytest.raises(UsageError, match="not spoken here"):
        messages.encode(version, SAMPLES[0])


def test_the_empty_answers_of_a_node_that_has_nothing_are_messages() -> None:
    for row in snap.MESSAGES:
        if row.role is MessageRole.REQUEST:
            version = max(filter(row.is_in, snap.VERSIONS))
            request = messages.encode(version, sample(EXPECTED[version][row.id]))
            answer = messages.decode(
                version, row.id + 1, empty_answer(Capability(snap.NAME, version), 1111, row.id, request)
            )
            assert answer.request_id == 1111


# -- a second opinion -------------------------------------------------------------------------------------------------------


@every_kind
@examples(40)
@given(data=st.data())
def test_a_message_is_written_as_the_library_encodes_its_layout(
    version: int, number: int, struct: type, data: st.DataObject
) -> None:
    message = data.draw(STRATEGIES[struct])
    payload = oracle.encode(layout(message))
    assert messages.encode(version, message) == payload
    assert messages.decode(version, number, payload) == message


@every_kind
def test_a_message_cut_off_at_any_byte_or_with_one_more_is_refused(version: int, number: int, struct: type) -> None:
    payload = messages.encode(version, sample(struct))
    for length in range(len(payload)):
        refuses(version, number, payload[:length])
    refuses(version, number, payload + b"\x00", "bytes after the message")
    refuses(version, number, payload + payload, "bytes after the message")


@every_kind
def test_a_message_with_anything_of_the_wrong_shape_in_it_is_refused(version: int, number: int, struct: type) -> None:
    message = sample(struct)
    assert messages.decode(version, number, oracle.encode(layout(message))) == message
    count = 0
    for wrong in wrongs(layout(message)):
        refuses(version, number, oracle.encode(wrong))
        count += 1
    assert count > 1


@every_kind
@examples(40)
@given(data=st.data())
def test_a_message_with_some_bytes_changed_is_refused_or_is_another_of_the_same_bytes(
    version: int, number: int, struct: type, data: st.DataObject
) -> None:
    payload = bytearray(messages.encode(version, sample(struct)))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    same_or_refused(version, number, bytes(payload))


@given(version=st.sampled_from([1, 2]), number=st.integers(0, 10), payload=st.binary(max_size=60))
def test_any_bytes_are_refused_or_are_a_message_of_these_bytes(version: int, number: int, payload: bytes) -> None:
    same_or_refused(version, number, payload)


def same_or_refused(version: int, number: int, payload: bytes) -> None:
    try:
        message = messages.decode(version, number, payload)
    except (RlpError, MessageError):
        return
    assert messages.encode(version, message) == payload


# -- accounts ---------------------------------------------------------------------------------------------------------------

FIELDS = oracle.encode([5, 100, b"", b""])


def test_an_account_is_a_list_as_geth_sends_it_or_that_list_in_a_string_as_reth_does() -> None:
    for item, in_string in ((oracle.decode(FIELDS), False), (FIELDS, True)):
        payload = oracle.encode([1, [[HASHES[0], item]], []])
        message = messages.AccountRange(1, (AccountData(HASHES[0], SlimAccount(5, 100, in_string=in_string)),))
        assert messages.decode(1, 1, payload) == message
        assert messages.encode(1, message) == payload


@pytest.mark.parametrize(
    "body", [b"", b"\x05", FIELDS[:-1], FIELDS + b"\x00", oracle.encode([5, 100, b""]), oracle.encode(FIELDS)]
)
def test_a_string_that_holds_no_account_is_refused(body: bytes) -> None:
    refuses(1, 1, oracle.encode([1, [[HASHES[0], body]], []]))


def test_a_root_and_a_code_hash_are_hashes_or_empty() -> None:
    for root, code_hash in ((b"\x01", b""), (b"", HASHES[0][1:]), (HASHES[0] + b"\x01", b"")):
        refuses(1, 1, oracle.encode([1, [[HASHES[0], [5, 100, root, code_hash]]], []]))
        account = AccountData(HASHES[0], SlimAccount(5, 100, root, code_hash))
        with pytest.raises(UsageError, match="0 or 32 bytes"):
            messages.encode(1, messages.AccountRange(1, (account,)))


# -- bounds -----------------------------------------------------------------------------------------------------------------

HASH_ITEM = b"\xa0" + HASHES[0]
SLOT = listed(HASH_ITEM + b"\x05")


@pytest.mark.parametrize(
    ("version", "number", "around", "item", "most"),
    [
        (1, 0x02, (b"\x01" + HASH_ITEM, b"\x80\x80\x80"), HASH_ITEM, messages.MAX_ASKED),
        (1, 0x03, (b"\x01", b"\xc0"), b"\xc0", messages.MAX_ANSWERED),
        (1, 0x03, (b"\x01\xc0", b""), b"\x05", messages.MAX_PROOF_NODES),
        (1, 0x01, (b"\x01\xc0", b""), b"\x05", messages.MAX_PROOF_NODES),
        (1, 0x04, (b"\x01", b"\x80"), HASH_ITEM, messages.MAX_ASKED),
        (1, 0x05, (b"\x01", b""), b"\x05", messages.MAX_ANSWERED),
        (1, 0x06, (b"\x01" + HASH_ITEM, b"\x80"), b"\xc0", messages.MAX_ASKED),
        (1, 0x07, (b"\x01", b""), b"\x05", messages.MAX_ANSWERED),
        (2, 0x08, (b"\x01", b"\x80"), HASH_ITEM, messages.MAX_ASKED),
        (2, 0x09, (b"\x01", b""), b"\x80", messages.MAX_ANSWERED),
    ],
)
def test_a_list_has_its_most(version: int, number: int, around: tuple[bytes, bytes], item: bytes, most: int) -> None:
    before, after = around
    full = listed(before + listed(item * most) + after)
    assert messages.encode(version, messages.decode(version, number, full)) == full
    refuses(version, number, listed(before + listed(item * (most + 1)) + after), "may stand")


def test_two_mebibytes_of_the_smallest_slots_are_a_message_and_ten_are_not() -> None:
    slots = (2 << 20) // len(SLOT)
    decoded = messages.decode(1, 3, listed(b"\x01" + listed(listed(SLOT * slots)) + b"\xc0"))
    assert isinstance(decoded, messages.StorageRanges)
    assert len(decoded.slots[0]) == slots
    refuses(1, 3, listed(b"\x01" + listed(listed(SLOT * (slots * 3))) + b"\xc0"), "may stand")
    refuses(1, 3, listed(b"\x01" + listed(listed(SLOT * slots) * 3) + b"\xc0"), "more list elements than fit the message")


def test_more_than_ten_mebibytes_are_refused_unread() -> None:
    refuses(1, 5, bytes(MAX_MESSAGE_BYTES + 1), "a message of 10485761 bytes")


@pytest.mark.parametrize("junk", [b"\xc0", b"\x01", b"\x80", b"\xc1\xc0", HASH_ITEM])
def test_ten_mebibytes_of_one_thing_are_refused(junk: bytes) -> None:
    space = MAX_MESSAGE_BYTES - 64
    for version, number, _ in KINDS:
        payload = listed(b"\x01" + listed(junk * (space // len(junk))))
        refuses(version, number, payload)
