"""Checks whether an answer fits its question, as far as the two alone can show.

The caller, who has the headers, must verify whether it is true of the chain (roots, proofs, signatures).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

from rlpx.protocol.errors import MessageError
from rlpx.protocol.eth import snap_messages
from rlpx.protocol.eth.chain import BloomReceipt, Header, Receipt, named_versioned_hashes, transaction_hash, versioned_hashes
from rlpx.protocol.eth.messages import (
    BlockAccessLists,
    BlockBodies,
    BlockHeaders,
    Cells,
    GetBlockAccessLists,
    GetBlockBodies,
    GetBlockHeaders,
    GetCells,
    GetNodeData,
    GetPooledTransactions,
    GetReceipts,
    GetReceipts70,
    NodeData,
    PooledTransactions,
    Receipts,
    Receipts69,
    Receipts70,
)
from rlpx.protocol.eth.snap_messages import (
    AccountRange,
    ByteCodes,
    GetAccountRange,
    GetByteCodes,
    GetStorageRanges,
    GetTrieNodes,
    StorageRanges,
    TrieNodes,
)


def check_answer(question: object, answer: object) -> None:
    """Check that an answer, which is the right kind of message, fits its question. Raises `MessageError`, `RlpError`."""
    _CHECKS[type(question)](question, answer)


def check_gas_rises(receipts: Sequence[Receipt | BloomReceipt], before: int = 0) -> None:
    """Check that cumulative gas rises from receipt to receipt, as every transaction costs gas. Raises `MessageError`."""
    for index, receipt in enumerate(receipts):
        if receipt.cumulative_gas <= before:
            raise MessageError(f"receipt {index}: {receipt.cumulative_gas} gas so far, after {before}")
        before = receipt.cumulative_gas


def _at_most(answered: int, asked: int, things: str) -> None:
    if answered > asked:
        raise MessageError(f"{answered} {things} where {asked} were asked for")


def _check_headers(question: GetBlockHeaders, answer: BlockHeaders) -> None:
    query, headers = question.query, answer.headers
    _at_most(len(headers), query.limit, "headers")
    if not headers:
        return
    first = headers[0]
    if isinstance(query.start, bytes) and first.hash != query.start:
        raise MessageError(f"a header of hash 0x{first.hash.hex()} where 0x{query.start.hex()} was asked for")
    if isinstance(query.start, int) and first.number != query.start:
        raise MessageError(f"header {first.number} where {query.start} was asked for")
    step = -(query.skip + 1) if query.reverse else query.skip + 1
    for before, after in pairwise(headers):
        if after.number - before.number != step:
            raise MessageError(f"header {after.number} after {before.number} where steps of {step} were asked for")
        if query.skip == 0:
            _check_parent(*((after, before) if query.reverse else (before, after)))


def _check_parent(parent: Header, child: Header) -> None:
    if child.parent_hash != parent.hash:
        raise MessageError(f"header {child.number} is no child of the {parent.number} beside it")


def _check_bodies(question: GetBlockBodies, answer: BlockBodies) -> None:
    _at_most(len(answer.bodies), len(question.hashes), "bodies")


def _check_pooled(question: GetPooledTransactions, answer: PooledTransactions) -> None:
    """Only requested transactions, in that order, with gaps; each sidecar has the blobs that its transaction names."""
    left = iter(question.hashes)
    for transaction in answer.transactions:
        name = transaction_hash(transaction)
        # The search consumes `left`: the hashes that it skips are a gap.
        if not any(asked == name for asked in left):
            raise MessageError(f"transaction 0x{name.hex()}, which was not asked for, or not in this order")
        from_sidecar = versioned_hashes(transaction)
        if from_sidecar is not None and from_sidecar != named_versioned_hashes(transaction):
            raise MessageError(f"transaction 0x{name.hex()} with the commitments of other blobs than it names")


def _check_node_data(question: GetNodeData, answer: NodeData) -> None:
    _at_most(len(answer.nodes), len(question.hashes), "nodes")


def _check_receipts(question: GetReceipts | GetReceipts70, answer: Receipts | Receipts69 | Receipts70) -> None:
    _at_most(len(answer.blocks), len(question.hashes), "blocks of receipts")
    blocks: Sequence[Sequence[Receipt | BloomReceipt]] = answer.blocks
    for index, block in enumerate(blocks):
        try:
            check_gas_rises(block)
        except MessageError as error:
            error.inside(f"block {index}")
            raise


def _check_access_lists(
    question: GetBlockAccessLists | snap_messages.GetBlockAccessLists,
    answer: BlockAccessLists | snap_messages.BlockAccessLists,
) -> None:
    _at_most(len(answer.access_lists), len(question.hashes), "block access lists")


def _check_cells(question: GetCells, answer: Cells) -> None:
    """Only requested transactions, in that order, with gaps; and for each blob the cells of the answer's mask."""
    left = iter(question.hashes)
    for name in answer.hashes:
        if not any(asked == name for asked in left):
            raise MessageError(f"cells of transaction 0x{name.hex()}, which was not asked for, or not in this order")
    asked, answered = (int.from_bytes(mask, "little") for mask in (question.mask, answer.mask))
    if answered & ~asked:
        raise MessageError("cells that were not asked for")
    per_blob = answered.bit_count()
    for name, cells in zip(answer.hashes, answer.cells, strict=True):
        if len(cells) % per_blob if per_blob else cells:
            raise MessageError(f"{len(cells)} cells of transaction 0x{name.hex()}, at {per_blob} for each blob")


def _check_ascending(hashes: Sequence[bytes], things: str) -> None:
    if any(after <= before for before, after in pairwise(hashes)):
        raise MessageError(f"{things} that do not ascend")


def _check_accounts(question: GetAccountRange, answer: AccountRange) -> None:
    hashes = [account.hash for account in answer.accounts]
    _check_ascending(hashes, "accounts")
    if hashes and hashes[0] < question.origin:
        raise MessageError("an account before the range that was asked for")


def _check_storage(question: GetStorageRanges, answer: StorageRanges) -> None:
    _at_most(len(answer.slots), len(question.accounts), "accounts' slots")
    for slots in answer.slots:
        _check_ascending([slot.hash for slot in slots], "slots")


def _check_codes(question: GetByteCodes, answer: ByteCodes) -> None:
    _at_most(len(answer.codes), len(question.hashes), "codes")


def _check_nodes(question: GetTrieNodes, answer: TrieNodes) -> None:
    # The first path of a set is the account's. If others follow, those are requested instead of it.
    _at_most(len(answer.nodes), sum(max(1, len(paths) - 1) for paths in question.paths), "nodes")


_CHECKS: Final[dict[type, Callable[[Any, Any], None]]] = {
    GetBlockHeaders: _check_headers,
    GetBlockBodies: _check_bodies,
    GetPooledTransactions: _check_pooled,
    GetNodeData: _check_node_data,
    GetReceipts: _check_receipts,
    GetReceipts70: _check_receipts,
    GetBlockAccessLists: _check_access_lists,
    GetCells: _check_cells,
    GetAccountRange: _check_accounts,
    GetStorageRanges: _check_storage,
    GetByteCodes: _check_codes,
    GetTrieNodes: _check_nodes,
    snap_messages.GetBlockAccessLists: _check_access_lists,
}
