"""An asyncio loop whose clock goes on only where the loop would wait: an hour of timers passes in no time."""

from __future__ import annotations

import asyncio
import selectors
from typing import TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Never waits: what the loop would wait for its next timer is added to `now`."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            # Without a timer only a thread could wake the loop, and there is none.
            assert timeout is not None, "the loop would wait for ever"
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. For code without threads."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds since the loop began."""
        return self._clock.now
