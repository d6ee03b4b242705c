"""The results of the Hello and Status exchanges, and when a peer is useless."""

from __future__ import annotations

import msgspec

from rlpx.protocol.errors import UselessPeerError, reading
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.kinds import MessageTable, message_table
from rlpx.protocol.eth.status import LocalChain, Status, check_status, decode_status, local_status
from rlpx.protocol.rlpx import p2p
from rlpx.protocol.rlpx.capabilities import Capability, share
from rlpx.protocol.rlpx.frames import FrameCipher
from rlpx.protocol.session.send_queue import QueuedMessage, Rank
from rlpx.protocol.session.sending import queued_message
from rlpx.protocol.session.setup import LocalNode


class Greeted(msgspec.Struct, frozen=True):
    """The result of the Hello exchange. `eth` is the shared version of eth, `status_code` the code of its Status."""

    hello: p2p.Hello
    table: MessageTable
    eth: Capability
    status_code: int

    def own_status(self, chain: LocalChain, wall_seconds: int) -> QueuedMessage:
        """Return our Status, ready to be queued."""
        status = local_status(self.eth.version, chain, wall_seconds)
        return queued_message(Rank.CONTROL, self.table.find(eth.NAME, eth.STATUS_ID), status.encode())

    def read_status(self, payload: bytes, chain: LocalChain, wall_seconds: int) -> Status:
        """Decode and check the peer's Status. Raises `PeerError`."""
        with reading("Status"):
            data = p2p.inflate(payload, eth.MAX_STATUS_BYTES)
        status = decode_status(data, self.eth.version)
        check_status(status, self.eth.version, chain, wall_seconds)
        return status


class Negotiated(msgspec.Struct, frozen=True):
    """Everything that a session needs to become active, except the verdict."""

    cipher: FrameCipher
    greeted: Greeted
    status: Status


def greet(hello: p2p.Hello, node: LocalNode) -> Greeted:
    """Return what we share with a Hello's sender. Raises `UselessPeerError` without eth or a required capability."""
    table = message_table(share(node.protocols, hello.capabilities))
    node.traffic.add(table)
    if table.eth is None:
        offered = ", ".join(map(str, hello.capabilities)) or "nothing"
        raise UselessPeerError(f"no shared version of eth; the peer offers {offered}")
    missing = sorted(node.required - table.capabilities.keys())
    if missing:
        raise UselessPeerError(f"no shared version of {', '.join(missing)}")
    return Greeted(hello, table, table.eth.capability, table.eth.offset)
