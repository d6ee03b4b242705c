"""The handshake of one session, in whatever pieces it arrives."""

from __future__ import annotations

import pytest

from rlpx.protocol.errors import HandshakeError
from rlpx.protocol.session.opening import Opened, Opening
from rlpx.protocol.session.setup import LocalNode
from tests.pair import SessionSpec

ALICE, BOB = SessionSpec(seed=1), SessionSpec(seed=2)


def node(spec: SessionSpec) -> LocalNode:
    return spec.setup(None).node


def open_both(piece_bytes: int) -> tuple[Opened, Opened]:
    """Both sides' results, with packets cut into pieces."""
    dialling, answering = Opening(node(ALICE), BOB.key.id), Opening(node(BOB), None)
    assert answering.auth == b""
    answered = by_pieces(answering, dialling.auth, piece_bytes)
    return by_pieces(dialling, answered.ack, piece_bytes), answered


def by_pieces(opening: Opening, data: bytes, piece_bytes: int) -> Opened:
    """What comes of bytes that arrive in pieces; until the last one they are held."""
    for start in range(0, len(data), piece_bytes):
        opened = opening.receive(data[start : start + piece_bytes], now=1000.0)
        if opened is not None:
            assert start + piece_bytes >= len(data)
            assert opening.buffered_bytes == 0
            return opened
        assert opening.buffered_bytes == start + piece_bytes
    raise AssertionError("the packet did not open")


@pytest.mark.parametrize("piece_bytes", [1, 2, 100, 10_000])
def test_each_side_learns_the_other_whatever_the_pieces(piece_bytes: int) -> None:
    dialled, answered = open_both(piece_bytes)
    assert (dialled.peer, answered.peer) == (BOB.key.id, ALICE.key.id)
    assert (dialled.ack, dialled.rest, answered.rest) == (b"", b"", b"")
    assert answered.ack


def test_what_follows_the_packet_is_given_back() -> None:
    auth = Opening(node(ALICE), BOB.key.id).auth
    opened = Opening(node(BOB), None).receive(auth + b"frames", now=1000.0)
    assert opened is not None
    assert opened.rest == b"frames"


def test_an_auth_is_taken_once() -> None:
    auth, bob = Opening(node(ALICE), BOB.key.id).auth, node(BOB)
    assert Opening(bob, None).receive(auth, now=1000.0) is not None
    with pytest.raises(HandshakeError, match="sent before"):
        Opening(bob, None).receive(auth, now=1001.0)


def test_an_end_keeps_neither_keys_nor_bytes() -> None:
    opening = Opening(node(ALICE), BOB.key.id)
    opening.receive(b"\x01\x90\x04", now=1000.0)
    opening.close()
    assert (opening.auth, opening.buffered_bytes) == (b"", 0)


def test_the_hint_depends_on_who_has_said_what() -> None:
    dialling, answering = Opening(node(ALICE), BOB.key.id), Opening(node(BOB), None)
    assert "another id than the one dialled" in dialling.hint(0)
    assert answering.hint(0) == " before it sent a byte"
    assert answering.hint(5) == ""
    answering.receive(b"\x04" + bytes(1), now=1000.0)
    assert answering.hint(2) == ""
