"""The engine passes for a full node: this program serves a chain from files and relays transactions.

    python -m tests.examples.full_node RUN_DIR CHAIN RECEIPTS

It verifies nothing, whereas a node that relays to strangers must check signatures and balances first. A real client would
also take blocks from its consensus client, and tell the engine each new head by `set-status`.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, takewhile
from pathlib import Path
from typing import Final, TypeVar

from rlpx.engine.client import Announcement, Event, PooledTransaction, Request, connect
from rlpx.engine.client.forms import without_bloom
from rlpx.protocol.errors import PeerError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.chain import BloomReceipt, transaction_hash
from rlpx.protocol.eth.messages import (
    BlockBodies,
    BlockHeaders,
    EthMessage,
    GetBlockBodies,
    GetBlockHeaders,
    GetPooledTransactions,
    GetReceipts,
    GetReceipts70,
    PooledTransactions,
    Receipts,
    Receipts70,
    Transactions,
)
from tests.examples.chain_file import Chain, StoredBlock

TOPICS: Final = ["eth.GetBlockHeaders", "eth.GetBlockBodies", "eth.GetReceipts", "eth.GetPooledTransactions"]
# As in geth and reth, an answer ends with the item that reaches this size.
ANSWER_BYTES: Final = 2 * 1024 * 1024
ANSWER_ITEMS: Final = 1024
# Beyond these bounds the pool forgets its oldest transactions.
POOL_BYTES: Final = 32 * 1024 * 1024
POOL_TRANSACTIONS: Final = 10_000
# Only the hashes of type 3 are gossiped (EIP-4844), because in full they would come without their blobs.
BLOB_TYPE: Final = 3

Item = TypeVar("Item")


class Pool:
    """The transactions that peers have sent, by hash, in the bytes of the message."""

    def __init__(self) -> None:
        self._transactions: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def add(self, transaction: bytes) -> bool:
        """Keep a transaction; returns whether it is new and to be relayed."""
        key = transaction_hash(transaction)
        if key in self._transactions or PooledTransaction(transaction).type == BLOB_TYPE:
            return False
        self._transactions[key] = transaction
        self._bytes += len(transaction)
        while self._bytes > POOL_BYTES or len(self._transactions) > POOL_TRANSACTIONS:
            self._bytes -= len(self._transactions.popitem(last=False)[1])
        return True

    def get(self, key: bytes) -> bytes | None:
        """The transaction with this hash."""
        return self._transactions.get(key)


class FullNode:
    """Answers requests from a chain and a pool, each in the form of its version."""

    def __init__(self, chain: Chain, pool: Pool) -> None:
        self._chain = chain
        self._pool = pool

    def answer(self, request: Request) -> EthMessage:
        """The response, which takes the form of the version and the peer's request id. Raises `PeerError`."""
        match request.decode():
            case GetBlockHeaders(query=query):
                return BlockHeaders(0, self._chain.headers(query, ANSWER_ITEMS))
            case GetBlockBodies(hashes=hashes):
                return BlockBodies(0, limited((block.body, block.size) for block in self._known(hashes)))
            case GetReceipts(hashes=hashes):
                return self._receipts(request.version, hashes)
            case GetReceipts70(hashes=hashes, first_index=first_index):
                return self._receipts(request.version, hashes, first_index)
            case GetPooledTransactions(hashes=hashes):
                found = [item for key in hashes if (item := self._pool.get(key))]
                return PooledTransactions(0, limited((item, len(item)) for item in found))
            case other:
                raise ValueError(f"{other} was not registered")

    def _known(self, hashes: tuple[bytes, ...]) -> Iterator[StoredBlock]:
        """The blocks before the first unknown one, because an answer cannot say which one it leaves out."""
        by_hash = self._chain.by_hash
        return (by_hash[key] for key in takewhile(by_hash.__contains__, hashes))

    def _receipts(self, version: int, hashes: tuple[bytes, ...], first_index: int = 0) -> Receipts | Receipts70:
        """Receipts with their blooms, which the form of eth/69 leaves out; from eth/70 on a block may be cut off."""
        if version < eth.PARTIAL_RECEIPTS_VERSION:
            return Receipts(0, self._receipts_from(first_index, hashes, may_cut=False)[0])
        blocks, is_cut = self._receipts_from(first_index, hashes, may_cut=True)
        return Receipts70(0, is_cut, tuple(tuple(map(without_bloom, block)) for block in blocks))

    def _receipts_from(
        self, first_index: int, hashes: tuple[bytes, ...], *, may_cut: bool
    ) -> tuple[tuple[tuple[BloomReceipt, ...], ...], bool]:
        """Receipts by block, those of the first block from an index on; and whether those of the last block are cut off."""
        blocks: list[tuple[BloomReceipt, ...]] = []
        size = 0
        for block in islice(self._known(hashes), ANSWER_ITEMS):
            taken: list[BloomReceipt] = []
            for receipt in block.receipts[first_index:]:
                if may_cut and size >= ANSWER_BYTES:
                    return (*blocks, tuple(taken)), True
                taken.append(receipt)
                size += size_of(receipt)
            blocks.append(tuple(taken))
            first_index = 0
            if size >= ANSWER_BYTES:
                break
        return tuple(blocks), False


def limited(items: Iterable[tuple[Item, int]]) -> tuple[Item, ...]:
    """The items that fit into one answer, from pairs of an item and its size in bytes."""
    found: list[Item] = []
    left = ANSWER_BYTES
    for item, size in islice(items, ANSWER_ITEMS):
        found.append(item)
        left -= size
        if left <= 0:
            break
    return tuple(found)


def size_of(receipt: BloomReceipt) -> int:
    """The approximate size of a receipt in bytes: its logs with their addresses and topics, and its other fields."""
    return 32 + sum(len(log.data) + 33 * len(log.topics) + 32 for log in receipt.logs)


async def main(run_dir: str, blocks: str, receipts: str) -> None:
    """Serve until interrupted; announce transactions that are new to every peer but the one that sent them."""
    chain, pool = Chain(Path(blocks), Path(receipts)), Pool()
    async with connect(run_dir) as engine:
        await engine.set_status(chain.head.number, "0x" + chain.head.hash.hex(), time=chain.head.time)
        engine.respond(TOPICS, FullNode(chain, pool).answer)
        async for item in engine.feed("eth.Transactions"):
            if not isinstance(item, Event):
                continue
            with suppress(PeerError):  # the worker has not parsed the payload
                message = item.decode()
                if isinstance(message, Transactions) and (new := list(filter(pool.add, message.transactions))):
                    await engine.publish(Announcement.of(new), but=item.fields["session"])


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
