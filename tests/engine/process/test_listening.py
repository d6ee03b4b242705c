"""A listening socket: its addresses, its options, and an address that is in use."""

from __future__ import annotations

import socket

import pytest

from rlpx.engine.process.listening import listening

KEEPALIVE = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


@pytest.mark.parametrize(("host", "peer"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1")])
def test_it_accepts_and_what_it_accepts_has_its_options(host: str, peer: str) -> None:
    with listening(socket.socket, host, 0, 1, [KEEPALIVE]) as sock:
        assert not sock.getblocking()
        sock.settimeout(10)
        with socket.create_connection((peer, sock.getsockname()[1]), timeout=10):
            accepted, _ = sock.accept()
            with accepted:
                assert accepted.getsockopt(*KEEPALIVE[:2]) == 1


def test_an_address_in_use_is_an_error_and_leaves_no_socket_open() -> None:
    with listening(socket.socket, "127.0.0.1", 0, 1) as holder, pytest.raises(OSError, match="in use"):
        # A socket that stays open would be a ResourceWarning, which fails the test.
        listening(socket.socket, "127.0.0.1", holder.getsockname()[1], 1)
