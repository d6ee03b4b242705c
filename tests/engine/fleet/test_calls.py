"""Calls to workers: each ends once, in the answer or in an error with a name."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from rlpx.engine.fleet.calls import Calls
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import CallId, Drain, Reply, WorkerId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.errors import DisconnectReason, ErrorName


class Told:
    """The part of a worker process that calls use."""

    def __init__(self) -> None:
        self.index = WorkerId(3)
        self.commands: list[control.Command] = []

    def command(self, command: control.Command) -> None:
        self.commands.append(command)


def make(_call: CallId) -> control.Command:
    return Drain(DisconnectReason.CLIENT_QUITTING, "")


async def begin(calls: Calls, seconds: float = 5.0) -> asyncio.Task[object]:
    worker = Told()
    asked = asyncio.ensure_future(calls.ask(cast("WorkerProcess", worker), make, seconds))
    await asyncio.sleep(0)
    assert len(worker.commands) == 1
    return asked


async def test_an_answer_is_that_of_its_own_call() -> None:
    calls = Calls()
    first, second = await begin(calls), await begin(calls)
    calls.on_answer(Reply(CallId(2)))
    assert await second == Reply(CallId(2))
    assert not first.done()
    calls.on_answer(Reply(CallId(1)))
    assert await first == Reply(CallId(1))


async def test_an_error_of_the_worker_is_the_callers() -> None:
    calls = Calls()
    asked = await begin(calls)
    calls.on_answer(Reply(CallId(1), ErrorName.QUEUE_FULL, "too much"))
    with pytest.raises(CommandError, match="too much") as caught:
        await asked
    assert caught.value.name == "queue_full"


async def test_a_call_without_an_answer_times_out_and_a_later_answer_is_nobodys() -> None:
    calls = Calls()
    asked = await begin(calls, seconds=0.01)
    with pytest.raises(CommandError) as caught:
        await asked
    assert caught.value.name == "timed_out"
    calls.on_answer(Reply(CallId(1)))


async def test_a_lost_worker_ends_its_calls_and_no_others() -> None:
    calls = Calls()
    asked = await begin(calls)
    calls.on_worker_lost(WorkerId(2))
    await asyncio.sleep(0)
    assert not asked.done()
    calls.on_worker_lost(WorkerId(3))
    with pytest.raises(CommandError) as caught:
        await asked
    assert caught.value.name == "worker_lost"
