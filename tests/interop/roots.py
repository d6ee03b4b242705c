"""The hashes of a chain computed by other libraries than ours: roots of tries, blooms, and what a block commits to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from typing import Any, Final

import rlp as oracle
from Crypto.Hash import keccak as crypto_keccak

from rlpx.protocol.eth.chain import Header, Log, Receipt, Withdrawal
from rlpx.protocol.eth.snap_messages import SlimAccount

# A node is its fields. If it takes fewer bytes than this it is embedded in its parent, otherwise its hash is.
HASH_BYTES: Final = 32
NIBBLES: Final = 16
BLOOM_BITS: Final = 2048


def keccak(data: bytes) -> bytes:
    return bytes(crypto_keccak.new(digest_bits=256, data=data).digest())


def encode(item: object) -> bytes:
    return bytes(oracle.encode(item))


EMPTY_ROOT: Final = keccak(encode(b""))
EMPTY_CODE: Final = keccak(b"")


def root_of(items: dict[bytes, bytes]) -> bytes:
    """The root of a Merkle Patricia trie in which no key is a prefix of another (Yellow Paper, appendix D)."""
    if not items:
        return EMPTY_ROOT
    return keccak(encode(_node(sorted((key.hex(), value) for key, value in items.items()), 0)))


def _node(items: Sequence[tuple[str, bytes]], depth: int) -> list[Any]:
    """The node of these keys, in nibbles, whose first `depth` nibbles are equal."""
    first, last = items[0][0][depth:], items[-1][0][depth:]
    if len(items) == 1:
        return [_path(first, is_leaf=True), items[0][1]]
    if shared := len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))):
        return [_path(first[:shared], is_leaf=False), _reference(_node(items, depth + shared))]
    children: list[Any] = []
    for nibble in range(NIBBLES):
        below = [item for item in items if int(item[0][depth], 16) == nibble]
        children.append(_reference(_node(below, depth + 1)) if below else b"")
    return [*children, b""]


def _reference(node: list[Any]) -> Any:
    encoded = encode(node)
    return keccak(encoded) if len(encoded) >= HASH_BYTES else node


def _path(nibbles: str, *, is_leaf: bool) -> bytes:
    """Nibbles as bytes; the first byte says whether it is a leaf, and whether their number is odd (appendix C)."""
    is_odd = len(nibbles) % 2
    return bytes.fromhex(f"{2 * is_leaf + is_odd:x}" + ("" if is_odd else "0") + nibbles)


@cache
def list_root(items: tuple[bytes, ...]) -> bytes:
    """The root of a list, whose keys are the indexes."""
    return root_of({encode(index): item for index, item in enumerate(items)})


@cache
def _bloom_bits(data: bytes) -> int:
    digest = keccak(data)
    bits = 0
    for start in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[start : start + 2], "big") % BLOOM_BITS)
    return bits


def _bloom(logs: tuple[Log, ...]) -> bytes:
    bits = 0
    for log in logs:
        for data in (log.address, *log.topics):
            bits |= _bloom_bits(data)
    return bits.to_bytes(BLOOM_BITS // 8, "big")


def receipts_root(receipts: tuple[Receipt, ...]) -> bytes:
    """The root of receipts that peers send without blooms."""
    encoded = []
    for receipt in receipts:
        logs = [[log.address, list(log.topics), log.data] for log in receipt.logs]
        outcome = receipt.outcome if isinstance(receipt.outcome, bytes) else int(receipt.outcome)
        fields = encode([outcome, receipt.cumulative_gas, _bloom(receipt.logs), logs])
        encoded.append(bytes([receipt.type]) + fields if receipt.type else fields)
    return list_root(tuple(encoded))


def transactions_root(transactions: tuple[bytes, ...]) -> bytes:
    """The root of transactions as a message has them: typed ones are strings."""
    decoded = [oracle.decode(item) for item in transactions]
    return list_root(
        tuple(item if isinstance(item, bytes) else raw for item, raw in zip(decoded, transactions, strict=True))
    )


def withdrawals_root(withdrawals: tuple[Withdrawal, ...] | None) -> bytes | None:
    """`None` before Shanghai."""
    if withdrawals is None:
        return None
    return list_root(tuple(encode([w.index, w.validator_index, w.address, w.amount]) for w in withdrawals))


def account(slim: SlimAccount) -> bytes:
    """An account as the trie has it."""
    return encode([slim.nonce, slim.balance, slim.root or EMPTY_ROOT, slim.code_hash or EMPTY_CODE])


def check_headers(headers: Sequence[Header], head: str) -> None:
    """Insist that these are the headers from block 1 to the head of this hash, each with the hash of its encoding."""
    parents = [header.parent_hash for header in headers[1:]]
    assert [header.number for header in headers] == list(range(1, len(headers) + 1))
    assert [header.hash for header in headers] == [*parents, bytes.fromhex(head.removeprefix("0x"))]
