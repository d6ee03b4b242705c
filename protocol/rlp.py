"""Recursive Length Prefix: a bounded decoder for what peers send, and a small encoder.

Only canonical encodings pass (Yellow Paper, appendix B). Depth and the number of items are bounded before anything is
built: `rlp.decode` needs 17 s of CPU for 1 MiB of `c0`, this decoder refuses it when its item budget is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from protocol.errors import RlpError
from protocol.native import NATIVE

# What decoding gives: byte strings and lists of items.
Item: TypeAlias = "bytes | list[Item]"
# What can be encoded: integers as well, big-endian without leading zeros.
Encodable: TypeAlias = "bytes | int | Sequence[Encodable]"

# Deeper than any devp2p message; recursion stays far below Python's own limit.
MAX_DEPTH: Final = 16
# 4096 announced hashes with their types and sizes, and room for the frame of the message.
MAX_ITEMS: Final = 3 * 4096 + 64
# Every integer on our wires but a total difficulty fits an u64.
U64_BYTES: Final = 8

# The first byte of an item: below, a byte itself; then strings; then lists.
_SHORT_STRING: Final = 0x80
_SHORT_LIST: Final = 0xC0
# A payload of up to this length has its length in the first byte.
_SHORT_MAX_BYTES: Final = 55


def decode(data: bytes, *, max_items: int = MAX_ITEMS) -> Item:
    """Decode exactly one item that fills `data`. Raises `RlpError`."""
    item, end = decode_prefix(data, max_items=max_items)
    if end != len(data):
        raise RlpError("bytes after the RLP item")
    return item


def decode_prefix(data: bytes, *, max_items: int = MAX_ITEMS) -> tuple[Item, int]:
    """Decode the first item and say where it ends; what follows is the caller's (EIP-8 padding). Raises `RlpError`."""
    return read(data, max_items)


def decode_list(data: bytes, *, max_items: int = MAX_ITEMS) -> list[Item]:
    """Decode the first item, which must be a list; bytes after it are ignored (EIP-8). Raises `RlpError`."""
    return as_list(decode_prefix(data, max_items=max_items)[0])


def as_list(item: Item) -> list[Item]:
    """Insist on a list. Raises `RlpError`."""
    if isinstance(item, bytes):
        raise RlpError("a string where a list belongs")
    return item


def as_bytes(item: Item, length: int | None = None) -> bytes:
    """Insist on a byte string, of `length` bytes where given. Raises `RlpError`."""
    if not isinstance(item, bytes):
        raise RlpError("a list where a string belongs")
    if length is not None and len(item) != length:
        raise RlpError(f"a string of {len(item)} bytes where {length} belong")
    return item


def as_uint(item: Item, max_bytes: int = U64_BYTES) -> int:
    """Insist on a canonical unsigned integer of up to `max_bytes` bytes. Raises `RlpError`."""
    data = as_bytes(item)
    if data[:1] == b"\x00":
        raise RlpError("an integer with leading zeros")
    if len(data) > max_bytes:
        raise RlpError(f"an integer of {len(data)} bytes where {max_bytes} fit")
    return int.from_bytes(data, "big")


def first_uint(data: bytes) -> int:
    """The first element of a list, an u64, without decoding the rest: a request id. Raises `RlpError`."""
    is_list, start, end = bounds(data, 0, len(data))
    if not is_list:
        raise RlpError("a string where a list belongs")
    inner_list, inner_start, inner_end = bounds(data, start, end)
    if inner_list:
        raise RlpError("a list where an integer belongs")
    return as_uint(data[inner_start:inner_end])


def spans(data: bytes, count: int) -> list[tuple[bool, int, int]]:
    """The first elements of a list without decoding them: whether each is a list, where its payload starts and ends.

    Raises `RlpError` where there are fewer than `count`.
    """
    is_list, start, end = bounds(data, 0, len(data))
    if not is_list:
        raise RlpError("a string where a list belongs")
    found: list[tuple[bool, int, int]] = []
    for _ in range(count):
        found.append(bounds(data, start, end))
        start = found[-1][2]
    return found


def raw_elements(data: bytes, most: int) -> list[bytes]:
    """The first elements of a list as they are encoded, up to `most`; what follows is not looked at. Raises `RlpError`."""
    is_list, start, end = bounds(data, 0, len(data))
    if not is_list:
        raise RlpError("a string where a list belongs")
    found: list[bytes] = []
    while start < end and len(found) < most:
        _, _, after = bounds(data, start, end)
        found.append(data[start:after])
        start = after
    return found


def with_first(data: bytes, first: int) -> bytes:
    """A list with its first element replaced by an integer, the rest as it was: another request id. Raises `RlpError`."""
    is_list, start, end = bounds(data, 0, len(data))
    if not is_list:
        raise RlpError("a string where a list belongs")
    _, _, rest = bounds(data, start, end)
    return join([encode(first), data[rest:end]])


def encode(item: Encodable) -> bytes:
    """Encode byte strings, unsigned integers and sequences of them."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < _SHORT_STRING:
            return item
        return _prefix(len(item), _SHORT_STRING) + item
    return join([encode(element) for element in item])


def join(items: Iterable[bytes]) -> bytes:
    """The list of items that are encoded already."""
    payload = b"".join(items)
    return _prefix(len(payload), _SHORT_LIST) + payload


def _prefix(length: int, short: int) -> bytes:
    if length <= _SHORT_MAX_BYTES:
        return bytes([short + length])
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([short + _SHORT_MAX_BYTES + len(size)]) + size


def python_bounds(data: bytes, start: int, limit: int) -> tuple[bool, int, int]:
    """Where the item at `start` lies: is it a list, its payload, its end, which is at most `limit`.

    What is in a list is not looked at. Raises `RlpError`.
    """
    if start >= limit:
        raise RlpError("the RLP ends early")
    first = data[start]
    if first < _SHORT_STRING:
        return False, start, start + 1
    is_list = first >= _SHORT_LIST
    short = _SHORT_LIST if is_list else _SHORT_STRING
    length = first - short
    payload = start + 1
    if length > _SHORT_MAX_BYTES:
        size = length - _SHORT_MAX_BYTES
        payload += size
        if payload > limit:
            raise RlpError("the RLP ends early")
        length = int.from_bytes(data[start + 1 : payload], "big")
        if length <= _SHORT_MAX_BYTES or data[start + 1] == 0:
            raise RlpError("a length that is not written in its shortest form")
    end = payload + length
    if end > limit:
        raise RlpError("the RLP ends early")
    if not is_list and length == 1 and data[payload] < _SHORT_STRING:
        raise RlpError("a byte that is not written in its shortest form")
    return is_list, payload, end


class _Decoder:
    """One run over one input, with what is left of its item budget."""

    __slots__ = ("_data", "_left")

    def __init__(self, data: bytes, max_items: int) -> None:
        self._data = data
        self._left = max_items

    def item(self, start: int, limit: int, depth: int) -> tuple[Item, int]:
        self._left -= 1
        if self._left < 0:
            raise RlpError("more RLP items than fit the message")
        is_list, payload, end = python_bounds(self._data, start, limit)
        if not is_list:
            return self._data[payload:end], end
        if depth > MAX_DEPTH:
            raise RlpError("RLP lists nested too deep")
        items: list[Item] = []
        while payload < end:
            item, payload = self.item(payload, end, depth + 1)
            items.append(item)
        return items, end


def python_read(data: bytes, max_items: int) -> tuple[Item, int]:
    """The first item, and where it ends. Raises `RlpError`."""
    return _Decoder(data, max_items).item(0, len(data), 1)


# A Status is decoded in 3.6 µs by Python, compiled in 0.4.
bounds: Callable[[bytes, int, int], tuple[bool, int, int]] = python_bounds if NATIVE is None else NATIVE.rlp_bounds
read: Callable[[bytes, int], tuple[Item, int]] = python_read if NATIVE is None else NATIVE.rlp_read
