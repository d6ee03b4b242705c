"""How many messages of each kind came and left, over all sessions of a process.

Sessions with the same shared capabilities share a table, and count in it. A table that no session uses any more is
forgotten, but not what it counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias
from weakref import finalize

from rlpx.protocol.eth.kinds import BYTES_IN, BYTES_OUT, CODES, OUT, MessageKind, MessageTable
from rlpx.protocol.rlpx import p2p

# Capability with its version, and message.
Name: TypeAlias = tuple[str, str]
# Messages in, bytes in, messages out, bytes out.
Counts: TypeAlias = tuple[int, int, int, int]

# Users may offer other sub-protocols all the time. Messages beyond this many kinds are counted together.
KINDS_KEPT: Final = 1024
OTHER: Final[Name] = ("other", "other")
_BASE: Final = f"p2p/{p2p.P2P_VERSION}"
_BASE_NAMES: Final = {
    p2p.HELLO_BYTE: "Hello",
    p2p.DISCONNECT_CODE: "Disconnect",
    p2p.PING_CODE: "Ping",
    p2p.PONG_CODE: "Pong",
}
_NONE: Final[Counts] = (0, 0, 0, 0)


class Traffic:
    """Sums up tables. It keeps none of them: give it each one once, with `add`."""

    def __init__(self) -> None:
        # By `id`: the kinds and counters of each table that is in use, and the counters when it was added. Then what other
        # tables have counted.
        self._used: dict[int, tuple[list[MessageKind | None], array[int], array[int]]] = {}
        self._past: dict[Name, Counts] = {}

    def add(self, table: MessageTable) -> None:
        """Count a table from now on; one that is known already is not counted twice."""
        place = id(table)
        if place not in self._used:
            self._used[place] = table.by_code, table.counters, table.counters[:]
            finalize(table, self._on_gone, place).atexit = False

    def totals(self) -> dict[Name, Counts]:
        """The counts of each kind of which a message has come or left."""
        totals = dict(self._past)
        for used in self._used.values():
            _join(totals, _counted(*used))
        return totals

    def _on_gone(self, place: int) -> None:
        """A table is gone, and its place may soon be another one's."""
        _join(self._past, _counted(*self._used.pop(place)))


def _counted(kinds: list[MessageKind | None], now: array[int], before: array[int]) -> Iterator[tuple[Name, Counts]]:
    for code in range(CODES):
        if now[code] != before[code] or now[OUT + code] != before[OUT + code]:
            places = (code, BYTES_IN + code, OUT + code, BYTES_OUT + code)
            messages_in, bytes_in, messages_out, bytes_out = (now[place] - before[place] for place in places)
            yield _name(kinds[code], code), (messages_in, bytes_in, messages_out, bytes_out)


def _name(kind: MessageKind | None, code: int) -> Name:
    if kind is not None:
        return str(kind.capability), kind.name
    return (_BASE, _BASE_NAMES[code]) if code in _BASE_NAMES else OTHER


def _join(totals: dict[Name, Counts], counted: Iterable[tuple[Name, Counts]]) -> None:
    for name, (messages_in, bytes_in, messages_out, bytes_out) in counted:
        kept = name if name in totals or len(totals) < KINDS_KEPT else OTHER
        before = totals.get(kept, _NONE)
        totals[kept] = before[0] + messages_in, before[1] + bytes_in, before[2] + messages_out, before[3] + bytes_out
