"""The stages of a session as data, with the moves between them. The diagram in `README.md` is made from these tables.

`connect` is not here: it belongs to the driver, which makes the session once TCP is connected.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from rlpx.protocol.lifecycle import Direction, Stage


class Move(StrEnum):
    """The event that moves a session to its next stage."""

    AUTH = "auth accepted, ack and Hello sent"
    ACK = "ack accepted, Hello sent"
    HELLO = "Hello accepted"
    STATUS = "Status accepted"
    VERDICT = "approved"
    END = "end"


# The recipient of a handshake waits for the auth; the initiator sends it (`rlpx.md`, "Initial Handshake").
FIRST_STAGES: Final[Mapping[Direction, Stage]] = MappingProxyType(
    {Direction.INBOUND: Stage.AUTH, Direction.OUTBOUND: Stage.ACK}
)
_ENDS: Final[dict[tuple[Stage, Move], Stage]] = {
    (stage, Move.END): Stage.CLOSED for stage in Stage if stage not in {Stage.CONNECT, Stage.CLOSED}
}
TRANSITIONS: Final[Mapping[tuple[Stage, Move], Stage]] = MappingProxyType(
    {
        (Stage.AUTH, Move.AUTH): Stage.HELLO,
        (Stage.ACK, Move.ACK): Stage.HELLO,
        (Stage.HELLO, Move.HELLO): Stage.STATUS,
        (Stage.STATUS, Move.STATUS): Stage.VERDICT,
        (Stage.VERDICT, Move.VERDICT): Stage.ACTIVE,
        **_ENDS,
    }
)


def diagram() -> str:
    """Return the stages as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    lines += [f"    [*] --> {stage}: {direction}" for direction, stage in FIRST_STAGES.items()]
    lines += [f"    {stage} --> {then}: {move}" for (stage, move), then in TRANSITIONS.items()]
    return "\n".join([*lines, f"    {Stage.CLOSED} --> [*]"])
