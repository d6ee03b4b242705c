"""An auth is known again for a minute, whatever is changed of it that its tag does not cover, within bounds."""

from __future__ import annotations

import pytest

from rlpx.protocol.rlpx import replays
from rlpx.protocol.rlpx.crypto import Point
from rlpx.protocol.rlpx.handshake import Initiator, Recipient
from rlpx.protocol.rlpx.replays import REMEMBERED_SECONDS, SeenAuths
from tests.pair import key, seeded

FIELD: int = 2**256 - 2**32 - 977


def auth(seed: int) -> bytes:
    """The auth of a dialler to the key of seed 2."""
    return Initiator(key(1), key(2).id, seeded(seed)).auth


@pytest.mark.parametrize("age", [0.0, 1.0, REMEMBERED_SECONDS / 2, REMEMBERED_SECONDS - 0.01])
@pytest.mark.parametrize("begun", [0.0, 7.0, 1000.0, 1000.0 + REMEMBERED_SECONDS])
def test_an_auth_is_known_again_for_a_minute(begun: float, age: float) -> None:
    seen = SeenAuths()
    seen.remember(auth(3), now=1000.0)
    seen.remember(auth(4), now=max(1000.0, begun))
    at = max(1000.0, begun)
    assert seen.has(auth(4), now=at + age)
    assert not seen.has(auth(5), now=at + age)


def test_an_auth_is_forgotten_after_two_minutes() -> None:
    seen = SeenAuths()
    seen.remember(auth(3), now=1000.0)
    seen.remember(auth(4), now=1059.0)
    assert not seen.has(auth(3), now=1000.0 + 2 * REMEMBERED_SECONDS + 60)
    assert len(seen) == 0


def test_the_negative_of_the_ephemeral_key_makes_no_new_auth() -> None:
    """It opens to the same text, as only the x coordinate counts."""
    packet = auth(3)
    y = int.from_bytes(packet[35:67], "big")
    negated = packet[:35] + (FIELD - y).to_bytes(32, "big") + packet[67:]
    Point.parse(negated[3:67])
    assert Recipient(negated, key(2), seeded(9)).peer.id == key(1).id
    seen = SeenAuths()
    seen.remember(packet, now=1000.0)
    assert seen.has(negated, now=1000.0)


def test_memory_is_bounded_and_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MAX_REMEMBERED", 10)
    seen = SeenAuths()
    packets = [bytes(3) + index.to_bytes(16, "big") + bytes(300) for index in range(100)]
    for packet in packets:
        seen.remember(packet, now=1000.0)
        assert len(seen) <= 20
    assert all(seen.has(packet, now=1000.0) for packet in packets[-10:])
    assert not seen.has(packets[0], now=1000.0)
