"""Commands on peers that the user names: static, trusted and banned ones."""

from __future__ import annotations

from time import monotonic

from rlpx.engine.hub import arguments
from rlpx.engine.intake.dials import Dials
from rlpx.engine.ledger.addresses import address_of
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.operations.targets import Targets
from rlpx.protocol.bus import commands, results
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.errors import ErrorName


class PeerCommands:
    """Each method carries out one command, and raises `CommandError` if it cannot be done."""

    def __init__(self, targets: Targets, ledger: Ledger, dials: Dials) -> None:
        self._targets = targets
        self._ledger = ledger
        self._dials = dials

    async def peers(self, _parameters: commands.NoParameters) -> results.PeersResult:
        """Static and trusted peers, and bans."""
        now = monotonic()
        return results.PeersResult(
            self._ledger.peers.listed(now=now),
            [results.Ban(who, round(seconds, 3)) for who, seconds in self._ledger.bans.listed(now=now)],
        )

    async def peers_add(self, parameters: commands.AddPeerParameters) -> results.PeersResult:
        """Name a peer: a static peer is dialled at once and kept connected, a trusted peer passes the limits."""
        enode = arguments.enode_of(parameters)
        self._dials.name_peer(enode, is_static=parameters.static, is_trusted=parameters.trusted)
        return await self.peers(commands.NoParameters())

    async def peers_remove(self, parameters: commands.RemovePeerParameters) -> results.PeersResult:
        """Forget that a peer is static or trusted; its session goes on."""
        if not self._ledger.peers.remove(bytes.fromhex(parameters.peer)):
            raise CommandError(ErrorName.NO_SUCH_PEER, "the peer is neither static nor trusted")
        return await self.peers(commands.NoParameters())

    async def ban(self, parameters: commands.BanParameters) -> results.DoneResult:
        """Keep a peer or an address out for a while, and end its sessions."""
        peer, address = arguments.banned_of(parameters)
        if not parameters.seconds:
            self._ledger.bans.lift(peer, address)
            self._dials.reconsider()
            return results.DoneResult(0)
        until = monotonic() + parameters.seconds
        if peer is not None:
            self._ledger.bans.ban_peer(peer, until)
        if address is not None:
            self._ledger.bans.ban_address(address, until)
        ended = [
            view
            for view in self._ledger.views.values()
            if (peer is not None and view.peer == peer) or (address is not None and address_of(view.remote) == address)
        ]
        return results.DoneResult(self._targets.disconnect_each(ended, "disconnect_requested"))
