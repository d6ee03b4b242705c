"""What programs have asked a host for over NATS, as long as they ask for it again and again."""

from __future__ import annotations

from collections.abc import Callable


class Wanted:
    """Names that listeners have asked for, each with its end, and with a number that tells one beginning from the next."""

    def __init__(self, most: int, end: Callable[[str], None]) -> None:
        self._most = most
        self._end = end
        self._until: dict[str, float] = {}
        self._begun: dict[str, int] = {}
        self._count = 0

    @property
    def names(self) -> tuple[str, ...]:
        """All that are wanted now."""
        return tuple(self._until)

    def has_room(self, names: tuple[str, ...]) -> bool:
        """Whether these can be wanted too."""
        return len({*self._until, *names}) <= self._most

    def want(self, name: str, until: float) -> bool:
        """Somebody wants it until this time. Returns whether nobody did before."""
        is_new = name not in self._until
        if is_new:
            self._count += 1
            self._begun[name] = self._count
        self._until[name] = max(self._until.get(name, 0.0), until)
        return is_new

    def begun(self, name: str) -> int | None:
        """The number of its beginning, if it is wanted."""
        return self._begun.get(name)

    def keep(self, until: float) -> None:
        """Everything is wanted until this time at least."""
        self._until = {name: max(end, until) for name, end in self._until.items()}

    def drop(self, name: str) -> None:
        """Nobody wants it any more."""
        if self._until.pop(name, None) is not None:
            del self._begun[name]
            self._end(name)

    def expire(self, now: float) -> None:
        """Drop what nobody has asked for again."""
        for name in [name for name, until in self._until.items() if until <= now]:
            self.drop(name)
