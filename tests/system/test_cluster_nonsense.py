"""Nonsense in NATS, as a fellow tenant or a program with a mistake may write it: hosts say what is wrong, and go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import nats as nats_client
from nats.aio.client import Client

from rlpx.protocol.cluster.addressing import PAYLOAD_BYTES
from tests.system.cluster_fleet import Nats, fleet
from tests.system.harness import RunningEngine, eventually

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
