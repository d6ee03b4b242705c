"""What goes on being wrong with NATS is told, and not again with every message."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

# The same complaint, of a missing permission say, may come with every message. It is told this often, and no more different
# ones are told in this time than this: some name the subject of the message, which is always another.
COMPLAINT_SECONDS: Final = 60.0
MAX_COMPLAINTS: Final = 64


class Complaints:
    """Tells each complaint once in a while, and drops those of which there are too many."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        # When each of them was told last.
        self._told_at: dict[str, float] = {}

    def hear(self, problem: str) -> None:
        """Something is wrong; it may have been told a moment ago."""
        now = monotonic()
        if now - self._told_at.get(problem, -COMPLAINT_SECONDS) < COMPLAINT_SECONDS:
            return
        if len(self._told_at) >= MAX_COMPLAINTS:
            self._told_at = {told: at for told, at in self._told_at.items() if now - at < COMPLAINT_SECONDS}
            if len(self._told_at) >= MAX_COMPLAINTS:
                return
        self._told_at[problem] = now
        self._tell(problem)
