"""Commands that change a running engine."""

from __future__ import annotations

from rlpx.protocol.bus.commands import (
    DialParameters,
    SetLimitsParameters,
)
from tests.engine.harness import (
    ENODE,
    MakeEngine,
    refusal,
)


async def test_limits_change_while_it_runs(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        limits = (await harness.commands.running.set_limits(SetLimitsParameters(max_pending_outbound=0))).limits
        assert (limits.max_pending_outbound, limits.max_pending_inbound) == (0, 200)
        asked = harness.commands.sessions.dial(DialParameters(enode=ENODE))
        assert await refusal(asked) == ("refused", "0 outbound sessions are pending")
