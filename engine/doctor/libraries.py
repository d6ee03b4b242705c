"""The interpreter and the libraries: their versions, and whether they can be loaded. It needs none of them."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from rlpx.engine.doctor.finding import Finding, State, judge

DISTRIBUTION: Final = "rlpx-engine"
# The versions of Python that are tested.
OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 13)
# Libraries whose module is not named as they are.
_MODULES: Final = {"pynacl": "nacl", "pyzmq": "zmq", "safe-pysha3": "sha3"}
_PROJECT_FILE: Final = Path(__file__).resolve().parents[2] / "pyproject.toml"
# A requirement without a marker or extra, `coincurve>=21,<22`.
_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9._-]+)\s*\(?((?:[<>=!~]=?\s*[0-9][0-9.]*\s*,?\s*)*)\)?$")
_BOUND: Final = re.compile(r"([<>=!~]=?)\s*([0-9][0-9.]*)")
_INSTALL: Final = "run bin/setup (a clone) or `pip install .` again"


def examine(requirements: list[str] | None = None) -> Iterator[Finding]:
    """All findings about Python and libraries; `requirements` are ours unless given."""
    yield python(sys.version_info[:3], sys.implementation.name)
    for requirement in own_requirements() if requirements is None else requirements:
        yield library(requirement, version, import_module)


def python(found: tuple[int, ...], implementation: str) -> Finding:
    """The interpreter."""
    text = f"{implementation} {'.'.join(map(str, found))}"
    if found[:2] < OLDEST_PYTHON or implementation != "cpython":
        return Finding("python", State.FAIL, text, "use CPython 3.11, 3.12 or 3.13")
    advice = "no test has run with it yet: use 3.11, 3.12 or 3.13"
    return judge("python", text, is_well=found[:2] <= NEWEST_PYTHON, advice=advice)


def own_requirements() -> list[str]:
    """The libraries that the engine needs, with the versions that it works with."""
    try:
        listed = requires(DISTRIBUTION) or []
        return [item for item in listed if ";" not in item]
    except PackageNotFoundError:  # a clone that runs from its own folder
        project = tomllib.loads(_PROJECT_FILE.read_text(encoding="utf-8"))["project"]
        return [str(item) for item in project["dependencies"]]


def library(requirement: str, version_of: Callable[[str], str], load: Callable[[str], object]) -> Finding:
    """One library: installed in a version that is allowed, and loadable."""
    parsed = _REQUIREMENT.match(requirement.strip())
    name, bounds = (parsed[1], parsed[2]) if parsed is not None else (requirement, "")
    check = f"library.{name}"
    try:
        found = version_of(name)
    except PackageNotFoundError:
        return Finding(check, State.FAIL, "not installed", f"{_INSTALL}; it needs {requirement}")
    if not is_allowed(found, bounds):
        return Finding(check, State.FAIL, f"{found}, and {bounds} is needed", _INSTALL)
    try:
        load(_MODULES.get(name, name.replace("-", "_")))
    except Exception as error:  # noqa: BLE001 - a library fails in any way when it is loaded
        return Finding(check, State.FAIL, f"{found} cannot be loaded: {error}", _INSTALL)
    return Finding(check, State.OK, found)


def is_allowed(found: str, bounds: str) -> bool:
    """Whether a version is within bounds such as `>=21,<22`. Only the numbers are compared."""
    have = _numbers(found)
    holds: dict[str, Callable[[tuple[int, ...]], bool]] = {
        ">=": lambda bound: have >= bound,
        "<": lambda bound: have < bound,
        "<=": lambda bound: have <= bound,
        ">": lambda bound: have > bound,
        "==": lambda bound: have == bound,
        "!=": lambda bound: have != bound,
        "~=": lambda bound: have >= bound and have[: len(bound) - 1] == bound[:-1],
    }
    return all(holds[sign](_numbers(text)) for sign, text in _BOUND.findall(bounds))


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    numbers = [int(part) for part in found[0].split(".")] if found is not None else []
    # `26.2` and `26.2.0` are one version.
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
