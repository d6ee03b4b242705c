"""Codes, limits and checks that the tests of a session share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.protocol.settings import TimeoutSettings
from tests.pair import (
    ETH,
    RawPeer,
    SessionSpec,
)

BREACH: Final = DisconnectReason.PROTOCOL_BREACH
TIMEOUT: Final = DisconnectReason.PING_TIMEOUT
OTHER_CHAIN: Final = DisconnectReason.SUBPROTOCOL_ERROR

TIMEOUTS: Final = TimeoutSettings(
    auth_s=3, handshake_s=3, pending_inbound_s=7, pending_outbound_s=7, ping_interval_s=20, ping_s=11
)
TIMED: Final = SessionSpec(timeouts=TIMEOUTS)

NEW_BLOCK_HASHES: Final = ETH + 0x01
TRANSACTIONS: Final = ETH + 0x02
GET_BLOCK_HEADERS: Final = ETH + 0x03
BLOCK_HEADERS: Final = ETH + 0x04
NEW_BLOCK: Final = ETH + 0x07
BLOCK_RANGE_UPDATE: Final = ETH + 0x11

MAX_FRAME_BYTES: Final = 0xFFFFFF
MAX_ETH_BYTES: Final = 10 * 1024 * 1024

# The raw peer's Hello names eth/69 and snap/1.
ETH_69: Final = Shared(Capability("eth", 69), ETH, 18, 10 << 20)
SNAP_1: Final = Shared(Capability("snap", 1), ETH + 18, 8, 10 << 20)

PENDING: Final = (Stage.AUTH, Stage.ACK, Stage.HELLO, Stage.STATUS, Stage.VERDICT)


def is_dialer(stage: Stage) -> bool:
    """The role of the peer that lets the session come to a stage."""
    return stage is not Stage.ACK


def offering(*names: str) -> SessionSpec:
    """A session that speaks these only, `eth/68` or `snap/1`."""
    known = {"eth": eth.sub_protocol, "snap": snap.sub_protocol}
    pairs = [name.split("/") for name in names]
    return SessionSpec(protocols=tuple(known[name](int(version)) for name, version in pairs))


def check_end(peer: RawPeer, reason: DisconnectReason | None, cause: str, stage: Stage) -> None:
    """We ended it at `stage`, for that cause, and what we say of the reason is what the peer was told."""
    closed = peer.closed
    assert cause in closed.cause
    assert (closed.ended_by, closed.reason, closed.stage) == (EndedBy.US, reason, stage)
    assert peer.goodbye == reason
    assert peer.session.is_closed


class Mistake(NamedTuple):
    """What a peer does wrong, what it is told, and what we say of it."""

    does: Callable[[RawPeer], object]
    reason: DisconnectReason
    cause: str
