"""The C code in `c/`, where it is compiled: what is done with every frame, handshake and message, in a fraction of the time.

Each function and class of it has a twin in Python, which runs where it is missing, and gives the same to the words of
an error. `bin/compile` makes it.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

NATIVE: Any = None
with suppress(ImportError):
    NATIVE = import_module("protocol._native")
