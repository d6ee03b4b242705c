"""Pages of keys, as a real NATS server answers them."""

from __future__ import annotations

import nats as nats_client
from nats.js.api import KeyValueConfig

from rlpx.engine.cluster.pages import read_page
from rlpx.protocol.cluster.steps import Answer, Outcome, Scan
from tests.system.cluster_fleet import Nats


def keys(answer: Answer) -> list[tuple[str, bytes]]:
    return [(entry.key, entry.value) for entry in answer.entries]


async def test_keys_come_in_pages_without_those_that_are_erased() -> None:
    with Nats() as nats:
        client = await nats_client.connect(nats.url)
        store = await client.jetstream().create_key_value(KeyValueConfig(bucket="test", history=1, direct=True))
        assert await read_page(client, "test", Scan(1, "peer.", 0, 3)) == Answer(1, Outcome.DONE)
        revisions = [await store.create(f"peer.{number}", b"%d" % number) for number in range(5)]
        await store.create("host.a", b"a")
        await store.delete("peer.1")
        first = await read_page(client, "test", Scan(2, "peer.", 0, 3))
        assert (first.outcome, keys(first)) == (Outcome.DONE, [("peer.0", b"0"), ("peer.2", b"2"), ("peer.3", b"3")])
        assert [entry.revision for entry in first.entries] == [revisions[0], revisions[2], revisions[3]]
        second = await read_page(client, "test", Scan(3, "peer.", first.revision, 3))
        assert (keys(second), second.revision) == ([("peer.4", b"4")], 0)
        await client.close()


async def test_a_bucket_that_does_not_allow_it_and_servers_that_are_away_give_no_page() -> None:
    with Nats() as nats:
        client = await nats_client.connect(nats.url)
        await client.jetstream().create_key_value(KeyValueConfig(bucket="test", history=1, direct=False))
        assert (await read_page(client, "test", Scan(1, "peer.", 0, 3))).outcome is Outcome.LOST
        await client.close()
        assert (await read_page(client, "test", Scan(2, "peer.", 0, 3))).outcome is Outcome.LOST
