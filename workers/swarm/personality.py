"""The clients that simulated peers imitate: their Hello, their pings, their first message and their goodbye.

Versions are those of client releases of 2026. Hellos have the order of capabilities of the real clients: geth and erigon
sort them, reth announces its newest first, nethermind as its plugins register.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from rlpx.protocol import rlp
from rlpx.protocol.bus.swarm import Client, Query
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol
from rlpx.protocol.rlpx.p2p import Hello

# GetNodeData and NodeData, which nethermind moved there when eth/67 dropped them.
_NODE_DATA: Final = SubProtocol(Capability("nodedata", 1), 2)


class Personality(msgspec.Struct, frozen=True):
    """One client. `leaves_with` is its reason when it makes room for others, `echoes_goodbye` whether it answers a
    Disconnect with its own, `opening` its first request.
    """

    client: str
    protocols: tuple[SubProtocol, ...]
    ping_interval_seconds: float
    ping_seconds: float
    leaves_with: DisconnectReason
    echoes_goodbye: bool = False
    opening: Query | None = None
    # Elements after the five of the specification, which EIP-8 asks to ignore.
    extra: tuple[rlp.Encodable, ...] = ()

    def hello(self, node_id: bytes) -> Hello:
        """Its Hello under this id."""
        capabilities = tuple(item.capability for item in self.protocols)
        return ExtendedHello(self.client, capabilities, 30303, node_id, extra=self.extra)


class ExtendedHello(Hello, frozen=True, kw_only=True):
    """A Hello with elements after the five."""

    extra: tuple[rlp.Encodable, ...] = ()

    def encode(self) -> bytes:
        """The RLP payload, without the message code."""
        payload = super().encode()
        if not self.extra:
            return payload
        return rlp.encode([*_encodable(rlp.decode_list(payload)), *self.extra])


def _encodable(items: list[rlp.Item]) -> list[rlp.Encodable]:
    return [item if isinstance(item, bytes) else _encodable(item) for item in items]


def _eth(*versions: int) -> tuple[SubProtocol, ...]:
    return tuple(map(eth.sub_protocol, versions))


# geth and erigon ping every 15 s and bear 30 s of silence at most, reth pings 60 s after a pong, nethermind every 10 s.
# After a Disconnect reth and nethermind close without sending one.
PERSONALITIES: Final[Mapping[Client, Personality]] = {
    Client.GETH: Personality(
        "Geth/v1.17.6-stable-02b73d4e/linux-amd64/go1.26.1",
        (*_eth(69, 70, 71, 72), snap.sub_protocol(1)),
        15.0,
        30.0,
        DisconnectReason.USELESS_PEER,
        echoes_goodbye=True,
    ),
    Client.RETH: Personality(
        "reth/v2.5.1-5b050fe/x86_64-unknown-linux-gnu",
        _eth(69, 68, 67, 66),
        60.0,
        15.0,
        DisconnectReason.TOO_MANY_PEERS,
    ),
    Client.NETHERMIND: Personality(
        "Nethermind/v1.36.0+8e7b235e/linux-x64/dotnet10.0.0",
        (*_eth(66, 67, 68), _NODE_DATA, snap.sub_protocol(1), *_eth(69)),
        10.0,
        15.0,
        DisconnectReason.TOO_MANY_PEERS,
        # This client checks the head of a new peer before it trusts it with anything.
        opening=Query.HEADERS,
    ),
    Client.ERIGON: Personality(
        "erigon/v3.3.0-0030f752/linux-amd64/go1.25.3",
        _eth(68, 69),
        15.0,
        30.0,
        DisconnectReason.USELESS_PEER,
        # Its p2p layer is go-ethereum's.
        echoes_goodbye=True,
        opening=Query.HEADERS,
        # A spare element: elements after the five must be ignored.
        extra=(b"spare",),
    ),
}
