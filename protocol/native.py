"""The C code in `c/`, where it is compiled: what is done with every frame, handshake and message, in a fraction of the time.

Each function and class of it has a twin in Python, which runs where it is missing, and gives the same to the words of
an error. `bin/compile` makes it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final


def load(name: str) -> tuple[Any, str]:
    """The module, or `None` and why there is none."""
    try:
        return import_module(name), ""
    except ImportError as error:
        return None, str(error)


_LOADED: Final = load("protocol._native")
NATIVE: Final[Any] = _LOADED[0]
# In words, empty where there is one.
WHY_NOT_NATIVE: Final = _LOADED[1]
