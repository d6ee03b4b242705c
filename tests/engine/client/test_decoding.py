"""Events and peers' requests as typed messages, in the form of the negotiated version."""

from __future__ import annotations

import pytest

from rlpx.engine.client.batch_reader import Event
from rlpx.engine.client.responding import Request
from rlpx.protocol import rlp
from rlpx.protocol.errors import RlpError
from rlpx.protocol.eth.messages import GetReceipts, GetReceipts70, NewPooledTransactionHashes66, NewPooledTransactionHashes68

HASH = b"\x0a" * 32


def asked(topic: str, version: int, payload: bytes) -> Request:
    return Request(topic, session=1, peer="ab", version=version, request_id=7, payload=payload)


def test_an_event_is_decoded_in_the_form_of_its_version() -> None:
    older = Event("eth.NewPooledTransactionHashes", 0, {"version": 66}, rlp.encode([HASH]))
    newer = Event("eth.NewPooledTransactionHashes", 0, {"version": 68}, rlp.encode([b"\x02", [100], [HASH]]))
    assert older.decode() == NewPooledTransactionHashes66((HASH,))
    assert newer.decode() == NewPooledTransactionHashes68(b"\x02", (100,), (HASH,))


def test_a_request_is_decoded_in_the_form_of_its_version() -> None:
    assert asked("eth.GetReceipts", 69, rlp.encode([7, [HASH]])).decode() == GetReceipts(7, (HASH,))
    assert asked("eth.GetReceipts", 70, rlp.encode([7, 3, [HASH]])).decode() == GetReceipts70(7, 3, (HASH,))


@pytest.mark.parametrize("topic", ["session.opened", "eth.Nothing", "mine.3", "eth"])
def test_what_is_no_message_of_eth_or_snap_is_not_decoded(topic: str) -> None:
    with pytest.raises(ValueError, match="is no message"):
        Event(topic, 0, {"version": 68}, b"").decode()


def test_an_event_without_a_version_is_no_message() -> None:
    with pytest.raises(ValueError, match="is no message"):
        Event("eth.Transactions", 0, {}, b"").decode()


def test_a_malformed_message_says_so() -> None:
    with pytest.raises(RlpError):
        Event("eth.Transactions", 0, {"version": 68}, b"\x80").decode()
    with pytest.raises(RlpError):
        asked("eth.GetReceipts", 69, b"\x80").decode()
