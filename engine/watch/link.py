"""Asks the engine, with a deadline over everything: finding it, connecting, and the answer. The failure says why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from rlpx.engine.client.connection import Engine
from rlpx.engine.client.key_file import ClientKey
from rlpx.engine.client.presence import EndpointError, EngineUnavailableError
from rlpx.protocol.bus.places import check_endpoint
from rlpx.protocol.mistakes import ConfigError

# Time for the engine to answer. With it, a health check is answered within 2 s even if the engine hangs.
ASK_SECONDS: Final = 1.5

T = TypeVar("T")


class EngineLink:
    """The way to the engine at a control endpoint, which may end and come back.

    Raises `EndpointError`, and `ConfigError` for a key file.
    """

    def __init__(self, endpoint: str, *, key: Path | str | None = None) -> None:
        try:
            check_endpoint(endpoint)
        except ValueError as error:
            raise EndpointError(endpoint, str(error)) from error
        if key is not None:
            # Each connection reads it again; a mistake in it is one of our start.
            ClientKey.load(key)
        self.endpoint = endpoint
        self._engine = Engine(endpoint, key, ASK_SECONDS)

    async def ask(self, call: Callable[[Engine], Awaitable[T]]) -> T:
        """Ask by a function of the client, `lambda engine: engine.counts()`.

        Raises `EngineError`, and `EngineUnavailableError` if there is no answer within `ASK_SECONDS`.
        """
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await call(self._engine)
        except TimeoutError as error:
            raise EngineUnavailableError(f"no answer from {self.endpoint} within {ASK_SECONDS:g} s") from error
        except ConfigError as error:
            raise EngineUnavailableError(str(error)) from error

    async def call(self, method: str, **parameters: Any) -> Any:  # noqa: ANN401 - JSON
        """Carry out the command of this name, and return its result as JSON values. Raises as `ask` does."""
        name = method.replace("-", "_")
        return msgspec.to_builtins(await self.ask(lambda engine: getattr(engine, name)(**parameters)))

    async def close(self) -> None:
        """End the connection."""
        await self._engine.close()
