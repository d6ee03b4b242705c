"""Messages of peers at all hosts of a fleet, from core NATS: hosts are asked again and again, and numbers show what is lost.

Hosts number the beginning of everything that they publish. If a host says another number than before, it had stopped in
between, because nobody's wish had reached it, and what it did not publish then is not counted by anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from rlpx.engine.client.batch_reader import BatchReader, Event, Gap, Malformed
from rlpx.engine.client.errors import own_error
from rlpx.engine.client.fleet_items import FleetItem, FleetOpening, HostEvent, HostGap
from rlpx.engine.client.fleet_link import FleetLink
from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.engine.client.relayed_reader import RelayedReader
from rlpx.protocol.errors import ErrorName

# Hosts publish traffic for this time after they were asked, and are asked again after a third of it.
WISH_SECONDS: Final = 15.0
# All hosts answer a wish within this time, or are asked again later.
ANSWER_SECONDS: Final = 2.0

# It gets what one message has become, and the size of the message.
OnItems: TypeAlias = Callable[[Sequence[FleetItem], int], None]
# It gets a host, and why nobody knows how much is missing of it.
OnLost: TypeAlias = Callable[[str, str], None]


class _Answer(msgspec.Struct, frozen=True):
    """A host's answer to a wish: the beginnings of what it publishes, or why it does not."""

    host: str
    run: str
    begun: dict[str, int] = {}
    error: str | None = None


class FleetTraffic:
    """See the module."""

    def __init__(self, link: FleetLink, opening: FleetOpening, on_items: OnItems, on_lost: OnLost) -> None:
        self._link = link
        self._opening = opening
        self._on_items = on_items
        self._on_lost = on_lost
        self._prefix = f"rlpx.{link.place.name}."
        self._subscriptions: list[Subscription] = []
        self._inbox = ""
        self._answers: dict[str, _Answer] = {}
        self._answered = asyncio.Event()
        self._batches: dict[str, BatchReader] = {}
        self._relayed: dict[str, RelayedReader] = {}

    async def open(self, hosts: Collection[str]) -> None:
        """Ask, and wait until these hosts have answered; those that do not in time are asked again later.

        Raises `EngineUnavailableError`, and `InvalidParamsError` if a host says no.
        """
        if not self._opening.wishes:
            return
        client = self._link.client
        on_message = self._on_relayed if self._opening.is_filtered else self._on_batch
        self._inbox = client.new_inbox()
        try:
            for subject in self._opening.subjects:
                self._subscriptions.append(await client.subscribe(f"{self._prefix}*.{subject}", cb=on_message))
            self._subscriptions.append(await client.subscribe(self._inbox, cb=self._on_answer))
            await self.ask()
        except (nats.errors.Error, OSError) as error:
            raise EngineUnavailableError(f"NATS carries no traffic to this program: {error}") from error
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while not self._answers.keys() >= set(hosts):
                    self._answered.clear()
                    await self._answered.wait()
        for host, answer in self._answers.items():
            if answer.error is not None:
                raise own_error(ErrorName.INVALID_PARAMS, f"host {host}: {answer.error}")

    async def ask(self) -> None:
        """Ask all hosts, those that have come meanwhile too."""
        if self._opening.wishes and self._link.client.is_connected:
            wish: dict[str, object] = {"topics": self._opening.wishes, "seconds": WISH_SECONDS}
            if self._opening.is_filtered:
                wish["where"] = self._opening.where
            await self._link.client.publish(f"{self._prefix}listen", msgspec.json.encode(wish), self._inbox)

    async def close(self) -> None:
        """Take nothing more; hosts publish for a few seconds more."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    # -- what comes ---------------------------------------------------------------------------------------------------------

    async def _on_answer(self, message: Msg) -> None:
        try:
            answer = msgspec.json.decode(message.data, type=_Answer)
        except msgspec.DecodeError:
            return  # no host of this fleet says that
        before = self._answers.get(answer.host)
        self._answers[answer.host] = answer
        self._answered.set()
        if before is None:
            return
        if answer.error is not None:
            if answer.error != before.error:
                self._on_lost(answer.host, answer.error)
        elif before.run != answer.run:
            # A feed with snapshots learns that from the epoch of the host.
            if not self._opening.takes_snapshots:
                self._on_lost(answer.host, "it was started again")
        elif before.error is None and before.begun != answer.begun:
            self._on_lost(answer.host, f"it was not heard for more than {WISH_SECONDS:g} s, and published nothing meanwhile")

    async def _on_batch(self, message: Msg) -> None:
        """A batch of one topic."""
        host, _, topic = message.subject[len(self._prefix) :].partition(".")
        head, _, body = message.data.partition(b"\n")
        reader = self._batches.setdefault(host, BatchReader())
        opening, items = self._opening, reader.read([topic.encode(), head, body])
        found = [
            _with_host(item, host)
            for item in items
            if isinstance(item, Malformed) or (item.topic.startswith(opening.prefixes) and item.topic not in opening.lives)
        ]
        self._on_items(found, len(message.data))

    async def _on_relayed(self, message: Msg) -> None:
        """A message of a host's filtered feed."""
        host, _, _ = message.subject[len(self._prefix) :].partition(".")
        reader = self._relayed.setdefault(host, RelayedReader())
        self._on_items([_with_host(item, host) for item in reader.read(message.data)], len(message.data))


def _with_host(item: Event | Gap | Malformed, host: str) -> HostEvent | HostGap | Malformed:
    if isinstance(item, Malformed):
        return item
    if isinstance(item, Gap):
        return HostGap(item.topic, item.worker, item.missed, item.first, host)
    return HostEvent(item.topic, item.worker, item.fields, item.payload, item.run, item.ordinal, host)
