"""The last bytes of a peer: read from a descriptor of their own, although the transport's socket is closed by then."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from rlpx.workers.last_bytes import PIECE_BYTES, LastBytes


class FakeTransport:
    """A transport that has nothing but its socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self._socket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our socket, which does not block, and the peer's. What one end sends is at the other end at once."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def last_bytes_of(sock: socket.socket) -> LastBytes:
    """As of a connection whose transport has this socket."""
    return LastBytes(cast("Any", FakeTransport(sock)))


def test_what_was_sent_is_read_in_pieces_after_the_socket_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    sent = os.urandom(PIECE_BYTES + 1000)
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    last_bytes = last_bytes_of(ours)
    ours.close()
    read = b""
    while piece := last_bytes.read():
        assert len(piece) <= PIECE_BYTES
        read += piece
    last_bytes.close()
    assert read == sent


def test_where_nothing_was_sent_there_is_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    last_bytes = last_bytes_of(pair[0])
    assert last_bytes.read() == b""
    last_bytes.close()


def test_a_reset_is_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.send(b"never read")
    last_bytes = last_bytes_of(ours)
    # A Unix socket that is closed with unread bytes resets the other end (unix(7)).
    theirs.close()
    assert last_bytes.read() == b""
    last_bytes.close()


def test_without_a_descriptor_there_is_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"1")
    ours.close()
    last_bytes = last_bytes_of(ours)
    assert last_bytes.read() == b""
    last_bytes.close()
