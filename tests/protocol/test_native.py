"""The compiled module is there where it can be, is of the sources that are there, and says why where it is not."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from coincurve.context import GLOBAL_CONTEXT, Context

from rlpx.protocol import native, rlp
from rlpx.protocol.errors import UsageError
from rlpx.protocol.native import NATIVE
from rlpx.protocol.rlpx import crypto, ecies, frames, p2p, tally

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
    assert tally.Tally is NATIVE.Tally
    assert (ecies.encrypt, ecies.decrypt) == (NATIVE.ecies_encrypt, NATIVE.ecies_decrypt)
    assert (rlp.read, rlp.bounds) == (NATIVE.rlp_read, NATIVE.rlp_bounds)
    assert p2p.inflate is NATIVE.inflate
    assert (crypto.keccak256, crypto.xor) == (NATIVE.keccak256, NATIVE.xor)
    assert crypto.curve_ecdh is not crypto.python_curve_ecdh


def test_why_it_is_missing_is_said() -> None:
    assert native.load("protocol._missing") == (None, "No module named 'protocol._missing'")


def test_every_function_says_what_it_does() -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    offered = [getattr(NATIVE, name) for name in dir(NATIVE) if not name.startswith("_") and name != "SOURCES"]
    methods = [NATIVE.Tally.skip, NATIVE.Tally.skip_nothing, NATIVE.Tally.takes, NATIVE.FrameCipher.open]
    methods += [NATIVE.FrameCipher.seal, NATIVE.FrameCipher.feed, NATIVE.FrameCipher.frames]
    for item in [NATIVE, *offered, *methods, crypto.curve_ecdh]:
        assert item.__doc__
    assert str(inspect.signature(NATIVE.xor)) == "(left, right, /)"


def test_two_modules_of_one_file_share_nothing() -> None:
    """Each has its own types and its own state, and may end before the other."""
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    spec = importlib.util.spec_from_file_location("rlpx.protocol._native", NATIVE.__file__)
    assert spec is not None
    assert spec.loader is not None
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    assert other.FrameCipher is not NATIVE.FrameCipher
    ecdh = other.curve(*crypto.curve_of(Context()))[2]
    for function in (ecdh, crypto.curve_ecdh):
        with pytest.raises(UsageError, match="refuses an argument"):
            function(bytes(64), b"k" * 32)
    del other, ecdh, function
    gc.collect()
    with pytest.raises(UsageError, match="refuses an argument"):
        crypto.curve_ecdh(bytes(64), b"k" * 32)


def test_the_curve_s_functions_hold_all_that_they_need() -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    key = crypto.PrivateKey(b"k" * 32)
    parse, _, ecdh, _ = NATIVE.curve(*crypto.curve_of(Context()))
    gc.collect()
    assert ecdh(parse(key.id), b"l" * 32) == crypto.PrivateKey(b"l" * 32).ecdh(key.point)
    NATIVE.curve(*crypto.curve_of(GLOBAL_CONTEXT))


def test_its_types_are_those_of_the_module() -> None:
    if NATIVE is None:
        pytest.skip("nothing is compiled")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "mypy.stubtest", "--mypy-config-file", "pyproject.toml", "rlpx.protocol._native"]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
