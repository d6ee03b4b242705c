"""The host's own engine as a program reaches it: one connection, as long as a part of the host uses it."""

from __future__ import annotations

import asyncio

from rlpx.engine.client.connection import Engine


class OwnEngine:
    """See the module. `control` is the endpoint of its commands."""

    def __init__(self, control: str) -> None:
        self._control = control
        self._engine: Engine | None = None
        self._connecting = asyncio.Lock()
        self._users: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def use(self, user: str) -> Engine:
        """The connection, which stays until the user leaves. Raises `EngineUnavailableError`."""
        async with self._connecting:
            if self._engine is None:
                self._engine = await Engine.opened(self._control)
            self._users.add(user)
            return self._engine

    def leave(self, user: str) -> None:
        """A user needs it no more; a second time is harmless."""
        self._users.discard(user)
        engine = self._engine
        if engine is not None and not self._users:
            self._engine = None
            task = asyncio.get_running_loop().create_task(engine.close(), name="close the fleet's way to our own workers")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End the connection."""
        self._users.clear()
        self.leave("")
        await asyncio.gather(*self._closing)
