"""The hosts of a fleet, as their heartbeats in its store say."""

from __future__ import annotations

import asyncio
from typing import Final

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from rlpx.engine.client.nats_servers import forget_consumer, is_flow
from rlpx.protocol.cluster.records import Heartbeat, decode, host_key, host_of

# The store must answer within this time.
STORE_SECONDS: Final = 5.0
# All heartbeats are read within this time, whatever else somebody has written beside them.
READ_SECONDS: Final = 20.0
# The servers forget a consumer that nobody reads after this time. They keep a thousand at most.
CONSUMER_SECONDS: Final = 5.0


async def hosts_of(client: Client, fleet: str) -> dict[str, Heartbeat]:
    """The hosts that are there, by name.

    Raises `nats.js.errors.NotFoundError` if there is no such fleet, and `nats.errors.Error`, `OSError` or `TimeoutError` if
    its store does not answer.
    """
    found: dict[str, Heartbeat] = {}
    prefix, stream = f"$KV.{fleet}.", f"KV_{fleet}"
    heard = await client.subscribe(client.new_inbox())
    try:
        # The store has a key for each peer as well, so nothing may ask it for all keys. nats-py's own watch may take keys
        # that are on their way for none, and find no hosts: the server's count of keys says how many to wait for.
        config = ConsumerConfig(
            deliver_subject=heard.subject,
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            ack_policy=AckPolicy.NONE,
            filter_subject=prefix + host_key("*"),
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=CONSUMER_SECONDS,
            max_deliver=1,
            flow_control=True,
            idle_heartbeat=CONSUMER_SECONDS / 2,
        )
        made = await client.jetstream(timeout=STORE_SECONDS).add_consumer(stream, config)
        sent = 0 if made.delivered is None else made.delivered.consumer_seq
        expected = sent + (made.num_pending or 0)
        async with asyncio.timeout(READ_SECONDS):
            while expected:
                message = await heard.next_msg(STORE_SECONDS)
                if await is_flow(client, message):
                    continue
                expected -= 1
                # The marker of an erased key is empty, so it is no heartbeat.
                host, beat = host_of(message.subject.removeprefix(prefix)), decode(Heartbeat, message.data)
                if host is not None and beat is not None and not beat.has_left:
                    found[host] = beat
        await forget_consumer(client, stream, made.name)
    finally:
        await heard.unsubscribe()
    return dict(sorted(found.items()))
