"""A node that has nothing answers every request validly, and nothing that is no request."""

from __future__ import annotations

import cramjam
import pytest
import rlp

from protocol.errors import RlpError
from protocol.events import MessageReceived, Stage
from protocol.p2p import Capability
from tests.pair import EVERYBODY, RawPeer, Recipe, encoded
from workers.responder import answer_with_nothing

OFFER = (Capability("eth", 68), Capability("snap", 1))
GET_BLOCK_HEADERS = 0x13
GET_ACCOUNT_RANGE = 0x10 + 17


def received(peer: RawPeer, code: int, payload: bytes) -> MessageReceived:
    """The event of a message that the peer sends."""
    [event] = peer.says(code, payload)
    assert isinstance(event, MessageReceived)
    return event


@pytest.fixture
def peer() -> RawPeer:
    ready = RawPeer.at(Stage.ACTIVE, Recipe(interest=EVERYBODY), offer=OFFER)
    ready.hears()
    return ready


@pytest.mark.parametrize("code", [GET_BLOCK_HEADERS, GET_ACCOUNT_RANGE])
def test_a_request_is_answered_with_its_id_and_nothing_else(peer: RawPeer, code: int) -> None:
    request = received(peer, code, encoded([77, [1, 2, 0, 0]]))
    answer_with_nothing(peer.session, request)
    [(answer_code, compressed)] = peer.hears()
    fields = rlp.decode(bytes(cramjam.snappy.decompress_raw(compressed)))
    assert answer_code == code + 1
    assert int.from_bytes(fields[0], "big") == 77
    assert not any(fields[1:])


def test_an_announcement_is_not_answered(peer: RawPeer) -> None:
    answer_with_nothing(peer.session, received(peer, 0x12, encoded([])))
    assert peer.hears() == []


def test_a_request_that_is_malformed_is_the_peers_fault() -> None:
    ready = RawPeer.at(Stage.ACTIVE, Recipe(interest=EVERYBODY), offer=(Capability("eth", 71),))
    code = next(
        kind.code
        for kind in (ready.session.shared.by_code if ready.session.shared else ())
        if kind is not None and kind.name == "GetBlockAccessLists"
    )
    request = received(ready, code, encoded([77]))
    with pytest.raises(RlpError):
        answer_with_nothing(ready.session, request)


def test_after_the_end_nothing_is_answered(peer: RawPeer) -> None:
    request = received(peer, GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]]))
    peer.session.connection_lost("gone")
    answer_with_nothing(peer.session, request)
    assert peer.hears() == []
