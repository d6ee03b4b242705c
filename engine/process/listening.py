"""Sockets that listen on TCP: of peers, of users' programs, and of the programs beside the engine."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TypeVar

S = TypeVar("S", bound=socket.socket)


def listening(kind: type[S], host: str, port: int, backlog: int, options: Iterable[tuple[int, int, int]] = ()) -> S:
    """A non-blocking socket that listens on a numeric address; on `::` for IPv4 as well. Raises `OSError`.

    `options` are those of setsockopt(2). Accepted connections inherit them (tcp(7)).
    """
    sock = kind(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        for option in options:
            sock.setsockopt(*option)
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock
