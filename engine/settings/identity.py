"""The identity that peers see: node key, chain and version."""

from __future__ import annotations

import msgspec

from rlpx.protocol.eth.forkid import Chain
from rlpx.protocol.rlpx.crypto import PrivateKey


class Identity(msgspec.Struct, frozen=True):
    """The node key, the chain, and the version that the client name contains."""

    key: PrivateKey
    chain: Chain
    version: str

    def __repr__(self) -> str:
        return f"Identity({self.key!r}, {self.chain.name})"
