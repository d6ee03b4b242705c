"""A chain from two files: blocks as `geth export` writes them, and their receipts in the same way.

Both files are RLP items one after another: the blocks from the genesis on, and for each block the list of its receipts in
the consensus encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from rlpx.protocol.eth.chain import MAX_BLOCK_TRANSACTIONS, Block, BlockBody, BloomReceipt, Header, bloom_receipt
from rlpx.protocol.eth.messages import MAX_RECEIPT_ELEMENTS, HeadersQuery
from rlpx.protocol.eth.schema import Shape, Source, list_of, record


class StoredBlock(msgspec.Struct, frozen=True):
    """A block with its receipts; `size` is how many bytes the block takes."""

    header: Header
    body: BlockBody
    size: int
    receipts: tuple[BloomReceipt, ...]


class Chain:
    """Blocks by number, from the genesis on, and by hash."""

    def __init__(self, blocks: Path, receipts: Path) -> None:
        self.blocks = [
            StoredBlock(block.header, BlockBody(block.transactions, block.ommers, block.withdrawals), size, of_block)
            for (block, size), (of_block, _) in zip(
                _items(blocks, record(Block)),
                _items(receipts, list_of(bloom_receipt(), MAX_BLOCK_TRANSACTIONS)),
                strict=True,
            )
        ]
        self.by_hash = {block.header.hash: block for block in self.blocks}

    @property
    def head(self) -> Header:
        """The header of the last block."""
        return self.blocks[-1].header

    def headers(self, query: HeadersQuery, at_most: int) -> tuple[Header, ...]:
        """Headers from a number or hash on, in either direction, with a step; none if the first is unknown."""
        start = query.start
        if isinstance(start, bytes):
            if start not in self.by_hash:
                return ()
            start = self.by_hash[start].header.number
        if start >= len(self.blocks):
            return ()
        step = query.skip + 1
        numbers = range(start, -1, -step) if query.reverse else range(start, len(self.blocks), step)
        return tuple(self.blocks[number].header for number in numbers[: min(query.limit, at_most)])


def _items(file: Path, shape: Shape) -> Iterator[tuple[Any, int]]:
    """The items of a file and their sizes in bytes."""
    data = file.read_bytes()
    start = 0
    while start < len(data):
        item, end = shape.read(Source(data, MAX_RECEIPT_ELEMENTS), start, len(data))
        yield item, end - start
        start = end
