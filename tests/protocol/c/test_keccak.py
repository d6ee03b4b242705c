"""Keccak-256 by each of the ways of `keccak.c`, beside another library's. Every other test runs only the fastest way."""

from __future__ import annotations

import ctypes

import pytest
from Crypto.Hash import keccak

from tests.protocol.c.builds import CannotBuildError, every_keccak

WAYS = {"C alone": 0, "andn and rorx": 1, "AVX-512": 2}
# Around the ends of words and of blocks of 136 bytes; several blocks in one piece.
SIZES = (0, 1, 7, 8, 9, 16, 127, 128, 135, 136, 137, 143, 271, 272, 273, 136 * 5 - 1, 136 * 5, 136 * 5 + 1, 4096)
PIECES = (1, 16, 32, 100, 136, 137, 300, 4096)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(every_keccak(tmp_path_factory.mktemp("keccak"))))
    except CannotBuildError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("way", WAYS)
def test_each_way_gives_the_same_digests(library: ctypes.CDLL, way: str) -> None:
    if not library.use_way(WAYS[way]):
        pytest.skip(f"this processor has no {way}")
    text = bytes(at * 7 + at // 251 & 0xFF for at in range(max(SIZES) + 1))
    digest = ctypes.create_string_buffer(32)
    for size in SIZES:
        data = text[1 : 1 + size]
        memory = ctypes.create_string_buffer(text)
        expected = keccak.new(digest_bits=256, data=data).digest()
        for piece in PIECES:
            library.digest_pieces(ctypes.byref(memory, 1), ctypes.c_size_t(size), ctypes.c_size_t(piece), digest)
            assert digest.raw == expected, (size, piece)
