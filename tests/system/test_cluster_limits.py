"""NATS servers that have no room for a fleet: hosts and programs say what is refused, go on, and leave nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Final

import nats as nats_client
import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, KeyValueConfig, StreamConfig

from rlpx.engine.client import EngineUnavailableError, connect
from rlpx.engine.client.fleet_items import FleetFeedOptions, fleet_opening
from rlpx.engine.client.fleet_lives import FORGOTTEN_SECONDS, Lives
from tests.system.cluster_fleet import Nats, crowd, fleet, member
from tests.system.harness import PATIENCE_SECONDS, RunningEngine, eventually
from tests.system.test_cluster import ctl
from tests.system.test_cluster_nonsense import said

# What a host makes if nobody has made it before, with the little room that the tests are about.
BUCKET: Final[dict[str, Any]] = {
    "name": "KV_test",
    "subjects": ["$KV.test.>"],
    "max_msgs_per_subject": 1,
    "allow_rollup_hdrs": True,
    "allow_msg_ttl": True,
    "allow_direct": True,
    "discard": DiscardPolicy.NEW,
}
EVENTS: Final[dict[str, Any]] = {
    "name": "rlpx_test",
    "subjects": [f"rlpx.test.*.{kind}.*" for kind in ("session", "dial", "worker", "engine")],
}


def make(nats: Nats, settings: dict[str, Any]) -> None:
    """Make a stream before any host does."""

    async def add(client: Client) -> None:
        await client.jetstream().add_stream(StreamConfig(**settings))

    said(nats, add)


def test_who_gets_no_consumer_says_so() -> None:
    with Nats() as nats:
        make(nats, {**BUCKET, "max_consumers": 1})
        with member(nats, "a"):
            code, text = ctl(nats, "hosts")
            assert (code, "refused: the store of the fleet refuses: maximum consumers limit reached" in text) == (1, True)
            with (
                pytest.raises(EngineUnavailableError, match="the fleet test refuses: maximum consumers limit reached"),
                connect_to(nats) as _,
            ):
                pass
            with pytest.raises(AssertionError, match="cluster: JetStream refuses: maximum consumers limit reached"):
                member(nats, "b")


def is_published(engine: RunningEngine) -> bool:
    """Whether no event waits for the stream, or is lost."""
    found = engine.call("status")["fleet"]
    return not any(found[name] for name in ("waiting_events", "spooled_bytes", "lost_events"))


def connect_to(nats: Nats) -> Any:
    """A program's connection, without asyncio."""
    return connect(nats.url, cluster="test")


def test_a_host_says_why_its_events_are_refused_and_publishes_them_when_there_is_room() -> None:
    with Nats() as nats:
        make(nats, {**EVENTS, "max_msgs": 3, "discard": DiscardPolicy.NEW})
        with fleet(nats, "a") as (engine,), crowd() as peers:
            for _ in range(3):
                peers.connect(engine)
            engine.says("maximum messages exceeded")

            async def enlarge(client: Client) -> None:
                await client.jetstream().update_stream(StreamConfig(**EVENTS))

            said(nats, enlarge)
            eventually(lambda: is_published(engine), "all is published")


async def consumers_of(nats: Nats) -> int:
    """The consumers of the stream after a program has given up its feed in the middle of its beginning."""
    client = await nats_client.connect(nats.url)
    await client.jetstream().create_key_value(KeyValueConfig(bucket="test"))
    await client.jetstream().add_stream(StreamConfig(**EVENTS))
    link: Any = SimpleNamespace(client=client, place=SimpleNamespace(name="test"))
    lives = Lives(link, fleet_opening(("session.",), FleetFeedOptions()), lambda _cause: None)
    spy = await nats_client.connect(nats.url)
    asked = await spy.subscribe("$JS.API.CONSUMER.CREATE.>")
    made, deleted = [await spy.subscribe(f"$JS.EVENT.ADVISORY.CONSUMER.{what}.>") for what in ("CREATED", "DELETED")]
    await spy.rtt()
    starting = asyncio.ensure_future(lives.start())
    await asked.next_msg(PATIENCE_SECONDS)
    starting.cancel()
    await asyncio.wait({starting})
    # The server carries out requests beside each other.
    await made.next_msg(PATIENCE_SECONDS)
    await lives.close()
    with suppress(nats_client.errors.TimeoutError):
        # By itself it would forget the consumer after a minute.
        await deleted.next_msg(FORGOTTEN_SECONDS / 2)
    left = len(await client.jetstream().consumers_info("rlpx_test"))
    await client.close()
    await spy.close()
    return left


def test_a_program_that_gives_up_a_feed_at_its_beginning_leaves_no_consumer_behind() -> None:
    with Nats() as nats:
        assert asyncio.run(consumers_of(nats)) == 0
