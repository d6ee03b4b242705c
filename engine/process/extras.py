"""The optional libraries of programs beside the engine: whether they are installed, and how to install them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final

from rlpx.protocol.mistakes import ConfigError

# The packages of an extra in `pyproject.toml`, by the names under which they are imported.
LIBRARIES: Final = {"watch": ("aiohttp", "prometheus_client")}


def require(extra: str) -> None:
    """Check that the libraries of an extra are installed, without importing them. Raises `ConfigError`."""
    for name in LIBRARIES[extra]:
        if find_spec(name) is None:
            raise ConfigError(f"{name} is not installed: pip install 'rlpx-engine[{extra}]'", os.EX_UNAVAILABLE)
