"""Which host a target belongs to: rendezvous hashing, weighted.

Each host computes the same owner without asking the others. If a host comes or goes, only its own targets move.
Source: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996), with the logarithmic weights of
Schindelhauer and Schomaker (2005).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

# The number of bytes of a hash that become a fraction; a double has no more.
_HASH_BYTES: Final = 6


def owner_of(target: bytes, weights: Mapping[str, float]) -> str | None:
    """The host that a target belongs to, among hosts of positive weight, or none if there is no such host."""
    scores = ((_score(target, host, weight), host) for host, weight in weights.items() if weight > 0)
    return max(scores, default=(0.0, None))[1]


def weight_of(free_places: int) -> float:
    """The weight of a host with this many free places: the power of two below.

    Rounded, because places come and go all the time, and every change of a weight moves targets.
    """
    return 0.0 if free_places <= 0 else float(1 << (free_places.bit_length() - 1))


def _score(target: bytes, host: str, weight: float) -> float:
    digest = blake2b(target, digest_size=_HASH_BYTES, key=blake2b(host.encode(), digest_size=32).digest()).digest()
    fraction = (int.from_bytes(digest, "big") + 0.5) / (1 << 8 * _HASH_BYTES)
    return -weight / math.log(fraction)
