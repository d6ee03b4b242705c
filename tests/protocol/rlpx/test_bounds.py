"""Bounds of the wire: what Snappy makes of the least compressible payload stays below them."""

from __future__ import annotations

import os

import cramjam
import pytest

from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES, max_deflated_bytes


@pytest.mark.parametrize("size", [0, 1, 16, 1000, 70_000])
def test_no_payload_deflates_to_more(size: int) -> None:
    assert len(bytes(cramjam.snappy.compress_raw(os.urandom(size)))) <= max_deflated_bytes(size)


def test_sizes_have_24_bits() -> None:
    assert MAX_FRAME_BYTES == MAX_PAYLOAD_BYTES == (1 << 24) - 1
