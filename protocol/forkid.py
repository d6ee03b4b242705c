"""Fork identifiers and their filter (EIP-2124, with the timestamps of EIP-6122)."""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum
from typing import Annotated, Final
from zlib import crc32

import msgspec

from protocol import rlp
from protocol.errors import ForkIdError

HASH_BYTES: Final = 4
# geth's rule for telling a remote `next` that is a time from one that is a block: Ethereum's first second.
FIRST_TIMESTAMP: Final = 1_438_269_973

BlockHash = Annotated[str, msgspec.Meta(pattern="^(0x)?[0-9a-fA-F]{64}$")]
Unsigned = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Verdict(StrEnum):
    """What the filter says of a remote fork id."""

    OK = "ok"
    REMOTE_STALE = "remote stale"
    LOCAL_INCOMPATIBLE_OR_STALE = "local incompatible or stale"


class ForkId(msgspec.Struct, frozen=True):
    """The CRC-32 of genesis and passed forks (4 bytes), and the next fork, 0 where none is known."""

    hash: bytes
    next: int

    def to_rlp(self) -> list[rlp.Encodable]:
        """The two-element list of a Status."""
        return [self.hash, self.next]

    @classmethod
    def from_rlp(cls, item: rlp.Item) -> ForkId:
        """Read the list of a Status. Raises `RlpError`, `ForkIdError`."""
        fields = rlp.as_list(item)
        if len(fields) != len(("hash", "next")):
            raise ForkIdError(f"a fork id of {len(fields)} fields")
        return cls(rlp.as_bytes(fields[0], HASH_BYTES), rlp.as_uint(fields[1]))


class Chain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chain as its file in `conf/` states it."""

    name: str
    network_id: Unsigned
    genesis_hash: BlockHash
    genesis_time: Unsigned = 0
    fork_blocks: tuple[Unsigned, ...] = ()
    fork_times: tuple[Unsigned, ...] = ()
    # EIP-3675: after the merge blocks come from the consensus layer, and a peer that gossips them is in breach.
    proof_of_stake: bool = False

    @property
    def genesis(self) -> bytes:
        """The genesis hash, 32 bytes."""
        return bytes.fromhex(self.genesis_hash.removeprefix("0x"))


class Forks:
    """The forks of a chain in order, with the checksum after each: made once, asked for every Status."""

    __slots__ = ("_blocks", "_forks", "_sums", "_times")

    def __init__(self, chain: Chain) -> None:
        # A fork at block 0, or at a time not after genesis, is part of genesis; forks at one place are one.
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
        """The last fork that is a block: a head there has passed all of them."""
        return self._blocks[-1] if self._blocks else 0

    def at(self, number: int, time: int) -> ForkId:
        """The fork id of a head of this number and time."""
        index = self._passed(number, time)
        following = self._forks[index] if index < len(self._forks) else 0
        return ForkId(self._sums[index], following)

    def judge(self, remote: ForkId, number: int, time: int) -> Verdict:
        """Whether a chain with this head may talk to a remote of this fork id (EIP-2124, "Validation rules")."""
        index = self._passed(number, time)
        if remote.hash == self._sums[index]:
            # Rule 1: the same forks. Theirs to come must not be one that we have passed without it.
            passed = remote.next <= number or FIRST_TIMESTAMP < remote.next <= time
            return Verdict.LOCAL_INCOMPATIBLE_OR_STALE if remote.next and passed else Verdict.OK
        if remote.hash in self._sums[:index]:
            # Rule 2: they are behind, and must expect the fork that follows for us.
            following = self._forks[self._sums.index(remote.hash)]
            return Verdict.OK if remote.next == following else Verdict.REMOTE_STALE
        # Rule 3: they are ahead on forks that we know; else rule 4.
        return Verdict.OK if remote.hash in self._sums else Verdict.LOCAL_INCOMPATIBLE_OR_STALE

    def _passed(self, number: int, time: int) -> int:
        """How many forks a head has passed. Forks by time come after all forks by block."""
        blocks = bisect_right(self._blocks, number)
        return blocks if blocks < len(self._blocks) else blocks + bisect_right(self._times, time)
