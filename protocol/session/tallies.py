"""The tallies of a worker's sessions: one for each table of messages, which sessions with the same capabilities share."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from rlpx.protocol.eth.kinds import MessageTable
from rlpx.protocol.rlpx.tally import Tally


class Tallies:
    """See the module. A tally lives as long as its table, and so their number has the bound of the tables'."""

    __slots__ = ("_by_table",)

    def __init__(self) -> None:
        self._by_table: WeakKeyDictionary[MessageTable, Tally] = WeakKeyDictionary()

    def of(self, table: MessageTable) -> Tally:
        """Return the tally of a table."""
        tally = self._by_table.get(table)
        if tally is None:
            tally = self._by_table[table] = Tally(table.counters)
        return tally

    def skip_nothing(self) -> None:
        """Call this whenever the topics that are read have changed: every message is looked at again."""
        for tally in self._by_table.values():
            tally.skip_nothing()
