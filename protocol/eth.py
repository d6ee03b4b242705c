"""The eth protocol, versions 66 to 72 (devp2p `caps/eth.md`): ids, names, counts, Status, and empty answers.

Payloads other than Status stay raw: decoding is the reader's work.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from protocol import rlp
from protocol.capabilities import SubProtocol
from protocol.errors import ForkIdError, MessageError, RlpError, StatusError
from protocol.forkid import ForkId, Forks, Verdict
from protocol.p2p import Capability

NAME: Final = "eth"
VERSIONS: Final = (66, 67, 68, 69, 70, 71, 72)
# geth and reth both: no eth message may inflate to more (10 MiB).
MAX_MESSAGE_BYTES: Final = 10 * 1024 * 1024
# A Status takes under 200 bytes.
MAX_STATUS_BYTES: Final = 1024
# From here on Status tells the block range, not the total difficulty (EIP-7642).
RANGE_VERSION: Final = 69
# Announcements of transactions have types and sizes from here on (EIP-5793), and a mask of cells from there on (EIP-8070).
TYPED_ANNOUNCEMENT_VERSION: Final = 68
CELLS_VERSION: Final = 72
# GetReceipts and Receipts may be partial from here on (EIP-7975).
PARTIAL_RECEIPTS_VERSION: Final = 70

# reth: every 32 slots of 12 s, if the head has moved by as many blocks (`eth.md` asks for about one in two minutes).
RANGE_INTERVAL_SECONDS: Final = 384.0
RANGE_STEP_BLOCKS: Final = 32

STATUS_ID: Final = 0x00
NEW_BLOCK_HASHES_ID: Final = 0x01
NEW_BLOCK_ID: Final = 0x07
BLOCK_RANGE_UPDATE_ID: Final = 0x11

HASH_BYTES: Final = 32
# In RLP, with its length in front.
ENCODED_HASH_BYTES: Final = 33
CELL_MASK_BYTES: Final = 16
# reth's bound; mainnet's final difficulty took 76 bits.
MAX_DIFFICULTY_BITS: Final = 160
# No client asks for more access lists at once, or answers more (geth's and reth's serving limit).
MAX_ANSWERED_ITEMS: Final = 1024
_DIFFICULTY_BYTES: Final = 32
_STATUS_MAX_ITEMS: Final = 64


class Role(StrEnum):
    """What a message is: whoever takes one knows from this whether an answer is due."""

    ANNOUNCEMENT = "announcement"
    REQUEST = "request"
    RESPONSE = "response"


class MessageType(msgspec.Struct, frozen=True):
    """A row of the table of messages: its id within the capability, and since and until which version it exists."""

    id: int
    name: str
    role: Role = Role.ANNOUNCEMENT
    since: int = VERSIONS[0]
    until: int = VERSIONS[-1]


MESSAGES: Final = (
    MessageType(STATUS_ID, "Status"),
    MessageType(NEW_BLOCK_HASHES_ID, "NewBlockHashes"),
    MessageType(0x02, "Transactions"),
    MessageType(0x03, "GetBlockHeaders", Role.REQUEST),
    MessageType(0x04, "BlockHeaders", Role.RESPONSE),
    MessageType(0x05, "GetBlockBodies", Role.REQUEST),
    MessageType(0x06, "BlockBodies", Role.RESPONSE),
    MessageType(NEW_BLOCK_ID, "NewBlock"),
    MessageType(0x08, "NewPooledTransactionHashes"),
    MessageType(0x09, "GetPooledTransactions", Role.REQUEST),
    MessageType(0x0A, "PooledTransactions", Role.RESPONSE),
    MessageType(0x0D, "GetNodeData", Role.REQUEST, until=66),
    MessageType(0x0E, "NodeData", Role.RESPONSE, until=66),
    MessageType(0x0F, "GetReceipts", Role.REQUEST),
    MessageType(0x10, "Receipts", Role.RESPONSE),
    MessageType(BLOCK_RANGE_UPDATE_ID, "BlockRangeUpdate", since=69),
    MessageType(0x12, "GetBlockAccessLists", Role.REQUEST, since=71),
    MessageType(0x13, "BlockAccessLists", Role.RESPONSE, since=71),
    MessageType(0x14, "GetCells", Role.REQUEST, since=72),
    MessageType(0x15, "Cells", Role.RESPONSE, since=72),
)

# Codes that a version takes on the wire, the unassigned ones between them included.
MESSAGE_COUNTS: Final = {66: 17, 67: 17, 68: 17, 69: 18, 70: 18, 71: 20, 72: 22}

_GET_BLOCK_ACCESS_LISTS_ID: Final = 0x12
NEW_POOLED_TRANSACTION_HASHES_ID: Final = 0x08
_GET_CELLS_ID: Final = 0x14
_GET_RECEIPTS_ID: Final = 0x0F


class Head(msgspec.Struct, frozen=True):
    """What we announce of our own chain. `time` is the head's; `None` follows the wall clock.

    `number` and `hash` are the latest block, `earliest` the first one we have. `total_difficulty` is decimal text: it has
    more bits than an integer on the way to the workers may.
    """

    number: int
    hash: bytes
    time: int | None = None
    earliest: int = 0
    total_difficulty: str = "0"


class LocalRange(msgspec.Struct):
    """The head that running sessions announce in BlockRangeUpdate; one object for all, `None` until it is known."""

    head: Head | None = None


class LocalChain(msgspec.Struct, frozen=True):
    """Our side of a Status exchange: the chain, its forks, and where we stand in it."""

    network_id: int
    genesis: bytes
    forks: Forks
    head: Head
    refuses_blocks: bool = False

    def fork_head(self, wall_seconds: int) -> tuple[int, int]:
        """Block number and time at which the fork rules are asked.

        An engine has no chain of its own: until it is told a head it stands where the wall clock does, behind all forks
        that are blocks.
        """
        time = self.head.time
        if time is None:
            return max(self.head.number, self.forks.last_block), wall_seconds
        return self.head.number, time


class Status(msgspec.Struct, frozen=True):
    """A Status in either form: before eth/69 `head` and `total_difficulty`, from then on the block range."""

    version: int
    network_id: int
    genesis: bytes
    fork_id: ForkId
    head: bytes
    total_difficulty: int | None = None
    earliest: int | None = None
    latest: int | None = None

    def encode(self) -> bytes:
        """The RLP payload in the form of its version."""
        fork_id = self.fork_id.to_rlp()
        if self.earliest is None or self.latest is None:
            return rlp.encode([self.version, self.network_id, self.total_difficulty or 0, self.head, self.genesis, fork_id])
        return rlp.encode([self.version, self.network_id, self.genesis, fork_id, self.earliest, self.latest, self.head])


def sub_protocol(version: int) -> SubProtocol:
    """Eth in one of its versions, as offered in a Hello."""
    return SubProtocol(Capability(NAME, version), MESSAGE_COUNTS[version], MAX_MESSAGE_BYTES)


def local_status(version: int, chain: LocalChain, wall_seconds: int) -> Status:
    """The Status that we send under this version."""
    head = chain.head
    fork_id = chain.forks.at(*chain.fork_head(wall_seconds))
    if version < RANGE_VERSION:
        return Status(version, chain.network_id, chain.genesis, fork_id, head.hash, int(head.total_difficulty))
    return Status(version, chain.network_id, chain.genesis, fork_id, head.hash, earliest=head.earliest, latest=head.number)


def decode_status(payload: bytes, version: int) -> Status:
    """Read a Status in the form of the negotiated version; bytes after the list are ignored. Raises `PeerError`."""
    fields = rlp.decode_list(payload, max_items=_STATUS_MAX_ITEMS)
    try:
        if version < RANGE_VERSION:
            remote_version, network, difficulty, head, genesis, fork_id = fields
            return Status(
                rlp.as_uint(remote_version),
                rlp.as_uint(network),
                rlp.as_bytes(genesis, HASH_BYTES),
                ForkId.from_rlp(fork_id),
                rlp.as_bytes(head, HASH_BYTES),
                total_difficulty=rlp.as_uint(difficulty, _DIFFICULTY_BYTES),
            )
        remote_version, network, genesis, fork_id, earliest, latest, head = fields
    except ValueError as error:
        raise MessageError(f"a Status of {len(fields)} fields, which is not eth/{version}'s form") from error
    return Status(
        rlp.as_uint(remote_version),
        rlp.as_uint(network),
        rlp.as_bytes(genesis, HASH_BYTES),
        ForkId.from_rlp(fork_id),
        rlp.as_bytes(head, HASH_BYTES),
        earliest=rlp.as_uint(earliest),
        latest=rlp.as_uint(latest),
    )


def check_status(remote: Status, version: int, chain: LocalChain, wall_seconds: int) -> None:
    """Every check of a received Status, in reth's order. Raises `StatusError`, `ForkIdError`, `MessageError`."""
    if remote.genesis != chain.genesis:
        raise StatusError(f"another genesis, 0x{remote.genesis.hex()}")
    if remote.version != version:
        raise StatusError(f"a Status of eth/{remote.version} where eth/{version} was negotiated")
    if remote.network_id != chain.network_id:
        raise StatusError(f"another network, {remote.network_id}")
    if remote.total_difficulty is not None and remote.total_difficulty.bit_length() > MAX_DIFFICULTY_BITS:
        raise MessageError(f"a total difficulty of {remote.total_difficulty.bit_length()} bits")
    verdict = chain.forks.judge(remote.fork_id, *chain.fork_head(wall_seconds))
    if verdict is not Verdict.OK:
        raise ForkIdError(f"fork id {remote.fork_id.hash.hex()}/{remote.fork_id.next}: {verdict}")
    if remote.earliest is not None and remote.latest is not None:
        check_range(remote.earliest, remote.latest, remote.head)


def check_range(earliest: int, latest: int, latest_hash: bytes) -> None:
    """A block range must not be reversed and its hash not zero (EIP-7642). Raises `MessageError`."""
    if earliest > latest:
        raise MessageError(f"a block range from {earliest} back to {latest}")
    if not any(latest_hash):
        raise MessageError("a block range whose latest hash is zero")


def decode_block_range(payload: bytes) -> tuple[int, int, bytes]:
    """Earliest, latest and latest hash of a BlockRangeUpdate, checked. Raises `PeerError`."""
    fields = rlp.decode_list(payload, max_items=_STATUS_MAX_ITEMS)
    try:
        earliest, latest, latest_hash = fields
    except ValueError as error:
        raise MessageError(f"a BlockRangeUpdate of {len(fields)} fields") from error
    update = rlp.as_uint(earliest), rlp.as_uint(latest), rlp.as_bytes(latest_hash, HASH_BYTES)
    check_range(*update)
    return update


def encode_block_range(head: Head) -> bytes:
    """The payload of a BlockRangeUpdate: earliest, latest and latest hash (EIP-7642)."""
    return rlp.encode([head.earliest, head.number, head.hash])


def empty_answer(version: int, request_id: int, message_id: int, payload: bytes) -> bytes:
    """The answer of a node that has nothing of what a request (its whole payload) asks. Raises `RlpError`."""
    if message_id == _GET_RECEIPTS_ID and version >= PARTIAL_RECEIPTS_VERSION:
        # [request-id, last-block-incomplete, [receipts, ...]] (EIP-7975)
        return rlp.encode([request_id, 0, []])
    if message_id == _GET_BLOCK_ACCESS_LISTS_ID:
        return rlp.encode([request_id, unavailable(payload)])
    if message_id == _GET_CELLS_ID:
        # [request-id, [hashes], mask] is answered by [request-id, [hashes], [cells], mask] (EIP-8070)
        _, start, end = rlp.spans(payload, len(("id", "hashes", "mask")))[2]
        mask = rlp.as_bytes(payload[start:end], CELL_MASK_BYTES)
        return rlp.encode([request_id, [], [], mask])
    return rlp.encode([request_id, []])


def unavailable(payload: bytes) -> list[rlp.Encodable]:
    """The items of an answer to GetBlockAccessLists: each position an empty string, "not available" (EIP-8159)."""
    is_list, start, end = rlp.spans(payload, len(("id", "hashes")))[1]
    if not is_list:
        raise RlpError("a string where a list belongs")
    # The hashes are counted by their length: a list of other things is none of ours to decode.
    return [b""] * min((end - start) // ENCODED_HASH_BYTES, MAX_ANSWERED_ITEMS)
