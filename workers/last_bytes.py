"""The bytes that a peer sent before one of our writes failed: the transport is gone, but the kernel may still hold them."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Final

# The number of bytes read in one loop iteration.
PIECE_BYTES: Final = 64 * 1024


class LastBytes:
    """Keeps reading from the socket of a transport that is being closed, through a descriptor of its own."""

    __slots__ = ("_socket",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._socket: socket.socket | None = None
        with suppress(OSError):  # the descriptor table is full: nothing more can be read
            self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))

    def read(self) -> bytes:
        """The next piece; empty if there is no more, or only the reset that followed it."""
        try:
            return b"" if self._socket is None else self._socket.recv(PIECE_BYTES)
        except OSError:
            return b""

    def close(self) -> None:
        """Close the descriptor."""
        if self._socket is not None:
            self._socket.close()
