"""The module compiled from `c/`, if there is one: it does the work of every frame, handshake and message, only faster.

Each of its functions and classes has a twin in Python that is used if the module is missing. Both behave alike, down to the
text of an error. `bin/compile` makes the module.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final


def load(name: str) -> tuple[Any, str]:
    """Return the module and an empty text, or None and the reason why it is missing."""
    try:
        return import_module(name), ""
    except ImportError as error:
        return None, str(error)


_LOADED: Final = load("rlpx.protocol._native")
NATIVE: Final[Any] = _LOADED[0]
# Why the compiled module is missing; empty if it is loaded.
WHY_NOT_NATIVE: Final = _LOADED[1]
