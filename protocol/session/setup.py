"""The initial data of a session: the part that all sessions of a worker share, and its own part."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth.status import LocalChain, LocalRange
from rlpx.protocol.eth.traffic import Traffic
from rlpx.protocol.lifecycle import Direction, Stage
from rlpx.protocol.rlpx.capabilities import SubProtocol
from rlpx.protocol.rlpx.crypto import Entropy, PrivateKey
from rlpx.protocol.rlpx.replays import SeenAuths
from rlpx.protocol.session.tallies import Tallies
from rlpx.protocol.settings import QueueSettings, TimeoutSettings


def _ignored(_direction: Direction, _stage: Stage, _seconds: float) -> None:
    """Nobody wants to know."""


class LocalNode(msgspec.Struct, frozen=True):
    """The data that all sessions of a worker share. The value of a topic in `interest` is false if nobody reads it.

    `tallies`, if there are any, take the messages that nobody reads; whoever changes `interest` calls their `skip_nothing`.

    `hello` is our encoded Hello. `required` names the capabilities without which a peer is useless. `traffic` sums up what
    the tables of all sessions count. `on_passed` is told of each passed stage of a handshake, and how
    many seconds it took.
    """

    key: PrivateKey
    hello: bytes
    protocols: tuple[SubProtocol, ...]
    interest: Mapping[str, object]
    entropy: Entropy
    range: LocalRange
    required: frozenset[str] = frozenset()
    queues: QueueSettings = QueueSettings()
    seen_auths: SeenAuths = msgspec.field(default_factory=SeenAuths)
    traffic: Traffic = msgspec.field(default_factory=Traffic)
    on_passed: Callable[[Direction, Stage, float], object] = _ignored
    tallies: Tallies | None = None


class Setup(msgspec.Struct, frozen=True):
    """The initial data of one session. `peer` is the dialled id. If `refusal` is set, the session ends with it after ack.

    `spent_seconds` is the duration of a dial's TCP connect, which `pending_outbound_s` includes.
    """

    direction: Direction
    node: LocalNode
    chain: LocalChain
    wall_seconds: int
    timeouts: TimeoutSettings = TimeoutSettings()
    peer: bytes | None = None
    refusal: DisconnectReason | None = None
    spent_seconds: float = 0.0

    @property
    def pending_seconds(self) -> float:
        """Seconds from the start of the session until it must be active."""
        if self.direction is Direction.INBOUND:
            return self.timeouts.pending_inbound_s
        return self.timeouts.pending_outbound_s - self.spent_seconds

    @property
    def handshake_seconds(self) -> float:
        """Seconds from the start of the session until auth and ack must be complete."""
        is_inbound = self.direction is Direction.INBOUND
        return min(self.timeouts.auth_s if is_inbound else self.timeouts.handshake_s, self.pending_seconds)
