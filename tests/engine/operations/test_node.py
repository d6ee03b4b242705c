"""Commands that change what new handshakes announce."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlpx.protocol.bus.commands import (
    SetStatusParameters,
)
from rlpx.protocol.bus.control import Reply, SetHead
from rlpx.protocol.bus.results import ConfirmedResult
from rlpx.protocol.errors import ErrorName
from tests.engine.harness import (
    HASH,
    MakeEngine,
    refusal,
)


async def test_a_new_head_is_confirmed_by_the_workers_that_have_it(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        parameters = SetStatusParameters(number=9, hash=HASH, earliest=3)
        asked = asyncio.ensure_future(harness.commands.node.set_status(parameters))
        told = await harness.worker.is_told(SetHead)
        assert (told.head.number, told.head.hash, told.head.earliest) == (9, b"\xab" * 32, 3)
        harness.worker.report(Reply(told.call))
        assert await asked == ConfirmedResult([0], [])
        asked = asyncio.ensure_future(harness.commands.node.set_status(parameters))
        told = await harness.worker.is_told(SetHead)
        harness.worker.report(Reply(told.call, ErrorName.INVALID_PARAMS, "no"))
        assert await asked == ConfirmedResult([], [0])


@pytest.mark.parametrize(
    ("parameters", "key"),
    [({"number": 1, "hash": HASH, "earliest": 2}, "earliest"), ({"number": 1, "hash": "0x" + "00" * 32}, "hash")],
)
async def test_a_head_that_peers_would_refuse_is_refused(
    make_engine: MakeEngine, parameters: dict[str, Any], key: str
) -> None:
    async with make_engine() as harness:
        name, words = await refusal(harness.commands.node.set_status(SetStatusParameters(**parameters)))
        assert (name, words.split(":")[0]) == ("invalid_params", key)
