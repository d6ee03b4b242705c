"""Which sub-protocols two peers share, and which message codes each of them owns (`rlpx.md`, "Message IDs")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from protocol.p2p import FIRST_CAPABILITY_CODE, MAX_PAYLOAD_BYTES, Capability

# Codes are one byte on our wires: 0x80 and above would need two.
LAST_CODE: Final = 0x7F


class SubProtocol(msgspec.Struct, frozen=True):
    """A capability that we speak, with the number of message codes it takes, and the most that a payload inflates to."""

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
    """The highest version of each name that both sides have, in order of names, with compact offsets from 0x10.

    Where one would end above code 0x7f, it and those after it are left out: nothing that exists comes near.
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
