"""The eth protocol, versions 66 to 72 (devp2p `caps/eth.md`): its names and versions, message ids, counts and bounds."""

from __future__ import annotations

from typing import Final

from rlpx.protocol.eth.table import MAX_MESSAGE_BYTES, MessageRole, MessageType
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol

NAME: Final = "eth"
VERSIONS: Final = (66, 67, 68, 69, 70, 71, 72)
# A Status takes under 200 bytes.
MAX_STATUS_BYTES: Final = 1024
# Messages of a few integers and hashes (GetBlockHeaders: 64 bytes, BlockRangeUpdate: 54), with room for future fields.
MAX_FIXED_BYTES: Final = 1024
# No client asks for more than 4096 items at once: 132 KiB at 33 bytes each, 176 KiB for NewBlockHashes at 44 bytes each. A
# request for more still gets an answer, an empty one.
MAX_HASHES_BYTES: Final = 512 * 1024
# reth merges up to 4 * 4096 announced transactions; the type, size and hash of each take 39 bytes.
MAX_ANNOUNCEMENT_BYTES: Final = 640 * 1024
# From this version on, Status has the block range in place of the total difficulty (EIP-7642).
RANGE_VERSION: Final = 69
# The first versions whose announcements have types and sizes (EIP-5793), and a mask of cells (EIP-8070).
TYPED_ANNOUNCEMENT_VERSION: Final = 68
CELLS_VERSION: Final = 72
# From this version on, GetReceipts and Receipts may be partial (EIP-7975).
PARTIAL_RECEIPTS_VERSION: Final = 70

STATUS_ID: Final = 0x00
NEW_BLOCK_HASHES_ID: Final = 0x01
NEW_BLOCK_ID: Final = 0x07
NEW_POOLED_TRANSACTION_HASHES_ID: Final = 0x08
BLOCK_RANGE_UPDATE_ID: Final = 0x11

HASH_BYTES: Final = 32
# A hash in RLP, with its length prefix.
ENCODED_HASH_BYTES: Final = 33
CELL_MASK_BYTES: Final = 16
# Ids of requests whose empty answer has a form of its own.
GET_RECEIPTS_ID: Final = 0x0F
GET_BLOCK_ACCESS_LISTS_ID: Final = 0x12
GET_CELLS_ID: Final = 0x14

MESSAGES: Final = (
    MessageType(STATUS_ID, "Status", max_bytes=MAX_STATUS_BYTES),
    MessageType(NEW_BLOCK_HASHES_ID, "NewBlockHashes", max_bytes=MAX_HASHES_BYTES),
    MessageType(0x02, "Transactions"),
    MessageType(0x03, "GetBlockHeaders", MessageRole.REQUEST, max_bytes=MAX_FIXED_BYTES),
    MessageType(0x04, "BlockHeaders", MessageRole.RESPONSE),
    MessageType(0x05, "GetBlockBodies", MessageRole.REQUEST, max_bytes=MAX_HASHES_BYTES),
    MessageType(0x06, "BlockBodies", MessageRole.RESPONSE),
    MessageType(NEW_BLOCK_ID, "NewBlock"),
    MessageType(NEW_POOLED_TRANSACTION_HASHES_ID, "NewPooledTransactionHashes", max_bytes=MAX_ANNOUNCEMENT_BYTES),
    MessageType(0x09, "GetPooledTransactions", MessageRole.REQUEST, max_bytes=MAX_HASHES_BYTES),
    MessageType(0x0A, "PooledTransactions", MessageRole.RESPONSE),
    MessageType(0x0D, "GetNodeData", MessageRole.REQUEST, until=66, max_bytes=MAX_HASHES_BYTES),
    MessageType(0x0E, "NodeData", MessageRole.RESPONSE, until=66),
    MessageType(GET_RECEIPTS_ID, "GetReceipts", MessageRole.REQUEST, max_bytes=MAX_HASHES_BYTES),
    MessageType(0x10, "Receipts", MessageRole.RESPONSE),
    MessageType(BLOCK_RANGE_UPDATE_ID, "BlockRangeUpdate", since=69, max_bytes=MAX_FIXED_BYTES),
    MessageType(GET_BLOCK_ACCESS_LISTS_ID, "GetBlockAccessLists", MessageRole.REQUEST, since=71, max_bytes=MAX_HASHES_BYTES),
    MessageType(0x13, "BlockAccessLists", MessageRole.RESPONSE, since=71),
    MessageType(GET_CELLS_ID, "GetCells", MessageRole.REQUEST, since=72, max_bytes=MAX_HASHES_BYTES),
    MessageType(0x15, "Cells", MessageRole.RESPONSE, since=72),
)

# The number of codes that a version takes on the wire, including the unassigned ones in between.
MESSAGE_COUNTS: Final = {66: 17, 67: 17, 68: 17, 69: 18, 70: 18, 71: 20, 72: 22}


def sub_protocol(version: int) -> SubProtocol:
    """Return one version of eth, as offered in a Hello."""
    return SubProtocol(Capability(NAME, version), MESSAGE_COUNTS[version], MAX_MESSAGE_BYTES)
