"""The table that tells for each code on the wire which message it is."""

from __future__ import annotations

import msgspec
import pytest
import rlp as oracle

from rlpx.protocol.errors import NotSharedError, RlpError
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.kinds import (
    TABLES_KEPT,
    MessageKind,
    MessageTable,
    message_id,
    message_names,
    message_table,
    request_names,
    topics,
)
from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.rlpx.capabilities import Capability, Shared, SubProtocol, share

# A sub-protocol of a user's, behind eth and snap in the order of names.
USERS = SubProtocol(Capability("user", 3), 4)


def shared_of(*protocols: SubProtocol) -> tuple[Shared, ...]:
    """What two peers share who both speak exactly these."""
    return share(protocols, [protocol.capability for protocol in protocols])


def table_of(*protocols: SubProtocol) -> MessageTable:
    """The table of two such peers."""
    return message_table(shared_of(*protocols))


def topics_by_code(table: MessageTable) -> dict[int, str]:
    """The topic of every code that has an entry."""
    return {code: kind.topic for code, kind in enumerate(table.by_code) if kind is not None}


def kinds(table: MessageTable) -> list[MessageKind]:
    """All entries."""
    return [kind for kind in table.by_code if kind is not None]


def test_eth_68_and_snap_1_have_these_codes() -> None:
    assert topics_by_code(table_of(eth.sub_protocol(68), snap.sub_protocol(1))) == {
        0x10: "eth.Status",
        0x11: "eth.NewBlockHashes",
        0x12: "eth.Transactions",
        0x13: "eth.GetBlockHeaders",
        0x14: "eth.BlockHeaders",
        0x15: "eth.GetBlockBodies",
        0x16: "eth.BlockBodies",
        0x17: "eth.NewBlock",
        0x18: "eth.NewPooledTransactionHashes",
        0x19: "eth.GetPooledTransactions",
        0x1A: "eth.PooledTransactions",
        0x1F: "eth.GetReceipts",
        0x20: "eth.Receipts",
        0x21: "snap.GetAccountRange",
        0x22: "snap.AccountRange",
        0x23: "snap.GetStorageRanges",
        0x24: "snap.StorageRanges",
        0x25: "snap.GetByteCodes",
        0x26: "snap.ByteCodes",
        0x27: "snap.GetTrieNodes",
        0x28: "snap.TrieNodes",
    }


def test_behind_a_longer_eth_snap_begins_later() -> None:
    by_code = topics_by_code(table_of(eth.sub_protocol(72), snap.sub_protocol(2)))
    assert by_code[0x25] == "eth.Cells"
    assert by_code[0x26] == "snap.GetAccountRange"
    assert {0x2C, 0x2D}.isdisjoint(by_code)
    assert by_code[0x2E] == "snap.GetBlockAccessLists"
    assert max(by_code) == 0x2F


def test_node_data_is_in_eth_66_alone() -> None:
    having = {
        version for version in eth.VERSIONS if "eth.NodeData" in topics_by_code(table_of(eth.sub_protocol(version))).values()
    }
    assert having == {66}
    table = table_of(eth.sub_protocol(66))
    assert table.find("eth", 0x0D).answer == 0x0E
    assert table.find("eth", 0x0E).topic == "eth.NodeData"


@pytest.mark.parametrize("version", eth.VERSIONS)
@pytest.mark.parametrize("hole", [0x0B, 0x0C])
def test_ids_that_nobody_assigned_have_no_entry(version: int, hole: int) -> None:
    table = table_of(eth.sub_protocol(version))
    assert table.by_code[0x10 + hole] is None
    with pytest.raises(NotSharedError, match=f"eth/{version} has no message 0x{hole:02x}"):
        table.find("eth", hole)


@pytest.mark.parametrize("eth_version", eth.VERSIONS)
@pytest.mark.parametrize("snap_version", snap.VERSIONS)
def test_every_entry_is_found_by_its_name_and_id_where_its_code_says(eth_version: int, snap_version: int) -> None:
    shared = shared_of(eth.sub_protocol(eth_version), snap.sub_protocol(snap_version), USERS)
    table = message_table(shared)
    offsets = {item.capability: item.offset for item in shared}
    for kind in kinds(table):
        assert kind.code == offsets[kind.capability] + kind.id
        assert table.by_code[kind.code] is kind
        assert table.find(kind.capability.name, kind.id) is kind
        assert kind.topic == f"{kind.capability.name}.{kind.name}"
    assert [kind.code for kind in kinds(table)] == sorted({kind.code for kind in kinds(table)})
    assert table.shared == shared
    assert table.eth == shared[0]
    assert list(table.capabilities) == ["eth", "snap", "user"]


@pytest.mark.parametrize("eth_version", eth.VERSIONS)
@pytest.mark.parametrize("snap_version", snap.VERSIONS)
def test_each_request_names_its_response_and_nothing_else_has_an_answer(eth_version: int, snap_version: int) -> None:
    table = table_of(eth.sub_protocol(eth_version), snap.sub_protocol(snap_version), USERS)
    answers = {kind.topic: kind.answer for kind in kinds(table)}
    for kind in kinds(table):
        if kind.role is MessageRole.REQUEST:
            assert kind.answer is not None
            response = table.find(kind.capability.name, kind.answer)
            assert response.role is MessageRole.RESPONSE
            assert kind.name == "Get" + response.name
        else:
            assert answers[kind.topic] is None
    assert sum(kind.role is MessageRole.REQUEST for kind in kinds(table)) == sum(
        kind.role is MessageRole.RESPONSE for kind in kinds(table)
    )


def test_a_sub_protocol_of_the_users_has_its_numbers_for_names() -> None:
    table = table_of(eth.sub_protocol(69), USERS)
    behind_eth = {code: topic for code, topic in topics_by_code(table).items() if code >= 0x22}
    assert behind_eth == {0x22: "user.0", 0x23: "user.1", 0x24: "user.2", 0x25: "user.3"}
    assert table.find("user", 3).role is MessageRole.ANNOUNCEMENT
    with pytest.raises(NotSharedError):
        table.find("user", 4)


KIB = 1024
LIMITS = {
    "eth.Status": KIB,
    "eth.NewBlockHashes": 512 * KIB,
    "eth.GetBlockHeaders": KIB,
    "eth.GetBlockBodies": 512 * KIB,
    "eth.NewPooledTransactionHashes": 640 * KIB,
    "eth.GetPooledTransactions": 512 * KIB,
    "eth.GetNodeData": 512 * KIB,
    "eth.GetReceipts": 512 * KIB,
    "eth.BlockRangeUpdate": KIB,
    "eth.GetBlockAccessLists": 512 * KIB,
    "eth.GetCells": 512 * KIB,
    "snap.GetAccountRange": KIB,
    "snap.GetStorageRanges": 512 * KIB,
    "snap.GetByteCodes": 512 * KIB,
    "snap.GetTrieNodes": 512 * KIB,
    "snap.GetBlockAccessLists": 512 * KIB,
}


@pytest.mark.parametrize("version", eth.VERSIONS)
@pytest.mark.parametrize("snap_version", snap.VERSIONS)
def test_each_message_has_its_own_limit_and_bodies_have_ten_mib(version: int, snap_version: int) -> None:
    table = table_of(eth.sub_protocol(version), snap.sub_protocol(snap_version), USERS)
    for kind in kinds(table):
        expected = 2**24 - 1 if kind.capability.name == "user" else LIMITS.get(kind.topic, 10 * KIB * KIB)
        assert kind.limit_bytes == expected, kind.topic
        assert kind.frame_limit_bytes == min(1 + 32 + expected + expected // 6, 2**24 - 1)


def test_a_capability_with_less_limits_all_its_messages() -> None:
    table = table_of(msgspec.structs.replace(eth.sub_protocol(69), limit_bytes=2000))
    assert {kind.limit_bytes for kind in kinds(table)} == {1024, 2000}


def test_no_frame_is_longer_than_the_longest_message_that_is_shared() -> None:
    assert table_of(eth.sub_protocol(69)).frame_limit_bytes == 1 + 32 + 10 * KIB * KIB * 7 // 6
    assert table_of(eth.sub_protocol(69), USERS).frame_limit_bytes == 2**24 - 1


def test_without_eth_the_table_says_so() -> None:
    table = table_of(snap.sub_protocol(1))
    assert table.eth is None
    assert table.find("snap", 0).code == 0x10


def test_a_capability_without_messages_owns_no_code_of_its_neighbour() -> None:
    table = table_of(SubProtocol(Capability("aaa", 0), 0), eth.sub_protocol(69))
    assert table.capabilities["aaa"].offset == table.capabilities["eth"].offset == 0x10
    assert topics_by_code(table) == topics_by_code(table_of(eth.sub_protocol(69)))
    with pytest.raises(NotSharedError):
        table.find("aaa", 0)


def test_a_table_of_nothing_has_no_entry() -> None:
    table = message_table(())
    assert kinds(table) == []
    assert len(table.by_code) == 0x100
    with pytest.raises(NotSharedError):
        table.find("eth", 0)


@pytest.mark.parametrize(
    ("name", "number"),
    [("snap", 0), ("user", 0), ("", 0), ("ETH", 2), ("eth", -1), ("eth", 17), ("eth", 1 << 40)],
)
def test_what_is_not_shared_is_not_found(name: str, number: int) -> None:
    # In the second table another capability stands right behind eth: an id beyond eth's end must not reach it.
    for table in (table_of(eth.sub_protocol(68)), table_of(eth.sub_protocol(68), SubProtocol(Capability("tail", 1), 8))):
        with pytest.raises(NotSharedError, match="is not shared with this peer") as caught:
            table.find(name, number)
        assert caught.value.name == "not_shared"


def test_sessions_with_the_same_shared_set_have_the_same_table() -> None:
    assert table_of(eth.sub_protocol(68)) is table_of(eth.sub_protocol(68))
    assert table_of(eth.sub_protocol(68)) is not table_of(eth.sub_protocol(69))


def test_peers_cannot_make_more_tables_than_are_kept() -> None:
    for messages in range(TABLES_KEPT + 10):
        message_table((Shared(Capability("flood", messages), 0x10, 1),))
    assert message_table.cache_info().currsize == TABLES_KEPT


def test_the_topics_are_every_message_of_eth_and_snap() -> None:
    known = topics()
    assert len(known) == len(set(known)) == 30
    for version in eth.VERSIONS:
        for snap_version in snap.VERSIONS:
            by_code = topics_by_code(table_of(eth.sub_protocol(version), snap.sub_protocol(snap_version)))
            assert set(by_code.values()) <= set(known)
    assert {"eth.Transactions", "eth.Cells", "eth.NodeData", "snap.TrieNodes", "snap.BlockAccessLists"} <= set(known)


@pytest.mark.parametrize(
    ("name", "message", "number"),
    [
        ("eth", "Transactions", 2),
        ("eth", "transactions", 2),
        ("eth", "GETBLOCKHEADERS", 3),
        ("eth", "2", 2),
        ("eth", "0x02", 2),
        ("eth", "0x11", 17),
        ("eth", "999", 999),
        ("eth", "Transaction", None),
        ("eth", "AccountRange", None),
        ("eth", "", None),
        ("eth", "1.5", None),
        ("snap", "AccountRange", 1),
        ("snap", "BlockAccessLists", 9),
        ("eth", "BlockAccessLists", 19),
        ("user", "3", 3),
        ("user", "Transactions", None),
    ],
)
def test_a_message_is_named_in_words_or_in_numbers(name: str, message: str, number: int | None) -> None:
    assert message_id(name, message) == number


@pytest.mark.parametrize(
    ("name", "number", "answer"),
    [
        ("eth", 0x03, "c48207d1c0"),
        ("eth", 0x0F, "c58207d180c0"),
        ("eth", 0x12, "c68207d1c28080"),
        ("snap", 0x00, "c58207d1c0c0"),
        ("snap", 0x04, "c48207d1c0"),
        ("snap", 0x08, "c68207d1c28080"),
    ],
)
def test_a_request_is_answered_with_nothing_in_the_form_of_its_capability(name: str, number: int, answer: str) -> None:
    table = table_of(eth.sub_protocol(71), snap.sub_protocol(2))
    request = oracle.encode([2001, [b"\x01" * 32] * 2])
    assert table.find(name, number).empty_answer(2001, request).hex() == answer


def test_the_form_of_an_answer_is_that_of_the_negotiated_version() -> None:
    assert table_of(eth.sub_protocol(69)).find("eth", 0x0F).empty_answer(2001, b"").hex() == "c48207d1c0"


@pytest.mark.parametrize(("name", "number"), [("eth", 0x12), ("snap", 0x08)])
def test_a_malformed_request_has_no_answer(name: str, number: int) -> None:
    table = table_of(eth.sub_protocol(71), snap.sub_protocol(2))
    with pytest.raises(RlpError):
        table.find(name, number).empty_answer(2001, b"\xc1\x05")


def test_the_names_of_a_capability_are_its_messages_and_which_of_them_are_requests() -> None:
    assert message_names("snap")[:2] == ["GetAccountRange", "AccountRange"]
    assert request_names("snap") == [name for name in message_names("snap") if name.startswith("Get")]
    assert message_names("user") == request_names("user") == []
