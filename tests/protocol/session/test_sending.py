"""What is sent has the form that the shared capabilities ask for, and is made once for all sessions that share the same."""

from __future__ import annotations

import pytest

from rlpx.protocol.errors import NotSharedError, UsageError
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.kinds import MessageKind, MessageTable, message_table
from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol, share
from rlpx.protocol.rlpx.p2p import deflate
from rlpx.protocol.session.send_queue import OVERHEAD_BYTES, Announced, QueuedMessage, Rank
from rlpx.protocol.session.sending import RANKS, Multicast, queued_message
from tests.pair import inflated

PAYLOAD = b"\xc1\x80"
# Before eth in the order of names, so that eth's codes are others.
BEFORE_ETH = SubProtocol(Capability("aaa", 1), 3)


def table_of(*protocols: SubProtocol) -> MessageTable:
    """The messages of two peers who both speak exactly these."""
    return message_table(share(protocols, [protocol.capability for protocol in protocols]))


ETH = table_of(eth.sub_protocol(68), snap.sub_protocol(1))


def test_it_is_its_code_and_its_payload_deflated() -> None:
    message = queued_message(Rank.BROADCAST, ETH.find("eth", 2), PAYLOAD)
    assert (message.content[0], inflated(message.content[1:])) == (0x12, PAYLOAD)
    assert message.cost_bytes == OVERHEAD_BYTES + len(message.content) - 1
    assert message.announced is None


def test_what_was_deflated_before_stays_as_it_is() -> None:
    assert queued_message(Rank.BROADCAST, ETH.find("eth", 2), PAYLOAD, b"deflated") == QueuedMessage.of(0x12, b"deflated")


@pytest.mark.parametrize(("size", "is_sent"), [(0xFFFFFE, True), (0xFFFFFF, False)])
def test_with_its_code_it_fits_a_frame(size: int, *, is_sent: bool) -> None:
    kind = ETH.find("eth", 2)
    if is_sent:
        assert len(queued_message(Rank.BROADCAST, kind, b"", bytes(size)).content) == 0xFFFFFF
    else:
        with pytest.raises(UsageError, match="over the 16777215 of a frame"):
            queued_message(Rank.BROADCAST, kind, b"", bytes(size))


def test_announcements_of_transactions_keep_what_others_are_merged_with() -> None:
    message = queued_message(RANKS[MessageRole.ANNOUNCEMENT], ETH.find("eth", 8), PAYLOAD)
    assert message.announced == Announced(68, PAYLOAD)
    # The same number in another capability, or in another rank, is no announcement.
    users = table_of(eth.sub_protocol(68), SubProtocol(Capability("user", 1), 9))
    assert queued_message(Rank.BROADCAST, users.find("user", 8), PAYLOAD).announced is None
    assert queued_message(Rank.CONTROL, ETH.find("eth", 8), PAYLOAD).announced is None


def test_for_sessions_that_share_the_same_it_is_made_once() -> None:
    message = Multicast("eth", 2, PAYLOAD)
    assert message.body == deflate(PAYLOAD)
    kind, rank, sent = message.of(ETH)
    assert (kind, rank, sent) == (ETH.find("eth", 2), Rank.BROADCAST, QueuedMessage.of(0x12, message.body))
    assert message.of(ETH)[2] is sent


def test_for_each_set_of_capabilities_it_has_the_code_of_that_set() -> None:
    message = Multicast("eth", 2, PAYLOAD)
    assert [message.of(table)[2].content[0] for table in (ETH, table_of(BEFORE_ETH, eth.sub_protocol(68)))] == [0x12, 0x15]


def test_who_does_not_share_it_gets_nothing() -> None:
    message = Multicast("snap", 0, PAYLOAD)
    for _ in range(2):
        with pytest.raises(NotSharedError):
            message.of(table_of(eth.sub_protocol(68)))
    assert message.of(ETH)[1] is Rank.REQUEST


def test_what_is_refused_for_a_table_is_refused_for_every_session_of_it_and_looked_at_once() -> None:
    looked_at: list[str] = []

    def check(kind: MessageKind, payload: bytes) -> None:
        looked_at.append(str(kind.capability))
        if kind.capability.version == 68:
            raise UsageError(f"not {payload.hex()}")

    message = Multicast("eth", 2, PAYLOAD, check)
    for _ in range(2):
        with pytest.raises(UsageError, match="not c180"):
            message.of(ETH)
        assert message.of(table_of(eth.sub_protocol(69)))[1] is Rank.BROADCAST
    assert looked_at == ["eth/68", "eth/69"]
