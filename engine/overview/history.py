"""Values over time in two resolutions: the last ten minutes by the second, the last day by the minute.

All columns have the same times. A moment at which a value was not known is `None`, and shows as a hole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

SECONDS_KEPT: Final = 600
MINUTES_KEPT: Final = 1440
_MINUTE_SECONDS: Final = 60

Value = float | None


class Columns(msgspec.Struct, frozen=True):
    """Columns of equal length; the last value was taken at `ends_s` (seconds since 1970), the others `step_s` apart."""

    step_s: int
    ends_s: int
    values: dict[str, list[Value]]


class History:
    """The values of some columns. Its size is bounded by the columns alone."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._seconds: dict[str, deque[Value]] = {name: deque(maxlen=SECONDS_KEPT) for name in columns}
        self._minutes: dict[str, deque[Value]] = {name: deque(maxlen=MINUTES_KEPT) for name in columns}
        self._last_s: int | None = None

    def add(self, second: int, values: Mapping[str, Value]) -> None:
        """Add the values of a second since 1970. Seconds between the last one and this are holes; an old one is ignored."""
        missed = 0 if self._last_s is None else second - self._last_s - 1
        if missed < 0:
            # The clock was set back. A large step back begins anew, because nobody wants to wait for the old time.
            if missed > -SECONDS_KEPT:
                return
            self._clear()
            missed = 0
        if missed > SECONDS_KEPT:
            self._skip(second)
            missed = 0
        first = second - missed
        for moment in range(first, second + 1):
            for name, column in self._seconds.items():
                column.append(values.get(name) if moment == second else None)
            if moment % _MINUTE_SECONDS == _MINUTE_SECONDS - 1:
                self._add_minute()
        self._last_s = second

    def _skip(self, second: int) -> None:
        """Leave a hole that is longer than all seconds kept: a machine that slept."""
        last_s = self._last_s if self._last_s is not None else second
        minutes = min(MINUTES_KEPT, second // _MINUTE_SECONDS - (last_s + 1) // _MINUTE_SECONDS)
        for name in self._seconds:
            self._seconds[name].clear()
            self._minutes[name].extend([None] * minutes)

    def _clear(self) -> None:
        for name in self._seconds:
            self._seconds[name].clear()
            self._minutes[name].clear()

    def _add_minute(self) -> None:
        for name, column in self._seconds.items():
            known = [value for value in list(column)[-_MINUTE_SECONDS:] if value is not None]
            self._minutes[name].append(sum(known) / len(known) if known else None)

    def seconds(self) -> Columns:
        """The last ten minutes."""
        return Columns(1, self._last_s or 0, {name: list(column) for name, column in self._seconds.items()})

    def minutes(self) -> Columns:
        """The last day; each value is the mean of its minute."""
        ends_s = ((self._last_s or 0) + 1) // _MINUTE_SECONDS * _MINUTE_SECONDS - 1
        return Columns(_MINUTE_SECONDS, max(0, ends_s), {name: list(column) for name, column in self._minutes.items()})

    def last(self) -> dict[str, Value]:
        """The values of the last second."""
        return {name: column[-1] if column else None for name, column in self._seconds.items()}
