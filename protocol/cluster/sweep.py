"""Erases what epochs that are over have left in the store: claims of peers that never come back, and leases in the shards.

Both are void, and are replaced when somebody needs them. Nobody may ever need them, and the store would grow with each host
that is killed. One host at a time sweeps, a page of claims a second, from the first to the last that is there at the start,
and then again.

A silent host may only be cut off, and come back. So its epoch counts as over much later than it counts as dead, and a host
that was silent for long writes its claims anew before it relies on them: an erasure that comes late finds another revision.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rlpx.protocol.cluster.hosts import Hosts
from rlpx.protocol.cluster.places import Places
from rlpx.protocol.cluster.records import PEERS, Claim, decode
from rlpx.protocol.cluster.steps import Answer, Entry, Outcome
from rlpx.protocol.cluster.store import Store

# A page is this many claims, of some 250 bytes each. A million claims take an hour.
PAGE_CLAIMS: Final = 256
PAGE_SECONDS: Final = 1.0


class Sweep:
    """See the module. `erased` counts the claims that this host has erased."""

    def __init__(self, hosts: Hosts, store: Store, places: Iterable[Places]) -> None:
        self._hosts = hosts
        self._store = store
        self._places = tuple(places)
        self.erased = 0
        self._next_at: float | None = None
        # Where the next page begins.
        self._revision = 0
        # Claims above this revision are younger than the pass, and left to the next one: it would run after them for ever.
        self._end = 0
        self._is_reading = False

    def tick(self, now: float) -> None:
        """Sweep a page, if it is due and this host is the one that sweeps."""
        if self._next_at is None:
            # By then every living host has been heard.
            self._next_at = now + self._hosts.timing.ttl_s
        if self._is_reading or now < self._next_at or not self._hosts.is_first(now):
            return
        for places in self._places:
            places.sweep(now)
        if not self._revision:
            self._end = self._hosts.revision
        self._is_reading = True
        self._next_at = now + PAGE_SECONDS
        self._store.scan(PEERS, self._revision, PAGE_CLAIMS, self._on_page)

    def _on_page(self, answer: Answer, now: float) -> None:
        self._is_reading = False
        if answer.outcome is Outcome.LOST:
            return
        self._revision = answer.revision if answer.revision <= self._end else 0
        if not self._revision:
            self._next_at = now + self._hosts.timing.sweep_s
        left: dict[tuple[str, str], list[Entry]] = {}
        for entry in answer.entries:
            claim = decode(Claim, entry.value)
            if claim is not None and self._hosts.is_over(claim.host, claim.epoch, now):
                left.setdefault((claim.host, claim.epoch), []).append(entry)
        for (host, epoch), entries in left.items():
            self._confirm(host, epoch, entries)

    def _confirm(self, host: str, epoch: str, entries: list[Entry]) -> None:
        def on_confirmed(is_over: bool, _now: float) -> None:  # noqa: FBT001 - the answer to a question
            for entry in entries if is_over else ():
                self._store.erase(entry.key, entry.revision, self._on_erased)

        self._hosts.confirm_over(host, epoch, on_confirmed)

    def _on_erased(self, answer: Answer, _now: float) -> None:
        self.erased += answer.outcome is Outcome.DONE
