"""What a new session starts from: who we are, what we offer, where our chain stands, and how long things may take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import time

import msgspec

from rlpx.protocol.bus.records import Configure
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth.forkid import Forks
from rlpx.protocol.eth.status import Head, LocalChain, LocalRange
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.rlpx import crypto
from rlpx.protocol.rlpx.capabilities import SubProtocol
from rlpx.protocol.rlpx.p2p import Hello
from rlpx.protocol.session.setup import LocalNode, Setup
from rlpx.workers.counters import Counters


class Setups:
    """Makes the `Setup` of each new session. A new head and new protocols apply to the sessions made from then on."""

    def __init__(self, configure: Configure, interest: Mapping[str, object], counters: Counters) -> None:
        chain = configure.chain
        self._timeouts = configure.settings.timeouts
        self._announced = configure.node
        self._range = LocalRange(configure.head if configure.is_head_known else None)
        self._node = LocalNode(
            key=crypto.PrivateKey(configure.node.key),
            hello=b"",
            protocols=(),
            interest=interest,
            entropy=os.urandom,
            range=self._range,
            queues=configure.settings.queues,
            traffic=counters.traffic,
            on_passed=counters.on_passed,
        )
        self.offer(configure.protocols, configure.required)
        self._chain = LocalChain(chain.network_id, chain.genesis, Forks(chain), configure.head, chain.proof_of_stake)

    def inbound(self, refusal: DisconnectReason | None) -> Setup:
        """The setup of an accepted session. If `refusal` is set, the session only tells the peer why."""
        return Setup(Direction.INBOUND, self._node, self._chain, int(time()), self._timeouts, refusal=refusal)

    def outbound(self, peer: bytes, spent_seconds: float) -> Setup:
        """The setup of a dialled session. A dial's total timeout includes the TCP connect, which took `spent_seconds`.

        Raises `PeerError` if `peer` is no public key.
        """
        return Setup(
            Direction.OUTBOUND,
            self._node,
            self._chain,
            int(time()),
            self._timeouts,
            peer=peer,
            spent_seconds=spent_seconds,
        )

    def set_head(self, head: Head) -> None:
        """Announce this head: in new handshakes at once, in running sessions with their next range update."""
        self._chain = msgspec.structs.replace(self._chain, head=head)
        self._range.head = head

    def offer(self, protocols: tuple[SubProtocol, ...], required: tuple[str, ...]) -> None:
        """Offer these sub-protocols in new handshakes, and require the peer to share the `required` names."""
        announced = self._announced
        capabilities = tuple(item.capability for item in protocols)
        hello = Hello(announced.client, capabilities, announced.listen_port, self._node.key.id)
        self._node = msgspec.structs.replace(
            self._node, hello=hello.encode(), protocols=protocols, required=frozenset(required)
        )

    @property
    def refuses_blocks(self) -> bool:
        """Whether block gossip is a breach on this chain (EIP-3675)."""
        return self._chain.refuses_blocks
