"""Sessions with the same text have one copy of it."""

from __future__ import annotations

from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.workers.texts import MAX_TEXTS, capability_names, hex_text, shared_names


def capabilities() -> tuple[Capability, ...]:
    return (Capability("eth", 69), Capability("snap", 1))


def test_names_are_those_of_the_hello() -> None:
    assert capability_names(capabilities()) == ("eth/69", "snap/1")
    assert shared_names((Shared(Capability("eth", 69), 16, 18),)) == ("eth/69",)
    assert hex_text(b"\x01\xff") == "0x01ff"


def test_sessions_with_the_same_text_have_one_copy() -> None:
    assert capability_names(capabilities()) is capability_names(capabilities())
    assert hex_text(bytes(range(32))) is hex_text(bytes(range(32)))


def test_many_different_texts_are_not_kept() -> None:
    first = hex_text(b"first")
    for number in range(MAX_TEXTS):
        hex_text(number.to_bytes(2, "big"))
    assert hex_text(b"first") is not first
