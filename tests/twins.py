"""Tests of what is compiled are run with the Python of the same name as well."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from rlpx.protocol.native import NATIVE

WAYS = ["python", "compiled"]


def run_by(way: str, module: ModuleType, *names: str) -> Iterator[None]:
    """For a fixture: while it lasts, these functions of the module are Python's, or as they are where that is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "python":
            for name in names:
                patch.setattr(module, name, getattr(module, f"python_{name}"))
        elif NATIVE is None:
            pytest.skip("nothing is compiled")
        yield
