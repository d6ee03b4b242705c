"""Connects a program to an engine, over TCP with its key, and notices if the engine refuses it.

By itself, ZeroMQ would retry forever and report nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import zmq

from rlpx.engine.client.presence import EndpointError, EngineForbiddenError
from rlpx.protocol.bus.places import check_endpoint, run_dir_path, socket_endpoint
from rlpx.protocol.mistakes import ConfigError

# How often a program that waits for a message checks whether the engine has refused it.
LOOK_SECONDS: Final = 0.2


def use_key(sock: zmq.Socket[Any], key: Path | str) -> None:
    """Secure a socket, before it connects, with the key in a file. Raises `ConfigError`."""
    from rlpx.engine.client.key_file import ClientKey  # noqa: PLC0415 - its libraries are large, and few use keys

    loaded = ClientKey.load(key)
    pair = loaded.pair
    sock.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    sock.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
    sock.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(loaded.server))


class Door:
    """Watches a socket that connects to `endpoint`. Make it before the socket connects."""

    def __init__(self, sock: zmq.Socket[bytes], endpoint: str, key: Path | str | None) -> None:
        self._endpoint = endpoint
        self._has_key = key is not None
        if key is not None:
            use_key(sock, key)
        self._socket = sock
        events = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        self._monitor = sock.get_monitor_socket(events) if endpoint.startswith("tcp://") else None

    def wait(self, milliseconds: int, event: zmq.PollEvent = zmq.PollEvent.POLLIN) -> bool:
        """Whether a message arrives, or with `POLLOUT` can be sent, within this time.

        Raises `EngineForbiddenError` if the engine refuses us: ZeroMQ then has no connection, and would wait forever.
        """
        if self._monitor is None:
            return bool(self._socket.poll(milliseconds, event))
        left = milliseconds
        while True:
            look = min(left, int(LOOK_SECONDS * 1000))
            if self._socket.poll(look, event):
                return True
            if self._monitor.poll(0):
                failed = event_number(self._monitor.recv_multipart())
                raise refusal(self._endpoint, failed, has_key=self._has_key)
            left -= look
            if left <= 0:
                return False

    def close(self) -> None:
        """Stop watching the socket."""
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close()


def refusal(endpoint: str, event: int, *, has_key: bool) -> EngineForbiddenError:
    """The error for a monitor's event of a handshake that failed."""
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        reason = "does not accept this key: it has not this right there, was removed, or belongs to another engine"
    elif has_key:
        reason = "takes no keys (curve.insecure): leave the key out"
    else:
        reason = "takes only users with a key; `rlpx-ctl keys new NAME` makes one on the engine's machine"
    return EngineForbiddenError(f"{endpoint} {reason}")


def event_number(frames: list[bytes]) -> int:
    """The number of a monitor's event (zmq_socket_monitor(3)): 16 bits in the machine's order, before the event's value.

    pyzmq's own reader of it loads asyncio and ssl.
    """
    return int.from_bytes(frames[0][:2], sys.byteorder)


def run_dir_endpoint(run_dir: Path | str | None, name: str) -> str:
    """The endpoint of a socket in a run directory, by default the usual one. Raises `ConfigError`."""
    return socket_endpoint(run_dir_path(str(run_dir or ""), os.environ), name)


def connect(sock: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]], endpoint: str, key: Path | str | None) -> Door:
    """Connect, and watch whether the engine accepts the connection. Raises `EndpointError` and `ConfigError`."""
    door: Door | None = None
    try:
        check_endpoint(endpoint)
        door = Door(sock, endpoint, key)
        sock.connect(endpoint)
    except (ValueError, zmq.ZMQError, ConfigError) as error:
        if door is not None:
            door.close()
        sock.close()
        context.term()
        if isinstance(error, ConfigError):
            raise
        raise EndpointError(endpoint, str(error)) from error
    return door
