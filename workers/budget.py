"""Bytes in progress over all sessions of a worker, and their limit: unfinished frames, waiting requests, unsent messages.

Each connection books the bytes that it holds. While the sum is over the limit, the connection that holds the most is ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Holder(Protocol):
    """A connection. `booked_bytes` belongs to the budget."""

    booked_bytes: int


HolderT = TypeVar("HolderT", bound=Holder)


class Budget:
    """The sum of what connections book, `used_bytes`, and its limit."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def book(self, holder: Holder, held_bytes: int) -> None:
        """Record that a connection holds this many bytes now; it holds none once its session has ended."""
        self.used_bytes += held_bytes - holder.booked_bytes
        holder.booked_bytes = held_bytes

    @property
    def is_over(self) -> bool:
        """Whether a connection must be ended."""
        return self.used_bytes > self.limit_bytes

    def has_room(self, more_bytes: int) -> bool:
        """Whether this many bytes of our own may wait as well: we refuse to send rather than end a session for it."""
        return self.used_bytes + more_bytes <= self.limit_bytes


def largest(holders: Iterable[HolderT]) -> HolderT | None:
    """The holder with the most bytes; `None` if nobody holds any."""
    found = max(holders, key=lambda holder: holder.booked_bytes, default=None)
    return found if found is not None and found.booked_bytes else None
