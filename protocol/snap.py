"""The snap protocol, versions 1 and 2 (devp2p `caps/snap.md`, EIP-8189): ids, names, counts and empty answers."""

from __future__ import annotations

from typing import Final

from protocol import eth, rlp
from protocol.capabilities import SubProtocol
from protocol.eth import MessageType, Role
from protocol.p2p import Capability

NAME: Final = "snap"
VERSIONS: Final = (1, 2)

MESSAGES: Final = (
    MessageType(0x00, "GetAccountRange", Role.REQUEST, 1, 2),
    MessageType(0x01, "AccountRange", Role.RESPONSE, 1, 2),
    MessageType(0x02, "GetStorageRanges", Role.REQUEST, 1, 2),
    MessageType(0x03, "StorageRanges", Role.RESPONSE, 1, 2),
    MessageType(0x04, "GetByteCodes", Role.REQUEST, 1, 2),
    MessageType(0x05, "ByteCodes", Role.RESPONSE, 1, 2),
    MessageType(0x06, "GetTrieNodes", Role.REQUEST, 1, 1),
    MessageType(0x07, "TrieNodes", Role.RESPONSE, 1, 1),
    MessageType(0x08, "GetBlockAccessLists", Role.REQUEST, 2, 2),
    MessageType(0x09, "BlockAccessLists", Role.RESPONSE, 2, 2),
)

MESSAGE_COUNTS: Final = {1: 8, 2: 10}

# AccountRange and StorageRanges carry a proof beside their list.
_WITH_PROOF: Final = frozenset({0x00, 0x02})
_GET_BLOCK_ACCESS_LISTS_ID: Final = 0x08


def sub_protocol(version: int) -> SubProtocol:
    """Snap in one of its versions, as offered in a Hello. geth holds its messages to the same 10 MiB as eth's."""
    return SubProtocol(Capability(NAME, version), MESSAGE_COUNTS[version], eth.MAX_MESSAGE_BYTES)


def empty_answer(request_id: int, message_id: int, payload: bytes) -> bytes:
    """The answer of a node that has nothing of what is asked, which `snap.md` allows to every request.

    Raises `RlpError` where the request's payload is malformed.
    """
    if message_id == _GET_BLOCK_ACCESS_LISTS_ID:
        return rlp.encode([request_id, eth.unavailable(payload)])
    return rlp.encode([request_id, [], []] if message_id in _WITH_PROOF else [request_id, []])
