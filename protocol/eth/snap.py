"""The snap protocol, versions 1 and 2 (devp2p `caps/snap.md`, EIP-8189): its names and versions, ids, counts and bounds."""

from __future__ import annotations

from typing import Final

from rlpx.protocol.eth import eth
from rlpx.protocol.eth.table import MAX_MESSAGE_BYTES, MessageRole, MessageType
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol

NAME: Final = "snap"
VERSIONS: Final = (1, 2)

# geth asks for at most 1024 trie nodes at once, with one or two paths each: under 80 KiB. Other requests are shorter.
MAX_REQUEST_BYTES: Final = eth.MAX_HASHES_BYTES

# Ids of requests whose empty answer has a form of its own.
GET_ACCOUNT_RANGE_ID: Final = 0x00
GET_STORAGE_RANGES_ID: Final = 0x02
GET_BLOCK_ACCESS_LISTS_ID: Final = 0x08

MESSAGES: Final = (
    MessageType(GET_ACCOUNT_RANGE_ID, "GetAccountRange", MessageRole.REQUEST, max_bytes=eth.MAX_FIXED_BYTES),
    MessageType(0x01, "AccountRange", MessageRole.RESPONSE),
    MessageType(GET_STORAGE_RANGES_ID, "GetStorageRanges", MessageRole.REQUEST, max_bytes=MAX_REQUEST_BYTES),
    MessageType(0x03, "StorageRanges", MessageRole.RESPONSE),
    MessageType(0x04, "GetByteCodes", MessageRole.REQUEST, max_bytes=MAX_REQUEST_BYTES),
    MessageType(0x05, "ByteCodes", MessageRole.RESPONSE),
    MessageType(0x06, "GetTrieNodes", MessageRole.REQUEST, until=1, max_bytes=MAX_REQUEST_BYTES),
    MessageType(0x07, "TrieNodes", MessageRole.RESPONSE, until=1),
    MessageType(GET_BLOCK_ACCESS_LISTS_ID, "GetBlockAccessLists", MessageRole.REQUEST, since=2, max_bytes=MAX_REQUEST_BYTES),
    MessageType(0x09, "BlockAccessLists", MessageRole.RESPONSE, since=2),
)

MESSAGE_COUNTS: Final = {1: 8, 2: 10}


def sub_protocol(version: int) -> SubProtocol:
    """Return one version of snap, as offered in a Hello. Its messages are limited to 10 MiB, as in geth."""
    return SubProtocol(Capability(NAME, version), MESSAGE_COUNTS[version], MAX_MESSAGE_BYTES)
