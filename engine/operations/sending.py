"""Commands that send: one message to one peer or to many, and requests that await the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from rlpx.engine.fleet.calls import WorkerReply
from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.operations.targets import Targets
from rlpx.protocol.bus import commands, control, results
from rlpx.protocol.bus.arguments import message_of
from rlpx.protocol.bus.broadcasts import check_size, result_of
from rlpx.protocol.bus.control import CallId, SessionId, WorkerId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.json_rpc import Attached
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.settings import QueueSettings

# A request to a peer has at most 20 s (`protocol/session/requests.py`), after which its worker answers that it timed out.
REQUEST_SECONDS: Final = 25.0
# A broadcast with as many bytes as are allowed takes a few seconds.
BROADCAST_SECONDS: Final = 30.0


class SendingCommands:
    """Each method carries out one command, and raises `CommandError` if it cannot be done."""

    def __init__(self, targets: Targets, fleet: Fleet, queues: QueueSettings) -> None:
        self._targets = targets
        self._fleet = fleet
        self._queues = queues

    async def send(self, parameters: commands.SendParameters, payload: bytes) -> results.DoneResult:
        """Send one message to one peer unchanged: an RLP payload of a shared capability."""
        worker, session, message = self._resolve(parameters, len(payload))
        await self._fleet.calls.ask(
            worker,
            lambda call: control.SendMessage(call, session, parameters.capability, message, payload, not parameters.raw),
        )
        return results.DoneResult(1)

    async def broadcast(self, parameters: commands.BroadcastParameters, payload: bytes) -> results.BroadcastResult:
        """Send one message to every matching active session; each worker compresses it once, and seals it for each."""
        message = message_of(parameters)
        targets: dict[WorkerId, list[SessionId]] = {}
        for view in self._targets.receivers(parameters):
            targets.setdefault(view.worker, []).append(view.session)
        check_size(len(payload), sum(map(len, targets.values())), self._queues.broadcast_bytes)
        refused: dict[int, ErrorName] = {}
        calls: dict[WorkerId, Coroutine[Any, Any, WorkerReply]] = {}
        for index, sessions in targets.items():
            worker = self._fleet.get(index)
            if worker is None or self._is_command_queue_full(worker, len(payload)):
                name = ErrorName.WORKER_LOST if worker is None else ErrorName.QUEUE_FULL
                refused.update((session, name) for session in sessions)
            else:
                calls[index] = self._fleet.calls.ask(
                    worker, _broadcast(parameters, message, payload, tuple(sessions)), BROADCAST_SECONDS
                )
        sent = 0
        complaint = ""
        for index, answer in zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True):
            if isinstance(answer, control.Sent):
                sent += answer.sent
                complaint = complaint or answer.message
                refused.update(answer.refused)
            else:
                name = answer.name if isinstance(answer, CommandError) else ErrorName.WORKER_LOST
                refused.update((session, name) for session in targets[index])
        return result_of(sent, refused, complaint)

    async def request(self, parameters: commands.RequestParameters, payload: bytes) -> results.AnswerResult | Attached:
        """Send one request to one peer, and await its answer or the error that takes its place."""
        worker, session, message = self._resolve(parameters, len(payload))
        answer = await self._fleet.calls.ask(
            worker,
            lambda call: control.RequestPeer(call, session, parameters.capability, message, payload, not parameters.raw),
            parameters.timeout_s or REQUEST_SECONDS,
        )
        if not isinstance(answer, control.PeerResponse):
            raise TypeError(f"a worker answered a request with {type(answer).__name__}")
        if parameters.binary:
            return Attached(results.AnswerResult(answer.message), answer.payload)
        return results.AnswerResult(answer.message, "0x" + answer.payload.hex())

    def _resolve(self, parameters: commands.SendParameters, size: int) -> tuple[WorkerProcess, SessionId, int]:
        """The worker, session and message id of one message with `size` bytes to one peer. Raises `CommandError`."""
        view = self._targets.view(parameters.session)
        message = message_of(parameters)
        worker = self._targets.worker_of(view)
        if self._is_command_queue_full(worker, size):
            queued = worker.queued_command_bytes
            raise CommandError(ErrorName.QUEUE_FULL, f"{queued} bytes of commands wait for worker {worker.index}")
        return worker, view.session, message

    def _is_command_queue_full(self, worker: WorkerProcess, more_bytes: int) -> bool:
        return worker.queued_command_bytes + more_bytes > self._queues.worker_command_bytes


def _broadcast(
    parameters: commands.BroadcastParameters, message: int, payload: bytes, sessions: tuple[SessionId, ...]
) -> Callable[[CallId], control.Command]:
    return lambda call: control.Broadcast(call, sessions, parameters.capability, message, payload, not parameters.raw)
