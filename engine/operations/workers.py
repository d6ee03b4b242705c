"""Commands that change the workers of the running engine."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable

import msgspec

from rlpx.engine.settings.descriptor_needs import check_descriptors
from rlpx.engine.settings.settings import Settings
from rlpx.engine.succession import Succession
from rlpx.protocol.bus import commands, results
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.mistakes import ConfigError


class WorkerCommands:
    """Each method carries out one command, and raises `CommandError` if it cannot be done.

    `settings` returns the settings in force.
    """

    def __init__(self, succession: Succession, settings: Callable[[], Settings]) -> None:
        self._succession = succession
        self._settings = settings

    async def restart_workers(self, parameters: commands.RestartWorkersParameters) -> results.RestartResult:
        """Begin to replace all workers; with `wait`, returns when that is done."""
        begun, restart = self._succession.restart(parameters.drain_s)
        if not parameters.wait:
            return begun
        # The restart goes on if its caller leaves.
        replaced = await asyncio.shield(restart)
        return msgspec.structs.replace(begun, replaced=replaced)

    async def set_workers(self, parameters: commands.SetWorkersParameters) -> results.WorkersResult:
        """Change the number of workers; returns when the new ones are ready."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            check_descriptors(msgspec.structs.replace(self._settings(), workers=parameters.workers), limit)
        except ConfigError as error:
            raise CommandError(ErrorName.REFUSED, str(error)) from error
        return await asyncio.shield(self._succession.resize(parameters.workers, parameters.drain_s))
