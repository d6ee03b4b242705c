"""The engine passes for a full node: this program serves a chain from files and relays transactions.

    python -m tests.examples.full_node RUN_DIR CHAIN RECEIPTS

It verifies nothing: a node that relays to strangers checks signatures and balances first. A client of the world would also
take blocks from its consensus client, and tell the engine of each new head by `set-status`.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, takewhile
from pathlib import Path
from typing import Final, TypeVar

from engine.client import Client, Event, Request, Responder, Subscriber
from protocol import eth, eth_messages
from protocol.errors import PeerError
from protocol.eth_messages import (
    BlockBodies,
    BlockHeaders,
    EthMessage,
    GetBlockBodies,
    GetBlockHeaders,
    GetPooledTransactions,
    GetReceipts,
    GetReceipts70,
    NewPooledTransactionHashes66,
    NewPooledTransactionHashes68,
    NewPooledTransactionHashes72,
    PooledTransactions,
    Receipts,
    Receipts69,
    Receipts70,
    Transactions,
)
from protocol.eth_messages_chain import BloomReceipt, Receipt, transaction_envelope, transaction_hash
from tests.examples.chain_file import Chain, StoredBlock

TOPICS: Final = ["eth.GetBlockHeaders", "eth.GetBlockBodies", "eth.GetReceipts", "eth.GetPooledTransactions"]
# What geth and reth keep to as well: an answer ends with the item that reaches this.
ANSWER_BYTES: Final = 2 * 1024 * 1024
ANSWER_ITEMS: Final = 1024
# The pool forgets its oldest transactions over these.
POOL_BYTES: Final = 32 * 1024 * 1024
POOL_TRANSACTIONS: Final = 10_000
# `eth.md`: no more hashes in one announcement.
ANNOUNCED_HASHES: Final = 4096
# Types and sizes are announced from eth/68 on, cells of blobs from eth/72.
ANNOUNCED_TYPES_VERSION: Final = 68
ANNOUNCED_CELLS_VERSION: Final = 72
# For so long requests are answered before announcements go out.
TURN_SECONDS: Final = 0.05
# So many batches of transactions are read between two turns: what comes faster is lost, as gaps, and nobody waits.
BATCHES_A_TURN: Final = 100
# The first byte of a legacy transaction is that of a list.
FIRST_LIST: Final = 0xC0
# Of type 3 only hashes are gossiped (EIP-4844): in full they would come without their blobs.
BLOB_TYPE: Final = 3

Item = TypeVar("Item")


class Pool:
    """The transactions that peers have sent, as they stood in the message, by hash."""

    def __init__(self) -> None:
        self._transactions: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def add(self, transaction: bytes) -> bool:
        """Keep it; whether it is a new one to relay."""
        key = transaction_hash(transaction)
        if key in self._transactions or type_of(transaction) == BLOB_TYPE:
            return False
        self._transactions[key] = transaction
        self._bytes += len(transaction)
        while self._bytes > POOL_BYTES or len(self._transactions) > POOL_TRANSACTIONS:
            self._bytes -= len(self._transactions.popitem(last=False)[1])
        return True

    def get(self, key: bytes) -> bytes | None:
        """The transaction of a hash."""
        return self._transactions.get(key)


class FullNode:
    """Answers requests from a chain and a pool, each in the form of its version."""

    def __init__(self, chain: Chain, pool: Pool) -> None:
        self._chain = chain
        self._pool = pool

    def answer(self, request: Request) -> bytes:
        """The payload of the response; the engine puts the peer's request id in. Raises `PeerError`."""
        match request.decode():
            case GetBlockHeaders(query=query):
                response: EthMessage = BlockHeaders(0, self._chain.headers(query, ANSWER_ITEMS))
            case GetBlockBodies(hashes=hashes):
                response = BlockBodies(0, limited((block.body, block.size) for block in self._known(hashes)))
            case GetReceipts(hashes=hashes):
                response = self._receipts(request.version, hashes)
            case GetReceipts70(hashes=hashes, first_index=first_index):
                response = self._receipts(request.version, hashes, first_index)
            case GetPooledTransactions(hashes=hashes):
                found = [item for key in hashes if (item := self._pool.get(key))]
                response = PooledTransactions(0, limited((item, len(item)) for item in found))
            case other:
                raise ValueError(f"{other} was not registered")
        return eth_messages.encode(request.version, response)

    def _known(self, hashes: tuple[bytes, ...]) -> Iterator[StoredBlock]:
        """The blocks before the first that is unknown: an answer does not say which one it leaves out."""
        by_hash = self._chain.by_hash
        return (by_hash[key] for key in takewhile(by_hash.__contains__, hashes))

    def _receipts(self, version: int, hashes: tuple[bytes, ...], first_index: int = 0) -> EthMessage:
        may_cut = version >= eth.PARTIAL_RECEIPTS_VERSION
        blocks, is_cut = self._receipts_from(first_index, hashes, may_cut=may_cut)
        if version < eth.RANGE_VERSION:
            return Receipts(0, blocks)
        # The same version, eth/69, leaves the blooms out.
        bare = tuple(tuple(Receipt(r.type, r.outcome, r.cumulative_gas, r.logs) for r in block) for block in blocks)
        return Receipts70(0, is_cut, bare) if may_cut else Receipts69(0, bare)

    def _receipts_from(
        self, first_index: int, hashes: tuple[bytes, ...], *, may_cut: bool
    ) -> tuple[tuple[tuple[BloomReceipt, ...], ...], bool]:
        """Receipts by block, those of the first one from an index on; and whether the last block's are cut off."""
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


def relay(engine: Client, events: Subscriber, pool: Pool) -> None:
    """Keep the transactions that have come, and announce the new ones to every peer; who sent them knows them already."""
    new: list[bytes] = []
    for _ in range(BATCHES_A_TURN):
        for event in events.poll(0):
            if isinstance(event, Event):
                # The worker has not looked into the payload.
                with suppress(PeerError):
                    message = event.decode()
                    if isinstance(message, Transactions):
                        new += filter(pool.add, message.transactions)
    for start in range(0, len(new), ANNOUNCED_HASHES):
        for version in eth.VERSIONS:
            payload = eth_messages.encode(version, announcement(version, new[start : start + ANNOUNCED_HASHES]))
            told = {"capability": eth.NAME, "message": "NewPooledTransactionHashes", "shared": f"eth/{version}"}
            engine.call("broadcast", attachment=payload, **told)


def announcement(version: int, transactions: list[bytes]) -> EthMessage:
    """What is told of transactions before they are asked for, in the form of the version."""
    hashes = tuple(map(transaction_hash, transactions))
    if version < ANNOUNCED_TYPES_VERSION:
        return NewPooledTransactionHashes66(hashes)
    types = bytes(map(type_of, transactions))
    sizes = tuple(len(transaction_envelope(transaction)) for transaction in transactions)
    if version < ANNOUNCED_CELLS_VERSION:
        return NewPooledTransactionHashes68(types, sizes, hashes)
    return NewPooledTransactionHashes72(types, sizes, hashes)


def limited(items: Iterable[tuple[Item, int]]) -> tuple[Item, ...]:
    """The items that fit an answer, of those that come with their sizes in bytes."""
    found: list[Item] = []
    left = ANSWER_BYTES
    for item, size in islice(items, ANSWER_ITEMS):
        found.append(item)
        left -= size
        if left <= 0:
            break
    return tuple(found)


def size_of(receipt: BloomReceipt) -> int:
    """About how many bytes a receipt takes: its logs with their addresses and topics, and its other fields."""
    return 32 + sum(len(log.data) + 33 * len(log.topics) + 32 for log in receipt.logs)


def type_of(transaction: bytes) -> int:
    """The type of a transaction, 0 for a legacy one."""
    first = transaction_envelope(transaction)[0]
    return 0 if first >= FIRST_LIST else first


def main(run_dir: str, blocks: str, receipts: str) -> None:
    """Serve until interrupted."""
    chain, pool = Chain(Path(blocks), Path(receipts)), Pool()
    with (
        Client.of(run_dir) as engine,
        Subscriber.of(run_dir, ["eth.Transactions"]) as events,
        Responder(run_dir, TOPICS, FullNode(chain, pool).answer) as responder,
    ):
        head = chain.head
        engine.call("set-status", number=head.number, hash="0x" + head.hash.hex(), time=head.time)
        while True:
            responder.serve(TURN_SECONDS)
            relay(engine, events, pool)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
