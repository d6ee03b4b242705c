"""Entropy of tests: the bytes that a test gives, or the same in every run."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable

from rlpx.protocol.rlpx.crypto import Entropy


def scripted(draws: Iterable[bytes]) -> Entropy:
    """The bytes of a list; it insists on their lengths, and that no more is drawn."""
    left = iter(draws)

    def draw(count: int) -> bytes:
        value = next(left, None)
        assert value is not None, "more entropy drawn than the script has"
        assert len(value) == count
        return value

    return draw


def seeded(seed: bytes) -> Entropy:
    """Bytes that are the same from run to run, and others in each draw."""
    counter = itertools.count()
    return lambda count: hashlib.shake_256(seed + b"/%d" % next(counter)).digest(count)
