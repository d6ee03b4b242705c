"""Every call of the compiled module, each ready to be made again and again: memory is what these tests are about."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

from coincurve.context import Context

from rlpx.protocol.errors import FrameError, UsageError
from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES
from rlpx.protocol.rlpx.crypto import PrivateKey, curve_of
from rlpx.protocol.rlpx.handshake import Secrets
from rlpx.protocol.rlpx.p2p import deflate

SECRETS = Secrets(b"a" * 32, b"m" * 32, b"out", b"in")
THEIR_SECRETS = SECRETS._replace(egress_seed=b"in", ingress_seed=b"out")
# Longer than the memory that a header alone sets aside, so that a content has to grow.
LONG = bytes(range(256)) * 1200
_TOO_MUCH = bytes(MAX_FRAME_BYTES + 1)

# What is to be called, and what must hold after it: it is told whether the call failed.
Prepared = tuple[Callable[[], object], Callable[[bool], None]]


def nothing(_has_failed: bool) -> None:  # noqa: FBT001 - one of the checks
    """No state is left behind."""


def calls(native: Any, text: bytes = LONG) -> dict[str, Callable[[], Prepared]]:
    """By name, what prepares a call. `text`: what is hashed, sealed and fed."""
    curve = curve_of(Context())
    parse, create, ecdh, recover = native.curve(*curve)
    key = PrivateKey(b"k" * 32)
    point = parse(key.id)
    signature = key.sign(b"d" * 32)
    sealed = native.ecies_encrypt(b"s" * 32, b"i" * 16, b"text", b"more")
    stateless: dict[str, Callable[[], object]] = {
        "keccak256": partial(native.keccak256, text),
        "keccak256 of no buffer": partial(native.keccak256, 7),
        "xor": partial(native.xor, text, text),
        "xor of two lengths": partial(native.xor, b"1", b"22"),
        "ecies_encrypt": partial(native.ecies_encrypt, b"s" * 32, b"i" * 16, text, b"more"),
        "ecies_encrypt with a short IV": partial(native.ecies_encrypt, b"s" * 32, b"i", text, b""),
        "ecies_decrypt": partial(native.ecies_decrypt, b"s" * 32, sealed, b"more"),
        "ecies_decrypt of a wrong tag": partial(native.ecies_decrypt, b"s" * 32, sealed, b"other"),
        "ecies_decrypt of too little": partial(native.ecies_decrypt, b"s" * 32, b"", b"other"),
        "rlp_bounds": partial(native.rlp_bounds, b"\xc1\x01", 0, 2),
        "rlp_bounds of a cut item": partial(native.rlp_bounds, b"\xc2\x01", 0, 2),
        "rlp_read": partial(native.rlp_read, b"\xc8\xc7\xc0\xc0\xc0\x83cat" + bytes(9), 99),
        "rlp_read of too many items": partial(native.rlp_read, b"\xc8\xc7\xc0\xc0\xc0\x83cat", 3),
        "rlp_read of a cut item": partial(native.rlp_read, b"\xc8\xc7\xc0\xc0\xc0\x84cat", 99),
        "curve": partial(native.curve, *curve),
        "curve_parse": partial(parse, key.id),
        "curve_parse of no point": partial(parse, bytes(64)),
        "curve_parse of a wrong length": partial(parse, b""),
        "curve_create": partial(create, b"k" * 32),
        "curve_create of no secret": partial(create, bytes(32)),
        "curve_ecdh": partial(ecdh, point, b"k" * 32),
        "curve_ecdh with no point": partial(ecdh, bytes(64), b"k" * 32),
        "curve_ecdh with no secret": partial(ecdh, point, bytes(32)),
        "curve_recover": partial(recover, b"d" * 32, signature),
        "curve_recover of nobody": partial(recover, b"d" * 32, bytes(65)),
        "inflate": partial(native.inflate, deflate(text), len(text)),
        "inflate from the middle": partial(native.inflate, b"code" + deflate(text), len(text), 4),
        "inflate of too much": partial(native.inflate, deflate(text), len(text) - 1),
        "inflate of no length": partial(native.inflate, b"", 9),
        "inflate of no Snappy": partial(native.inflate, b"\x05\x05", 9),
        "inflate of no bytes": partial(native.inflate, 7, 9),
        "inflate below zero": partial(native.inflate, b"", -1),
        "Tally": partial(native.Tally, array("Q", bytes(8 * 2 * 256))),
        "Tally of no counters": partial(native.Tally, 7),
        "Tally of too few": partial(native.Tally, array("Q")),
        "FrameCipher": partial(native.FrameCipher, SECRETS),
        "FrameCipher of no secrets": partial(native.FrameCipher, (b"", b"", b"", b"")),
    }
    prepared: dict[str, Callable[[], Prepared]] = {name: partial(_alone, call) for name, call in stateless.items()}
    of_a_cipher: dict[str, Callable[[Any, bytes], Prepared]] = {
        "seal": _seal,
        "seal of too much": _seal_too_much,
        "feed beside what waits": _feed,
        "feed to a copy that grows": _feed_to_copy,
        "begun": _begun,
        "open": _open,
        "open of more than one frame": _open_of_more,
        "open beside what waits": _open_beside,
        "next": _next,
        "next of a long content": _next_of_long,
        "next of a spoiled header": partial(_next_of_spoiled, at=0),
        "next of a spoiled body": partial(_next_of_spoiled, at=40),
        "next of an oversized frame": _next_of_oversized,
    }
    for name, prepare in of_a_cipher.items():
        prepared[name] = partial(prepare, native, text)
    return prepared


def _alone(call: Callable[[], object]) -> Prepared:
    return call, nothing


def _pair(native: Any) -> tuple[Any, Any]:
    ours, theirs = native.FrameCipher(SECRETS), native.FrameCipher(THEIR_SECRETS)
    theirs.limit_bytes = MAX_FRAME_BYTES
    return ours, theirs


def _raises(error: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except error:
        return True
    return False


def _seal(native: Any, text: bytes) -> Prepared:
    ours, theirs = _pair(native)

    def check(has_failed: bool) -> None:  # noqa: FBT001 - one of the checks
        if has_failed:
            assert _raises(UsageError, partial(ours.seal, b"next"))
        else:
            ours.seal(b"next")
        # The other direction goes on.
        theirs.seal(b"theirs")

    return partial(ours.seal, text), check


def _seal_too_much(native: Any, _text: bytes) -> Prepared:
    ours, theirs = _pair(native)

    def check(_has_failed: bool) -> None:  # noqa: FBT001 - one of the checks
        # Nothing has changed.
        theirs.feed(ours.seal(b"next"))
        assert list(theirs.frames()) == [b"next"]

    return partial(ours.seal, _TOO_MUCH), check


def _is_broken_where_it_failed(cipher: Any, has_failed: bool) -> None:  # noqa: FBT001 - as the checks
    if has_failed:
        assert cipher.buffered_bytes == 0
        cipher.feed(b"more")
        assert cipher.buffered_bytes == 0
        assert _raises(FrameError, partial(next, cipher.frames()))
    cipher.seal(b"the other direction goes on")


def _feed(native: Any, text: bytes) -> Prepared:
    ours, theirs = _pair(native)
    frames = [ours.seal(b"first"), ours.seal(b"second")]
    theirs.feed(b"".join(frames) + ours.seal(text)[:1000])
    assert next(theirs.frames()) == b"first"
    return partial(theirs.feed, text), partial(_is_broken_where_it_failed, theirs)


def _open(native: Any, text: bytes) -> Prepared:
    ours, theirs = _pair(native)
    theirs.tally = native.Tally(array("Q", bytes(8 * 2 * 256)))
    theirs.tally.skip(0, 1000, 1000)
    return partial(theirs.open, ours.seal(bytes(9)) + ours.seal(text)), partial(_is_broken_where_it_failed, theirs)


def _open_of_more(native: Any, text: bytes) -> Prepared:
    ours, theirs = _pair(native)
    return partial(theirs.open, ours.seal(b"first") + ours.seal(text)), partial(_is_broken_where_it_failed, theirs)


def _open_beside(native: Any, text: bytes) -> Prepared:
    ours, theirs = _pair(native)
    assert theirs.open(ours.seal(b"first") + ours.seal(b"second")) == b"first"
    return partial(theirs.open, ours.seal(text)), partial(_is_broken_where_it_failed, theirs)


def _feed_to_copy(native: Any, text: bytes) -> Prepared:
    ours, theirs = _pair(native)
    theirs.feed(ours.seal(b"first") + ours.seal(b"second"))
    next(theirs.frames())
    theirs.feed(ours.seal(b"third"))
    return partial(theirs.feed, text), partial(_is_broken_where_it_failed, theirs)


def _begun(native: Any, text: bytes) -> Prepared:
    ours, theirs = _pair(native)
    frame = ours.seal(text)
    theirs.feed(frame[:100])
    assert list(theirs.frames()) == []

    def check(_has_failed: bool) -> None:  # noqa: FBT001 - one of the checks
        # To look changes nothing.
        theirs.feed(frame[100:])
        assert next(theirs.frames()) == text

    return partial(getattr, theirs, "begun"), check


def _next(native: Any, _text: bytes) -> Prepared:
    ours, theirs = _pair(native)
    theirs.feed(ours.seal(b"first"))
    return theirs.__next__, partial(_is_broken_where_it_failed, theirs)


def _next_of_long(native: Any, text: bytes) -> Prepared:
    ours, theirs = _pair(native)
    frame = ours.seal(text)
    beginning = len(frame) // 5
    theirs.feed(frame[:beginning])
    assert list(theirs.frames()) == []
    theirs.feed(frame[beginning:])
    return theirs.__next__, partial(_is_broken_where_it_failed, theirs)


def _next_of_spoiled(native: Any, text: bytes, *, at: int) -> Prepared:
    ours, theirs = _pair(native)
    frame = bytearray(ours.seal(text))
    frame[at] ^= 1
    theirs.feed(bytes(frame))
    return partial(next, theirs), lambda _has_failed: _is_broken_where_it_failed(theirs, has_failed=True)


def _next_of_oversized(native: Any, text: bytes) -> Prepared:
    ours, theirs = _pair(native)
    theirs.limit_bytes = 10
    theirs.feed(ours.seal(text))
    return partial(next, theirs), lambda _has_failed: _is_broken_where_it_failed(theirs, has_failed=True)
