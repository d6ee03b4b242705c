"""`Subscriber` reads the events of an engine and reports exactly which are missing. It is synchronous.

with Subscriber.of(run_dir, ["eth.Transactions"]) as events:
    for event in events: …
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Final, Self

import zmq

from rlpx.engine.client.batch_reader import BatchReader, Item
from rlpx.engine.client.client import Client
from rlpx.engine.client.closing import Closing
from rlpx.engine.client.door import connect, run_dir_endpoint
from rlpx.engine.client.presence import (
    PATIENCE_SECONDS,
    PROBE_SECONDS,
    EngineError,
    EngineUnavailableError,
    Presence,
    check_there,
)
from rlpx.engine.client.topics import checked_prefixes, sub_protocol_of, warn_of_unknown
from rlpx.protocol.bus.batches import prefixes_of

# The time between two checks for an engine by a reader that receives nothing.
PRESENCE_SECONDS: Final = 1.0
# ZeroMQ bounds our own socket's queue in batches, not in bytes: it holds 8 MiB as a rule, 640 MiB if each batch is a message
# of the largest kind. Further batches wait in the engine, whose queue is bounded in bytes, and what exceeds that shows as a
# gap. Reading is as fast as with 10,000; with 32 it took a seventh more CPU.
RECEIVE_QUEUE_BATCHES: Final = 64


class Subscriber(Closing):
    """Reads the events of some topics. Each topic is a prefix; the empty one means all. Losses are reported as `Gap`s.

    A prefix of no topic causes an `UnknownTopicWarning`. `key` is a key file for a TCP endpoint.
    """

    def __init__(
        self,
        endpoint: str,
        topics: Iterable[str],
        *,
        timeout_seconds: float = PATIENCE_SECONDS,
        offered: Iterable[str] | None = None,
        key: Path | str | None = None,
    ) -> None:
        prefixes = checked_prefixes(topics)
        # Only an engine knows the user's own sub-protocols; `of` asks it.
        own = [name for prefix in prefixes if (name := sub_protocol_of(prefix)) is not None]
        warn_of_unknown(prefixes, own if offered is None else offered, stacklevel=2 if offered is None else 3)
        self.endpoint = endpoint
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE_BATCHES)
        self._socket.setsockopt(zmq.LINGER, 0)
        for prefix in prefixes:
            self._socket.setsockopt_string(zmq.SUBSCRIBE, prefix)
        self._door = connect(self._socket, self._context, endpoint, key)
        self._presence = Presence(endpoint, timeout_seconds)
        self._prefixes = frozenset(prefix.encode() for prefix in prefixes)
        self._batches = BatchReader()

    @classmethod
    def of(cls, run_dir: Path | str | None, topics: Iterable[str], *, timeout_seconds: float = PATIENCE_SECONDS) -> Self:
        """The events of a run directory's engine, by default the usual one."""
        prefixes = checked_prefixes(topics)
        own = [name for prefix in prefixes if (name := sub_protocol_of(prefix)) is not None]
        offered = _offered(run_dir, own) if own else []
        return cls(run_dir_endpoint(run_dir, "events"), prefixes, timeout_seconds=timeout_seconds, offered=offered)

    @property
    def is_missing(self) -> bool:
        """Whether there is plainly no engine, because nobody listens at its endpoint."""
        try:
            check_there(self.endpoint)
        except EngineUnavailableError:
            return True
        return False

    @property
    def is_confirmed(self) -> bool:
        """Whether every subscription has taken effect at the engine and all workers. From then on every loss is reported."""
        return self._batches.confirmed >= self._prefixes

    @property
    def run(self) -> str | None:
        """The engine's run, as its batches name it."""
        return self._batches.run

    def has_read(self, positions: Mapping[tuple[str, int | None], int]) -> bool:
        """Whether all events before these ordinals, by topic and worker, were read or are known to be missing.

        Topics without a subscription here do not count.
        """
        return all(
            self._batches.following(topic, worker) >= ordinal
            for (topic, worker), ordinal in positions.items()
            if not self._prefixes.isdisjoint(prefixes_of(topic))
        )

    def poll(self, seconds: float) -> list[Item]:
        """The items of the next batch, or none within this time. A restart of the engine is an `engine.started` event.

        Raises `EngineUnavailableError` if there was no engine for `timeout_seconds`.
        """
        ends_at = monotonic() + seconds
        while True:
            looks_at = min(ends_at, monotonic() + PRESENCE_SECONDS)
            items = self._receive(looks_at)
            if items:
                return items
            # Otherwise it was a confirmation, or an empty batch that reports no loss.
            if items is None:
                self._presence.check()
                if looks_at == ends_at:
                    return []

    def _receive(self, ends_at: float) -> list[Item] | None:
        """The items of the next message, or `None` if none comes in time."""
        if not self._door.wait(max(0, int((ends_at - monotonic()) * 1000))):
            return None
        self._presence.heard()
        return self._batches.read(self._socket.recv_multipart())

    def confirm(self, seconds: float) -> list[Item]:
        """Wait until `is_confirmed`; returns what arrives meanwhile. Raises `EngineUnavailableError` after this time."""
        items: list[Item] = []
        ends_at = monotonic() + seconds
        while not self.is_confirmed:
            read = self._receive(ends_at)
            if read is None:
                text = f"{self.endpoint} did not confirm the subscriptions within {seconds:g} s"
                raise EngineUnavailableError(text)
            items += read
        return items

    def __iter__(self) -> Iterator[Item]:
        while True:
            yield from self.poll(1.0)

    def close(self) -> None:
        """Close the socket."""
        self._door.close()
        self._socket.close()
        self._context.term()


def _offered(run_dir: Path | str | None, otherwise: list[str]) -> list[str]:
    """The names of all sub-protocols that the engine offers, or `otherwise` if it does not answer at once."""
    try:
        with Client.of(run_dir, timeout_seconds=PROBE_SECONDS) as engine:
            return [item["protocol"].partition("/")[0] for item in engine.call("subprotocols")["offered"]]
    except (EngineError, EngineUnavailableError):
        return otherwise
