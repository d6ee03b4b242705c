"""Nonsense in NATS, as a fellow tenant or a program with a mistake may write it: hosts say what is wrong, and go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import nats as nats_client
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import KeyValueConfig, StreamConfig

from rlpx.protocol.cluster.addressing import PAYLOAD_BYTES
from rlpx.protocol.cluster.records import Claim, encode, peer_key
from tests.system.cluster_fleet import Nats, crowd, fleet, member
from tests.system.harness import RunningEngine, eventually
from tests.system.test_cluster import ctl

NO_UTF_8 = b'{"peer":"\xff"}'
DEEP = b"[" * 100_000 + b"]" * 100_000
STRANGE_BANS = {
    "params without end": b'{"method":"ban","params":' + DEEP + b',"host":"x","until_us":5}',
    "params not in UTF-8": b'{"method":"ban","params":' + NO_UTF_8 + b',"host":"x","until_us":5}',
    "a time beyond all numbers": b'{"method":"ban","params":{"address":"10.9.9.9"},"host":"x","until_us":'
    + b"9" * 400
    + b"}",
    "a list of params": b'{"method":"ban","params":[1,2],"host":"x","until_us":5}',
    "a host that is none": b'{"method":"ban","params":{"address":"10.9.9.9"},"host":"\\u001b[31m","until_us":5}',
}
STRANGE_WISHES = (
    b"",
    b"null",
    DEEP,
    b'{"topics":["\xff."]}',
    b'{"requests":["\xff"]}',
    b'{"topics":["eth."],"where":' + DEEP + b"}",
)


def said(nats: Nats, say: Callable[[Client], Any]) -> Any:
    """Say something over a connection of our own."""

    async def run() -> Any:
        client = await nats_client.connect(nats.url.split(","))
        try:
            return await say(client)
        finally:
            await client.close()

    return asyncio.run(run())


def bans_of(engine: RunningEngine) -> list[str]:
    return [ban["who"] for ban in engine.call("peers")["bans"]]


def test_a_record_that_makes_no_sense_keeps_no_later_command_from_being_shared() -> None:
    async def write(client: Client) -> None:
        for number, value in enumerate(STRANGE_BANS.values()):
            await client.jetstream().publish(f"$KV.test.shared.ban.{number}", value)

    with Nats() as nats, fleet(nats, "a", "b") as (one, other):
        said(nats, write)
        one.call("ban", address="10.1.2.3", seconds=600)
        eventually(lambda: bans_of(other) == ["10.1.2.3"], "the other host has the ban")
        # A host that joins later reads all of them first.
        with fleet(nats, "c") as (late,):
            eventually(lambda: bans_of(late) == ["10.1.2.3"], "the later host has the ban")


def test_what_makes_no_sense_is_answered() -> None:
    with Nats() as nats, fleet(nats, "a") as (engine,):

        async def ask(client: Client) -> list[bytes]:
            answers = [
                await client.request(f"rlpx.test.{subject}", wish, timeout=20)
                for subject in ("listen", "a.listen", "serve", "a.serve", "a.command")
                for wish in STRANGE_WISHES
            ]
            headers = {PAYLOAD_BYTES: "9" * 5000}
            answers.append(await client.request("rlpx.test.a.command", b"{}", timeout=20, headers=headers))
            return [answer.data for answer in answers]

        assert all(b'"error"' in answer for answer in said(nats, ask))
        assert engine.call("counts")["active"] == {"inbound": 0, "outbound": 0}


def test_a_key_that_is_no_name_is_no_host() -> None:
    async def write(client: Client) -> None:
        for name in ("\x1b[31m", "a=b", "b"):
            await client.jetstream().publish(f"$KV.test.host.{name}", b'{"epoch":"e"}')

    with Nats() as nats, fleet(nats, "a") as (engine,):
        said(nats, write)
        eventually(lambda: "b" in engine.call("status")["fleet"]["hosts"], "the last of them is seen")
        assert engine.call("status")["fleet"]["hosts"] == ["a", "b"]


# A server ends a connection that it has more than 64 MiB for.
HUGE = bytes(1024 * 1024 - 1024)
HUGE_KEYS = 80
MANY_KEYS = 2_000


@pytest.mark.long
def test_a_store_full_of_nonsense_keeps_no_host_from_its_fleet_and_no_claim_from_being_swept() -> None:
    late = peer_key(bytes(64))

    async def write(client: Client) -> None:
        js = client.jetstream(timeout=60)
        await js.create_key_value(KeyValueConfig(bucket="test", history=1, limit_marker_ttl=120.0, direct=True))
        names = [
            "fleet",
            "places.inbound.0",
            "places.outbound.0",
            "lease.x",
            "shared.x",
            "shared.ban.y",
            "note.a.zz",
            "peer.zz",
        ]
        names += [f"host.huge-{number}" for number in range(HUGE_KEYS)]
        # The sweep reads one of these a second.
        names += [f"peer.huge-{number}" for number in range(5)]
        for name in names:
            await js.publish(f"$KV.test.{name}", HUGE)
        for kind in ("host", "peer", "places", "shared", "note.a"):
            many = (js.publish(f"$KV.test.{kind}.many-{number}", b"nonsense") for number in range(MANY_KEYS))
            await asyncio.gather(*many)
        await js.publish(f"$KV.test.{late}", encode(Claim("a", "earlier", 1, 1)))

    async def has_claim(client: Client) -> bool:
        store = await client.jetstream().key_value("test")
        try:
            await store.get(late)
        except nats_client.js.errors.KeyNotFoundError:
            return False
        return True

    with Nats() as nats, crowd() as peers:
        said(nats, write)
        with fleet(nats, "a", "b") as engines:
            for engine in engines:
                peers.connect(engine)
            eventually(lambda: all(engine.counts()[2] == 1 for engine in engines), "each has a session")
            eventually(lambda: not said(nats, has_claim), "the claim of an earlier run is erased")
            assert all(engine.call("status")["fleet"]["state"] == "member" for engine in engines)
            code, text = ctl(nats, "hosts")
            assert (code, [line.split()[0] for line in text.splitlines()]) == (0, ["a", "b"])
            # The usual lines, and the summaries of some minutes.
            assert all(len(engine.stderr.splitlines()) < 10 for engine in engines)


def refused(nats: Nats, settings: dict[str, Any]) -> str:
    """What a host says that does not join, because somebody else has made a stream before."""

    async def make(client: Client) -> None:
        await client.jetstream().add_stream(StreamConfig(**settings))

    said(nats, make)
    with pytest.raises(AssertionError, match="no ready line") as failed:
        member(nats, "a")
    return str(failed.value).splitlines()[-1]


def test_a_bucket_or_stream_that_does_not_serve_is_named() -> None:
    with Nats() as nats:
        line = refused(nats, {"name": "KV_test", "subjects": ["$KV.test.>"], "max_msgs_per_subject": 1, "max_age": 30.0})
        assert line.endswith("cluster: the bucket test forgets every key after 30 s; it must have no time to live")
    for subjects in (["rlpx.test.a.session.*"], ["rlpx.test.>"]):
        with Nats() as nats:
            line = refused(nats, {"name": "rlpx_test", "subjects": subjects})
            assert "rlpx-engine: cluster: the stream rlpx_test must have the subjects rlpx.test.*.session.*, " in line
            assert line.endswith(f"it has {subjects[0]}")
    with Nats() as nats:
        assert "subjects overlap with an existing stream" in refused(nats, {"name": "all", "subjects": ["rlpx.>"]})


def test_an_answer_of_another_form_is_said_to_be_one() -> None:
    async def ask(client: Client) -> list[tuple[int, str]]:
        await client.jetstream().publish("$KV.test.host.b", b'{"epoch":"e"}')
        answers = iter((b'{"error":5}', b'{"result":5}', b'{"result":null}', b"\xff"))

        async def pretend(message: Msg) -> None:
            await message.respond(next(answers))

        await client.subscribe("rlpx.test.b.command", cb=pretend)
        await client.flush()
        return [await asyncio.to_thread(ctl, nats, command) for command in ("counts", "hosts") * 2]

    with Nats() as nats, fleet(nats, "a"):
        found = said(nats, ask)
    assert [code for code, _ in found] == [1] * 4
    assert all("\nhost b\nbad_response: the answer has another form than ours: " in text for _, text in found[::2])
    assert all("\nb  bad_response; " in text for _, text in found[1::2])


def test_a_permission_that_is_missing_is_said() -> None:
    denied = 'permissions: {subscribe: {deny: ["rlpx.>"]}}'
    settings = f"authorization {{ users: [{{user: u, password: p, {denied}}}] }}\nno_auth_user: u\n"
    with Nats(settings=settings) as nats, fleet(nats, "a") as (engine,):
        for subject in ("a.command", "listen", "serve"):
            engine.says(f'permissions violation for subscription to \\"rlpx.test.{subject}\\"')
