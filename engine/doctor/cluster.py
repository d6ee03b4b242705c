"""The NATS servers of a fleet: whether they can be reached, are new enough, and let this host do what it has to.

What it sends to the store is refused by design, so nothing is written. It needs the libraries of the extra `cluster`, and is
loaded only if the settings name servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import StreamConfig

from rlpx.engine.client.credentials import Credentials
from rlpx.engine.client.nats_servers import Servers
from rlpx.engine.cluster.membership import host_name
from rlpx.engine.doctor.finding import Finding, State, judge
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.cluster.addressing import command_subject, without_password
from rlpx.protocol.mistakes import ConfigError

# Older servers have no time to live for each key.
OLDEST_SERVER: Final = (2, 11)
# The default of nats-server. Long answers of commands, and batches of messages, must fit into one message.
PAYLOAD_MIN_BYTES: Final = 1024 * 1024
# With three servers one may fail.
SERVERS_WANTED: Final = 3
CONNECT_SECONDS: Final = 3
CALL_SECONDS: Final = 2.0
_CAUSE_CHARACTERS: Final = 160
# No key has this revision, so a write that expects it is refused.
_NO_REVISION: Final = {"Nats-Expected-Last-Subject-Sequence": str(2**53)}


@dataclass(frozen=True)
class Server:
    """What one server has told. `problem` is why it could not be asked."""

    url: str
    problem: str = ""
    version: tuple[int, ...] = ()
    max_payload: int = 0


@dataclass(frozen=True)
class Account:
    """What our account on the servers may do and has. `problem` is why JetStream does not answer.

    `forbidden` is none if the server ended the connection before it had judged all that a host does.
    """

    problem: str = ""
    forbidden: tuple[str, ...] | None = ()
    bucket: StreamConfig | None = None


@dataclass
class Found:
    """All that was asked: each server, and the account at the first that answers."""

    servers: list[Server] = field(default_factory=list)
    account: Account = field(default_factory=Account)


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings about the fleet's servers."""
    try:
        servers = Servers.named(settings.cluster, settings.cluster_creds)
    except ConfigError as error:
        yield Finding(
            "cluster.creds", State.FAIL, str(error), "name the .creds file that `nsc` has made with --cluster-creds"
        )
        return
    found = asyncio.run(_ask(servers, settings.cluster_name, host_name(settings.cluster_host)))
    yield reachable(found.servers)
    answering = [server for server in found.servers if not server.problem]
    if answering:
        yield version(answering)
        yield payload(answering)
        yield from account(found.account, settings.cluster_name, len(found.servers))


# -- findings ---------------------------------------------------------------------------------------------------------------


def reachable(servers: Sequence[Server]) -> Finding:
    """Whether each server answers, and whether there are enough that one may fail."""
    away = [server for server in servers if server.problem]
    if away:
        shown = "; ".join(f"{without_password(server.url)}: {server.problem}" for server in away)
        state = State.FAIL if len(away) == len(servers) else State.WARN
        advice = (
            "start it, or correct --cluster; its port must be open from here, and its user or --cluster-creds known to it"
        )
        return Finding("cluster.servers", state, shown, advice)
    advice = f"use {SERVERS_WANTED} servers: with fewer, hosts go on alone while one is away"
    found = f"{len(servers)} of {len(servers)} answer"
    return judge("cluster.servers", found, is_well=len(servers) >= SERVERS_WANTED, advice=advice)


def version(servers: Sequence[Server]) -> Finding:
    """Whether all servers are new enough."""
    oldest = min(server.version for server in servers)
    text = ".".join(map(str, oldest))
    wanted = ".".join(map(str, OLDEST_SERVER))
    is_well = oldest >= OLDEST_SERVER
    advice = f"use nats-server {wanted} or later: older ones have no time to live for each key"
    return judge("cluster.version", text, is_well=is_well, advice=advice, otherwise=State.FAIL)


def payload(servers: Sequence[Server]) -> Finding:
    """Whether long answers fit into one message."""
    least = min(server.max_payload for server in servers)
    advice = "set max_payload to 8MB, as conf/cluster/nats.conf does: what is longer is refused or lost"
    return judge("cluster.max_payload", f"{least >> 10} KiB", is_well=least >= PAYLOAD_MIN_BYTES, advice=advice)


def account(found: Account, fleet: str, servers: int) -> Iterator[Finding]:
    """JetStream, the rights of our user, and the fleet's bucket."""
    if found.problem:
        advice = "enable JetStream on the servers and for this account; three servers need two of them to answer"
        yield Finding("cluster.jetstream", State.FAIL, found.problem, advice)
    else:
        yield Finding("cluster.jetstream", State.OK, "it answers")
    if found.forbidden is None:
        advice = "see the log of the server: it ended the connection, or was silent, while it was asked"
        yield Finding("cluster.rights", State.FAIL, "nobody knows what this user may do", advice)
    elif found.forbidden:
        advice = f"allow this user $JS.API.>, $JS.FC.>, $KV.{fleet}.>, rlpx.{fleet}.>, $SRV.> and _INBOX.>"
        yield Finding("cluster.rights", State.FAIL, "; ".join(found.forbidden), advice)
    else:
        yield Finding("cluster.rights", State.OK, "all that a host sends and hears is allowed")
    if not found.problem:
        yield bucket(found.bucket, fleet, servers)


def bucket(found: StreamConfig | None, fleet: str, servers: int) -> Finding:
    """Whether the bucket, if there is one, has what a fleet needs of it."""
    check = "cluster.bucket"
    if found is None:
        return Finding(check, State.OK, f"{fleet} is not there yet: the first host makes it")
    stream = f"KV_{fleet}"
    if not found.allow_msg_ttl:
        advice = f"delete it, and let a host make it (nats stream rm {stream})"
        return Finding(check, State.FAIL, f"{fleet} has no time to live for each key", advice)
    if not found.allow_direct:
        advice = f"nats stream edit {stream} --allow-direct: what dead hosts have left is not erased otherwise"
        return Finding(check, State.WARN, f"{fleet} does not allow direct gets", advice)
    replicas = found.num_replicas or 1
    wanted = min(servers, SERVERS_WANTED) if servers >= SERVERS_WANTED else 1
    advice = f"nats stream edit {stream} --replicas {wanted}: it is away with the server that has it"
    return judge(check, f"{fleet} is on {replicas} of {servers} servers", is_well=replicas >= wanted, advice=advice)


# -- questions --------------------------------------------------------------------------------------------------------------


class _Link:
    """A connection to one server, and what the server complains about."""

    def __init__(self, url: str, credentials: Credentials | None) -> None:
        self.client = Client()
        self.url = url
        self.complaints: list[str] = []
        self._credentials = credentials

    async def open(self) -> Server:
        """Connect, and return what the server tells about itself."""
        credentials = self._credentials
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.client.connect(
                    [self.url],
                    name="rlpx doctor",
                    user_jwt_cb=None if credentials is None else credentials.user_jwt,
                    signature_cb=None if credentials is None else credentials.sign,
                    error_cb=self._on_error,
                    allow_reconnect=False,
                    connect_timeout=CONNECT_SECONDS,
                )
        except TimeoutError:
            return Server(self.url, "no answer")
        except (nats.errors.Error, OSError, ValueError) as error:
            return Server(self.url, (str(error) or type(error).__name__)[:_CAUSE_CHARACTERS])
        found = self.client.connected_server_version
        return Server(self.url, version=(found.major, found.minor, found.patch), max_payload=self.client.max_payload)

    async def _on_error(self, error: Exception) -> None:
        self.complaints.append(str(error)[:_CAUSE_CHARACTERS])


async def _ask(servers: Servers, fleet: str, host: str) -> Found:
    links = [_Link(url, servers.credentials) for url in servers.urls]
    found = Found(list(await asyncio.gather(*(link.open() for link in links))))
    link = next((link for link, server in zip(links, found.servers, strict=True) if not server.problem), None)
    if link is not None:
        found.account = await _ask_account(link, fleet, host)
    await asyncio.gather(*(link.client.close() for link in links), return_exceptions=True)
    return found


async def _ask_account(link: _Link, fleet: str, host: str) -> Account:
    js = link.client.jetstream(timeout=CALL_SECONDS)
    problem, bucket_config = "", None
    try:
        await js.account_info()
        bucket_config = (await js.stream_info(f"KV_{fleet}")).config
    except nats.js.errors.NotFoundError:
        pass  # the first host makes it
    except (nats.errors.Error, OSError, TimeoutError) as error:
        problem = (str(error) or type(error).__name__)[:_CAUSE_CHARACTERS]
    try:
        await _try_rights(link.client, fleet, host)
    except (nats.errors.Error, OSError, TimeoutError):
        return Account(problem, None, bucket_config)
    return Account(problem, tuple(dict.fromkeys(link.complaints)), bucket_config)


async def _try_rights(client: Client, fleet: str, host: str) -> None:
    """Send and hear what a host does. Whatever is not allowed becomes a complaint before the server's pong."""
    command = command_subject(fleet, host)
    hears = [await client.subscribe(subject) for subject in (command, f"rlpx.{fleet}.listen", "$SRV.PING")]
    answers = client.new_inbox()
    hears.append(await client.subscribe(answers))
    sends: tuple[tuple[str, dict[str, Any]], ...] = (
        (f"$KV.{fleet}.host.{host}", _NO_REVISION),
        # Nobody listens to these. Without answers to flow control, a watch falls silent after 2 MB.
        (f"rlpx.{fleet}.{host}.doctor", {}),
        (f"$JS.FC.KV_{fleet}.doctor.{host}", {}),
    )
    for subject, headers in sends:
        await client.publish(subject, b"", answers, headers)
    # nats-py 2.16 sends a ping before what was published in the same iteration of the loop. The second one comes after it.
    for _ in range(2):
        await client.flush(timeout=int(CALL_SECONDS))
    for subscription in hears:
        await subscription.unsubscribe()
