"""Which feeds the messages of each session are for: worked out once for a session, and again when feeds come or go.

A group of feeds is narrow if its filter looks at sessions. Sessions that no narrow group matches cost what they would cost
without it: nothing is inflated for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from rlpx.protocol.bus.batches import Interest
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.feeds import Where
from rlpx.protocol.session.tallies import Tallies
from rlpx.workers.audience import Audience
from rlpx.workers.connection import Connection
from rlpx.workers.feed_group import Group

# Combinations of narrow groups to keep at hand; beyond that, those of no session are forgotten.
MAX_KEPT: Final = 4096

GroupKey = tuple[frozenset[str], Where]


class Audiences:
    """The groups of feeds, and the audience of each session. `connections` are those whose sessions live."""

    def __init__(self, subscribed: Interest) -> None:
        self._subscribed = subscribed
        self._connections: Mapping[SessionId, Connection] = {}
        self._groups: dict[GroupKey, Group] = {}
        self._narrow: dict[Group, None] = {}
        # The readers of a session that no narrow group matches, and of one about which too little is known.
        # The bound of tallies is that of tables: only the audience that most sessions share has any.
        self._base = Audience(subscribed, self._broad, tallies=Tallies())
        self.widest = Audience(subscribed, self._groups.values, is_undecided=True)
        self._kept: dict[tuple[Group, ...], Audience] = {(): self._base}
        # The number of them at which those of no session are looked for.
        self._most_kept = MAX_KEPT

    def begin(self, connections: Mapping[SessionId, Connection]) -> None:
        """Set the connections."""
        self._connections = connections

    def clear(self) -> None:
        """Work out all readers anew: subscriptions or feeds have changed."""
        self.widest.clear()
        for audience in self._kept.values():
            audience.clear()

    # -- groups -------------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def group(self, key: GroupKey) -> Group:
        """The group with these topics and this filter, which is made if there is none."""
        group = self._groups.get(key)
        if group is not None:
            return group
        group = self._groups[key] = Group(key)
        self.clear()
        if group.is_narrow:
            self._narrow[group] = None
            members: list[Connection] = []
            for connection in self._connections.values():
                view = connection.view
                if connection.audience is not self.widest and view is not None and group.matches(view):
                    members.append(connection)
            self._change(members, lambda narrow: (*narrow, group))
        return group

    def remove(self, *groups: Group) -> None:
        """Groups have no feeds any more. Many cost little more than one: each session changes its audience once."""
        gone = frozenset(groups)
        for group in gone:
            del self._groups[group.key]
            self._narrow.pop(group, None)
        self._change(self._connections.values(), lambda narrow: tuple(group for group in narrow if group not in gone))
        self._kept = {narrow: audience for narrow, audience in self._kept.items() if gone.isdisjoint(narrow)}
        self.clear()

    # -- sessions -----------------------------------------------------------------------------------------------------------

    def classify(self, connection: Connection) -> None:
        """A session is established: all is known that filters ask."""
        view = connection.view
        if view is None:
            return
        _give(connection, self._audience(tuple(group for group in self._narrow if group.matches(view))))

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _broad(self) -> list[Group]:
        return [group for group in self._groups.values() if not group.is_narrow]

    def _change(self, connections: Iterable[Connection], change: Callable[[tuple[Group, ...]], tuple[Group, ...]]) -> None:
        """Change the narrow groups of these connections. What many share is worked out once, as groups may be many."""
        # By identity, with the old ones, which live until this is done.
        changed: dict[int, tuple[Audience, Audience]] = {}
        for connection in connections:
            old = connection.audience
            if old is self.widest:
                continue
            if id(old) not in changed:
                changed[id(old)] = old, self._audience(change(old.narrow))
            new = changed[id(old)][1]
            if new is not old:
                _give(connection, new)

    def _audience(self, narrow: tuple[Group, ...]) -> Audience:
        audience = self._kept.get(narrow)
        if audience is None:
            if len(self._kept) >= self._most_kept:
                used = {id(connection.audience) for connection in self._connections.values()}
                self._kept = {each: kept for each, kept in self._kept.items() if not each or id(kept) in used}
                self._most_kept = max(MAX_KEPT, 2 * len(self._kept))
            audience = self._kept[narrow] = Audience(self._subscribed, self._broad, narrow)
        return audience


def _give(connection: Connection, audience: Audience) -> None:
    connection.audience = audience
    connection.session.read_for(audience, audience.tallies)
