"""A session takes any bytes at any stage: `receive` never raises, nothing follows `Closed`, its memory stays bounded.

20,000 inputs from fixed seeds, divided by stage and by how far the peer gets before it misbehaves: bare noise, handshake
packets that are well sealed around noise, and frames that are well sealed around noise. `tests.pair` checks the order of
events after each input; the run takes well under a minute on one core.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import pytest

from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.lifecycle import Stage
from tests.pair import (
    DISCONNECT,
    EVERYBODY,
    HELLO,
    NOBODY,
    PING,
    PONG,
    RawPeer,
    Rlp,
    SessionSpec,
    Wire,
    encoded,
    handshake_packet,
    held_bytes,
    key,
    says_to_inflate_to,
    snappied,
    status_fields,
)

# A pending peer may make us hold one frame of 2 KiB, however small its pieces; an active one sends no longer ones here.
HELD_BYTES: Final = 64 * 1024
# The memory of a byte that came alone: Python's object around it and its place in a list.
OVERHEAD: Final = 64
# A fresh session begins after this many inputs, unless one ended before.
INPUTS_PER_SESSION: Final = 40

Noise = Callable[[random.Random, RawPeer], bytes]


# -- noise --------------------------------------------------------------------------------------------------------------


def bare(rng: random.Random, _peer: RawPeer) -> bytes:
    """Random bytes."""
    return rng.randbytes(rng.choice((1, 2, 16, 31, 32, 33, 64, 500, 3000)))


def packet(rng: random.Random, peer: RawPeer) -> bytes:
    """A handshake packet: mostly well sealed around what it should or should not hold, else noise of a possible size."""
    body = rng.choice((rng.randbytes(rng.randrange(900)), rlp_like(rng), *[handshake_body(rng, peer) for _ in range(4)]))
    whole = handshake_packet(body, peer.recipe.key.point, rng.randbytes)
    match rng.randrange(6):
        case 0:
            return whole[:2] + rng.randbytes(len(whole) - 2)
        case 1:
            return whole[:3] + rng.randbytes(len(whole) - 3)
        case 2:
            return harmed(rng, whole)
        case _:
            return whole


def handshake_body(rng: random.Random, peer: RawPeer) -> bytes:
    """The fields of an auth or an ack with random signatures, keys and nonces, some of them malformed."""
    points = (key(rng.randrange(1, 9)).id, key(rng.randrange(1, 9)).id, rng.randbytes(64))
    auth: list[Rlp] = [rng.randbytes(64) + bytes([rng.randrange(5)]), rng.choice(points), rng.randbytes(32), 4]
    ack: list[Rlp] = [rng.choice(points), rng.randbytes(32), 4]
    return encoded(bent(rng, auth if peer.session.stage is Stage.AUTH else ack)) + bytes(rng.randrange(100, 200))


def frame(rng: random.Random, peer: RawPeer) -> bytes:
    """A frame around a message: mostly one that fits the stage, otherwise any; sometimes with noise in it."""
    if rng.random() < 0.01:
        content = b""
    elif rng.random() < 0.1:
        content = bytes([rng.randrange(256)]) + payload(rng, rlp_like(rng))
    else:
        code, body = fitting(rng, peer)
        content = bytes([code]) + (body if code == HELLO else payload(rng, body))
    sealed = peer.cipher.seal(content)
    return sealed if rng.random() < 0.98 else harmed(rng, sealed)


def fitting(rng: random.Random, peer: RawPeer) -> tuple[int, bytes]:
    """A code that is allowed now, with its payload, often malformed."""
    shared = peer.session.shared
    if shared is None or shared.eth is None:
        offer: Rlp = [[b"eth", rng.randrange(64, 75)], bent(rng, [b"snap", 1]), [rng.randbytes(3), 1]]
        hello: list[Rlp] = [rng.choice((4, 5, 5, 5)), rng.randbytes(9), offer, rng.getrandbits(16), peer.key.id]
        return HELLO, encoded(bent(rng, hello))
    if rng.random() < 0.1:
        return rng.choice((PING, PING, PONG, DISCONNECT)), rng.choice((b"\xc0", b"\xc0", b"\xc1\x04", rlp_like(rng)))
    offset, version = shared.eth.offset, shared.eth.capability.version
    if peer.session.stage is Stage.STATUS:
        return offset, encoded(bent(rng, list(status_fields(version).values())))
    kind = rng.choice([kind for kind in shared.by_code[offset + 1 :] if kind is not None])
    if kind.name == "BlockRangeUpdate":
        return kind.code, encoded(bent(rng, [rng.getrandbits(9), rng.getrandbits(10), rng.randbytes(32)]))
    if kind.role is not MessageRole.ANNOUNCEMENT:
        return kind.code, encoded(bent(rng, [rng.getrandbits(rng.randrange(66)), item(rng, 1)]))
    return kind.code, rlp_like(rng)


def payload(rng: random.Random, body: bytes) -> bytes:
    """A payload compressed as it should be, in nine of ten cases."""
    match rng.randrange(30):
        case 0:
            return body
        case 1:
            return harmed(rng, snappied(body))
        case 2:
            return says_to_inflate_to(rng.getrandbits(rng.randrange(36)), body)
        case _:
            return snappied(body)


def bent(rng: random.Random, fields: list[Rlp]) -> list[Rlp]:
    """The fields unchanged in half of the cases; otherwise one is missing, one is added, or one is something else."""
    index = rng.randrange(len(fields))
    match rng.randrange(8):
        case 0:
            return fields[:index] + fields[index + 1 :]
        case 1:
            return [*fields, item(rng, 1)]
        case 2 | 3:
            return [*fields[:index], item(rng, 3), *fields[index + 1 :]]
        case _:
            return fields


def rlp_like(rng: random.Random) -> bytes:
    """RLP of any shape; one in three is damaged."""
    data = encoded(item(rng, 0))
    return data if rng.randrange(3) else harmed(rng, data)


def item(rng: random.Random, depth: int) -> Rlp:
    """Any value that RLP can express."""
    if depth < 20 and rng.random() < (0.9 if not depth else 0.4):
        return [item(rng, depth + 1) for _ in range(rng.randrange(6))]
    return rng.choice((rng.getrandbits(rng.randrange(1, 80)), rng.randbytes(rng.choice((0, 1, 4, 32, 33, 60, 64)))))


def harmed(rng: random.Random, data: bytes) -> bytes:
    """The bytes with some changed, or cut, or with more behind them."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    del changed[rng.randrange(len(changed) + 1) if rng.random() < 0.3 else len(changed) :]
    return bytes(changed) + (rng.randbytes(rng.randrange(20)) if rng.random() < 0.2 else b"")


# -- the target ---------------------------------------------------------------------------------------------------------

# 20,000 in all.
TARGETS: Final[dict[str, tuple[Stage, Noise, int]]] = {
    "auth, noise": (Stage.AUTH, bare, 1000),
    "auth, packets": (Stage.AUTH, packet, 2500),
    "ack, noise": (Stage.ACK, bare, 500),
    "ack, packets": (Stage.ACK, packet, 2500),
    "hello, noise": (Stage.HELLO, bare, 500),
    "hello, frames": (Stage.HELLO, frame, 2500),
    "status, noise": (Stage.STATUS, bare, 500),
    "status, frames": (Stage.STATUS, frame, 3000),
    "verdict, noise": (Stage.VERDICT, bare, 500),
    "verdict, frames": (Stage.VERDICT, frame, 2000),
    "active, noise": (Stage.ACTIVE, bare, 500),
    "active, frames": (Stage.ACTIVE, frame, 4000),
}


@pytest.mark.parametrize(("stage", "noise", "count"), TARGETS.values(), ids=TARGETS)
def test_any_bytes_at_any_stage(stage: Stage, noise: Noise, count: int) -> None:
    rng = random.Random(f"{stage} {noise.__name__}")  # noqa: S311 - the same inputs every time
    for first in range(0, count, INPUTS_PER_SESSION):
        recipe = SessionSpec(seed=rng.randrange(1, 50), interest=rng.choice((EVERYBODY, NOBODY)))
        peer = RawPeer.at(stage, recipe, is_dialer=stage is not Stage.ACK)
        waiting_bytes = 0
        for _ in range(first, min(first + INPUTS_PER_SESSION, count)):
            if peer.session.is_closed:
                check_silence(rng, peer)
                peer = RawPeer.at(stage, recipe, is_dialer=stage is not Stage.ACK)
                waiting_bytes = 0
            listen(peer)
            data = noise(rng, peer)
            for chunk in Wire([rng.randrange(1, 4000)]).carry(data):
                peer.gives(chunk)
            # A driver stops reading while the session is held back; this one does not.
            waiting_bytes += len(data) if peer.session.is_held else 0
            assert held_bytes(peer.session) < HELD_BYTES + OVERHEAD * waiting_bytes
            if rng.random() < 0.1:
                peer.waits(rng.choice((0.3, 1, 20)))
            if rng.random() < 0.05:
                peer.is_admitted()


def listen(peer: RawPeer) -> None:
    """Take what the session wrote, as its driver does; a goodbye must come last, and be readable."""
    if peer.has_cipher:
        assert peer.goodbye is None or peer.session.is_closed
    else:
        peer.session.data_to_send()


def check_silence(rng: random.Random, peer: RawPeer) -> None:
    """After the end nothing is reported or written, whatever arrives."""
    listen(peer)
    assert peer.gives(bare(rng, peer)) + peer.is_admitted() + peer.waits(1000) == []
    assert peer.session.data_to_send() == b""
