"""Which sub-protocols two peers share, and which message codes each of them owns (`rlpx.md`, "Message IDs")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from rlpx.protocol.rlpx.bounds import MAX_PAYLOAD_BYTES

# Lower codes belong to the base protocol; capabilities share the rest.
FIRST_CAPABILITY_CODE: Final = 0x10
# Codes are one byte on our wires: 0x80 and above would need two.
LAST_CODE: Final = 0x7F


class Capability(msgspec.Struct, frozen=True, order=True):
    """A name and a version as a Hello announces them: `eth/69`."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class SubProtocol(msgspec.Struct, frozen=True):
    """A capability that we speak, the number of its message codes, and the longest inflated payload."""

    capability: Capability
    messages: int
    limit_bytes: int = MAX_PAYLOAD_BYTES


class Shared(msgspec.Struct, frozen=True):
    """One shared capability: its codes on the wire are `offset` to `offset + messages - 1`."""

    capability: Capability
    offset: int
    messages: int
    limit_bytes: int = MAX_PAYLOAD_BYTES


def share(ours: Iterable[SubProtocol], theirs: Iterable[Capability]) -> tuple[Shared, ...]:
    """Return the highest shared version of each name, in the order of the names, with compact offsets from 0x10.

    A capability that would end above code 0x7f is left out, as are those after it. No existing set comes near that.
    """
    announced = set(theirs)
    best: dict[str, SubProtocol] = {}
    for protocol in ours:
        capability = protocol.capability
        known = best.get(capability.name)
        if capability in announced and (known is None or known.capability.version < capability.version):
            best[capability.name] = protocol
    shared: list[Shared] = []
    offset = FIRST_CAPABILITY_CODE
    for _, protocol in sorted(best.items(), key=lambda item: item[0].encode()):
        if offset + protocol.messages > LAST_CODE + 1:
            break
        shared.append(Shared(protocol.capability, offset, protocol.messages, protocol.limit_bytes))
        offset += protocol.messages
    return tuple(shared)
