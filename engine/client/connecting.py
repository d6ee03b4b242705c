"""`connect`: a program's way to a running engine or to a fleet, for `async with` on asyncio or uvloop, or for `with`.

async with connect() as engine:
    print((await engine.counts()).active)

with connect() as engine:
    print(engine.counts().active)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, overload

import msgspec

from rlpx.engine.client.blocking import BlockingEngine
from rlpx.engine.client.calls import CALL_TIMEOUT_SECONDS
from rlpx.engine.client.connection import Engine
from rlpx.engine.client.door import run_dir_endpoint
from rlpx.engine.client.errors import NatsMissingError
from rlpx.protocol.cluster.records import Name

if TYPE_CHECKING:
    from rlpx.engine.client.blocking_fleet import BlockingFleet
    from rlpx.engine.client.fleet import Fleet
    from rlpx.engine.client.fleet_link import FleetPlace

# Addresses with these beginnings are NATS servers.
NATS_SCHEMES: Final = ("nats://", "tls://", "ws://", "wss://")
# The name of a fleet that was given none, as `rlpx-engine --cluster-name` has it.
DEFAULT_CLUSTER: Final = "rlpx"


@overload
def connect(
    place: Path | str | None = None, *, key: Path | str | None = None, timeout_seconds: float = CALL_TIMEOUT_SECONDS
) -> Connecting: ...
@overload
def connect(
    place: str, *, cluster: str, creds: Path | str | None = None, timeout_seconds: float = CALL_TIMEOUT_SECONDS
) -> FleetConnecting: ...
def connect(
    place: Path | str | None = None,
    *,
    key: Path | str | None = None,
    cluster: str | None = None,
    creds: Path | str | None = None,
    timeout_seconds: float = CALL_TIMEOUT_SECONDS,
) -> Connecting | FleetConnecting:
    """Connect to the engine of a run directory, by default the usual one, or at `tcp://HOST:PORT` with a key file.

    With NATS servers, `nats://A,B,C`, connect to the fleet `cluster` (by default: rlpx), with a file of NATS credentials.
    `timeout_seconds` is the time of each call that is given none. Raises `TypeError` for what does not fit together.
    """
    text = "" if place is None else str(place)
    if text.startswith(NATS_SCHEMES):
        if key is not None:
            raise TypeError("key: NATS servers take no key file; see creds")
        return FleetConnecting(text, _name(DEFAULT_CLUSTER if cluster is None else cluster), creds, timeout_seconds)
    if cluster is not None or creds is not None:
        raise TypeError(f"{'creds' if cluster is None else 'cluster'}: only with NATS servers, nats://HOST:PORT")
    endpoint = text if "://" in text else run_dir_endpoint(place, "control")
    return Connecting(endpoint, key, timeout_seconds)


def _name(cluster: str) -> str:
    try:
        return msgspec.convert(cluster, Name)
    except msgspec.ValidationError as error:
        raise TypeError(f"cluster: up to 64 letters, digits, _ and - are allowed, not {cluster!r}") from error


class Connecting(AbstractAsyncContextManager[Engine], AbstractContextManager[BlockingEngine]):
    """Connects on entry and closes on exit.

    Entering raises `EngineUnavailableError` if there is no engine, and `EngineForbiddenError` if it is another user's or
    refuses the key.
    """

    def __init__(self, endpoint: str, key: Path | str | None, timeout_seconds: float) -> None:
        self._endpoint = endpoint
        self._key = key
        self._timeout_seconds = timeout_seconds
        self._engine: Engine | None = None
        self._blocking: BlockingEngine | None = None

    async def __aenter__(self) -> Engine:
        self._engine = await Engine.opened(self._endpoint, self._key, self._timeout_seconds)
        return self._engine

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            await self._engine.close()

    def __enter__(self) -> BlockingEngine:
        self._blocking = BlockingEngine(self._endpoint, self._key, self._timeout_seconds)
        return self._blocking

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._blocking is not None:
            self._blocking.close()


class FleetConnecting(AbstractAsyncContextManager["Fleet"], AbstractContextManager["BlockingFleet"]):
    """Connects to a fleet on entry and closes on exit.

    Entering raises `NatsMissingError` without nats-py, and `EngineUnavailableError` if no server or no such fleet is there.
    """

    def __init__(self, servers: str, cluster: str, creds: Path | str | None, timeout_seconds: float) -> None:
        self._servers = servers
        self._cluster = cluster
        self._creds = "" if creds is None else str(creds)
        self._timeout_seconds = timeout_seconds
        self._fleet: Fleet | None = None
        self._blocking: BlockingFleet | None = None

    async def __aenter__(self) -> Fleet:
        with _library():
            from rlpx.engine.client.fleet import Fleet  # noqa: PLC0415 - the library is loaded only for NATS servers
        self._fleet = await Fleet.opened(self._place())
        return self._fleet

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fleet is not None:
            await self._fleet.close()

    def __enter__(self) -> BlockingFleet:
        with _library():
            from rlpx.engine.client.blocking_fleet import BlockingFleet  # noqa: PLC0415 - as above
        self._blocking = BlockingFleet(self._place())
        return self._blocking

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._blocking is not None:
            self._blocking.close()

    def _place(self) -> FleetPlace:
        from rlpx.engine.client.fleet_link import FleetPlace  # noqa: PLC0415 - as above

        return FleetPlace(self._servers, self._cluster, self._creds, self._timeout_seconds)


@contextmanager
def _library() -> Iterator[None]:
    """Say what is missing if nats-py is. Raises `NatsMissingError`."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "nats":
            raise
        raise NatsMissingError("a fleet needs nats-py: pip install rlpx-engine[cluster]") from error
