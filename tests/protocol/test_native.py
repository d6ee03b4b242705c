"""The compiled module is there where it can be, is of the sources that are there, and says why where it is not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from protocol import crypto, ecies, frames, native, rlp
from protocol.native import NATIVE

SOURCES = sorted((Path(__file__).parents[2] / "protocol" / "c").iterdir())


def test_where_there_is_a_compiler_there_is_the_module() -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    assert NATIVE is not None
    assert not native.WHY_NOT_NATIVE


def test_it_is_compiled_of_these_sources() -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    cksum = subprocess.run(
        ["cksum"], input=b"".join([file.read_bytes() for file in SOURCES]), capture_output=True, check=True
    )
    assert "-".join(cksum.stdout.decode().split()) == NATIVE.SOURCES


def test_it_is_what_runs() -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    assert frames.FrameCipher is NATIVE.FrameCipher
    assert (ecies.encrypt, ecies.decrypt) == (NATIVE.ecies_encrypt, NATIVE.ecies_decrypt)
    assert (rlp.read, rlp.bounds) == (NATIVE.rlp_read, NATIVE.rlp_bounds)
    assert (crypto.keccak256, crypto.xor) == (NATIVE.keccak256, NATIVE.xor)
    assert crypto.curve_ecdh is not crypto.python_curve_ecdh


def test_why_it_is_missing_is_said() -> None:
    assert native.load("protocol._missing") == (None, "No module named 'protocol._missing'")
