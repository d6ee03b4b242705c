"""Raw and well-behaved peers of our own over blocking sockets, for faults that a real client would not commit."""

from __future__ import annotations

import os
import socket
from time import monotonic
from types import TracebackType
from typing import Final, Self

from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.forkid import Chain, Forks
from rlpx.protocol.eth.status import Head, LocalChain, LocalRange
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.rlpx import p2p
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.session.events import Event
from rlpx.protocol.session.session import Session
from rlpx.protocol.session.setup import LocalNode, Setup

# No peer needs to read more than a test sends.
RECEIVE_BYTES: Final = 65536
PATIENCE_SECONDS: Final = 120.0


class _All(dict[str, bool]):
    def __missing__(self, topic: str) -> bool:
        return not topic.startswith("tap.")


class Peer:
    """An initiator on our own core. It generates load and faults and proves no correctness: real clients do."""

    client = "test-peer"

    def __init__(
        self,
        address: tuple[str, int],
        node_id: bytes,
        chain: Chain,
        source: str = "127.0.0.1",
        key: PrivateKey | None = None,
    ) -> None:
        key = key or PrivateKey.generate(os.urandom)
        protocols = tuple(eth.sub_protocol(version) for version in eth.VERSIONS)
        hello = p2p.Hello(self.client, tuple(item.capability for item in protocols), 0, key.id)
        node = LocalNode(key, hello.encode(), protocols, _All(), os.urandom, LocalRange())
        local = LocalChain(chain.network_id, chain.genesis, Forks(chain), Head(1, b"\x01" * 32))
        self.session = Session(Setup(Direction.OUTBOUND, node, local, 1 << 31, peer=node_id), now=monotonic())
        self.session.approve(now=monotonic())
        self.node_id = key.id
        self.events: list[Event] = []
        self.socket = socket.create_connection(address, timeout=PATIENCE_SECONDS, source_address=(source, 0))

    def establish(self) -> Self:
        """Shake hands until active."""
        ends_at = monotonic() + PATIENCE_SECONDS
        while self.session.stage != "active":
            assert not self.session.is_closed, self.events
            assert monotonic() < ends_at, self.session.stage
            self.step()
        self.flush()
        return self

    def step(self) -> None:
        """Write what is due, then take what comes next."""
        self.flush()
        data = self.socket.recv(RECEIVE_BYTES)
        now = monotonic()
        self.events += self.session.receive(data, now=now) if data else self.session.connection_lost("end of stream")

    def flush(self) -> None:
        """Write what is due."""
        if data := self.session.data_to_send():
            self.socket.sendall(data)

    def send(self, message: int, payload: bytes) -> None:
        """Send an eth message."""
        self.session.send(eth.NAME, message, payload)
        self.flush()

    def leave(self) -> None:
        """Say goodbye and close."""
        self.session.disconnect(DisconnectReason.CLIENT_QUITTING, "test")
        self.flush()
        self.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
