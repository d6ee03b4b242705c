"""Who we are to peers: the node key, the chain, and the engine's version."""

from __future__ import annotations

import msgspec

from protocol.crypto import PrivateKey
from protocol.forkid import Chain


class Identity(msgspec.Struct, frozen=True):
    """See the module."""

    key: PrivateKey
    chain: Chain
    version: str

    def __repr__(self) -> str:
        return f"Identity({self.key!r}, {self.chain.name})"
