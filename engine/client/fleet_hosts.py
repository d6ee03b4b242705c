"""The hosts of a fleet, as their heartbeats in its store say."""

from __future__ import annotations

from typing import Final

from nats.aio.client import Client

from rlpx.protocol.cluster.records import Heartbeat, decode, host_key, host_of

# The store must answer within this time.
STORE_SECONDS: Final = 5.0


async def hosts_of(client: Client, fleet: str) -> dict[str, Heartbeat]:
    """The hosts that are there, by name.

    Raises `nats.js.errors.NotFoundError` if there is no such fleet, and `nats.errors.Error`, `OSError` or `TimeoutError` if
    its store does not answer.
    """
    found: dict[str, Heartbeat] = {}
    store = await client.jetstream(timeout=STORE_SECONDS).key_value(fleet)
    # The store has a key for each peer as well, so nothing may ask it for all keys.
    watched = await store.watch(host_key("*"), ignore_deletes=True)
    try:
        while (entry := await watched.updates(STORE_SECONDS)) is not None:  # type: ignore[no-untyped-call]  # it has no types
            host, beat = host_of(entry.key), decode(Heartbeat, entry.value)
            if host is not None and beat is not None and not beat.has_left:
                found[host] = beat
    finally:
        await watched.stop()  # type: ignore[no-untyped-call]  # it has no types
    return dict(sorted(found.items()))
