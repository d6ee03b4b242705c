"""Python imports this at its start if its folder is on the path: the wall clock is as many seconds off as a file says.

Clocks that nobody sets stay as they are, as they do if somebody sets the clock of a machine.
"""

from __future__ import annotations

import os
import time
from typing import Final

_FILE: Final = os.environ["STEPPED_CLOCK"]
_time, _time_ns = time.time, time.time_ns


def _off_s() -> int:
    with open(_FILE, encoding="ascii") as file:  # noqa: PTH123 - nothing else is imported so early
        return int(file.read())


time.time = lambda: _time() + _off_s()
time.time_ns = lambda: _time_ns() + _off_s() * 10**9
