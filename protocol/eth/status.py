"""Both sides of a Status exchange, and the block range that follows it (`eth.md`, EIP-7642)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from rlpx.protocol import rlp
from rlpx.protocol.errors import ForkIdError, MessageError, StatusError, reading
from rlpx.protocol.eth.eth import HASH_BYTES, RANGE_VERSION
from rlpx.protocol.eth.forkid import ForkId, Forks, Verdict

# reth: every 32 slots of 12 s, if the head has moved by as many blocks (`eth.md` asks for about one in two minutes).
RANGE_INTERVAL_SECONDS: Final = 384.0
RANGE_STEP_BLOCKS: Final = 32
# reth's bound; mainnet's final difficulty took 76 bits.
MAX_DIFFICULTY_BITS: Final = 160
_DIFFICULTY_BYTES: Final = 32
_STATUS_MAX_ITEMS: Final = 64


class Head(msgspec.Struct, frozen=True):
    """The head that we announce. `time` is its timestamp; None follows the wall clock.

    `number` and `hash` are those of the latest block, `earliest` is the first one that we have. `total_difficulty` is
    decimal text, as it has more bits than an integer in a message to the workers.
    """

    number: int
    hash: bytes
    time: int | None = None
    earliest: int = 0
    total_difficulty: str = "0"


class LocalRange(msgspec.Struct):
    """The head that active sessions announce in BlockRangeUpdate, None until it is known. All sessions share one object."""

    head: Head | None = None


class LocalChain(msgspec.Struct, frozen=True):
    """Our side of a Status exchange: the chain, its forks, and our head in it."""

    network_id: int
    genesis: bytes
    forks: Forks
    head: Head
    refuses_blocks: bool = False

    def fork_head(self, wall_seconds: int) -> tuple[int, int]:
        """The block number and time for which the fork rules are evaluated.

        The engine keeps no chain. Until it is given a head, it assumes the present time and a block number after all
        forks by block.
        """
        time = self.head.time
        if time is None:
            return max(self.head.number, self.forks.last_block), wall_seconds
        return self.head.number, time


class Status(msgspec.Struct, frozen=True):
    """A Status in either form: with `total_difficulty` before eth/69, with the block range from then on."""

    version: int
    network_id: int
    genesis: bytes
    fork_id: ForkId
    head: bytes
    total_difficulty: int | None = None
    earliest: int | None = None
    latest: int | None = None

    def encode(self) -> bytes:
        """Return the RLP payload in the form of its version."""
        fork_id = self.fork_id.to_rlp()
        if self.earliest is None or self.latest is None:
            return rlp.encode([self.version, self.network_id, self.total_difficulty or 0, self.head, self.genesis, fork_id])
        return rlp.encode([self.version, self.network_id, self.genesis, fork_id, self.earliest, self.latest, self.head])


def _as_hash(item: rlp.Item) -> bytes:
    return rlp.as_bytes(item, HASH_BYTES)


# The fields of a Status in wire order, before eth/69 and from then on, and the decoder of each.
_STATUS_FIELDS_66: Final = ("version", "network_id", "total_difficulty", "head", "genesis", "fork_id")
_STATUS_FIELDS_69: Final = ("version", "network_id", "genesis", "fork_id", "earliest", "latest", "head")
_STATUS_READERS: Final[dict[str, Callable[[rlp.Item], object]]] = {
    "version": rlp.as_uint,
    "network_id": rlp.as_uint,
    "total_difficulty": lambda item: rlp.as_uint(item, _DIFFICULTY_BYTES),
    "head": _as_hash,
    "genesis": _as_hash,
    "fork_id": ForkId.from_rlp,
    "earliest": rlp.as_uint,
    "latest": rlp.as_uint,
}


def local_status(version: int, chain: LocalChain, wall_seconds: int) -> Status:
    """Return the Status that we send under this version."""
    head = chain.head
    fork_id = chain.forks.at(*chain.fork_head(wall_seconds))
    if version < RANGE_VERSION:
        return Status(version, chain.network_id, chain.genesis, fork_id, head.hash, int(head.total_difficulty))
    return Status(version, chain.network_id, chain.genesis, fork_id, head.hash, earliest=head.earliest, latest=head.number)


def decode_status(payload: bytes, version: int) -> Status:
    """Read a Status in the form of the negotiated version; bytes after the list are ignored. Raises `PeerError`."""
    with reading("Status"):
        return read_status(payload, version)


def read_status(payload: bytes, version: int) -> Status:
    """Read a Status as `decode_status` does, without the message's name in front of an error."""
    fields = rlp.decode_list(payload, max_items=_STATUS_MAX_ITEMS)
    names = _STATUS_FIELDS_66 if version < RANGE_VERSION else _STATUS_FIELDS_69
    if len(fields) != len(names):
        raise MessageError(f"{len(fields)} fields, which is not eth/{version}'s form")
    values: dict[str, Any] = {}
    for name, field in zip(names, fields, strict=True):
        with reading(name):
            values[name] = _STATUS_READERS[name](field)
    return Status(**values)


def check_status(remote: Status, version: int, chain: LocalChain, wall_seconds: int) -> None:
    """Make every check of a received Status, in reth's order. Raises `StatusError`, `ForkIdError`, `MessageError`."""
    if remote.genesis != chain.genesis:
        raise StatusError(f"another genesis, 0x{remote.genesis.hex()}")
    if remote.version != version:
        raise StatusError(f"a Status of eth/{remote.version} where eth/{version} was negotiated")
    if remote.network_id != chain.network_id:
        raise StatusError(f"another network, {remote.network_id}")
    if remote.total_difficulty is not None and remote.total_difficulty.bit_length() > MAX_DIFFICULTY_BITS:
        raise MessageError(f"a total difficulty of {remote.total_difficulty.bit_length()} bits")
    verdict = chain.forks.check(remote.fork_id, *chain.fork_head(wall_seconds))
    if verdict is not Verdict.OK:
        raise ForkIdError(f"fork id {remote.fork_id.hash.hex()}/{remote.fork_id.next}: {verdict}")
    if remote.earliest is not None and remote.latest is not None:
        check_range(remote.earliest, remote.latest, remote.head)


def check_range(earliest: int, latest: int, latest_hash: bytes) -> None:
    """Refuse a block range that is reversed or whose hash is zero (EIP-7642). Raises `MessageError`."""
    if earliest > latest:
        raise MessageError(f"a block range from {earliest} back to {latest}")
    if not any(latest_hash):
        raise MessageError("a block range whose latest hash is zero")


def decode_block_range(payload: bytes) -> tuple[int, int, bytes]:
    """Return the checked earliest and latest block and latest hash of a BlockRangeUpdate. Raises `PeerError`."""
    fields = rlp.decode_list(payload, max_items=_STATUS_MAX_ITEMS)
    if len(fields) != len(("earliest", "latest", "latest_hash")):
        raise MessageError(f"{len(fields)} fields where 3 belong")
    with reading("earliest"):
        earliest = rlp.as_uint(fields[0])
    with reading("latest"):
        latest = rlp.as_uint(fields[1])
    with reading("latest_hash"):
        latest_hash = rlp.as_bytes(fields[2], HASH_BYTES)
    check_range(earliest, latest, latest_hash)
    return earliest, latest, latest_hash


def encode_block_range(head: Head) -> bytes:
    """Return the payload of a BlockRangeUpdate: earliest and latest block, and latest hash (EIP-7642)."""
    return rlp.encode([head.earliest, head.number, head.hash])
