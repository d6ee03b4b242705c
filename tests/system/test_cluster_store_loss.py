"""Somebody deletes or purges the fleet's store under its hosts: they write again what they hold, and no limit is broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

import pytest
from nats.aio.client import Client

from rlpx.engine.cluster.pages import read_page
from rlpx.protocol.cluster.records import FLEET, Fleet, decode
from rlpx.protocol.cluster.steps import Outcome, Scan
from rlpx.protocol.lifecycle import Direction
from tests.system.cluster_fleet import Lives, Nats, crowd, fleet
from tests.system.cluster_visits import active, has_verdict
from tests.system.harness import RunningEngine, eventually
from tests.system.test_cluster_nonsense import bans_of, said

LIMIT = 10
# Peers come for so long that every host notices what has happened, and leases what it may.
SECONDS = 20.0


async def delete(client: Client) -> None:
    await client.jetstream().delete_stream("KV_test")


async def purge(client: Client) -> None:
    await client.jetstream().purge_stream("KV_test")


def keys(nats: Nats) -> dict[str, bytes]:
    """What the store has, if there is one."""

    async def read(client: Client) -> dict[str, bytes]:
        page = await read_page(client, "test", Scan(1, "", 0, 1000))
        return {entry.key: entry.value for entry in page.entries} if page.outcome is Outcome.DONE else {}

    found: dict[str, bytes] = said(nats, read)
    return found


@pytest.mark.long
@pytest.mark.parametrize("lose", [delete, purge])
def test_a_store_that_is_lost_under_its_hosts_has_all_again_and_no_limit_is_broken(
    lose: Callable[[Client], Awaitable[None]],
) -> None:
    flags = ("--limits.max-active-inbound", str(LIMIT))
    with Nats() as nats, fleet(nats, "a", "b", flags=flags) as engines, crowd() as peers:
        staying = [peers.connect(engines[number % 2]) for number in range(6)]
        eventually(lambda: active(engines) == len(staying), "they stay")
        engines[0].call("ban", address="10.1.2.3", seconds=600)
        said(nats, lose)
        ends_at = monotonic() + SECONDS
        while monotonic() < ends_at:
            came = [peers.connect(engine) for engine in engines for _ in range(LIMIT)]
            eventually(lambda: all(map(has_verdict, came)), "every peer has a verdict")  # noqa: B023 - asked in this turn only
            assert active(engines) <= LIMIT
            for peer in came:
                if not peer.session.is_closed:
                    peers.leave(peer)
        eventually(lambda: all(map(is_member, engines)), "both are members")
        eventually(lambda: active(engines) == len(staying), "the others have left")

        def has_all() -> bool:
            found = keys(nats)
            claims = {key.removeprefix("peer.") for key in found if key.startswith("peer.")}
            return claims == sessions(engines) and {"host.a", "host.b", "places.inbound.0", FLEET} <= found.keys()

        eventually(has_all, "the store has all again")
        limits = decode(Fleet, keys(nats)[FLEET])
        assert limits is not None
        assert limits.limits[Direction.INBOUND] == LIMIT
        assert all(peer.session.stage == "active" for peer in staying)
        assert Lives(nats).most_active("inbound") <= LIMIT
        for engine in engines:
            engine.says("the fleet's store has lost what it had")
        with fleet(nats, "c") as (late,):
            eventually(lambda: bans_of(late) == ["10.1.2.3"], "a host that joins later has the ban")
        assert ("the fleet's store was deleted" in "".join(engine.stderr for engine in engines)) == (lose is delete)


def is_member(engine: RunningEngine) -> bool:
    found = engine.call("status")["fleet"]
    return bool(found["state"] == "member" and not found["claims"]["unsettled"])


def sessions(engines: list[RunningEngine]) -> set[str]:
    """The peers of all active sessions."""
    return {shown["peer"] for engine in engines for shown in engine.call("sessions", phase="active")["sessions"]}
