"""The node as others see it: its identity, where it can be dialled, and what its handshakes announce."""

from __future__ import annotations

from rlpx.engine.settings.addresses import dialable
from rlpx.engine.settings.identity import Identity
from rlpx.engine.settings.protocols import Protocols
from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import CallId
from rlpx.protocol.eth.forkid import ForkId, Forks
from rlpx.protocol.eth.status import Head, LocalChain
from rlpx.protocol.rlpx.enode import Endpoint, Enode


class Node:
    """See the module. Head and sub-protocols may change while the engine runs; new handshakes announce the change."""

    def __init__(self, settings: Settings, identity: Identity) -> None:
        self.identity = identity
        self.forks = Forks(identity.chain)
        self.head = Head(0, identity.chain.genesis)
        # False until a user sets the head. Status needs one before that, but range updates must not announce the stand-in.
        self.is_head_known = False
        self.protocols = Protocols(settings.protocols)
        # `None` if nobody can dial us.
        self.enode: str | None = None
        # Whether the enode's address is a guess from the interfaces and not the user's setting.
        self.is_enode_guessed = False
        self.listen_port = 0
        self._external_ip = settings.external_ip

    def listens_at(self, host: str, port: int) -> None:
        """Peers can dial us at this address. For a wildcard the enode has the external address or one of our interfaces."""
        self.listen_port = port
        address = dialable(self._external_ip, host)
        self.enode = str(Enode(self.identity.key.id, (Endpoint(address.host, port),)))
        self.is_enode_guessed = address.is_guess

    def set_head(self, head: Head) -> None:
        """Announce another head; workers started from now on receive it."""
        self.head, self.is_head_known = head, True

    def fork_id(self, now_seconds: int) -> ForkId:
        """Our fork id (EIP-2124) at the head, or at this time if the head has none."""
        chain = self.identity.chain
        local = LocalChain(chain.network_id, chain.genesis, self.forks, self.head)
        return self.forks.at(*local.fork_head(now_seconds))

    def changes(self) -> list[control.Command]:
        """Commands for what has changed since the start: a worker that has just become ready may have missed it."""
        commands: list[control.Command] = []
        if self.is_head_known:
            commands.append(control.SetHead(CallId(0), self.head))
        if self.protocols.has_changed:
            commands.append(control.SetProtocols(CallId(0), self.protocols.offered, self.protocols.required))
        return commands
