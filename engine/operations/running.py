"""Commands on the running engine: its limits, its log, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from rlpx.engine.ledger.counter import counts
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.vacancies import Vacancies
from rlpx.protocol.bus import commands, results
from rlpx.protocol.bus.values import Level
from rlpx.protocol.lifecycle import Direction


class RunningCommands:
    """Each method carries out one command. `set_log_level` returns the previous level."""

    def __init__(
        self,
        ledger: Ledger,
        vacancies: Vacancies,
        set_log_level: Callable[[Level], Level],
        stop: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._vacancies = vacancies
        self._set_log_level = set_log_level
        self._stop = stop

    async def counts(self, _parameters: commands.NoParameters) -> results.CountsResult:
        """Pending and active sessions by direction, and their limits."""
        return counts(self._ledger.counter)

    async def log_level(self, parameters: commands.LogLevelParameters) -> results.LogLevelResult:
        """Write lines of this level and above from now on."""
        before = self._set_log_level(parameters.level)
        return results.LogLevelResult(parameters.level, before)

    async def set_limits(self, parameters: commands.SetLimitsParameters) -> results.CountsResult:
        """Change limits while the engine runs; returns counts and limits."""
        wanted = {name: value for name, value in msgspec.structs.asdict(parameters).items() if value is not None}
        self._ledger.counter.limits = msgspec.structs.replace(self._ledger.counter.limits, **wanted)
        if self._ledger.membership is not None:
            active = {Direction.INBOUND: parameters.max_active_inbound, Direction.OUTBOUND: parameters.max_active_outbound}
            self._ledger.membership.set_limits({way: limit for way, limit in active.items() if limit is not None})
        self._vacancies.on_rules_changed()
        return counts(self._ledger.counter)

    async def shutdown(self, _parameters: commands.NoParameters) -> results.StoppingResult:
        """Say goodbye to every peer and end, as on SIGTERM."""
        asyncio.get_running_loop().call_soon(self._stop)
        return results.StoppingResult(stopping=True)
