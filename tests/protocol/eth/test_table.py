"""A row of a table of messages: which versions have it."""

from __future__ import annotations

from rlpx.protocol.eth.table import MessageRole, MessageType


def test_a_row_holds_for_all_versions_unless_it_says_otherwise() -> None:
    row = MessageType(1, "Always")
    assert all(row.is_in(version) for version in (1, 66, 1000))
    assert row.role is MessageRole.ANNOUNCEMENT


def test_a_row_holds_from_its_first_version_to_its_last() -> None:
    row = MessageType(1, "Once", since=67, until=69)
    assert [version for version in range(60, 80) if row.is_in(version)] == [67, 68, 69]
    assert not MessageType(1, "Later", since=70).is_in(69)
