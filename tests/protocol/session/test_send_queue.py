"""What waits for a peer leaves by rank and age, is bounded in bytes, and is refused rather than dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import QueueFullError
from rlpx.protocol.eth.messages import NewPooledTransactionHashes68, decode, encode
from rlpx.protocol.rlpx.p2p import deflate
from rlpx.protocol.session.send_queue import OVERHEAD_BYTES, Announced, QueuedMessage, Rank, SendQueue
from rlpx.protocol.settings import QueueSettings
from tests.pair import inflated

CODE = 0x18
LIMIT_BYTES = QueueSettings().peer_write_bytes


def announcement(number: int) -> QueuedMessage:
    """The announcement of one transaction."""
    payload = encode(68, NewPooledTransactionHashes68(b"\x02", (100,), (number.to_bytes(32, "big"),)))
    return QueuedMessage.of(CODE, deflate(payload), Announced(68, payload))


@given(puts=st.lists(st.tuples(st.sampled_from(Rank), st.binary(max_size=9)), max_size=30), takes=st.integers(0, 30))
def test_the_highest_rank_goes_first_and_of_it_the_oldest(puts: list[tuple[Rank, bytes]], takes: int) -> None:
    queue, model = SendQueue(LIMIT_BYTES), list[tuple[Rank, int, bytes]]()
    for index, (rank, body) in enumerate(puts):
        queue.put(rank, QueuedMessage.of(index, body))
        model.append((rank, index, body))
    model.sort(key=lambda item: item[:2])
    for _, index, body in model[:takes]:
        assert queue.take() == QueuedMessage.of(index, body)
    left = model[takes:]
    assert queue.bytes == sum(OVERHEAD_BYTES + len(body) for _, _, body in left)
    for rank in Rank:
        assert queue.waiting(rank) == sum(item[0] is rank for item in left)


@pytest.mark.parametrize("rank", Rank)
def test_what_does_not_fit_is_refused_and_what_waits_stays(rank: Rank) -> None:
    queue = SendQueue(300)
    queue.put(rank, QueuedMessage.of(1, bytes(60)))
    with pytest.raises(QueueFullError, match="160 bytes wait for this peer already"):
        queue.put(rank, QueuedMessage.of(2, bytes(41)))
    queue.put(rank, QueuedMessage.of(3, bytes(40)))
    assert (queue.bytes, queue.waiting(rank)) == (300, 2)
    assert [queue.take().content[0], queue.take().content[0]] == [1, 3]


def test_on_an_empty_queue_one_message_of_any_size_may_wait() -> None:
    queue = SendQueue(100)
    queue.put(Rank.BROADCAST, QueuedMessage.of(1, bytes(1000)))
    with pytest.raises(QueueFullError):
        queue.put(Rank.REQUEST, QueuedMessage.of(2, b"\x00"))


def test_what_is_due_is_never_refused() -> None:
    queue = SendQueue(100)
    queue.put(Rank.BROADCAST, QueuedMessage.of(1, bytes(100)))
    queue.put_unbounded(Rank.RESPONSE, QueuedMessage.of(2, bytes(100)))
    queue.put_unbounded(Rank.CONTROL, QueuedMessage.of(3, bytes(100)))
    assert [queue.take().content[0] for _ in range(3)] == [3, 2, 1]


def test_the_payload_that_an_announcement_keeps_counts_as_well() -> None:
    queue = SendQueue(LIMIT_BYTES)
    announced = announcement(1)
    assert announced.announced is not None
    queue.put(Rank.BROADCAST, announced)
    assert queue.bytes == OVERHEAD_BYTES + len(announced.content) - 1 + len(announced.announced.payload)


def test_at_the_end_only_control_messages_are_left() -> None:
    queue = SendQueue(LIMIT_BYTES)
    for rank in Rank:
        queue.put(rank, QueuedMessage.of(rank, b"12345"))
    queue.clear()
    assert queue.bytes == OVERHEAD_BYTES + 5
    assert queue.take().content[0] == Rank.CONTROL
    assert queue.bytes == 0
    queue.put(Rank.BROADCAST, QueuedMessage.of(7, b"1"))
    queue.clear()
    assert queue.bytes == 0


def test_announcements_in_a_row_leave_as_one() -> None:
    queue = SendQueue(LIMIT_BYTES)
    for number in range(3):
        queue.put(Rank.BROADCAST, announcement(number))
    queue.put(Rank.BROADCAST, QueuedMessage.of(0x12, b"transactions"))
    queue.put(Rank.BROADCAST, announcement(3))
    merged = queue.take()
    assert merged.content[0] == CODE
    message = decode(68, 8, inflated(merged.content[1:]))
    assert isinstance(message, NewPooledTransactionHashes68)
    assert message.hashes == tuple(number.to_bytes(32, "big") for number in range(3))
    assert queue.take().content[0] == 0x12
    assert queue.take() == announcement(3)
    assert queue.bytes == 0


def test_announcements_that_cannot_be_one_leave_one_by_one() -> None:
    queue = SendQueue(LIMIT_BYTES)
    broken = QueuedMessage.of(CODE, b"\x00", Announced(68, b""))
    queue.put(Rank.BROADCAST, broken)
    queue.put(Rank.BROADCAST, announcement(1))
    assert queue.take() == broken
    assert queue.take() == announcement(1)


def test_a_long_row_leaves_in_a_few_pieces() -> None:
    queue = SendQueue(LIMIT_BYTES)
    for number in range(600):
        queue.put(Rank.BROADCAST, announcement(number))
    assert queue.bytes < 600 * 200
    taken = 0
    while queue.bytes:
        message = decode(68, 8, inflated(queue.take().content[1:]))
        assert isinstance(message, NewPooledTransactionHashes68)
        assert message.hashes[0] == taken.to_bytes(32, "big")
        taken += len(message.hashes)
    assert (taken, queue.bytes) == (600, 0)
