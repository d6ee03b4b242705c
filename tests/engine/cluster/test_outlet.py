"""What leaves for core NATS is bounded in bytes, keeps its order, and goes nowhere without a connection."""

from __future__ import annotations

import json
from typing import Any

import nats.errors

from rlpx.engine.cluster.outlet import MAX_WAITING_BYTES, Outlet
from tests.engine.fake_worker import until


class FakeClient:
    """A connection to NATS that notes what is published."""

    def __init__(self) -> None:
        self.is_connected = True
        self.max_payload = 1024
        self.pending_data_size = 0
        self.published: list[tuple[str, bytes]] = []
        # So many messages more cannot be published.
        self.failures = 0

    async def publish(self, subject: str, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise nats.errors.ConnectionClosedError
        self.published.append((subject, data))


def made() -> tuple[FakeClient, Outlet]:
    client: Any = FakeClient()
    return client, Outlet(client)


async def test_batches_leave_in_their_order_and_long_ones_in_pieces() -> None:
    client, outlet = made()
    outlet.start()
    assert outlet.offer("a", b"{}", b"body")
    head = {"first": 0, "events": [{"size": 600}, {"size": 600}]}
    assert outlet.offer("b", json.dumps(head).encode(), bytes(1200))
    assert outlet.offer("c", b"{}", b"")
    await until(lambda: len(client.published) == 4)
    assert [subject for subject, _ in client.published] == ["a", "b", "b", "c"]
    assert client.published[0] == ("a", b"{}\nbody")
    assert all(len(data) <= client.max_payload for _, data in client.published)
    sent_bytes = sum(len(data) for _, data in client.published)
    assert (outlet.sent_batches, outlet.sent_bytes, outlet.dropped_batches, outlet.waiting_bytes) == (4, sent_bytes, 0, 0)
    # What NATS takes in no form counts as dropped.
    assert outlet.offer("a", json.dumps({"first": 0, "events": [{"size": 2000}]}).encode(), bytes(2000))
    assert outlet.dropped_batches == 1
    outlet.close()


async def test_what_waits_is_bounded_and_what_does_not_fit_is_not_taken() -> None:
    client, outlet = made()
    client.max_payload = 4 * 1024 * 1024
    taken = [outlet.offer("a", b"{}", bytes(3 * 1024 * 1024)) for _ in range(5)]
    assert taken == [True, True, True, False, False]
    assert outlet.dropped_batches == 2
    client.pending_data_size = MAX_WAITING_BYTES + 1
    outlet.start()
    await until(lambda: len(client.published) == 3)
    # What waits in the library counts as well.
    assert not outlet.offer("a", b"{}", b"")
    outlet.close()


async def test_nothing_leaves_without_a_connection_and_an_error_ends_nothing() -> None:
    client, outlet = made()
    outlet.start()
    client.is_connected = False
    assert not outlet.offer("a", b"{}", b"")
    client.is_connected, client.failures = True, 1
    assert outlet.offer("a", b"{}", b"")
    assert outlet.offer("b", b"{}", b"")
    await until(lambda: bool(client.published))
    assert client.published == [("b", b"{}\n")]
    outlet.close()
