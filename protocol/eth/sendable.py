"""Which messages a user may send without harm to the session: those that peers do not punish."""

from __future__ import annotations

from typing import Final

from rlpx.protocol import rlp
from rlpx.protocol.errors import PeerError, UsageError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.dialects import DIALECTS
from rlpx.protocol.eth.kinds import MessageKind

_BLOCK_GOSSIP: Final = frozenset({eth.NEW_BLOCK_HASHES_ID, eth.NEW_BLOCK_ID})
_ANNOUNCEMENTS: Final = (
    eth_messages.NewPooledTransactionHashes66,
    eth_messages.NewPooledTransactionHashes68,
    eth_messages.NewPooledTransactionHashes72,
)
_RAW: Final = "raw sends it as it is"


def check_sendable(kind: MessageKind, payload: bytes, *, is_proof_of_stake: bool) -> None:
    """Refuse a message that real clients answer with a disconnect or worse. Raises `UsageError` with the reason.

    Messages of capabilities other than eth and snap are unknown here and pass.
    """
    capability = kind.capability
    dialect = DIALECTS.get(capability.name)
    if dialect is None:
        return
    if capability.name == eth.NAME and kind.id == eth.STATUS_ID:
        raise UsageError(f"Status: the handshake has exchanged it, and a second one ends the session; {_RAW}")
    if capability.name == eth.NAME and kind.id in _BLOCK_GOSSIP and is_proof_of_stake:
        raise UsageError(f"{kind.name}: on a chain of proof of stake peers disconnect who gossips blocks; {_RAW}")
    try:
        _check_announcement(dialect.decode(capability.version, kind.id, payload))
        _, _, end = rlp.bounds(payload, 0, len(payload))
    except PeerError as error:
        raise UsageError(f"payload: not what {capability} has as {error}; {_RAW}") from error
    if end != len(payload):
        raise UsageError(f"payload: {len(payload) - end} bytes behind the {kind.name}; {_RAW}")


def _check_announcement(message: object) -> None:
    """Refuse an announcement that costs the sender 1,024 points of reputation at reth. Raises `UsageError`."""
    if not isinstance(message, _ANNOUNCEMENTS):
        return
    if not message.hashes:
        raise UsageError(f"NewPooledTransactionHashes: it announces nothing; {_RAW}")
    if len(set(message.hashes)) != len(message.hashes):
        raise UsageError(f"NewPooledTransactionHashes: a transaction is named twice; {_RAW}")
