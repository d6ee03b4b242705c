"""The workers' data endpoints over TCP: their listening sockets, their keys, and who may connect.

Each worker has one port, from that of `data.endpoint` up. The engine binds them and each worker inherits its own, so that a
taken port is found at the start, and a port stays open while a worker is replaced: programs that connect meanwhile wait in
the kernel's backlog.
"""

from __future__ import annotations

import errno
import os
import socket

from rlpx.engine.hub.access import Access
from rlpx.engine.hub.endpoints import bind_tcp
from rlpx.engine.settings.meaning import MAX_PORT
from rlpx.protocol.bus.control import KeyUser, SetUsers, WorkerId
from rlpx.protocol.bus.records import DataKeys
from rlpx.protocol.mistakes import bind_error
from rlpx.protocol.rlpx.host_port import format_host_port, parse_host_port


class DataEndpoints:
    """See the module. `endpoint` is the setting, and may be empty."""

    def __init__(self, endpoint: str) -> None:
        self._host, self._port = parse_host_port(endpoint.removeprefix("tcp://")) if endpoint else ("", 0)
        self._access = Access(None)
        self._users: tuple[KeyUser, ...] = ()
        self._sockets: dict[WorkerId, socket.socket] = {}

    @property
    def is_on(self) -> bool:
        """Whether the workers can be reached over TCP."""
        return self._port != 0

    def start(self, workers: int, access: Access) -> None:
        """Bind the ports of the first workers. Raises `ConfigError` that names the port that is taken."""
        self._access = access
        self._users = access.users
        for index in map(WorkerId, range(workers if self.is_on else 0)):
            try:
                self.listening(index)
            except OSError as error:
                raise bind_error(f"data.endpoint: {self.address(index)}", error) from error

    def listening(self, index: WorkerId) -> list[int]:
        """The descriptor that a worker inherits, if there is one; its port is bound if need be. Raises `OSError`."""
        if not self.is_on:
            return []
        if index not in self._sockets:
            if self._port + index > MAX_PORT:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            self._sockets[index] = bind_tcp(self._host, self._port + index)
        return [self._sockets[index].fileno()]

    @property
    def keys(self) -> DataKeys:
        """The secret that a worker needs."""
        return self._access.data_keys

    def address(self, index: WorkerId) -> str | None:
        """The ZeroMQ endpoint of a worker, if there is one."""
        return f"tcp://{format_host_port(self._host, self._port + index)}" if self.is_on else None

    @property
    def users(self) -> SetUsers:
        """The command that tells a new worker who may connect; it listens once it knows."""
        return SetUsers(self._users)

    def have_users_changed(self) -> bool:
        """Look at the keys again; returns whether the workers must be told."""
        before, self._users = self._users, self._access.users
        return before != self._users

    def release(self, index: WorkerId) -> None:
        """Close the port of a worker that is not replaced."""
        sock = self._sockets.pop(index, None)
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Close our copies of the sockets."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
