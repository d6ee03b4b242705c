"""Text that many sessions have in common, of which one copy is kept: names of capabilities, and hashes of a chain in hex."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from rlpx.protocol.rlpx.capabilities import Capability, Shared

# Honest peers name few sets of capabilities, forks and heads. The number bounds what hostile ones can make us keep.
MAX_TEXTS: Final = 256


@lru_cache(maxsize=MAX_TEXTS)
def capability_names(capabilities: tuple[Capability, ...]) -> tuple[str, ...]:
    """Return the names of a Hello's capabilities."""
    return tuple(map(str, capabilities))


@lru_cache(maxsize=MAX_TEXTS)
def shared_names(shared: tuple[Shared, ...]) -> tuple[str, ...]:
    """Return the names of the capabilities that a session shares."""
    return tuple(str(item.capability) for item in shared)


@lru_cache(maxsize=MAX_TEXTS)
def hex_text(data: bytes) -> str:
    """Return the bytes in hex with 0x."""
    return "0x" + data.hex()
