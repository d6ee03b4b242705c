"""Fork identifiers and their filter (EIP-2124, with the timestamps of EIP-6122)."""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum
from typing import Annotated, Final
from zlib import crc32

import msgspec

from rlpx.protocol import rlp
from rlpx.protocol.errors import ForkIdError

HASH_BYTES: Final = 4
# A remote `next` above this is a time, otherwise a block (geth's rule): it is the first second of Ethereum.
FIRST_TIMESTAMP: Final = 1_438_269_973

BlockHash = Annotated[
    str,
    msgspec.Meta(pattern="^(0x)?[0-9a-fA-F]{64}$", title="a block hash of 64 hex digits", examples=["0xd4e5...8fa3"]),
]
Unsigned = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Verdict(StrEnum):
    """The result of the filter for a remote fork id."""

    OK = "ok"
    REMOTE_STALE = "remote stale"
    LOCAL_INCOMPATIBLE_OR_STALE = "local incompatible or stale"


class ForkId(msgspec.Struct, frozen=True):
    """The CRC-32 of genesis and passed forks (4 bytes), and the next fork, 0 if none is known."""

    hash: bytes
    next: int

    def to_rlp(self) -> list[rlp.Encodable]:
        """Return the two-element list in a Status."""
        return [self.hash, self.next]

    @classmethod
    def from_rlp(cls, item: rlp.Item) -> ForkId:
        """Read the list in a Status. Raises `RlpError`, `ForkIdError`."""
        fields = rlp.as_list(item)
        if len(fields) != len(("hash", "next")):
            raise ForkIdError(f"a fork id of {len(fields)} fields")
        return cls(rlp.as_bytes(fields[0], HASH_BYTES), rlp.as_uint(fields[1]))


class Chain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chain, as read from its file in `conf/`."""

    name: str
    network_id: Unsigned
    genesis_hash: BlockHash
    genesis_time: Unsigned = 0
    fork_blocks: tuple[Unsigned, ...] = ()
    fork_times: tuple[Unsigned, ...] = ()
    # EIP-3675: after the merge, blocks come from the consensus layer, and gossiping them is a breach.
    proof_of_stake: bool = False

    @property
    def genesis(self) -> bytes:
        """The genesis hash, 32 bytes."""
        return bytes.fromhex(self.genesis_hash.removeprefix("0x"))


class Forks:
    """The forks of a chain in order, with the checksum after each. It is made once and used for every Status."""

    __slots__ = ("_blocks", "_forks", "_sums", "_times")

    def __init__(self, chain: Chain) -> None:
        # A fork at block 0, or at or before the time of genesis, is part of genesis; forks at the same point count once.
        self._blocks = sorted({block for block in chain.fork_blocks if block > 0})
        self._times = sorted({time for time in chain.fork_times if time > chain.genesis_time})
        self._forks = [*self._blocks, *self._times]
        checksum = crc32(chain.genesis)
        self._sums = [checksum.to_bytes(HASH_BYTES, "big")]
        for fork in self._forks:
            checksum = crc32(fork.to_bytes(8, "big"), checksum)
            self._sums.append(checksum.to_bytes(HASH_BYTES, "big"))

    @property
    def last_block(self) -> int:
        """The block of the last fork by block."""
        return self._blocks[-1] if self._blocks else 0

    def at(self, number: int, time: int) -> ForkId:
        """Return the fork id of a head with this number and time."""
        index = self._passed(number, time)
        following = self._forks[index] if index < len(self._forks) else 0
        return ForkId(self._sums[index], following)

    def check(self, remote: ForkId, number: int, time: int) -> Verdict:
        """Check a remote fork id against a head of our chain (EIP-2124, "Validation rules")."""
        index = self._passed(number, time)
        if remote.hash == self._sums[index]:
            # Rule 1: both sides have passed the same forks. Our head must not be past the fork that they expect next. As in
            # geth, once a chain with forks by time has passed all forks by block, every `next` is compared with the time.
            place = time if self._times and index >= len(self._blocks) else number
            passed = remote.next <= place or FIRST_TIMESTAMP < remote.next <= time
            return Verdict.LOCAL_INCOMPATIBLE_OR_STALE if remote.next and passed else Verdict.OK
        if remote.hash in self._sums[:index]:
            # Rule 2: the remote is behind, and must announce the fork that comes next in our list.
            following = self._forks[self._sums.index(remote.hash)]
            return Verdict.OK if remote.next == following else Verdict.REMOTE_STALE
        # Rule 3: the remote is ahead, on forks that we know. Otherwise rule 4 applies.
        return Verdict.OK if remote.hash in self._sums else Verdict.LOCAL_INCOMPATIBLE_OR_STALE

    def _passed(self, number: int, time: int) -> int:
        """Return the number of forks that a head has passed. Forks by time come after all forks by block."""
        blocks = bisect_right(self._blocks, number)
        return blocks if blocks < len(self._blocks) else blocks + bisect_right(self._times, time)
