"""Layouts of messages as the `rlp` library encodes them, and everything that is wrong with one if it is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rlp as oracle


class Fields(list[Any]):
    """A list of a fixed number of fields."""


class Growing(Fields):
    """A list whose last fields may be missing."""


class Raw(list[Any]):
    """A list that nobody looks into."""


class RawString(bytes):
    """A string that nobody looks into."""


def raw(encoding: bytes) -> Any:
    """What is kept encoded."""
    item = oracle.decode(encoding) if encoding else b""
    return Raw(item) if isinstance(item, list) else RawString(item)


def wrongs(item: Any) -> Iterator[Any]:
    """What an item may not be instead: each thing in it is once of the wrong kind, count, length or width."""
    match item:
        case Raw() | RawString():
            return
        case int():
            yield []
            yield b"\x00" + item.to_bytes((item.bit_length() + 7) // 8, "big")
            yield 2**256 + item
        case bytes():
            yield []
            if len(item) in {4, 8, 16, 20, 32, 256, 2048}:
                yield item[:-1]
                yield item + b"\x01"
        case list():
            yield b""
            yield b"\x01"
            for index, element in enumerate(item):
                for wrong in wrongs(element):
                    yield [*item[:index], wrong, *item[index + 1 :]]
            if isinstance(item, Fields) and not isinstance(item, Growing):
                yield [*item, b""]
                yield item[:-1]
                yield []


def listed(payload: bytes) -> bytes:
    """A list of what is encoded already: quicker than the library for a megabyte."""
    return bytes(oracle.codec.length_prefix(len(payload), 0xC0)) + payload
