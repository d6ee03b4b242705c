"""Who reads the messages of a session: subscribers, through the engine, and feeds. Sessions with the same feeds share it.

It maps a topic to its readers, or to None if nobody reads it, so that sessions can ask it whether to inflate a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rlpx.protocol.session.tallies import Tallies
from rlpx.workers.feed_group import Group


class Readers:
    """The readers of one topic: whether there are subscribers, and the groups of feeds.

    `is_selective`: some of the groups look at each message, or at its session.
    """

    __slots__ = ("groups", "is_selective", "is_subscribed")

    def __init__(self, groups: tuple[Group, ...], *, is_subscribed: bool, is_undecided: bool) -> None:
        self.is_subscribed = is_subscribed
        self.groups = groups
        self.is_selective = is_undecided or any(group.is_selective for group in groups)


class Audience(dict[str, Readers | None]):
    """See the module. `groups` are those whose filters of sessions match; clear it when subscriptions or feeds change."""

    __slots__ = ("_groups", "_is_undecided", "_subscribed", "narrow", "tallies")

    def __init__(
        self,
        subscribed: Mapping[str, bool],
        groups: Callable[[], Iterable[Group]],
        narrow: tuple[Group, ...] = (),
        tallies: Tallies | None = None,
        *,
        is_undecided: bool = False,
    ) -> None:
        super().__init__()
        self._subscribed = subscribed
        self._groups = groups
        # The groups of its own, besides those that all sessions match.
        self.narrow = narrow
        # What takes the messages that nobody reads before they come to their sessions.
        self.tallies = tallies
        # Whether it also has groups whose filters of sessions may not match.
        self._is_undecided = is_undecided

    def clear(self) -> None:
        """Work out the readers anew."""
        super().clear()
        if self.tallies is not None:
            self.tallies.skip_nothing()

    def __missing__(self, topic: str) -> Readers | None:
        groups = tuple(group for group in (*self._groups(), *self.narrow) if group.topics[topic])
        is_subscribed = self._subscribed[topic]
        readers: Readers | None = None
        if is_subscribed or groups:
            readers = Readers(groups, is_subscribed=is_subscribed, is_undecided=self._is_undecided and bool(groups))
        self[topic] = readers
        return readers
