"""Tells of hosts that have fallen silent: a reader of the fleet's stream cannot know that they are gone.

One host tells of each silence, the first by name, once the store confirms it. A host that is back tells so itself.
"""

from __future__ import annotations

from rlpx.protocol.cluster.hosts import Hosts, Other
from rlpx.protocol.cluster.steps import HostLost, Step


class Deaths:
    """See the module."""

    def __init__(self, hosts: Hosts, steps: list[Step]) -> None:
        self._hosts = hosts
        self._steps = steps
        # By host: the last heartbeat before a silence that we have told of, or have asked the store about.
        self._told: dict[str, int] = {}

    def tick(self, now: float) -> None:
        """Tell of each host that has become silent, if it is ours to tell."""
        hosts = self._hosts
        if not hosts.is_first(now):
            return
        for name in self._told.keys() - hosts.others.keys():
            del self._told[name]
        for name, other in hosts.others.items():
            is_silent = now >= other.seen_at + hosts.timing.ttl_s and not other.beat.has_left
            if is_silent and self._told.get(name) != other.revision:
                self._told[name] = other.revision
                self._confirm(name, other)

    def _confirm(self, name: str, other: Other) -> None:
        def on_confirmed(is_dead: bool, _now: float) -> None:  # noqa: FBT001 - the answer to a question
            if is_dead:
                self._steps.append(HostLost(name, other.beat.epoch, other.revision))
            else:
                self._told.pop(name, None)

        self._hosts.confirm_dead(name, other.beat.epoch, on_confirmed)
