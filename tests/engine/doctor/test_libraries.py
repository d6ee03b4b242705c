"""What the doctor says of the interpreter and the libraries."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

from rlpx.engine.doctor import libraries
from rlpx.engine.doctor.finding import State
from rlpx.engine.doctor.libraries import is_allowed, library, own_requirements, python


def missing(name: str) -> str:
    raise PackageNotFoundError(name)


def broken(_: str) -> object:
    raise ImportError("libsodium.so.23: cannot open shared object file")


@pytest.mark.parametrize(
    ("found", "bounds", "allowed"),
    [
        ("21.0.0", ">=21,<22", True),
        ("20.9", ">=21,<22", False),
        ("22", ">=21,<22", False),
        ("22.0.0rc1", ">=21,<22", False),
        ("26.2.0", "==26.2", True),
        ("1.5.3", "~=1.5.1", True),
        ("1.6", "~=1.5.1", False),
        ("3.0.1", "!=3.0.1, >2", False),
        ("2", "<=2.0", True),
        ("1.0.post1", "", True),
    ],
)
def test_a_version_is_compared_by_its_numbers(found: str, bounds: str, *, allowed: bool) -> None:
    assert is_allowed(found, bounds) is allowed


@pytest.mark.parametrize(
    ("numbers", "implementation", "state"),
    [
        ((3, 10, 9), "cpython", State.FAIL),
        ((3, 11, 0), "cpython", State.OK),
        ((3, 13, 5), "cpython", State.OK),
        ((3, 14, 0), "cpython", State.WARN),
        ((3, 11, 0), "pypy", State.FAIL),
    ],
)
def test_versions_of_python(numbers: tuple[int, ...], implementation: str, state: State) -> None:
    found = python(numbers, implementation)
    assert (found.check, found.state, bool(found.advice)) == ("python", state, state is not State.OK)


def test_a_library_is_missing_too_old_broken_or_well() -> None:
    assert library("pyzmq>=26.2", lambda _: "26.2.1", lambda name: name).state is State.OK
    gone = library("pyzmq>=26.2", missing, lambda name: name)
    assert (gone.state, gone.found) == (State.FAIL, "not installed")
    assert "pyzmq>=26.2" in gone.advice
    old = library("pyzmq>=26.2", lambda _: "25.0", lambda name: name)
    assert (old.state, old.found) == (State.FAIL, "25.0, and >=26.2 is needed")
    bad = library("pynacl>=1.5", lambda _: "1.6", broken)
    assert (bad.state, bad.check) == (State.FAIL, "library.pynacl")
    assert "libsodium" in bad.found


def test_the_module_of_each_library_is_loaded_and_our_own_are_well() -> None:
    loaded: list[str] = []
    for requirement in own_requirements():
        library(requirement, version, loaded.append)
    assert {"nacl", "zmq", "sha3", "uvloop", "coincurve"} <= set(loaded)
    assert all(finding.state is State.OK for finding in libraries.examine())
