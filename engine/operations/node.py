"""Commands that change what this node announces in its handshakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.hub import arguments
from rlpx.engine.node import Node
from rlpx.protocol.bus import commands, control, results
from rlpx.protocol.bus.control import CallId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.eth.status import Head
from rlpx.protocol.rlpx.capabilities import Capability


class NodeCommands:
    """Each method carries out one command, and raises `CommandError` if it cannot be done."""

    def __init__(self, node: Node, fleet: Fleet) -> None:
        self._node = node
        self._fleet = fleet

    async def set_status(self, parameters: commands.SetStatusParameters) -> results.ConfirmedResult:
        """Announce another head in new handshakes; returns which workers have confirmed."""
        head = Head(
            number=parameters.number,
            hash=arguments.block_hash_of(parameters),
            time=parameters.time,
            earliest=parameters.earliest,
            total_difficulty=parameters.total_difficulty,
        )
        self._node.set_head(head)
        return await self._tell_all(lambda call: control.SetHead(call, head))

    async def subprotocols(self, _parameters: commands.NoParameters) -> results.SubProtocolsResult:
        """The sub-protocols that every new Hello offers, and those a peer must share."""
        protocols = self._node.protocols
        return results.SubProtocolsResult(
            [results.NamedSubProtocol(str(item.capability), item.messages, item.limit_bytes) for item in protocols.offered],
            list(protocols.required),
        )

    async def subprotocols_add(self, parameters: commands.AddSubProtocolParameters) -> results.ConfirmedResult:
        """Offer a sub-protocol in new handshakes; returns which workers have confirmed."""
        try:
            self._node.protocols.add(arguments.sub_protocol_of(parameters), is_required=parameters.required)
        except ValueError as error:
            raise CommandError(ErrorName.INVALID_PARAMS, f"protocol: {error}") from error
        return await self._tell_protocols()

    async def subprotocols_remove(self, parameters: commands.RemoveSubProtocolParameters) -> results.ConfirmedResult:
        """Stop offering a sub-protocol; returns which workers have confirmed."""
        name, _, version = parameters.protocol.partition("/")
        if not self._node.protocols.remove(Capability(name, int(version))):
            raise CommandError(ErrorName.INVALID_PARAMS, f"protocol: {parameters.protocol} is not one of your own")
        return await self._tell_protocols()

    async def _tell_all(self, make: Callable[[CallId], control.Command]) -> results.ConfirmedResult:
        """Send every worker the same command; returns which have confirmed. A starting worker gets it when it is ready."""
        workers = [worker for worker in self._fleet if worker.is_ready]
        replies = await asyncio.gather(*(self._fleet.calls.ask(worker, make) for worker in workers), return_exceptions=True)
        confirmed = [
            int(worker.index) for worker, reply in zip(workers, replies, strict=True) if not isinstance(reply, BaseException)
        ]
        missing = [int(worker.index) for worker in self._fleet if worker.index not in confirmed]
        return results.ConfirmedResult(confirmed, missing)

    async def _tell_protocols(self) -> results.ConfirmedResult:
        protocols = self._node.protocols
        offered, required = protocols.offered, protocols.required
        return await self._tell_all(lambda call: control.SetProtocols(call, offered, required))
