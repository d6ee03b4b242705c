"""The memory that a session holds for a peer is a small multiple of what is unfinished, however the bytes are cut.

It is measured on the objects themselves (`tests.pair.held_bytes`), not by the counter of the code under test.
"""

from __future__ import annotations

from typing import Final

import pytest

from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx.handshake import MAX_PACKET_BYTES
from rlpx.protocol.session.events import MessageReceived
from tests.pair import ETH, RawPeer, Wire, held_bytes, key

TRANSACTIONS: Final = ETH + 0x02
# A session that waits for nothing takes about 2 KiB in addition to what all sessions share.
IDLE_BYTES: Final = 8 * 1024
# Buffers may be larger than their content, and while they are joined they exist twice.
MULTIPLE: Final = 4


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.ACK, Stage.HELLO, Stage.STATUS, Stage.VERDICT, Stage.ACTIVE])
def test_a_session_that_waits_is_small(stage: Stage) -> None:
    peer = RawPeer.at(stage, is_dialer=stage is not Stage.ACK)
    peer.session.data_to_send()
    assert held_bytes(peer.session) < IDLE_BYTES


@pytest.mark.parametrize("piece", [1, 2, 7, 100, 5000])
def test_a_handshake_packet_that_does_not_end_is_held_once(piece: int) -> None:
    peer = RawPeer.at(Stage.AUTH)
    # An uncompressed point: anything else is refused at once.
    start = MAX_PACKET_BYTES.to_bytes(2, "big") + b"\x04"
    for chunk in Wire([piece]).carry(start + bytes(MAX_PACKET_BYTES - 2)):
        assert peer.gives(chunk) == []
    assert held_bytes(peer.session) < IDLE_BYTES + MULTIPLE * MAX_PACKET_BYTES


@pytest.mark.parametrize("piece", [1, 2, 7, 100, 5000])
@pytest.mark.parametrize("stage", [Stage.HELLO, Stage.STATUS])
def test_a_pending_peer_s_frame_that_does_not_end_is_small_in_any_pieces(stage: Stage, piece: int) -> None:
    peer = RawPeer.at(stage)
    drip(peer, 2048, piece)
    assert held_bytes(peer.session) < 64 * 1024


@pytest.mark.parametrize("piece", [1, 2, 7, 100, 5000])
def test_an_active_peer_s_frame_that_does_not_end_is_held_about_once(piece: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    drip(peer, 200_000, piece)
    assert held_bytes(peer.session) < IDLE_BYTES + MULTIPLE * 200_000


def drip(peer: RawPeer, size: int, piece: int) -> None:
    """Send transactions of `size` bytes in small pieces, all but the last byte."""
    for chunk in Wire([piece]).carry(peer.cipher.seal(bytes([TRANSACTIONS]) + bytes(size - 1))[:-1]):
        assert peer.gives(chunk) == []
    peer.session.data_to_send()


def test_a_frame_that_came_whole_is_not_held_any_more() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    noise = key(1).secret * 10_000
    frames = peer.sealed(TRANSACTIONS, noise) + peer.sealed(TRANSACTIONS, noise)
    assert [type(event) for event in peer.gives(frames + peer.sealed(TRANSACTIONS)[:20])] == [MessageReceived] * 2
    peer.session.data_to_send()
    assert held_bytes(peer.session) < IDLE_BYTES
