"""Commands that concern the whole fleet: what one host is told, all hosts do, and so do those that join later.

Each is a record in the fleet's store, one for each thing that it is about. Every host carries the records out in the order
of the store, its own ones too, so that all end with the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time_ns
from typing import Any, Final, NamedTuple

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client

from rlpx.engine.client.complaints import Complaints
from rlpx.engine.cluster.kv import WRONG_REVISIONS
from rlpx.engine.hub.registry import Registry
from rlpx.protocol.bus.commands import (
    AddPeerParameters,
    AddSubProtocolParameters,
    BanParameters,
    Parameters,
    RemovePeerParameters,
    RemoveSubProtocolParameters,
    SetStatusParameters,
)
from rlpx.protocol.cluster.records import Name, Number, decode
from rlpx.protocol.rlpx.enode import parse_enode

# The beginning of the keys of these records.
SHARED: Final = "shared."
# What was taken back is remembered for hosts that were away meanwhile.
REMOVED_SECONDS: Final = 7 * 86_400.0
# A write is tried again after this time. So many things may wait while the store is away.
RETRY_SECONDS: Final = 1.0
MAX_WAITING: Final = 10_000
# So many records of the store are remembered, in case that it loses them.
MAX_KNOWN: Final = 10_000
_CALL_SECONDS: Final = 2.0
# A write that expects that there is no such record.
_IF_MISSING: Final = {"Nats-Expected-Last-Subject-Sequence": "0"}
_US: Final = 1_000_000

log = structlog.get_logger()


class Record(msgspec.Struct, frozen=True):
    """A command that a host was told. A ban holds until `until_us`, microseconds since 1970."""

    method: str
    params: msgspec.Raw
    host: Name
    until_us: Number | None = None


class Write(NamedTuple):
    """A record that is to be written, for how long it is kept, and whether only if the store has lost it."""

    value: bytes
    ttl_s: float | None
    is_repeated: bool = False


def _about_peer(parameters: Any) -> tuple[str, float | None]:  # noqa: ANN401 - one of the parameters below
    return f"peer.{parse_enode(parameters.enode).id.hex()}", None


def _about_removed_peer(parameters: Any) -> tuple[str, float | None]:  # noqa: ANN401 - one of the parameters below
    return f"peer.{parameters.peer}", REMOVED_SECONDS


def _about_ban(parameters: Any) -> tuple[str, float | None]:  # noqa: ANN401 - one of the parameters below
    who = parameters.peer or (parameters.address or "").encode().hex()
    return f"ban.{who}", max(1.0, parameters.seconds) if parameters.seconds else REMOVED_SECONDS


def _about_protocol(parameters: Any) -> tuple[str, float | None]:  # noqa: ANN401 - one of the parameters below
    name, version = parameters.protocol.split("/")[:2]
    return f"protocol.{name}-{version}", None


def _about_status(_parameters: Any) -> tuple[str, float | None]:  # noqa: ANN401 - one of the parameters below
    return "status", None


# For each kind of command: what it is about, and for how long its record is kept, if not for ever.
_ABOUT: Final[dict[type, Callable[[Any], tuple[str, float | None]]]] = {
    AddPeerParameters: _about_peer,
    RemovePeerParameters: _about_removed_peer,
    BanParameters: _about_ban,
    AddSubProtocolParameters: _about_protocol,
    RemoveSubProtocolParameters: _about_protocol,
    SetStatusParameters: _about_status,
}
_METHODS: Final = {"peers-add", "peers-remove", "ban", "subprotocols-add", "subprotocols-remove", "set-status"}


def _left_s(record: Record) -> float | None:
    """For how long a record is kept that is written again."""
    if record.until_us is not None and record.until_us > time_ns() // 1000:
        return max(1.0, (record.until_us - time_ns() // 1000) / _US)
    return REMOVED_SECONDS if record.until_us is not None or record.method == "peers-remove" else None


class SharedCommands:
    """See the module. `echoes` carries out what the store says, and shares nothing itself."""

    def __init__(self, client: Client, fleet: str, host: str, echoes: Registry) -> None:
        self._js = client.jetstream(timeout=_CALL_SECONDS)
        self._prefix = f"$KV.{fleet}.{SHARED}"
        self._host = host
        self._echoes = echoes
        self._waiting: dict[str, Write] = {}
        # The store's records as this host has seen them, by what they are about, so many at most.
        self._known: dict[str, bytes] = {}
        # Those of them that the store has refused.
        self._refused: set[str] = set()
        self._excess = Complaints(lambda what: log.warning("hosts share too much", cause=what))
        self._seen: asyncio.Queue[Record] = asyncio.Queue(MAX_WAITING)
        self._is_waiting = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._write()), loop.create_task(self._echo())]

    def on_done(self, method: str, parameters: Parameters) -> None:
        """A user's command was carried out here: share it, if it concerns the fleet."""
        about = _ABOUT.get(type(parameters))
        if about is None:
            return
        key, ttl_s = about(parameters)
        until_us = None
        if isinstance(parameters, BanParameters):
            until_us = time_ns() // 1000 + int(parameters.seconds * _US)
        record = Record(method, msgspec.Raw(msgspec.json.encode(parameters)), self._host, until_us)
        self._waiting.pop(key, None)
        if len(self._waiting) >= MAX_WAITING:
            log.warning("a command is not shared with the fleet: too many wait for NATS", method=method)
            return
        self._waiting[key] = Write(msgspec.json.encode(record), ttl_s)
        self._is_waiting.set()

    def on_store_lost(self) -> None:
        """The store has lost its records: write those again that no host has written since."""
        for key, value in self._known.items():
            record = decode(Record, value)
            if record is not None and key not in self._waiting:
                self._waiting[key] = Write(value, _left_s(record), is_repeated=True)
        self._is_waiting.set()

    def on_seen(self, key: str, value: bytes | None) -> None:
        """The store has this record of a command, or none any more. Nonsense is ignored."""
        record = decode(Record, value)
        if value is None or record is None or record.method not in _METHODS:
            self._known.pop(key, None)
            return
        if key in self._known or len(self._known) < MAX_KNOWN:
            self._known[key] = value
        else:
            self._excess.hear("a record is not written again if the store loses it: too many are there")
        try:
            self._seen.put_nowait(record)
        except asyncio.QueueFull:
            self._excess.hear("another host's command is not carried out: too many wait")

    def close(self) -> None:
        """Share no more."""
        for task in self._tasks:
            task.cancel()

    async def _write(self) -> None:
        while True:
            await self._is_waiting.wait()
            self._is_waiting.clear()
            while self._waiting:
                key, write = next(iter(self._waiting.items()))
                try:
                    headers = _IF_MISSING.copy() if write.is_repeated else None
                    await self._js.publish(self._prefix + key, write.value, msg_ttl=write.ttl_s, headers=headers)
                except (nats.errors.Error, OSError, TimeoutError) as error:
                    if write.is_repeated and getattr(error, "err_code", None) in WRONG_REVISIONS:
                        if self._waiting.get(key) is write:
                            del self._waiting[key]
                        continue
                    if isinstance(error, nats.js.errors.APIError) and key not in self._refused:
                        self._refused.add(key)
                        log.warning("the fleet's store refuses to share a command, which is tried again", cause=str(error))
                    # The others do not wait behind it.
                    self._waiting[key] = self._waiting.pop(key)
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    self._refused.discard(key)
                    if self._waiting.get(key) is write:
                        del self._waiting[key]

    async def _echo(self) -> None:
        while True:
            record = await self._seen.get()
            params = record.params
            if record.until_us is not None:
                left = max(0.0, (record.until_us - time_ns() // 1000) / _US)
                ban = decode(BanParameters, bytes(params))
                if ban is None:
                    continue
                params = msgspec.Raw(msgspec.json.encode(msgspec.structs.replace(ban, seconds=left)))
            request = {"jsonrpc": "2.0", "id": 1, "method": record.method, "params": params}
            reply = await self._echoes.call(msgspec.json.encode(request), [])
            if record.host != self._host:
                log.info(
                    "another host's command",
                    method=record.method,
                    host=record.host,
                    reply=reply.body[:256].decode(errors="replace"),
                )
